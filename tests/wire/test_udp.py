"""The sockets, for real on loopback: messages arrive, noise is counted, and nothing the network does is an exception."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from koi.core.messages import Ack, Hello, Resign, Response
from koi.errors import KoiError
from koi.wire.codec import encode
from koi.wire.seal import Opener, Sealer, cluster_key
from koi.wire.udp import Endpoint, Received, normalise, resolve
from tests.wire.conftest import CLUSTER

WAIT_S = 10
Make = Callable[..., Endpoint]


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="IPv6 is off on this machine: ::1 cannot be bound")


@pytest.fixture
def make(key: bytes) -> Iterator[Make]:
    """Makes endpoints of cluster 13 and closes them."""
    made: list[Endpoint] = []
    LIVING[:] = []

    def one(*binds: str, port: int = 0, name: str = "a", cluster: int = CLUSTER, secret: bytes = key) -> Endpoint:
        made.append(Endpoint(binds, port, Sealer(secret, cluster, os.urandom(16)), Opener(secret, cluster), name))
        LIVING.append(made[-1])
        return made[-1]

    yield one
    for endpoint in made:
        endpoint.close()


LIVING: list[Endpoint] = []
"""The endpoints of the present test: each must be served, for what it sends first is refused with a cookie."""


def wait(endpoint: Endpoint) -> None:
    """Until something has arrived."""
    assert select.select(endpoint.filenos(), [], [], WAIT_S)[0], "nothing arrived"


def receive(endpoint: Endpoint, count: int = 1) -> list[Received]:
    """The next `count` messages, while the other endpoints only see to their cookies."""
    got: list[Received] = []
    while len(got) < count:
        fds = {fd: one for one in LIVING for fd in one.filenos()}
        ready = select.select(list(fds), [], [], WAIT_S)[0]
        assert ready, "nothing arrived"
        for one in {id(fds[fd]): fds[fd] for fd in ready}.values():
            heard = one.receive()
            got += heard if one is endpoint else []
    return got


def acquaint(a: Endpoint, b: Endpoint, host: str = "127.0.0.1") -> None:
    """Both have proven to each other that they are alive."""
    a.send((host, b.port), Resign(1))
    receive(b)


def throw(data: bytes, host: str, port: int) -> None:
    """Send raw bytes, as a stranger does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, (host, port))


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6)])
def test_a_message_there_and_back(make: Make, host: str) -> None:
    a, b = make(host, name="a"), make(host, name="b")
    a.send((host, b.port), Hello("n", 1))
    address, sender, message, boot = receive(b)[0]
    assert (address, sender, message) == ((host, a.port), "a", Hello("n", 1))
    assert boot == a._sealer.boot
    b.send(address, Resign(3))
    assert receive(a)[0][:3] == ((host, b.port), "b", Resign(3))
    assert (a.unproven, b.unproven) == (0, 1)
    assert not a.noise and not b.noise and not a.errors and not b.errors


@ipv6
def test_one_socket_for_both_families_names_ipv4_plainly(make: Make) -> None:
    both, four, six = make("::", name="both"), make("127.0.0.1", name="four"), make("::1", name="six")
    four.send(("127.0.0.1", both.port), Resign(4))
    six.send(("::1", both.port), Resign(6))
    got = {received.sender: received.address for received in receive(both, 2)}
    assert got == {"four": ("127.0.0.1", four.port), "six": ("::1", six.port)}
    both.send(got["four"], Resign(7))
    assert receive(four)[0][:3] == (("127.0.0.1", both.port), "both", Resign(7))
    both.send(got["six"], Resign(7))
    assert receive(six)[0][:3] == (("::1", both.port), "both", Resign(7))


@ipv6
def test_both_wildcards_share_a_port(make: Make) -> None:
    server, four, six = make("0.0.0.0", "::"), make("127.0.0.1", name="four"), make("::1", name="six")
    assert len(server.filenos()) == 2
    four.send(("127.0.0.1", server.port), Resign(4))
    six.send(("::1", server.port), Resign(6))
    assert {received.sender for received in receive(server, 2)} == {"four", "six"}


def test_the_answer_leaves_by_the_address_that_was_asked(make: Make) -> None:
    server, client = make("127.0.0.1", "127.0.0.2"), make("127.0.0.1", name="client")
    for host in ("127.0.0.2", "127.0.0.1"):
        client.send((host, server.port), Resign(1))
        server.send(receive(server)[0].address, Resign(2))
        assert receive(client)[0].address == (host, server.port)


def test_the_first_word_leaves_by_the_address_the_route_has(make: Make) -> None:
    server, client = make("127.0.0.2", "127.0.0.1"), make("127.0.0.1", name="client")
    server.send(("127.0.0.1", client.port), Resign(1))
    assert receive(client)[0].address == ("127.0.0.1", server.port)


def test_send_all_seals_each_copy(make: Make) -> None:
    a, b = make("127.0.0.1"), make("127.0.0.1", name="b")
    a.send_all([("127.0.0.1", b.port)] * 3, Resign(1))
    assert len(receive(b, 3)) == 3 and not b.noise


def test_a_large_answer_fits(make: Make) -> None:
    a, b = make("127.0.0.1"), make("127.0.0.1", name="b")
    acquaint(a, b)
    page = Response("1", "answer", 1, 1, os.urandom(20_000).hex())
    a.send(("127.0.0.1", b.port), page)
    assert receive(b)[0].message == page


def test_noise_is_counted_by_kind_and_never_answered(make: Make, key: bytes) -> None:
    server, friend = make("127.0.0.1"), make("127.0.0.1", name="friend")
    sealer = Sealer(key, CLUSTER, os.urandom(16))
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind(("127.0.0.1", 0))
    cookie = server._opener.cookie(sealer.boot, stranger.getsockname())
    acquaint(friend, server)
    replayed = sealer.seal(encode("x", Resign(1)), cookie)
    version = bytearray(replayed)
    version[3] = 9
    strangers = {
        "short": b"hello", "long": bytes(60_500), "magic": b"GET / HTTP/1.1\r\n" * 10, "version": bytes(version),
        "cluster": Sealer(key, 99, os.urandom(16)).seal(b"x"),
        "seal": Sealer(cluster_key("wrong", CLUSTER), CLUSTER, os.urandom(16)).seal(b"x"),
        "malformed": sealer.seal(b"[]", cookie), "replay": replayed,
    }
    with stranger:
        for datagram in (replayed, *strangers.values()):
            stranger.sendto(datagram, ("127.0.0.1", server.port))
        friend.send(("127.0.0.1", server.port), Resign(2))
        assert [received.sender for received in receive(server, 2)] == ["x", "friend"]
        assert server.noise == dict.fromkeys(strangers, 1)
        assert "version 9" in server.noise_text["version"] and "127.0.0.1" in server.noise_text["version"]
        friend.send(("127.0.0.1", server.port), Resign(3))
        receive(server)
        assert not select.select([stranger], [], [], 0)[0]


def test_no_more_than_the_limit_is_read_at_once(make: Make) -> None:
    a, b = make("127.0.0.1"), make("127.0.0.1", name="b")
    acquaint(a, b)
    for term in range(1, 11):
        a.send(("127.0.0.1", b.port), Resign(term))
    throw(b"noise", "127.0.0.1", b.port)
    wait(b)
    assert [len(b.receive(limit=4)) for _ in range(3)] == [4, 4, 2]
    assert b.noise == {"short": 1} and b.receive() == []


def test_nothing_there_is_no_error(make: Make) -> None:
    assert make("127.0.0.1").receive() == []


def test_what_cannot_be_sent_is_counted(make: Make) -> None:
    a, gone = make("127.0.0.1"), make("127.0.0.1")
    gone.close()
    a.send(("127.0.0.1", gone.port), Resign(1))
    assert a.receive() == [] and not a.errors
    a.send(("::1", 5000), Resign(1))
    a.send(("127.0.0.1", 0), Resign(1))
    a.send(("255.255.255.255", 5000), Resign(1))
    a.send(("localhost", 5000), Resign(1))  # a name, which would have to be looked up
    assert a.errors == {"EAFNOSUPPORT": 1, "EINVAL": 1, "EACCES": 1, "EADDR": 1}
    assert a.unsent[("255.255.255.255", 5000)] == "Permission denied" and len(a.unsent) == 4


@pytest.mark.parametrize("bind, host", [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), pytest.param("::", "::1", marks=ipv6)])
def test_closed_ports_are_told_to_who_wants_to_know(make: Make, bind: str, host: str) -> None:
    a, deaf, gone, b = make(bind), make(bind), make(host), make(host)
    gone.close()
    a.hear_refusals()
    for one in (a, deaf):
        for address in ((host, gone.port), (host, b.port)) * 3:
            one.send(address, Resign(1))
    assert a.refusals() == [(host, gone.port)] * 3 and a.refusals() == deaf.refusals() == []
    wait(b)
    assert b.receive() == [] and b.unproven == 6 and not a.errors, "what comes after a refusal is sent all the same"


def test_a_port_in_use_says_what_to_do(make: Make) -> None:
    first = make("127.0.0.1")
    with pytest.raises(KoiError) as caught:
        make("127.0.0.1", port=first.port)
    text = str(caught.value)
    assert str(first.port) in text and "127.0.0.1" in text and "in use" in text and "cluster.port" in text and "ss -lunp" in text


def test_an_address_of_another_machine_or_none_is_named(make: Make) -> None:
    with pytest.raises(KoiError, match="192.0.2.77 is not an address of this machine"):
        make("192.0.2.77")
    with pytest.raises(KoiError, match="'nonsense' is not an IP address"):
        make("127.0.0.1", "nonsense")


def test_a_failed_opening_leaves_no_socket_open(make: Make) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KoiError) as caught:
        make("127.0.0.1", "192.0.2.77")
    assert caught.value.__cause__ is not None  # its traceback keeps the endpoint from being collected
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("binds", [("::",), ("0.0.0.0", "::"), ("::", "0.0.0.0")])
def test_without_ipv6_it_listens_on_ipv4_and_says_so(make: Make, monkeypatch: pytest.MonkeyPatch, binds: tuple[str, ...]) -> None:
    class OnlyIPv4(socket.socket):
        """What a kernel started with ipv6.disable=1 gives."""

        def __init__(self, family: int = -1, *arguments: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *arguments, **named)

    monkeypatch.setattr(socket, "socket", OnlyIPv4)
    server, client = make(*binds), make("127.0.0.1", name="client")
    client.send(("127.0.0.1", server.port), Resign(1))
    assert receive(server)[0].message == Resign(1)
    assert len(server.filenos()) == 1
    assert server.warnings == ["IPv6 is off on this machine: listening on 0.0.0.0 instead of ::"]


def test_a_burst_fits_the_buffer(make: Make) -> None:
    a, b = make("127.0.0.1"), make("127.0.0.1", name="b")
    acquaint(a, b)
    ack = Ack(1, 2, 3, (1, 2), None)
    for _ in range(150):
        a.send(("127.0.0.1", b.port), ack)
    assert len(receive(b, 150)) == 150


def test_addresses_have_one_form() -> None:
    assert normalise(("::ffff:10.0.0.1", 5, 0, 0)) == ("10.0.0.1", 5)
    assert normalise(("fe80::1", 5, 0, 2)) == ("fe80::1%2", 5)
    assert resolve("10.0.0.1", 5) == (("10.0.0.1", 5),)
    assert resolve("fd00:0:0::4", 5) == resolve("FD00::4", 5) == (("fd00::4", 5),)
    assert resolve("::ffff:10.0.0.1", 5) == (("10.0.0.1", 5),)
    assert set(resolve("localhost", 5)) <= {("127.0.0.1", 5), ("::1", 5)}


def test_an_unknown_host_says_what_to_do() -> None:
    for host in ("no such host", "x" * 300, ""):
        with pytest.raises(KoiError, match="IP address"):
            resolve(host, 5)


def test_closing_twice_is_harmless(make: Make) -> None:
    endpoint = make("127.0.0.1")
    endpoint.close()
    endpoint.close()
    assert endpoint.filenos() == []
