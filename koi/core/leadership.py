"""A leader's term: its proposal, who has accepted it, and whether a majority still hears it.

docs/protocol.md rules 3.6, 4.1 and 4.5.
"""

from __future__ import annotations

from typing import Optional

from koi.core.data import dataclass
from koi.core.messages import Ack, Heartbeat, Ledger, Version
from koi.core.timing import Timing

REMEMBERED_BEATS = 16
"""Heartbeats of which the sending time is kept, for Challenge (rule 3.6)."""


@dataclass(frozen=True)
class Heard:
    """The last Ack of one elector and when it came, in seconds."""

    ack: Ack
    at: float


class Leadership:
    """One term of one leader."""

    def __init__(self, term: int, ledger: Ledger, majority: int, timing: Timing, now: float) -> None:
        self.term = term
        self.since = now
        self.majority = majority
        self.timing = timing
        self.version: Version = (term, 1)
        self.ledger = ledger
        self.acks: dict[str, Heard] = {}
        self.own_version: Version = (0, 0)
        self.number = 0
        self.sent_at: dict[int, float] = {}
        self.next_beat = now

    def propose(self, ledger: Ledger, now: float) -> None:
        """Change the ledger; only after the last one was committed (rule 4.5)."""
        self.version = (self.term, self.version[1] + 1)
        self.ledger = ledger
        self.next_beat = now

    def beat(self, rank: int, top: int, config: str, now: float) -> Heartbeat:
        """The next heartbeat."""
        self.number += 1
        self.sent_at[self.number] = now
        self.sent_at.pop(self.number - REMEMBERED_BEATS, None)
        self.next_beat = self.timing.next_beat(self.next_beat, now)
        return Heartbeat(self.term, self.number, rank, self.version, self.ledger, top, config)

    def heard(self, sender: str, ack: Ack, now: float) -> bool:
        """Note an Ack; True when it tells something that the last one did not."""
        last = self.acks.get(sender)
        if last is not None and ack.number < last.ack.number:
            return False
        self.acks[sender] = Heard(ack, now)
        if last is None or ack.free is not None:
            return True
        return (last.ack.version, last.ack.free, last.ack.lost) != (ack.version, ack.free, ack.lost)

    def committed(self) -> bool:
        """Whether any majority of electors accepted exactly this version (rule 4.5)."""
        return self.accepted_by() >= self.majority

    def accepted_by(self) -> int:
        """How many electors accepted this version, the leader counted when it did."""
        others = sum(1 for heard in self.acks.values() if heard.ack.version == self.version)
        return others + (self.own_version == self.version)

    def majority_at(self, now: float) -> float:
        """When a majority, the leader included, was last heard."""
        times = sorted((heard.at for heard in self.acks.values()), reverse=True)
        if self.majority <= 1:
            return now
        latest = times[self.majority - 2] if len(times) >= self.majority - 1 else self.since
        return max(latest, self.since)

    def free_by(self, epoch: int, own_free: Optional[int], now: float) -> int:
        """How many electors report their guard for the epoch down, in Acks younger than E (rule 9.2)."""
        young = now - self.timing.leader_timeout
        others = sum(1 for heard in self.acks.values() if heard.at >= young and heard.ack.free == epoch)
        return others + (own_free == epoch)

    def lost_by(self, epoch: int, own: Optional[int], now: float) -> int:
        """How many electors have not heard the epoch's master for M, in Acks younger than E (rule 9.5)."""
        young = now - self.timing.leader_timeout
        others = sum(1 for heard in self.acks.values() if heard.at >= young and heard.ack.lost == epoch)
        return others + (own == epoch)

    def spoke(self, number: int, now: float) -> bool:
        """Whether the heartbeat of this number was sent less than E ago (rule 3.6)."""
        at = self.sent_at.get(number)
        return at is not None and now - at <= self.timing.leader_timeout
