"""One attempt of an elector to become leader (docs/protocol.md rules 3.1, 3.3 and 3.4)."""

from __future__ import annotations

from dataclasses import field

from koi.core.data import dataclass
from koi.core.messages import Vote


@dataclass
class Candidacy:
    """One attempt to become leader."""

    term: int
    stood: float
    """When it stood, in whatever term: what it may take, and when it is blocked, counts from then (rule 3.4)."""
    since: float
    """When it called for this term."""
    next_send: float
    write: int
    """The own promise counts once this write is on disk (rule 3.1)."""
    votes: dict[str, Vote] = field(default_factory=dict)
