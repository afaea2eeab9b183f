"""What the core asks its shell to do. Plain data; the shell carries them out in order."""

from __future__ import annotations

from typing import Any, Optional

from koi.core.data import dataclass

DEBUG, INFO, WARNING, ERROR, CRITICAL = "debug", "info", "warning", "error", "critical"


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram. `to` is an elector's name, or the origin that came with an event, unchanged."""

    to: Any
    message: Any


@dataclass(frozen=True, slots=True)
class Persist:
    """Write the record to disk, then call persisted(number). Later records replace earlier ones not yet begun."""

    number: int
    record: Any


@dataclass(frozen=True, slots=True)
class Become:
    """A machine changed its state; logged as `old -> new: why`."""

    machine: str
    old: str
    new: str
    why: str


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the administrator."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Journal:
    """A change of master, leader, maintenance or an administrator's command, for `koi why`."""

    what: str
    old: Optional[str]
    new: Optional[str]
    epoch: Optional[int]
    reason: str
    key: str = ""
    """Equal in the journals of all electors for one and the same change."""


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a command: ok once the ledger that carries it is committed, else why not."""

    id: str
    ok: bool
    message: str
    epoch: int = 0
    already: bool = False
    """Nothing had to be changed."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a pipe message to a process of this node: "root", "elector", "runner" or "service:NAME"."""

    to: str
    message: Any


@dataclass(frozen=True, slots=True)
class SetLease:
    """Write the lease cell: the point in time (CLOCK_BOOTTIME, seconds) at which it ends, inf under a hold, None for none."""

    end: Optional[float]
    grace: Optional[float] = None
    """G of the electors that vouched for it, seconds (rule 5.3); None: as it was."""


@dataclass(frozen=True, slots=True)
class RunScript:
    """Start the script of this action; its end comes back as an event."""

    action: str
    environment: tuple[tuple[str, str], ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class EndScript:
    """End the running script: TERM to its process group, KILL after a second."""

    at_once: bool = False
    """KILL without TERM: the lease has ended (rule 7)."""


@dataclass(frozen=True, slots=True)
class KillAll:
    """Kill at once everything that the service's scripts started (rule 7)."""

    why: str


@dataclass(frozen=True, slots=True)
class RunFence:
    """Run the fence command for the node; its end comes back as an event."""

    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class EndFence:
    """Kill the fence command that runs: its order is taken back, or another leads."""


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep in the state folder what must outlive this process: stopped by hand, maintenance last heard."""

    stopped: bool
    maintenance: bool
