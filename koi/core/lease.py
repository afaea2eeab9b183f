"""A runner's lease, counted from what the electors vouched for (docs/protocol.md rules 6.1, 6.2 and 6.3).

It ends at the majority-th latest of (time of sending the report + M (1 - 2 rho)), M being the elector's own. Counted
from sending, never from receiving, so that it ends before any guard that stands for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Optional, Union

from koi.core.data import dataclass
from koi.core.messages import ENDING, MAINTENANCE, STUCK, State, Version, Vouch
from koi.core.timing import usable

REMEMBERED_REPORTS = 256
"""Reports of which the sending time is kept."""

UNLIMITED = float("inf")


@dataclass(frozen=True)
class Word:
    """The latest of one elector: its answer, and how long it stands for which epoch."""

    at: float
    number: int
    version: Version
    epoch: int
    yielding: bool
    hold: Optional[str]
    blank: bool
    vouched: bool
    master: Optional[str] = None
    leader: Optional[str] = None
    until: Optional[float] = None
    """End of what it vouched for `lease_epoch`, on this clock."""
    lease_epoch: Optional[int] = None
    grace: Optional[float] = None
    """G of the vouch that gives `until`: its guard is down so long after it."""


class Lease:
    """What all electors said last, and what follows from it."""

    def __init__(self, name: str, boot: str, majority: int) -> None:
        self.name, self.boot, self.majority = name, boot, majority
        self.sent: dict[int, float] = {}
        self.words: dict[str, Word] = {}

    def note_sent(self, number: int, now: float) -> None:
        """A report of this number leaves now."""
        self.sent[number] = now
        self.sent.pop(number - REMEMBERED_REPORTS, None)

    def hear(self, elector: str, answer: Union[Vouch, State], now: float) -> bool:
        """Take an elector's answer; False when it is not one to this boot or older than the last."""
        if answer.boot != self.boot or answer.number not in self.sent:
            return False
        last = self.words.get(elector)
        until, epoch, grace = self._standing(last, answer, now)
        if last is not None and (answer.number, answer.version) < (last.number, last.version):
            if (until, epoch) != (last.until, last.lease_epoch):
                self.words[elector] = replace(last, until=until, lease_epoch=epoch, grace=grace)
            return False
        word = self._word(answer, now)
        self.words[elector] = replace(word, until=until, lease_epoch=epoch, grace=grace)
        return True

    def _word(self, answer: Union[Vouch, State], now: float) -> Word:
        vouched = isinstance(answer, Vouch)
        return Word(
            now, answer.number, answer.version, answer.epoch, answer.yielding, answer.hold,
            isinstance(answer, State) and answer.blank, vouched, answer.master if isinstance(answer, State) else self.name,
            answer.leader,
        )

    def counted_from(self, vouch: Vouch, now: float) -> float:
        """Where the lease counts from: the sending of the report (rule 6.1)."""
        return self.sent[vouch.number]

    def _standing(
        self, last: Optional[Word], answer: Union[Vouch, State], now: float,
    ) -> tuple[Optional[float], Optional[int], Optional[float]]:
        """Until when the elector stands for which epoch, with which G, this answer included."""
        until, epoch, grace = (None, None, None) if last is None else (last.until, last.lease_epoch, last.grace)
        if isinstance(answer, State) or epoch is not None and epoch > answer.epoch:
            return until, epoch, grace
        fresh = self.counted_from(answer, now) + usable(answer.lease)
        if until is not None and epoch == answer.epoch and until > fresh:
            return until, epoch, grace
        return fresh, answer.epoch, answer.grace

    # --- what follows ---

    def ends(self, epoch: int) -> Optional[float]:
        """When the lease of the epoch ends; None without a majority."""
        until = sorted((w.until for w in self.words.values() if w.lease_epoch == epoch and w.until is not None), reverse=True)
        return until[self.majority - 1] if len(until) >= self.majority else None

    def grace(self, epoch: Optional[int]) -> Optional[float]:
        """The shortest G of those that stand for the epoch: the first of their guards is down then. None: nobody stands."""
        return min((w.grace for w in self.words.values() if w.lease_epoch == epoch and w.grace is not None), default=None)

    def offered(self, now: float) -> Optional[tuple[int, float]]:
        """An epoch that may begin: vouched for by a majority on one ledger version, without a hold, and running (rule 6.2)."""
        by_version: dict[Version, list[Word]] = {}
        for word in self.words.values():
            if word.vouched and word.until is not None and word.until > now and not word.yielding and word.hold is None:
                by_version.setdefault(self.same_version(word), []).append(word)
        for words in by_version.values():
            epoch = words[0].epoch
            if len(words) >= self.majority and all(word.lease_epoch == epoch for word in words):
                ends = sorted((word.until for word in words if word.until is not None), reverse=True)
                return epoch, ends[self.majority - 1]
        return None

    def same_version(self, word: Word) -> Version:
        """What has to be equal among the vouches that begin a lease (rule 6.2)."""
        return word.version

    def agreeing(self, words: Iterable[Word]) -> int:
        """How many of these are of one ledger version: so many electors have accepted the same."""
        return max(Counter(word.version for word in words).values(), default=0)

    def yielding(self, epoch: int) -> bool:
        """Whether a majority of latest answers tell the master of the epoch to yield (rule 6.3)."""
        told = sum(1 for w in self.words.values() if w.yielding and w.epoch == epoch and w.master == self.name)
        return told >= self.majority

    def held(self, epoch: Optional[int]) -> Optional[bool]:
        """Whether a majority of vouches for the epoch say hold (True), or of answers that there is none for it any more (False).

        None: neither (section 7). Who says that there is none need not vouch: after a fence nobody does, and a later ledger is
        of another epoch. Who says hold must do so with one ledger version: an elector's last word may be of a hold long over.
        """
        words = [w for w in self.words.values() if w.epoch == epoch]
        if self.agreeing(w for w in words if w.vouched and w.hold in (MAINTENANCE, STUCK)) >= self.majority:
            return True
        over = sum(1 for w in words if w.hold not in (MAINTENANCE, STUCK))
        over += sum(1 for w in self.words.values() if epoch is not None and not w.blank and w.epoch > epoch)
        return False if over >= self.majority else None

    def stuck(self, epoch: int) -> bool:
        """Whether a majority of vouches says that the master of the epoch is stuck."""
        return sum(1 for w in self.words.values() if w.vouched and w.epoch == epoch and w.hold == STUCK) >= self.majority

    def ending(self, epoch: Optional[int], now: float) -> Optional[Version]:
        """The version under which a majority vouches that a hold is ending, with a running lease (rule 9.1)."""
        versions = [
            w.version for w in self.words.values()
            if w.vouched and w.epoch == epoch and w.hold == ENDING and w.until is not None and w.until > now
        ]
        for version in set(versions):
            if versions.count(version) >= self.majority:
                return version
        return None

    def is_awaited(self, epoch: int) -> bool:
        """Whether a majority of latest answers say that a hold waits for this node, master of the epoch, to speak (rule 9.1)."""
        told = [w.hold for w in self.words.values() if w.epoch == epoch and w.master == self.name]
        return max(told.count(ENDING), told.count(STUCK)) >= self.majority

    def superseded(self, epoch: Optional[int]) -> bool:
        """Whether a majority of latest answers name a master after that of the epoch; None: another node than this one.

        Then no hold is for this node any more, for the ledgers between them had none (rule 9).
        """
        words = [w for w in self.words.values() if not w.blank and w.master is not None]
        newer = [w for w in words if (w.master != self.name if epoch is None else w.epoch > epoch)]
        return len(newer) >= self.majority

    def answered(self) -> int:
        """How many electors that are not blank have answered."""
        return sum(1 for w in self.words.values() if not w.blank)

    def frozen(self, holds: frozenset[str]) -> Optional[bool]:
        """Whether the electors say that there is one of these holds; None when none that is not blank has answered."""
        words = [w for w in self.words.values() if not w.blank]
        if not words:
            return None
        newest = max(words, key=lambda w: w.version)
        return newest.hold in holds

    def saying(self, holds: frozenset[str]) -> int:
        """How many electors that are not blank say with one ledger version that there is one of these holds."""
        return self.agreeing(w for w in self.words.values() if not w.blank and w.hold in holds)

    def hears(self, now: float, within: float) -> int:
        """How many electors answered within M (rule 5.1)."""
        return sum(1 for w in self.words.values() if now < w.at + within)

    def hears_until(self, within: float) -> Optional[float]:
        """When the majority that is heard may be none any more."""
        times = sorted((w.at for w in self.words.values()), reverse=True)
        return times[self.majority - 1] + within if len(times) >= self.majority else None

    def leader(self) -> Optional[str]:
        """The leader that the latest answer named."""
        words = [w for w in self.words.values() if w.leader is not None]
        return max(words, key=lambda w: w.at).leader if words else None

    def newest(self) -> Optional[Word]:
        """The answer with the newest ledger."""
        return max(self.words.values(), key=lambda w: w.version, default=None)
