"""A higher elector takes the lead back, once it has heard a majority for `bully_delay` (docs/protocol.md rule 3.6).

It asks all others with a numbered Hello every E; a round that a majority answered shows that they hear each other.
"""

from __future__ import annotations

from typing import Optional

from koi.core.messages import Hello, Known
from koi.core.timing import Timing


class Challenger:
    """The rounds of Hello of a follower that outranks its leader."""

    def __init__(self, boot: str, majority: int, timing: Timing) -> None:
        self.boot = boot
        self.majority = majority
        self.interval = timing.leader_timeout
        self.delay = timing.bully_delay
        self.round = 0
        self.answers: set[str] = set()
        self.next_round: Optional[float] = None
        self.healthy_since: Optional[float] = None

    def reset(self) -> None:
        """No reason to challenge: forget what was heard."""
        self.next_round = self.healthy_since = None
        self.answers = set()

    def nonce(self) -> str:
        """Tells the answers of this round from older ones."""
        return f"{self.boot}.{self.round}"

    def turn(self, rank: int, now: float) -> Hello:
        """End one round and begin the next."""
        if self.next_round is not None:
            if len(self.answers) + 1 < self.majority:
                self.healthy_since = None
            elif self.healthy_since is None:
                self.healthy_since = self.next_round - self.interval
        self.round += 1
        self.answers = set()
        self.next_round = now + self.interval
        return Hello(self.nonce(), rank)

    def answer(self, sender: str, known: Known) -> None:
        """Count an answer to the running round."""
        if known.nonce == self.nonce():
            self.answers.add(sender)

    def strong(self, now: float) -> bool:
        """Whether a majority was heard throughout bully_delay."""
        return self.healthy_since is not None and now - self.healthy_since >= self.delay
