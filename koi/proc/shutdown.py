"""The orderly end of a node: in which order its processes end, and what happens when one does not.

Rule: the runner demotes, renounces and stops everything first; then the workers end; the elector, which carried the
runner's last word, resigns last. Each step has a bound; past it, or told to stop twice, root lets go: elector and
runner are killed, the workers see root's pipe end (they demote and stop by themselves), and what then still runs is
killed with all it started. The tree then counts as unclean, so that the next koinode demotes before it claims anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Optional, Protocol

from koi import log
from koi.core.pipe import Stop
from koi.proc.child import ELECTOR, RUNNER, SERVICE

RUNNING, DEMOTING, WORKERS, RESIGNING, LETTING_GO, OVER = "running", "demoting", "workers", "resigning", "letting go", "over"

STEP_S = 10.0
"""How long workers of stopped services, then the elector, may take to end."""
LET_GO_MIN_S = 2.0
"""How long workers at least get to demote and stop by themselves before they are killed."""


class Hands(Protocol):
    """What the end of a node needs: the processes (family.Family)."""

    def alive(self, kind: Optional[str] = None) -> list[str]:
        """The names of the children that run."""

    def tell(self, name: str, message: object) -> None:
        """Send a message to a child."""

    def close(self, name: str) -> None:
        """Close root's end of the pipe to a child."""

    def kill(self, name: str, why: str) -> None:
        """Kill a child."""

    def kill_below(self) -> None:
        """Kill every process below root."""


class Shutdown:
    """The steps of the end of a node."""

    def __init__(self, hands: Hands, has_runner: bool, demote_s: float, let_go_s: float, finish: Callable[[int], None]) -> None:
        """`demote_s`: how long an orderly demote and stop may take. `finish(code)` is called at the end: 0 orderly, 1 not."""
        self._hands = hands
        self._on_finish = finish
        self._has_runner = has_runner
        self.retime(demote_s, let_go_s)
        self.step = RUNNING
        self.detached = False
        """In maintenance: the services are left as they are."""
        self.deadline: Optional[float] = None

    def retime(self, demote_s: float, let_go_s: float) -> None:
        """Bounds, in seconds, for an end that begins from now on."""
        self._demote_s = demote_s
        self._let_go_s = max(LET_GO_MIN_S, let_go_s)

    @property
    def replaces(self) -> bool:
        """Whether a child that ends is started again: the runner and its workers are needed until all is demoted."""
        return self.step in (RUNNING, DEMOTING)

    def begin(self, now: float, why: str) -> None:
        """Told to stop; told again: let go at once."""
        if self.step != RUNNING:
            self.let_go(now, f"{why} again while {self.step}")
            return
        log.get().info(f"{why}: demoting and stopping all services, unless there is maintenance")
        self._enter(DEMOTING, now + self._demote_s)
        if not self._has_runner:
            self.runner_stopped(now)
        elif self._hands.alive(RUNNER):
            self._hands.tell(RUNNER, Stop())

    def started(self, name: str) -> None:
        """A child has been started; a runner that was being replaced is told to stop now."""
        if self.step == DEMOTING and name == RUNNER:
            self._hands.tell(RUNNER, Stop())

    def runner_stopped(self, now: float) -> None:
        """Everything is demoted, renounced and stopped: the workers end, and the runner with its pipe."""
        if self.step != DEMOTING:
            return
        self._enter(WORKERS, now + STEP_S)
        for name in self._hands.alive(SERVICE):
            self._hands.tell(name, Stop())
        for name in self._hands.alive(RUNNER):
            self._hands.close(name)
        self.ended(now)

    def ended(self, now: float) -> None:
        """A child has ended, for good if it is not replaced: take the next step if none is left of this one."""
        if self.step == WORKERS and not self._hands.alive(SERVICE) and not self._hands.alive(RUNNER):
            self._enter(RESIGNING, now + STEP_S)
            for name in self._hands.alive(ELECTOR):
                self._hands.tell(name, Stop())
        if self.step == RESIGNING and not self._hands.alive():
            self._finish(0)
        elif self.step == LETTING_GO and not self._hands.alive():
            self._finish(1)

    def let_go(self, now: float, why: str) -> None:
        """End hard: see the rule above."""
        if self.step in (LETTING_GO, OVER):
            self._kill_all(now, why)
            return
        log.get().error(f"{why}: not waiting any longer; workers have {self._let_go_s:g} s to demote and stop by themselves")
        self._enter(LETTING_GO, now + self._let_go_s)
        self._end_all()
        self.ended(now)

    def abort(self, now: float) -> None:
        """The node cannot start: end what runs; workers that demote what a dead tree left may do so in their time."""
        self._enter(LETTING_GO, now + self._demote_s)
        self._end_all()
        self.ended(now)

    def check(self, now: float) -> None:
        """The deadline of the step has come."""
        if self.deadline is None or now < self.deadline:
            return
        late = ", ".join(self._hands.alive())
        if self.step == LETTING_GO:
            self._kill_all(now, f"{late} did not end")
        else:
            self.let_go(now, f"{late} did not end in time while {self.step}")

    def _end_all(self) -> None:
        for name in self._hands.alive():
            if name in (ELECTOR, RUNNER):
                self._hands.kill(name, "the node ends")
            self._hands.close(name)

    def _kill_all(self, now: float, why: str) -> None:
        if self.step == OVER:
            return
        if self.detached:
            log.get().warning(f"{why}: killed; what the services' scripts started lives on, for there is maintenance")
            for name in self._hands.alive():
                self._hands.kill(name, "the node ends")
        else:
            what = "killed, with all that the services' scripts started; promoted services may not be demoted"
            log.get().critical(f"{why}: {what}")
            self._hands.kill_below()
        self._finish(1)

    def _enter(self, step: str, deadline: float) -> None:
        self.step, self.deadline = step, deadline

    def _finish(self, code: int) -> None:
        self.step, self.deadline = OVER, None
        self._on_finish(code)


def end_bound(limits: Iterable[tuple[Optional[int], float]]) -> float:
    """Seconds that an orderly end may take at the longest.

    `limits` are each service's priority and how long its own end may take. Groups of equal priority follow each other.
    """
    groups: dict[Optional[int], float] = {}
    for priority, seconds in limits:
        groups[priority] = max(seconds, groups.get(priority, 0.0))
    return sum(groups.values()) + STEP_S
