"""Cookies: a boot that is new must prove that it is alive, at once and without more bytes than it sent."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from koi.core.messages import Resign
from koi.wire import seal
from koi.wire.codec import encode
from koi.wire.purse import KEPT, MAX_TRIES, Purse
from koi.wire.seal import COOKIE_MAGIC, HEADER, NO_COOKIE, Noise, Opener, Sealer, Unproven
from koi.wire.udp import Endpoint
from tests.wire.conftest import CLUSTER

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 1)
WAIT_S = 10
ONE_ROUND = 4
"""Datagrams of a first contact: refused, cookie, again, and the answer."""


def boot() -> bytes:
    """A fresh one."""
    return os.urandom(16)


def refused(opener: Opener, datagram: bytes, source: object = HERE) -> Unproven:
    """The refusal of a datagram."""
    with pytest.raises(Unproven) as caught:
        opener.open(datagram, source)
    return caught.value


class Recorder:
    """Two endpoints and between them a wire that shows each datagram."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.sockets: list[socket.socket] = []

    def raw(self) -> socket.socket:
        """A socket of nobody."""
        self.sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sockets[-1].bind(("127.0.0.1", 0))
        self.sockets[-1].settimeout(WAIT_S)
        return self.sockets[-1]

    def endpoint(self, name: str = "a", port: int = 0) -> Endpoint:
        """A process of the cluster."""
        return Endpoint(("127.0.0.1",), port, Sealer(self.key, CLUSTER, boot()), Opener(self.key, CLUSTER), name)


@pytest.fixture
def net(key: bytes) -> Iterator[Recorder]:
    """Sockets that are closed at the end."""
    recorder = Recorder(key)
    yield recorder
    for sock in recorder.sockets:
        sock.close()


def test_a_new_boot_is_refused_until_it_carries_the_cookie(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    unproven = refused(opener, sealer.seal(b"x"))
    assert (unproven.boot, unproven.seq) == (sealer.boot, 1)
    assert not opener._peers
    assert opener.open(sealer.seal(b"y", unproven.cookie), HERE).body == b"y"
    assert opener.open(sealer.seal(b"z"), HERE).body == b"z"  # it is known now


def test_a_cookie_holds_for_one_boot_one_address_and_one_receiver(key: bytes) -> None:
    sealer, other, opener = Sealer(key, CLUSTER, boot()), Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    cookie = refused(opener, sealer.seal(b"x")).cookie
    refused(opener, other.seal(b"x", cookie))
    refused(opener, sealer.seal(b"x", cookie), THERE)
    refused(Opener(key, CLUSTER), sealer.seal(b"x", cookie))
    assert opener.open(sealer.seal(b"x", cookie), HERE).body == b"x"


def test_a_known_boot_at_a_new_address_proves_it_again(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    opener.open(sealer.seal(b"x", refused(opener, sealer.seal(b"x")).cookie), HERE)
    cookie = refused(opener, sealer.seal(b"x"), THERE).cookie
    opener.open(sealer.seal(b"x", cookie), THERE)
    assert opener.open(sealer.seal(b"x"), HERE) and opener.open(sealer.seal(b"x"), THERE)


def test_a_replay_from_elsewhere_gets_no_cookie(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    datagram = sealer.seal(b"x", refused(opener, sealer.seal(b"x")).cookie)
    opener.open(datagram, HERE)
    with pytest.raises(Noise) as caught:
        opener.open(datagram, THERE)
    assert caught.value.kind == "replay"


def test_traffic_of_a_forgotten_boot_is_not_opened_again(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_BOOTS", 8)
    monkeypatch.setattr(seal, "FORGET_AT_ONCE", 2)
    old, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    captured = old.seal(b"x", refused(opener, old.seal(b"x")).cookie)
    opener.open(captured, HERE)
    for _ in range(8):
        sealer = Sealer(key, CLUSTER, boot())
        opener.open(sealer.seal(b"x", refused(opener, sealer.seal(b"x")).cookie), HERE)
    assert old.boot not in opener._peers
    refused(opener, captured)


def test_the_addresses_of_one_boot_are_bounded(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    for number in range(100):
        source = ("10.0.0.1", number)
        opener.open(sealer.seal(b"x", refused(opener, sealer.seal(b"x"), source).cookie), source)
    assert len(opener._peers[sealer.boot].sources) <= seal.MAX_SOURCES


def test_a_first_contact_costs_one_round_trip_more_and_the_next_none(net: Recorder) -> None:
    client, server = net.endpoint("client"), net.endpoint("server")
    counts = []
    for term in (1, 2):
        client.send(("127.0.0.1", server.port), Resign(term))
        datagrams, answered = 1, False
        while not answered:
            for fd in select.select([*client.filenos(), *server.filenos()], [], [], WAIT_S)[0]:
                datagrams += 1
                if fd in server.filenos():
                    for received in server.receive(1):
                        server.send(received.address, Resign(term))
                else:
                    answered = bool(client.receive(1))
        counts.append(datagrams)
    client.close()
    server.close()
    assert counts == [1 + ONE_ROUND, 1 + 2]
    assert (client.unproven, server.unproven) == (0, 1)


def test_the_answer_is_never_larger_than_the_request(net: Recorder, key: bytes) -> None:
    server, stranger, sealer = net.endpoint(), net.raw(), Sealer(key, CLUSTER, boot())
    for size in range(0, 30):
        datagram = sealer.seal(bytes(size))
        stranger.sendto(datagram, ("127.0.0.1", server.port))
        select.select(server.filenos(), [], [], WAIT_S)
        server.receive()
        if select.select([stranger], [], [], 0)[0]:
            answer = stranger.recv(2000)
            assert len(answer) <= len(datagram) and answer[:3] == COOKIE_MAGIC
        else:
            assert size < seal.ECHO
    server.close()


def test_a_receiver_that_was_restarted_gives_a_new_cookie_and_nothing_is_lost(net: Recorder) -> None:
    client, server = net.endpoint("client"), net.endpoint("server")
    port = server.port
    for term in range(1, 4):
        client.send(("127.0.0.1", port), Resign(term))
        got: list[object] = []
        while not got:
            select.select([*client.filenos(), *server.filenos()], [], [], WAIT_S)
            client.receive()
            got = [received.message for received in server.receive()]
        assert got == [Resign(term)]
        server.close()
        server = net.endpoint("server", port)
    client.close()
    server.close()


def test_an_invented_echo_proves_nothing(net: Recorder, key: bytes) -> None:
    """A Cookie datagram counts for what was just sent, once; a replay of it, or a guess, sends nothing."""
    client, server = net.endpoint("client"), net.raw()
    address = server.getsockname()
    client.send(address, Resign(1))
    first, source = server.recvfrom(2000)
    _, _, _, asked, seq, _ = HEADER.unpack_from(first)
    giver = Sealer(key, CLUSTER, boot())
    for wrong in (giver.seal_cookie(b"12345678", asked, seq + 1), giver.seal_cookie(b"12345678", boot(), seq)):
        server.sendto(wrong, source)
        select.select(client.filenos(), [], [], WAIT_S)
        client.receive()
    assert client.noise == {"echo": 1, "seal": 1} and not client._opener._peers
    right = giver.seal_cookie(b"12345678", asked, seq)
    for _ in range(3):
        server.sendto(right, source)
        select.select(client.filenos(), [], [], WAIT_S)
        client.receive()
    assert HEADER.unpack_from(server.recv(2000))[5] == b"12345678"
    assert not select.select([server], [], [], 0)[0]
    client.close()


def test_two_that_never_agree_do_not_play_ping_pong(net: Recorder, key: bytes) -> None:
    client, server, giver = net.endpoint("client"), net.raw(), Sealer(key, CLUSTER, boot())
    client.send(server.getsockname(), Resign(1))
    seen = 0
    while select.select([server], [], [], 0.05)[0]:
        datagram, source = server.recvfrom(2000)
        seen += 1
        server.sendto(giver.seal_cookie(os.urandom(8), client._sealer.boot, HEADER.unpack_from(datagram)[4]), source)
        select.select(client.filenos(), [], [], WAIT_S)
        client.receive()
    assert seen == MAX_TRIES
    client.close()


def test_the_purse_is_bounded() -> None:
    purse = Purse()
    for number in range(10_000):
        purse.put(("10.0.0.1", number), b"12345678")
        purse.keep(number, HERE, b"x", 1)
    assert len(purse._cookies) <= 4096 and len(purse._sent) == KEPT
    assert purse.cookie(("10.0.0.1", 0)) == NO_COOKIE
    assert purse.refused(0) is None and purse.refused(9_999) is not None and purse.refused(9_999) is None


def test_encode_still_fits(key: bytes) -> None:
    """The smallest message there is is larger than a Cookie datagram, so each can be answered."""
    sealer = Sealer(key, CLUSTER, boot())
    assert len(sealer.seal(encode("a", Resign(1)))) > len(sealer.seal_cookie(NO_COOKIE, boot(), 1))
