"""The link: frames over a real pipe, its bounds and its end."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from koi.core.messages import ServiceInfo
from koi.core.pipe import Ping, Pong, ServiceState
from koi.proc.cell import LeaseCell
from koi.proc.child import Context
from koi.proc.link import HEADER, MAX_BODY_BYTES, MAX_QUEUED_BYTES, Link, loads, pair
from koi.proc.loop import Loop, now


def drain(link: Link, enough: Callable[[int], bool]) -> list[tuple[str, bytes]]:
    """Read until there are enough frames or the link has ended."""
    frames: list[tuple[str, bytes]] = []
    for _ in range(10_000):
        frames += link.receive()
        if enough(len(frames)) or link.ended:
            return frames
    raise AssertionError("too few frames came")


def test_messages_arrive_whole_and_in_order() -> None:
    one, other = pair()
    for number in range(100):
        one.send("runner", Ping(number))
    frames = drain(other, lambda n: n == 100)
    assert [(to, loads(body)) for to, body in frames] == [("runner", Ping(number)) for number in range(100)]


def test_one_message_for_two_processes_comes_with_one_read() -> None:
    one, other = pair()
    one.send_both("runner", "root", Ping(7))
    assert [(to, loads(body)) for to, body in other.receive()] == [("runner", Ping(7)), ("root", Ping(7))]


def test_a_body_is_passed_on_unread() -> None:
    one, hub = pair()
    hub_out, last = pair()
    one.send("service:vip", Ping(7))
    for to, body in drain(hub, lambda n: n == 1):
        hub_out.forward(to, body)
    assert [loads(body) for _, body in drain(last, lambda n: n == 1)] == [Ping(7)]


def test_a_large_body_passes_in_pieces() -> None:
    one, other = pair()
    body = os.urandom(MAX_BODY_BYTES)
    one.forward("elector", body)
    assert one.wants_write
    frames: list[tuple[str, bytes]] = []
    for _ in range(1000):
        frames += other.receive()
        one.flush()
        if frames:
            break
    assert frames == [("elector", body)]
    assert not one.wants_write and one.queued == 0


def test_too_large_a_body_is_an_error_of_the_sender() -> None:
    one, _ = pair()
    with pytest.raises(ValueError, match="at most"):
        one.forward("elector", bytes(MAX_BODY_BYTES + 1))


def test_an_unread_pipe_blocks_nobody_and_is_bounded() -> None:
    one, other = pair()
    body = bytes(100_000)
    for _ in range(200):
        one.forward("runner", body)
    assert one.overflowed
    assert one.queued <= MAX_QUEUED_BYTES
    assert one.blocked_since is not None and one.blocked_since <= now()
    frames = []
    while one.wants_write:
        frames += other.receive()
        one.flush()
    assert one.blocked_since is None
    assert frames and all(got == body for _, got in frames)


def test_the_end_comes_after_all_that_was_said() -> None:
    one, other = pair()
    one.send("root", Ping(1))
    one.close()
    assert [loads(body) for _, body in other.receive()] == [Ping(1)]
    assert not other.ended
    assert other.receive() == [] and other.ended


def test_sending_to_one_that_is_gone_is_no_error() -> None:
    one, other = pair()
    other.close()
    one.send("root", Ping(1))
    one.send("root", Ping(2))
    assert one.broken and not one.wants_write
    one.close()
    one.send("root", Ping(3))


@pytest.mark.parametrize("cut", range(0, HEADER.size + 10))
def test_a_frame_that_is_cut_off_is_never_given(cut: int) -> None:
    one, other = pair()
    frame = HEADER.pack(20, 4) + b"root" + bytes(20)
    os.write(one.fileno(), frame[:cut])
    one.close()
    assert drain(other, lambda n: n > 0) == []
    assert other.ended


def test_an_impossible_length_ends_the_link() -> None:
    one, other = pair()
    os.write(one.fileno(), HEADER.pack(MAX_BODY_BYTES + 1, 4) + b"root")
    assert other.receive() == []
    assert other.ended


def test_descriptors_are_not_passed_on_to_programs() -> None:
    one, other = pair()
    assert not os.get_inheritable(one.fileno()) and not os.get_inheritable(other.fileno())


def test_attached_links_write_what_had_to_wait() -> None:
    loop = Loop()
    one, other = pair()
    got: list[int] = []
    ends: list[str] = []

    def take(to: str, body: bytes) -> None:
        got.append(len(body))
        if len(got) == 15:
            one.close()

    def ended() -> None:
        ends.append("end")
        loop.stop()

    one.attach(loop, lambda to, body: None, lambda: None)
    other.attach(loop, take, ended)
    for _ in range(15):
        one.forward("x", bytes(100_000))
    assert one.wants_write
    loop.run(lambda: None, lambda at: None)
    assert got == [100_000] * 15 and ends == ["end"]
    loop.close()


def context(name: str) -> tuple[Context, Link]:
    ours, theirs = pair()
    return Context(config=None, name=name, link=theirs, loop=Loop(), cell=LeaseCell()), ours


def test_a_context_answers_pings_and_knows_when_root_sent_them() -> None:
    one, root = context("runner")
    got: list[object] = []
    one.on_message(got.append)
    sent = now() + 5
    root.send("runner", Ping(int(sent * 1e9)))
    root.send("runner", "something else")
    beats = iter([None, 0.0, 0.0])
    one.run(lambda: next(beats), lambda at: one.loop.stop())
    assert [loads(body) for _, body in root.receive()] == [Pong("runner", int(sent * 1e9))]
    assert got == ["something else"]
    assert abs(one.root_seen() - sent) < 1e-6


def test_a_context_copies_service_states_to_root() -> None:
    one, root = context("service:vip")
    word = ServiceState(ServiceInfo("vip", 10, "Started"), promoted=False)
    one.send("runner", word)
    one.send("runner", Ping(1))
    assert [(to, loads(body)) for to, body in root.receive()] == [("runner", word), ("root", word), ("runner", Ping(1))]
    assert (one.kind, one.service) == ("service", "vip")


def test_a_context_ends_with_roots_pipe_unless_told_otherwise() -> None:
    one, root = context("elector")
    root.close()
    with pytest.raises(SystemExit) as end:
        one.run(lambda: None, lambda at: None)
    assert end.value.code == 0
    two, root = context("service:vip")
    two.on_end(two.loop.stop)
    root.close()
    two.run(lambda: None, lambda at: None)
