"""Who an elector is, and among whom: the part of the configuration that the election needs."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Optional, Protocol

from koi.core.data import dataclass
from koi.core.messages import Witness


class Random(Protocol):
    """The injected source of chance."""

    def random(self) -> float:
        """A number from 0 up to 1."""


@dataclass(frozen=True)
class Seat:
    """Who this elector is, and among whom."""

    name: str
    electors: tuple[str, ...]
    boot: str
    rank: int = 0
    quorum: Optional[int] = None
    """Votes needed when it is not a majority (unsafe_quorum)."""
    preempt: bool = True
    config: str = ""
    """Digest of what must be equal on all nodes."""
    fence: bool = False
    """Whether there is a fence command (rule 9.5)."""
    witness: Optional[Witness] = None
    """What status tells of this node when it runs no services."""

    def witness_after(self, uptime: float) -> Optional[Witness]:
        """The same with its age in seconds."""
        return None if self.witness is None else replace(self.witness, uptime=uptime)

    @cached_property
    def others(self) -> tuple[str, ...]:
        """All electors but this one."""
        return tuple(name for name in self.electors if name != self.name)

    @cached_property
    def majority(self) -> int:
        """How many electors decide."""
        return len(self.electors) // 2 + 1 if self.quorum is None else self.quorum
