"""Everything that nodes say to each other: the datagrams. pipe.py has what is said inside a node.

Frozen plain data. Times are seconds and ages, never points in time, for no two nodes share a clock.
docs/protocol.md sections 3 to 5 say what each datagram is for. A version is (term, n).
"""

from __future__ import annotations

from typing import Any, Optional, Union

from koi.core.data import dataclass

Version = tuple[int, int]

MAINTENANCE, ENDING, STUCK = "maintenance", "ending", "stuck"
HOLDS = (MAINTENANCE, ENDING, STUCK)
ENDS = "koinode stops"
"""Why a runner is not ready whose koinode is ending in order: with state Stopped, the last word of its boot."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A runner of which it is sure that it is off (rule 5.5)."""

    name: str
    boot: Optional[str]
    epoch: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that the cluster agrees on (rule 2.1)."""

    epoch: int = 0
    master: Optional[str] = None
    yielding: bool = False
    target: Optional[str] = None
    manual: bool = False
    hold: Optional[str] = None
    passive: tuple[str, ...] = ()
    fenced: Optional[Fenced] = None
    recent: tuple[str, ...] = ()
    reason: str = ""
    fencing: Optional[Fenced] = None  # the order to fence this one (rule 9.5)


@dataclass(frozen=True, slots=True)
class Election:
    """Vote for me in this term (rule 3.1)."""

    term: int
    rank: int


@dataclass(frozen=True, slots=True)
class Answer:
    """I outrank you and stand myself (rule 3.2c)."""

    term: int


@dataclass(frozen=True, slots=True)
class Vote:
    """A promise of this term to the candidate, with what the voter holds (rule 3.2d)."""

    term: int
    candidate: str
    version: Version
    ledger: Ledger
    top: int


@dataclass(frozen=True, slots=True)
class Nack:
    """A higher term is promised already (rules 3.2e, 4.2)."""

    promised: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The leader's proposal, and that it lives (rule 4.1)."""

    term: int
    number: int
    rank: int
    version: Version
    ledger: Ledger
    top: int
    config: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """What an elector that runs no services says of itself; of all others their runners' reports say it."""

    release: str
    mode: str = "active"
    preference: int = 0
    uptime: float = 0.0


@dataclass(frozen=True, slots=True)
class Ack:
    """What the elector has accepted, and the epoch for which its guard is down (rules 4.2, 4.4)."""

    term: int
    number: int
    rank: int
    version: Version
    free: Optional[int]
    config: str = ""
    warnings: tuple[str, ...] = ()
    lost: Optional[int] = None  # the epoch whose master has not reported for M
    witness: Optional[Witness] = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A higher elector takes the lead back (rule 3.6)."""

    term: int
    number: int
    rank: int


@dataclass(frozen=True, slots=True)
class Resign:
    """The leader of this term leads no more (rule 3.6)."""

    term: int


@dataclass(frozen=True, slots=True)
class Hello:
    """What do you hold? `nonce` is the asker's boot, so that old answers do not count (rule 2.2)."""

    nonce: str
    rank: int


@dataclass(frozen=True, slots=True)
class Known:
    """The answer to Hello."""

    nonce: str
    rank: int
    blank: bool
    promised: int
    version: Version
    ledger: Ledger
    top: int


@dataclass(frozen=True, slots=True)
class Last:
    """The last script of a service: its action, exit code (negative: the signal) and duration in seconds."""

    action: str
    exit: Optional[int]
    seconds: float


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """One service as its node reports it."""

    name: str
    priority: Optional[int]
    state: str
    action: Optional[str] = None
    failed: bool = False
    pid: Optional[int] = None
    last: Optional[Last] = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a runner says of itself to every elector (rule 5.1)."""

    name: str
    boot: str
    number: int
    lineage: tuple[str, ...] = ()
    holding: Optional[int] = None
    renounced: Optional[int] = None
    ready: bool = False
    why: str = ""  # why it is not ready
    state: str = "Stopped"
    mode: str = "active"
    preference: int = 0
    uptime: float = 0.0
    hears: int = 0  # how many electors answered within M
    failed: bool = False
    failed_ago: Optional[float] = None
    failcount: int = 0
    recovers_in: Optional[float] = None
    stuck: bool = False
    stopped: bool = False
    acknowledged: Optional[Version] = None  # the ledger under which its lease runs again after a hold (9.1)
    last_failure: Optional[str] = None
    port: int = 0
    release: str = ""
    config: str = ""
    digest: str = ""
    services: Optional[tuple[ServiceInfo, ...]] = None  # None when the elector knows the list of this digest
    warnings: tuple[str, ...] = ()
    frozen: bool = False  # it gives no orders, for there is maintenance


@dataclass(frozen=True, slots=True)
class Vouch:
    """An elector stands for the report: the lease of `epoch` runs `lease` seconds from its sending (rule 5.3)."""

    epoch: int
    version: Version
    boot: str
    number: int
    lease: float
    grace: float
    yielding: bool = False
    hold: Optional[str] = None
    leader: Optional[str] = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The answer to a report that is not vouched for, or a nudge to report at once (rules 5.2, 5.4)."""

    boot: str
    number: int
    version: Version
    leader: Optional[str] = None
    master: Optional[str] = None
    epoch: int = 0
    yielding: bool = False
    hold: Optional[str] = None
    blank: bool = False
    nudge: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A client's command; carried out at most once for an id."""

    id: str
    command: str
    arguments: tuple[tuple[str, Any], ...] = ()


ANSWER, PROGRESS, REDIRECT, REFUSED = "answer", "progress", "redirect", "refused"


@dataclass(frozen=True, slots=True)
class Response:
    """One page of the answer to a request: `text` of all pages joined is a JSON object.

    `kind`: answer (final), progress (more will come), redirect ({"host", "port"}), refused ({"message"}).
    """

    id: str
    kind: str
    page: int
    pages: int
    text: str


ElectorDatagram = Union[Election, Answer, Vote, Nack, Heartbeat, Ack, Challenge, Resign, Hello, Known]
RunnerDatagram = Union[Vouch, State]
DATAGRAMS: tuple[type, ...] = (
    Election, Answer, Vote, Nack, Heartbeat, Ack, Challenge, Resign, Hello, Known,
    Report, Vouch, State, Request, Response,
)
