"""One child of root: whether it runs, when it is started again, and whether it still answers.

Rule: plain data and arithmetic on a given time; root does what the answers ask for. A child that ends again and again
is started with growing delays, which a healthy minute forgives.
"""

from __future__ import annotations

from typing import Any, Optional

from koi.core.data import dataclass
from koi.core.facts import Debt
from koi.core.pipe import ServiceState
from koi.proc.link import Link

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 10.0
HEALTHY_S = 60.0
FIRST_ANSWER_S = 5.0
"""Allowed for the first answer: the process still sets itself up."""


def delay(failures: int) -> float:
    """Seconds before the child is started again after so many ends in a row: 0, 0.1, 0.2, 0.4 ... 10."""
    return 0.0 if failures <= 0 else min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 20))


@dataclass
class Pulse:
    """Root's pings to one child: one at a time, each to be answered in time."""

    hang_s: float
    silent: Optional[float] = None
    """Since when it counts as silent; None: no ping is unanswered."""
    number: Optional[int] = None
    answered: bool = False
    """The process has answered at least once."""

    def ask(self, since: float, number: int) -> None:
        """A ping with this number has been sent to a process that has been silent since then."""
        self.silent, self.number = since, number

    def answer(self, number: int) -> None:
        """A pong came; an old one does not count."""
        if number == self.number:
            self.silent = self.number = None
            self.answered = True

    def due(self) -> Optional[float]:
        """When the process counts as hanging; None: nothing is unanswered."""
        if self.silent is None:
            return None
        return self.silent + (self.hang_s if self.answered else max(FIRST_ANSWER_S, self.hang_s))

    def worked(self, at: float, now: float) -> bool:
        """Whether it was at work after it was asked: it counts from then, or, if that is too long ago too, from the next ping."""
        if self.silent is None or at <= self.silent:
            return False
        self.silent = at
        due = self.due()
        if due is not None and due <= now:
            self.silent = None
        return True

    def forgive(self, now: float) -> None:
        """Root itself was held up: count the unanswered time from now."""
        if self.silent is not None:
            self.silent = now


@dataclass
class Child:
    """What root knows of one child."""

    name: str
    kind: str
    definition: Any = None
    pid: Optional[int] = None
    link: Optional[Link] = None
    pulse: Optional[Pulse] = None
    """None: this kind is not pinged."""
    due: Optional[float] = None
    """When it is to be started; None while it runs or is not wanted."""
    started: float = 0.0
    starts: int = 0
    failures: int = 0
    killed_why: Optional[str] = None
    """Why root has killed it."""
    deaf_at: Optional[float] = None
    """When it is killed because its pipe has ended; None: it has not."""
    planned: bool = False
    """Root has asked it to end, for a new one is to take its place."""
    not_born: str = ""
    """Why the system could not start it at the last try."""
    reason: Optional[str] = None
    """What the process itself gave as the reason of its end."""
    last: Optional[ServiceState] = None
    """A worker's last word of its service."""
    retired: bool = False
    """A worker whose service's folder has vanished: it is not replaced."""
    unclean: bool = False
    """A worker's service was left by a dead tree and has not been demoted and stopped yet."""
    debt: Optional[Debt] = None
    """The lease under which it was left."""

    def born(self, pid: int, link: Link, now: float, hang_s: Optional[float]) -> None:
        """It has been forked."""
        self.pid, self.link, self.started = pid, link, now
        self.due = self.killed_why = self.reason = None
        self.not_born = ""
        self.starts += 1
        self.pulse = None if hang_s is None else Pulse(hang_s)

    def gone(self, now: float, again: bool) -> float:
        """It has ended; plan its next start if `again`. The delay in seconds."""
        if now - self.started >= HEALTHY_S:
            self.failures = 0
        wait = 0.0 if self.planned else delay(self.failures)
        self.failures += 0 if self.planned else 1
        self.planned = False
        self.pid = self.link = self.pulse = self.deaf_at = None
        self.due = now + wait if again else None
        return wait
