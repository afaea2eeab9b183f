"""An elector without a readable state file: it asks the others before it takes part (docs/protocol.md rule 2.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from koi.core.ledger import Record
from koi.core.messages import Hello, Known
from koi.core.timing import Timing

BLANK_TOP = 1000
"""Added to the highest epoch seen when the others could not all be asked: well above what may be lost."""


class Blank:
    """Collects what the others hold, until it is safe to take part."""

    def __init__(self, boot: str, others: int, majority: int, timing: Timing, now: float) -> None:
        self.nonce = boot
        self.need = min(others, others + 1 - majority + 1)
        self.safe_at = now + timing.span
        self.gives_up_at = now + max(timing.blank_wait, timing.span)
        self.interval = timing.heartbeat
        self.next_hello = now
        self.known: dict[str, Known] = {}

    def hello(self, rank: int, now: float) -> Hello:
        """Ask all others, every H."""
        self.next_hello = now + self.interval
        return Hello(self.nonce, rank)

    def answer(self, sender: str, known: Known) -> None:
        """Note what another elector holds; only answers to this very boot count."""
        if known.nonce == self.nonce:
            self.known[sender] = known

    def complete(self) -> bool:
        """Whether enough others have answered."""
        return len(self.known) >= self.need

    def over(self, now: float) -> bool:
        """Whether the elector may take part now."""
        return now >= self.gives_up_at or (self.complete() and now >= self.safe_at)

    def deadline(self) -> float:
        """When to look again, in seconds."""
        ends = self.safe_at if self.complete() else self.gives_up_at
        return min(self.next_hello, ends)

    def learned(self) -> Record:
        """The highest of everything that the others hold."""
        best: Optional[Known] = max(self.known.values(), key=lambda k: k.version, default=None)
        top = max((k.top for k in self.known.values()), default=0)
        record = Record(
            promised=max((k.promised for k in self.known.values()), default=0),
            top=top if self.complete() else top + BLANK_TOP,
        )
        return record if best is None else replace(record, version=best.version, ledger=best.ledger)
