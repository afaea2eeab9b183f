"""A `run` program that an earlier worker has started and that goes on under a new one.

Rule: it is no child of ours, so its exit is seen through its pidfd and its exit code stays unknown; otherwise it is
treated like a program of our own (script.Script).
"""

from __future__ import annotations

import os
import signal
from typing import Callable, Optional

from koi.proc.loop import Loop
from koi.service.output import Output
from koi.service.script import ENDING, KILL_DELAY_S


class Adopted:
    """A running program. Times are seconds of the loop's clock."""

    tail = None

    def __init__(self, loop: Loop, pid: int, log: Callable[[str], None], on_end: Callable[[Adopted], None]) -> None:
        """`on_end(program)` once it has ended. OSError: it is gone already."""
        self._loop, self._on_end, self.pid = loop, on_end, pid
        self._pidfd = os.pidfd_open(pid)
        loop.add(self._pidfd, self._exited)
        self.started = loop.now()
        self.output = Output(log, loop.now)
        self.output.last = "its exit code is not known, for an earlier worker had started it"
        self._kill_at: Optional[float] = None
        self.exit: Optional[int] = None
        self.ended = self.told = False
        self.seconds = 0.0

    def deadline(self) -> Optional[float]:
        """When `handle_timer` is due."""
        return self._kill_at

    def handle_timer(self, now: float) -> None:
        """Kill it when it did not end."""
        if self._kill_at is not None and now >= self._kill_at:
            self.kill()

    def end(self, patience: float = KILL_DELAY_S) -> None:
        """SIGTERM to its group now, SIGKILL after `patience` seconds. Again changes nothing."""
        if not self.ended and not self.told:
            self.told = True
            self._kill_at = self._loop.now() + patience
            for signum in ENDING:
                self._signal(signum)

    def kill(self) -> None:
        """SIGKILL to its group."""
        if not self.ended:
            self.told, self._kill_at = True, None
            self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        """By its pidfd, which is surely its own, and to the group that it leads."""
        try:
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signum)
            signal.pidfd_send_signal(self._pidfd, signum)
        except ProcessLookupError:
            pass

    def _exited(self) -> None:
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        self.seconds = self._loop.now() - self.started
        self.ended = True
        self._on_end(self)
