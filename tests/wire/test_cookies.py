"""Cookies: only what carries the receiver's own is handled, first contacts are cheap, no answer is larger than what came."""

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
from koi.wire.seal import COOKIE_MAGIC, HEADER, MAGIC, NO_COOKIE, Noise, Opener, Sealer, Unproven
from koi.wire.udp import Endpoint
from tests.wire.conftest import CLUSTER

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 1)
WAIT_S = 10
FIRST_CONTACT = 5
"""Datagrams of a first contact: refused, its cookie, the other cookie and the same again, and the answer."""


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
    assert opener.open(sealer.seal(b"z", unproven.cookie), HERE).body == b"z"
    refused(opener, sealer.seal(b"z"))  # each has to carry it


def test_a_cookie_holds_for_one_boot_one_address_and_one_receiver(key: bytes) -> None:
    sealer, other, opener = Sealer(key, CLUSTER, boot()), Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    cookie = refused(opener, sealer.seal(b"x")).cookie
    refused(opener, other.seal(b"x", cookie))
    refused(opener, sealer.seal(b"x", cookie), THERE)
    refused(Opener(key, CLUSTER), sealer.seal(b"x", cookie))
    assert opener.open(sealer.seal(b"x", cookie), HERE).body == b"x"


def test_a_known_boot_at_a_new_address_proves_it_again(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    here = refused(opener, sealer.seal(b"x")).cookie
    opener.open(sealer.seal(b"x", here), HERE)
    there = refused(opener, sealer.seal(b"x", here), THERE).cookie
    opener.open(sealer.seal(b"x", there), THERE)
    assert opener.open(sealer.seal(b"x", here), HERE) and opener.open(sealer.seal(b"x", there), THERE)
    refused(opener, sealer.seal(b"x", there), HERE)


def test_what_was_meant_for_another_is_not_handled(key: bytes) -> None:
    """A datagram that is brought elsewhere, from the right address."""
    sender, one, other = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER), Opener(key, CLUSTER)
    cookies = [refused(opener, sender.seal(b"x")).cookie for opener in (one, other)]
    for opener, cookie in zip((one, other), cookies, strict=True):
        opener.open(sender.seal(b"x", cookie), HERE)
    datagram = sender.seal(b"for one", cookies[0])
    refused(other, datagram)
    assert one.open(datagram, HERE).body == b"for one"


def test_what_was_handled_before_a_restart_is_not_handled_again_after_it(key: bytes) -> None:
    """Found: once its sender was known to the new process, captured traffic from before opened within the window."""
    sealer, before, after = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER), Opener(key, CLUSTER)
    old = refused(before, sealer.seal(b"x")).cookie
    captured = [sealer.seal(b"x", old) for _ in range(3)]
    for datagram in captured:
        before.open(datagram, HERE)
    fresh = sealer.seal(b"y", refused(after, sealer.seal(b"y", old)).cookie)
    assert after.open(fresh, HERE).body == b"y"
    for datagram in captured:
        refused(after, datagram)


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
    opener.open(old.seal(b"y", refused(opener, captured).cookie), HERE)
    refused(opener, captured)  # nor when its boot is known again


def test_who_was_not_forgotten_goes_on_with_his_cookie(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_BOOTS", 8)
    monkeypatch.setattr(seal, "FORGET_AT_ONCE", 2)
    busy, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    cookie = refused(opener, busy.seal(b"x")).cookie
    for _ in range(20):
        assert opener.open(busy.seal(b"x", cookie), HERE)
        sealer = Sealer(key, CLUSTER, boot())
        opener.open(sealer.seal(b"x", refused(opener, sealer.seal(b"x")).cookie), HERE)


def test_the_addresses_of_one_boot_are_bounded(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, boot()), Opener(key, CLUSTER)
    sources = [("10.0.0.1", number) for number in range(100)]
    cookies = [refused(opener, sealer.seal(b"x"), source).cookie for source in sources]
    for source, cookie in 2 * list(zip(sources, cookies, strict=True)):
        opener.open(sealer.seal(b"x", cookie), source)
        assert len(opener._peers[sealer.boot].cookies) <= seal.MAX_SOURCES


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
    assert counts == [1 + FIRST_CONTACT, 1 + 2]
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
    introduction, again = server.recv(2000), server.recv(2000)
    assert introduction[:3] == COOKIE_MAGIC and len(introduction) == len(right)
    assert HEADER.unpack_from(again)[5] == b"12345678"
    assert not select.select([server], [], [], 0)[0]
    client.close()


def test_two_that_never_agree_do_not_play_ping_pong(net: Recorder, key: bytes) -> None:
    """A receiver that refuses everything, cookies too, is sent each datagram MAX_TRIES times, and no cookie for a cookie."""
    client, server, giver = net.endpoint("client"), net.raw(), Sealer(key, CLUSTER, boot())
    client.send(server.getsockname(), Resign(1))
    seen = []
    while select.select([server], [], [], 0.05)[0]:
        datagram, source = server.recvfrom(2000)
        seen.append(datagram[:3])
        server.sendto(giver.seal_cookie(os.urandom(8), client._sealer.boot, HEADER.unpack_from(datagram)[4]), source)
        select.select(client.filenos(), [], [], WAIT_S)
        client.receive()
    assert (seen.count(MAGIC), seen.count(COOKIE_MAGIC)) == (MAX_TRIES, MAX_TRIES - 1)
    client.close()


def test_many_cookies_push_nothing_out_that_is_to_be_sent_again(net: Recorder, key: bytes) -> None:
    """Whoever draws cookies from a process, with replays of old traffic, does not hinder its own first contacts."""
    client, server, old = net.endpoint("client"), net.raw(), Sealer(key, CLUSTER, boot())
    client.send(server.getsockname(), Resign(1))
    first, source = server.recvfrom(2000)
    for _ in range(KEPT + 10):
        server.sendto(old.seal(encode("a", Resign(1))), source)
        select.select(client.filenos(), [], [], WAIT_S)
        client.receive()
        assert server.recv(2000)[:3] == COOKIE_MAGIC
    assert client.unproven == KEPT + 10
    _, _, _, asked, seq, _ = HEADER.unpack_from(first)
    server.sendto(Sealer(key, CLUSTER, boot()).seal_cookie(b"12345678", asked, seq), source)
    select.select(client.filenos(), [], [], WAIT_S)
    client.receive()
    assert server.recv(2000)[:3] == COOKIE_MAGIC
    assert HEADER.unpack_from(server.recv(2000))[5] == b"12345678"
    client.close()


def test_the_purse_is_bounded() -> None:
    purse = Purse()
    for number in range(10_000):
        purse.put(("10.0.0.1", number), b"12345678")
        purse.keep(number, HERE, b"x", 1)
        purse.keep_given(number + 50_000, HERE)
    assert len(purse._cookies) <= 4096 and len(purse._sent) == len(purse._given) == KEPT
    assert purse.cookie(("10.0.0.1", 0)) == NO_COOKIE
    assert purse.refused(0) is None and purse.refused(9_999) is not None and purse.refused(9_999) is None


def test_encode_still_fits(key: bytes) -> None:
    """The smallest message there is is larger than a Cookie datagram, so each can be answered."""
    sealer = Sealer(key, CLUSTER, boot())
    assert len(sealer.seal(encode("a", Resign(1)))) > len(sealer.seal_cookie(NO_COOKIE, boot(), 1))
