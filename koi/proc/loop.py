"""The one place where a process of Koi waits.

Rule: a process blocks only in `Loop.run`, until something is readable or writable, a signal came, or the next
deadline is due; the deadline is a timer of CLOCK_BOOTTIME, for a timeout would stand still while the machine sleeps.
Signal handlers only enqueue: Python writes the signal's number to a pipe that the loop reads like
any other. A callback may be called although nothing is there any more; it reads without blocking.
"""

from __future__ import annotations

import os
import select
import signal
import time
from types import FrameType
from typing import Callable, Optional

from koi.proc.system import BootTimer

Callback = Callable[[], None]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
TROUBLE = select.EPOLLERR | select.EPOLLHUP
MAX_EVENTS = 64
"""Events taken in one turn; the rest wait for the next."""
MAX_SIGNALS = 512
"""Signals taken in one turn."""


def now() -> float:
    """The clock of all decisions: CLOCK_BOOTTIME in seconds; it runs on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def disregard(signum: int, frame: Optional[FrameType]) -> None:
    """A handler that does nothing. Unlike SIG_IGN it is not inherited by the programs that are executed."""


class Loop:
    """Waits for descriptors, signals and deadlines, and calls back. One for each process."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._timer = BootTimer()
        self._epoll.register(self._timer.fd, READ)
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._signals: dict[int, Callback] = {}
        self._wake: Optional[tuple[int, int]] = None
        self._stopped = False
        self._late = 0.0
        self.on_turn: Optional[Callable[[float], None]] = None
        """Told the time at each turn, before the process waits: nothing holds it up."""

    now = staticmethod(now)

    def add(self, fd: int, callback: Callback, write: bool = False) -> None:
        """Call `callback()` when `fd` is readable, or writable. One callback each for reading and writing."""
        known = fd in self._readers or fd in self._writers
        (self._writers if write else self._readers)[fd] = callback
        if known:
            self._epoll.modify(fd, self._interest(fd))
        else:
            self._epoll.register(fd, self._interest(fd))

    def remove(self, fd: int, write: bool = False) -> None:
        """Forget `fd`, with `write` only its writing side; before it is closed. An unknown one is ignored."""
        known = fd in self._readers or fd in self._writers
        self._writers.pop(fd, None)
        if not write:
            self._readers.pop(fd, None)
        if not known:
            return
        if self._interest(fd):
            self._epoll.modify(fd, self._interest(fd))
        else:
            self._epoll.unregister(fd)

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Call `callback()` from the loop after the signal came; several of the same kind may count as one."""
        if self._wake is None:
            self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
            self.add(self._wake[0], self._read_signals)
        self._signals[signum] = callback
        signal.signal(signum, disregard)

    def run(self, deadline: Callable[[], Optional[float]], on_deadline: Callable[[float], None]) -> None:
        """Work until `stop()`. `deadline()` is asked each turn; once it has come, `on_deadline(now)` is called.

        An exception of a callback ends the loop: it is a fault of ours, and root starts the process again.
        """
        self._stopped = False
        while not self._stopped:
            due = deadline()
            if due is not None and due <= now():
                on_deadline(now())
                due = None if self._stopped else deadline()
            if not self._stopped:
                began = now()
                if self.on_turn is not None:
                    self.on_turn(began)
                self._turn(due)
                if due is not None:
                    self._late = max(self._late, now() - max(due, began))

    def take_late(self) -> float:
        """How many seconds after its deadline a turn ended, at worst since the last call: the machine is busy, or was stopped."""
        late, self._late = self._late, 0.0
        return late

    def stop(self) -> None:
        """`run` returns when the present callback has."""
        self._stopped = True

    def close(self) -> None:
        """Close the loop's own descriptors, without touching what others share them with (also after a fork)."""
        self._epoll.close()
        self._timer.close()
        if self._wake is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._wake[0])
            os.close(self._wake[1])
            self._wake = None
        self._readers.clear()
        self._writers.clear()

    def _interest(self, fd: int) -> int:
        return (READ if fd in self._readers else 0) | (WRITE if fd in self._writers else 0)

    def _turn(self, due: Optional[float]) -> None:
        late = due is not None and due <= now()
        self._timer.arm(None if late else due)
        timeout = 0 if late else None
        for fd, events in self._epoll.poll(timeout, MAX_EVENTS):
            reader = self._readers.get(fd)
            if reader is not None and events & (READ | TROUBLE):
                reader()
            writer = self._writers.get(fd)
            if writer is not None and (events & WRITE or (events & TROUBLE and reader is None)):
                writer()
            if self._stopped:
                return

    def _read_signals(self) -> None:
        assert self._wake is not None
        try:
            came = os.read(self._wake[0], MAX_SIGNALS)
        except BlockingIOError:
            return
        for signum in sorted(set(came)):
            callback = self._signals.get(signum)
            if callback is not None:
                callback()
