"""What the processes of one node say to each other on the pipes through root. Frozen plain data, like the datagrams.

Times are seconds and points in time of CLOCK_BOOTTIME: all processes of a node share that clock.
"""

from __future__ import annotations

from typing import Any, Optional

from koi.core.data import dataclass
from koi.core.messages import ServiceInfo


@dataclass(frozen=True, slots=True)
class Ping:
    """Root asks elector or runner whether it lives."""

    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to Ping."""

    sender: str
    number: int


@dataclass(frozen=True, slots=True)
class Order:
    """The runner's wish for one service: reach `goal`. The same one may come twice.

    `goal`: "stopped", "started" or "promoted". `epoch`, `master` and the node's `state` go into the scripts' environment.
    `failed_service`, while the node has failed: `failed` is run once before `stop`. `recover` forgets the service's failure.
    """

    service: str
    goal: str
    epoch: Optional[int]
    master: Optional[str]
    state: str
    failed_service: Optional[str] = None
    recover: bool = False
    retired: bool = False  # its folder has vanished: what of its scripts is gone counts as done


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A worker's word of its service, at each change."""

    info: ServiceInfo
    promoted: bool  # it may be active: promote was begun and neither demote nor stop has succeeded since
    stuck: bool = False  # demote and stop both failed: it may still be active and nothing more is tried
    live: bool = False  # its status says: running, but not ready to be promoted
    clean: bool = True  # False while what a dead tree left has not been demoted and stopped
    demote_seconds: Optional[float] = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed action of a service, for `koi failures`."""

    service: str
    action: str
    exit: Optional[int]
    seconds: float
    line: str
    what: str  # for people: "promote exited 1", "start outlived its timeout of 360 s"


@dataclass(frozen=True, slots=True)
class Held:
    """What the runner holds and has renounced; root keeps it for the runner's successor (rule 6.5)."""

    boot: str
    holding: Optional[int]
    renounced: Optional[int]
    maintenance: Optional[bool] = None  # None: the runner does not know yet


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """start, stop, recover, or restart of one service of this node, from a client through the elector."""

    id: str
    verb: str
    force: bool = False
    reason: str = ""
    origin: str = ""
    service: str = ""
    no_wait: bool = False


@dataclass(frozen=True, slots=True)
class NodeBegun:
    """A NodeCommand was not refused: it is being carried out."""

    command: NodeCommand


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The outcome of a NodeCommand."""

    id: str
    done: bool
    message: str


@dataclass(frozen=True, slots=True)
class Pids:
    """Root tells elector and runner the process ids of the tree."""

    root: int
    elector: Optional[int]
    runner: Optional[int]
    services: tuple[tuple[str, Optional[int]], ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """A new runner asks every worker for its ServiceState."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Orderly end: runner and workers let go and stop, the elector resigns."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The runner has demoted, renounced and stopped everything after Stop."""

    detached: bool = False  # in maintenance: the services are left as they are, for the next koinode to take over


@dataclass(frozen=True, slots=True)
class FailuresQuery:
    """The elector asks the runner for the recent failures; `id` is the client's request."""

    id: str


@dataclass(frozen=True, slots=True)
class FailuresList:
    """The runner's recent failures, each a plain dict as `koi --json failures` shows it."""

    id: str
    failures: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Heritage:
    """What root hands to a new runner of what its predecessors held (rule 6.5)."""

    lineage: tuple[str, ...] = ()
    holding: Optional[int] = None  # by a runner of this same living tree: the successor takes the epoch over
    renounced: Optional[int] = None
    lease_end: Optional[float] = None
    unclean: bool = False
    """A dead tree left services behind: they are demoted and stopped before anything is claimed."""
    detached: Optional[int] = None
    """Held in maintenance by a tree that is gone: held on if maintenance is still on, else renounced once all is demoted."""
    owes: bool = False
    """The dead tree had a lease: what it left may be promoted."""
    covered: bool = False
    """That lease was without end: a majority had said that there is a hold."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """The runner's word to a worker: whether there is maintenance. A worker that waits for it has run nothing yet."""

    on: bool


@dataclass(frozen=True, slots=True)
class Restart:
    """To a worker: stop the service and start it again; it is promoted again if it was."""

    why: str


@dataclass(frozen=True, slots=True)
class Redefine:
    """To a worker: its folder has changed; to root: the same, for the worker's successor, or a new service."""

    definition: Any


@dataclass(frozen=True, slots=True)
class Retire:
    """To root: the folder of this service has vanished and the service is stopped; its worker ends and is not replaced."""

    service: str
