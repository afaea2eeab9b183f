"""The states and actions of one service, and the tables that its machine (service.py) follows.

Rule: everything that may happen stands in these tables. They are sparse: what they lack does not happen. `FAILED` may be
reached from every state, because the worker's own deadline (docs/protocol.md section 7) asks no state for leave.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Optional

from koi.core.data import dataclass
from koi.core.pipe import Order

STOPPED, STARTING, STARTED = "Stopped", "Starting", "Started"
PROMOTING, PROMOTED, DEMOTING = "Promoting", "Promoted", "Demoting"
STOPPING, FAILING, FAILED = "Stopping", "Failing", "Failed"
STATES = (STOPPED, STARTING, STARTED, PROMOTING, PROMOTED, DEMOTING, STOPPING, FAILING, FAILED)

START, STOP, PROMOTE, DEMOTE, STATUS = "start", "stop", "promote", "demote", "status"
FAILED_SCRIPT = "failed"
RUN, WATCH = "run", "watch"
"""The programs of a service; they are no actions."""
SELF_FENCE = "self_fence"
"""Not a script of the service: the node's `self_fence` command, run beside all else."""

GOAL_STOPPED, GOAL_STARTED, GOAL_PROMOTED = "stopped", "started", "promoted"
NOT_PROMOTED = frozenset({GOAL_STOPPED, GOAL_STARTED})

TRANSITIONS: Mapping[str, frozenset[str]] = {
    STOPPED: frozenset({STARTING, DEMOTING, STOPPING}),
    STARTING: frozenset({STARTED, STOPPING, FAILING}),
    STARTED: frozenset({PROMOTING, STOPPING, DEMOTING, FAILING, PROMOTED, STOPPED}),
    PROMOTING: frozenset({PROMOTED, DEMOTING, FAILING}),
    PROMOTED: frozenset({DEMOTING, FAILING, STARTED, STOPPED}),
    DEMOTING: frozenset({STARTED, STOPPED, STOPPING, FAILING}),
    STOPPING: frozenset({STOPPED, FAILING}),
    FAILING: frozenset({DEMOTING, STOPPING}),
    FAILED: frozenset({STOPPED}),
}
"""Old state -> new states. Started <-> Promoted and -> Stopped without a script is what `status` found."""

DURING: Mapping[str, str] = {START: STARTING, PROMOTE: PROMOTING, DEMOTE: DEMOTING, STOP: STOPPING}
"""The state while the script of an action runs; `status` and `failed` change none, nor does a last `stop` in Failed."""

NEXT: Mapping[tuple[str, str], str] = {
    (STOPPED, GOAL_STARTED): START,
    (STOPPED, GOAL_PROMOTED): START,
    (STARTED, GOAL_PROMOTED): PROMOTE,
    (STARTED, GOAL_STOPPED): STOP,
    (FAILING, GOAL_STOPPED): STOP,
}
"""(state, goal) -> the next action, once nothing is promoted that should not be."""

INTERRUPTED: Mapping[str, str] = {START: STOP, PROMOTE: DEMOTE, DEMOTE: DEMOTE, STOP: STOP}
"""What follows on an action that was ended before its time, for it may have done its work."""

LEAVING = frozenset({PROMOTING, DEMOTING, STOPPING})
"""States in which, once the lease has ended, a demote is under way or follows without waiting."""

QUIET = frozenset({STARTED, PROMOTED})
"""States in which `status` is run and in which the exit of the `run` program is a failure at once."""

WATCHED = frozenset({STARTED, PROMOTING, PROMOTED, DEMOTING})
"""States in which `watch` runs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one service's machine must know. Timeouts and intervals are seconds."""

    name: str
    node: str = ""
    cluster_id: int = 0
    folder: str = ""
    """Absolute; with node and cluster id it marks every process that the scripts start."""
    priority: Optional[int] = None
    pid: Optional[int] = None
    """The worker's."""
    grace: float = 1.14
    """G (docs/protocol.md section 1)."""
    status_interval: Optional[float] = None
    """None: there is no `status` script, and the worker does not wake for one."""
    self_fence: bool = False
    """Whether the node has a `self_fence` command."""
    start_timeout: float = 360.0
    stop_timeout: float = 360.0
    status_timeout: float = 120.0
    promote_timeout: float = 30.0
    demote_timeout: float = 30.0
    failed_timeout: float = 20.0
    self_fence_timeout: float = 60.0
    restarts: int = 0
    """How often it is started again by itself before its node fails."""
    restarts_reset: float = 1800.0
    """A restart this many seconds ago counts no more."""
    environment: tuple[tuple[str, str], ...] = ()
    """The service's own variables; they do not replace those of Koi."""

    def timeout(self, action: str) -> float:
        """How long the script of the action may run."""
        return float(getattr(self, f"{action}_timeout"))


def environment(settings: Settings, action: str, order: Optional[Order]) -> tuple[tuple[str, str], ...]:
    """The variables that a script finds (docs/guide.md, Services)."""
    wanted = order is not None and order.goal == GOAL_PROMOTED and action not in (DEMOTE, STOP, FAILED_SCRIPT)
    variables = dict(settings.environment)
    variables.update(
        KOI_IS_PROMOTED="1" if wanted else "0",
        KOI_STATE=order.state if order else STOPPED,
        KOI_SERVICE=settings.name,
        KOI_ACTION=action,
        KOI_NODE=settings.node,
        KOI_EPOCH=str(order.epoch) if order and order.epoch is not None else "",
        KOI_MASTER=(order.master if order else None) or "",
        KOI_CLUSTER_ID=str(settings.cluster_id),
        KOI_SERVICE_DIR=settings.folder,
    )
    if action == FAILED_SCRIPT and order is not None and order.failed_service is not None:
        variables["KOI_FAILED_SERVICE"] = order.failed_service
    return tuple(sorted(variables.items()))


def farewell(asked: Optional[Order], name: str) -> Order:
    """The order of a worker to itself when root is gone or says so: stop, in the words of the last order."""
    last = asked or Order(name, GOAL_STOPPED, None, None, STOPPED)
    return replace(last, goal=GOAL_STOPPED, failed_service=None, recover=False)


def outcome(action: str, exit: Optional[int], timeout: float) -> str:
    """How an action failed, for people: "promote exited 1"."""
    if exit is None:
        return f"{action} outlived its timeout of {timeout:g} s"
    if exit < 0:
        return f"{action} was killed by signal {-exit}"
    return f"{action} exited {exit}"


def still_active(node: str, held: bool = True) -> str:
    """What is said of a stuck node, and the ways out; `held`: because of it nobody is promoted."""
    so = ", so nobody is promoted" if held else ""
    return (
        f"{node} may still be active: its demote and stop failed{so}; mend what keeps it from stopping,"
        f" then 'koi recover {node}', or make sure that it is off, then 'koi recover {node} --force'"
    )
