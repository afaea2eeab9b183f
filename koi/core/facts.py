"""What is known of one service, how it is told, and the one place where its state changes.

Rule: plain data, comparable and copied by copy.copy; every change of state passes through `become`, and the runner is
told of every change before the script that follows on it is run. service.py decides what comes next.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Union

from koi.core.data import dataclass
from koi.core.effects import ERROR, Become, EndScript, KillAll, Log, RunScript, Tell
from koi.core.messages import Last, ServiceInfo
from koi.core.pipe import Failure, Order, ServiceState
from koi.core.states import (
    FAILED,
    FAILING,
    GOAL_PROMOTED,
    GOAL_STARTED,
    GOAL_STOPPED,
    QUIET,
    STATUS,
    STOPPED,
    TRANSITIONS,
    Settings,
    environment,
)
from koi.core.status import Corrections

Effect = Union[RunScript, EndScript, KillAll, Tell, Log, Become]
Lease = Optional[float]
"""The content of the lease cell: None, the end of the lease in seconds of CLOCK_BOOTTIME, or inf."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a script ended."""

    action: str
    exit: Optional[int]
    seconds: float
    line: str

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.exit == 0


@dataclass(frozen=True, slots=True)
class Debt:
    """What a dead koinode left under a lease: when that ended or ends, and when the koinode after it began."""

    lease_end: float
    found_at: float
    grace: float = float("inf")
    """G of the electors that vouched for it; inf: not known, so our own counts."""
    covered: bool = False
    """It was a lease without end: a majority had said that there is a hold."""


@dataclass(slots=True)
class Facts:
    """One service, as its worker knows it."""

    settings: Settings
    state: str = STOPPED
    asked: Optional[Order] = None
    """The last order; None until the first."""
    action: Optional[str] = None
    """The script that runs now."""
    begun: bool = False
    promoted: bool = False
    """It may be active: promote was begun and neither demote nor stop has succeeded since."""
    up: bool = False
    """It may run: start was begun and stop has not succeeded since."""
    clean: bool = True
    """False: demote and stop come before all else, for it is not known what runs."""
    failed: bool = False
    stuck: bool = False
    live: bool = False
    blind: bool = False
    """`status` could not be run the last time."""
    last: Optional[Last] = None
    demote_seconds: Optional[float] = None
    ending: bool = False
    """The running script was told to end."""
    killed: bool = False
    """The running script was told to end at once."""
    recovering: bool = False
    """The failure is to be forgotten as soon as the service is Failed."""
    failed_done: bool = False
    """The `failed` script was begun for the present failure of the node."""
    debt: Optional[Debt] = None
    """Under which lease a dead tree left it."""
    lost_at: Optional[float] = None
    """Since when the service is promoted without a lease."""
    forced: bool = False
    """The worker demotes by itself."""
    overrun: bool = False
    """It was not demoted in time and everything was killed."""
    last_stop: bool = False
    """After everything was killed, `stop` is still to be tried once."""
    status_at: Optional[float] = None
    retry_at: Optional[float] = None
    """When a promote that waits for a lease looks again."""
    corrections: Corrections = ()
    frozen: bool = False
    """Maintenance: no script is begun (frozen.py)."""
    guarded: bool = True
    """False: taken over in maintenance, and no lease was seen yet, neither one that runs nor one that has ended."""
    check_first: bool = False
    """Maintenance is over: `status` comes before all else."""
    postponed: Optional[tuple[str, str]] = None
    """The script that was due in maintenance, and why."""
    program_gone: bool = False
    """The `run` program has ended in maintenance."""
    restarting: bool = False
    """It is stopped to be started again."""
    restarts: tuple[float, ...] = ()
    """When it was last started again after a failure, instead of failing the node."""
    told: Optional[ServiceState] = None
    _effects: tuple[Effect, ...] = ()

    @property
    def goal(self) -> Optional[str]:
        """What is wanted: the last order's goal; a service that recovers while it fails is stopped first."""
        if self.asked is None:
            return None
        return GOAL_STOPPED if self.restarting or (self.recovering and self.state == FAILING) else self.asked.goal

    @property
    def settled(self) -> bool:
        """Nothing runs and nothing more would be done to stop it; what is stuck is to be killed after its lease (rule 7)."""
        owes = self.last_stop or self.owes_demote
        return self.begun and self.action is None and self.state in (STOPPED, FAILED) and not owes

    @property
    def owes_demote(self) -> bool:
        """Whether it must not stay promoted longer than its lease and grace allow (rule 7).

        What was left by a dead tree that held nothing has no lease to lose; after everything was killed nothing is left to
        do. A failure that is forgotten meanwhile stops no count that has begun (rule 6.4).
        """
        counted = self.clean or self.debt is not None or self.lost_at is not None
        return self.promoted and counted and self.guarded and not self.overrun

    def report(self) -> ServiceState:
        """What the runner is told. A running `status` is no news."""
        s = self.settings
        action = None if self.action == STATUS else self.action
        info = ServiceInfo(s.name, s.priority, self.state, action, self.failed, s.pid, self.last)
        return ServiceState(info, self.promoted, self.stuck, self.live, self.clean, self.demote_seconds)

    def _why(self) -> str:
        order = self.asked
        if self.restarting:
            return "it is stopped and started again"
        if not self.clean:
            return "it is not known what was left running"
        if self.forced:
            return "the lease has ended and the runner has not demoted it"
        if order is None:
            return "no order has come"
        if order.failed_service is not None:
            return f"service {order.failed_service} of this node has failed"
        epoch = f", epoch {order.epoch}" if order.goal == GOAL_PROMOTED and order.epoch is not None else ""
        demoted = order.goal == GOAL_STARTED and self.promoted
        return f"it is to be {'demoted' if demoted else order.goal}{epoch}"

    def become(self, state: str, why: str) -> None:
        """The one place where the state changes. AssertionError: states.TRANSITIONS lacks it, a fault of ours."""
        if state == self.state:
            return
        assert state == FAILED or state in TRANSITIONS[self.state], f"{self.settings.name}: {self.state} -> {state}: {why}"
        self._effects += (Become(self.settings.name, self.state, state, why),)
        self.state = state
        if state not in QUIET:
            self.live = False

    def _fail(self, action: str, exit: Optional[int], seconds: float, line: str, what: str) -> None:
        self.failed, self.restarting = True, False
        self._log(ERROR, f"{self.settings.name} has failed: {what}{': ' + line if line else ''}")
        self._tell_failure(action, exit, seconds, line, what)

    def _tell_failure(self, action: str, exit: Optional[int], seconds: float, line: str, what: str) -> None:
        """For `koi failures`, whether the service has failed or was put right."""
        self._effects += (Tell("runner", Failure(self.settings.name, action, exit, seconds, line, what)),)

    def _run(self, action: str) -> None:
        self._effects += (RunScript(action, environment(self.settings, action, self.asked), self.settings.timeout(action)),)

    def _log(self, level: str, text: str) -> None:
        self._effects += (Log(level, text),)

    def _tell(self) -> None:
        """Tell the runner at each change; the duration alone of a script that went as the last time is none."""
        state = self.report()
        if state != self.told and (self.told is None or _essence(state) != _essence(self.told)):
            self.told = state
            self._effects += (Tell("runner", state),)


def _essence(state: ServiceState) -> ServiceState:
    last = state.info.last
    return state if last is None else replace(state, info=replace(state.info, last=replace(last, seconds=0.0)))
