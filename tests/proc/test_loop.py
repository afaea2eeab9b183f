"""The loop: descriptors, signals and deadlines on a real epoll."""

from __future__ import annotations

import math
import os
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Optional

import pytest

from koi.proc.cell import LeaseCell
from koi.proc.loop import Loop, now


@pytest.fixture
def loop() -> Iterator[Loop]:
    one = Loop()
    yield one
    one.close()


def never() -> Optional[float]:
    return None


def unexpected(at: float) -> None:
    raise AssertionError("no deadline was given")


def test_calls_the_reader_when_there_is_something(loop: Loop) -> None:
    a, b = socket.socketpair()
    got: list[bytes] = []

    def read() -> None:
        got.append(b.recv(100))
        loop.stop()

    loop.add(b.fileno(), read)
    a.send(b"x")
    loop.run(never, unexpected)
    assert got == [b"x"]


def test_reader_sees_the_end_of_the_other_side(loop: Loop) -> None:
    a, b = socket.socketpair()
    loop.add(b.fileno(), loop.stop)
    a.close()
    loop.run(never, unexpected)
    assert b.recv(1) == b""


def test_reading_and_writing_of_one_descriptor_are_apart(loop: Loop) -> None:
    a, b = socket.socketpair()
    calls: list[str] = []

    def write() -> None:
        calls.append("write")
        loop.remove(b.fileno(), write=True)
        a.send(b"x")

    def read() -> None:
        calls.append("read")
        loop.stop()

    loop.add(b.fileno(), read)
    loop.add(b.fileno(), write, write=True)
    loop.run(never, unexpected)
    assert calls == ["write", "read"]


def test_a_removed_descriptor_is_not_called_even_in_the_same_turn(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    calls: list[int] = []

    def take(mine: int, other: int) -> None:
        calls.append(mine)
        loop.remove(pairs[other][1].fileno())
        loop.stop()

    for index, (a, b) in enumerate(pairs):
        a.send(b"x")
        loop.add(b.fileno(), partial(take, index, 1 - index))
    loop.run(never, unexpected)
    loop.run(lambda: now(), lambda at: loop.stop())
    assert len(calls) == 1


def test_remove_forgets_and_bears_the_unknown(loop: Loop) -> None:
    a, b = socket.socketpair()
    loop.add(b.fileno(), lambda: unexpected(0.0))
    loop.remove(b.fileno())
    loop.remove(b.fileno())
    a.send(b"x")
    loop.run(lambda: now(), lambda at: loop.stop())


def test_deadline_is_kept_and_never_early(loop: Loop) -> None:
    due = now() + 0.03
    came: list[float] = []

    def on_deadline(at: float) -> None:
        came.append(at)
        loop.stop()

    loop.run(lambda: due, on_deadline)
    assert due <= came[0] < due + 1.0


def test_deadline_is_asked_again_each_turn(loop: Loop) -> None:
    a, b = socket.socketpair()
    dues: list[Optional[float]] = [None]

    def read() -> None:
        b.recv(1)
        dues[0] = now()

    loop.add(b.fileno(), read)
    a.send(b"x")
    loop.run(lambda: dues[0], lambda at: loop.stop())


def test_an_overdue_deadline_starves_nobody(loop: Loop) -> None:
    a, b = socket.socketpair()
    late: list[float] = []
    loop.add(b.fileno(), loop.stop)
    a.send(b"x")
    loop.run(lambda: 0.0, late.append)
    assert late


def test_signals_come_through_the_loop(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    came: list[str] = []

    def usr2() -> None:
        came.append("SIGUSR2")
        loop.stop()

    loop.on_signal(signal.SIGUSR2, usr2)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert came == []
    loop.run(never, unexpected)
    assert came == ["SIGUSR2"]
    signal.signal(signal.SIGUSR2, before)


def test_a_callback_that_fails_ends_the_loop(loop: Loop) -> None:
    a, b = socket.socketpair()

    def fail() -> None:
        raise ZeroDivisionError

    loop.add(b.fileno(), fail)
    a.send(b"x")
    with pytest.raises(ZeroDivisionError):
        loop.run(never, unexpected)


def test_close_after_fork_leaves_the_parents_loop_alone(loop: Loop) -> None:
    a, b = socket.socketpair()
    loop.add(b.fileno(), loop.stop)
    pid = os.fork()
    if pid == 0:
        loop.close()
        os._exit(0)
    os.waitpid(pid, 0)
    a.send(b"x")
    loop.run(never, unexpected)


def test_the_lease_cell_is_shared_with_forked_children() -> None:
    cell = LeaseCell()
    assert cell.read() is None
    seen = []
    for value in (12345.678901, math.inf, None, 0.0):
        pid = os.fork()
        if pid == 0:
            cell.write(value)
            os._exit(0)
        os.waitpid(pid, 0)
        seen.append(cell.read())
    assert seen == [12345.678901, math.inf, None, 0.0]


def test_a_deadline_is_met_by_a_timer_that_the_sleep_of_the_machine_does_not_stop() -> None:
    """clockid 7 is CLOCK_BOOTTIME; a timeout of epoll would count CLOCK_MONOTONIC, which stands still meanwhile."""
    loop = Loop()
    due, late = now() + 0.05, []

    def at(time: float) -> None:
        late.append(time - due)
        timers = [Path(f"/proc/self/fdinfo/{fd}").read_text() for fd in os.listdir("/proc/self/fd")
                  if os.path.islink(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[timerfd]"]
        assert any("clockid: 7" in timer for timer in timers)
        loop.stop()

    loop.run(lambda: due, at)
    loop.close()
    assert 0.0 <= late[0] < 1.0
