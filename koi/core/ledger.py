"""What one elector has promised, accepted and vouched for: docs/protocol.md sections 2, 4 and 5.

The rule that all rests on: an elector accepts a ledger with another epoch or master only after its guard for the
present one is down, so no majority can stand behind a new master while a lease of the old one may run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from koi.core.data import dataclass
from koi.core.messages import Ledger, Report, Version
from koi.core.timing import Timing

BLIND = None
"""The guard's boot when an elector has just started and cannot know for whom it vouched (rule 5.5)."""


@dataclass(frozen=True)
class Record:
    """What an elector keeps on disk (section 2)."""

    promised: int = 0
    promised_to: Optional[str] = None
    version: Version = (0, 0)
    ledger: Ledger = Ledger()
    top: int = 0
    span: float = 0.0
    electors: tuple[str, ...] = ()


def same_master(a: Ledger, b: Ledger) -> bool:
    """Whether two ledgers name the same master for the same epoch."""
    return a.epoch == b.epoch and a.master == b.master


class Acceptor:
    """One elector's record, guard and pending ledger. Plain data; every method takes the time in seconds."""

    def __init__(self, timing: Timing, record: Record, now: float, blind: bool = True) -> None:
        self.timing = timing
        self.record = record
        self.pending: Optional[tuple[Version, Ledger]] = None
        self.accepted_at: Optional[float] = None
        """When the present (epoch, master) was accepted by this process; None: before it started."""
        self.heard_at = now
        """When the present master reported last; when it was accepted, or this process began, if it has not."""
        self.guards: dict[Optional[str], float] = {}
        """For the present (epoch, master): boot -> when its guard is down."""
        if blind and record.ledger.master is not None:
            self.guards[BLIND] = now + max(timing.span, record.span)

    def take_over(self, learned: Record, electors: tuple[str, ...], now: float) -> None:
        """A blank elector begins with what the others hold (rule 2.2); a hold among it keeps the guard up."""
        self.record = replace(learned, span=self.timing.span, electors=electors)
        if learned.ledger.hold is not None and learned.ledger.master is not None:
            self.guards[BLIND] = now + self.timing.span

    # --- promises ---

    def promise(self, term: int, to: str) -> None:
        """Promise the term to a candidate or leader (rules 3.1, 3.2d, 4.2)."""
        assert term >= self.record.promised
        if (term, to) != (self.record.promised, self.record.promised_to):
            self.record = replace(self.record, promised=term, promised_to=to)

    def see_top(self, epoch: int) -> None:
        """Remember the highest epoch ever seen anywhere."""
        if epoch > self.record.top:
            self.record = replace(self.record, top=epoch)

    # --- the accept rule ---

    def offer(self, version: Version, ledger: Ledger, now: float) -> bool:
        """Take a leader's ledger by the accept rule (4.3). True when it was accepted now."""
        self.see_top(ledger.epoch)
        if version <= self.record.version:
            return False
        if same_master(ledger, self.record.ledger) or not self.guard_up(now):
            self._accept(version, ledger, now)
            return True
        if self._holds() and ledger.hold is None and self._frozen():
            self._restart_guards(now)
        self.pending = (version, ledger)
        return False

    def settle(self, now: float) -> bool:
        """Accept the pending ledger once the guard is down. True when it was accepted now."""
        if self.pending is None or self.guard_up(now):
            return False
        version, ledger = self.pending
        self._accept(version, ledger, now)
        return True

    def _accept(self, version: Version, ledger: Ledger, now: float) -> None:
        was = self.record.ledger
        self.pending = None
        if not same_master(ledger, was):
            self.guards = {}
            self.accepted_at = self.heard_at = now
        elif was.hold is not None and ledger.hold is None:
            self._restart_guards(now)
        elif was.hold is None and ledger.hold is not None:
            self.guards = {b: until for b, until in self.guards.items() if until > now}
        span = max(self.record.span, self.timing.span) if same_master(ledger, was) else self.timing.span
        self.record = replace(self.record, version=version, ledger=ledger, span=span)
        self._drop_fenced(ledger)

    def _drop_fenced(self, ledger: Ledger) -> None:
        fenced = ledger.fenced
        if fenced is not None and (fenced.name, fenced.epoch) == (ledger.master, ledger.epoch):
            for boot in (BLIND, fenced.boot):
                self.guards.pop(boot, None)

    # --- the guard ---

    def _holds(self) -> bool:
        return self.record.ledger.hold is not None

    def _frozen(self) -> bool:
        """Under a hold the guard does not run out, until a ledger without one was seen (rule 5.6)."""
        return self._holds() and (self.pending is None or self.pending[1].hold is not None)

    def _restart_guards(self, now: float) -> None:
        self.guards = {boot: now + self.timing.span for boot in self.guards}

    def guard_up(self, now: float) -> bool:
        """Whether a lease that this elector vouched for may still run, or its demote (rule 5.5)."""
        if self._frozen():
            return bool(self.guards)
        return any(until > now for until in self.guards.values())

    def guard_ends(self) -> Optional[float]:
        """When the guard runs out by time alone; None when it is down or frozen."""
        if not self.guards or self._frozen():
            return None
        return max(self.guards.values())

    def stands_aside(self, now: float) -> Optional[float]:
        """For how many seconds more an elector that has just started stands for nobody, as it cannot know for whom it vouched
        (rule 5.5); None when it does not stand aside. Infinite under a hold."""
        if self.pending is None or BLIND not in self.guards or not self.guard_up(now):
            return None
        ends = self.guard_ends()
        return float("inf") if ends is None else ends - now

    def free(self, now: float) -> Optional[int]:
        """The epoch for which this elector's guard is down (rule 4.4)."""
        if self.accepted_at is not None and now < self.accepted_at + self.timing.lease:
            return None
        return None if self.guard_up(now) else self.record.ledger.epoch

    def free_at(self) -> Optional[float]:
        """When `free` may change by time alone."""
        ends = self.guard_ends()
        if self.accepted_at is None:
            return ends
        young_until = self.accepted_at + self.timing.lease
        if ends is None:
            return None if self._frozen() and self.guards else young_until
        return max(ends, young_until)

    def heard(self, report: Report, now: float) -> None:
        """A report has come; the master's says that it is not lost."""
        if report.name == self.record.ledger.master:
            self.heard_at = now

    def lost(self, now: float) -> Optional[int]:
        """The epoch whose master has not reported for M: no lease of it runs by this elector's word (rule 9.5)."""
        ledger = self.record.ledger
        return ledger.epoch if ledger.master is not None and now > self.heard_at + self.timing.lease else None

    def heard_renounce(self, report: Report) -> None:
        """A boot that renounced the epoch, itself or through its successor, needs no guard (rule 5.5)."""
        if report.name != self.record.ledger.master or not self.has_renounced(report):
            return
        for boot in (report.boot, *report.lineage):
            self.guards.pop(boot, None)

    def has_renounced(self, report: Report) -> bool:
        """Whether the report gives up the present epoch for good."""
        return report.renounced is not None and report.renounced >= self.record.ledger.epoch

    # --- vouching ---

    def stands_for(self, report: Report, now: float) -> bool:
        """Whether this elector vouches for the report (rule 5.3)."""
        ledger = self.record.ledger
        if self.pending is not None or ledger.master != report.name or self.has_renounced(report):
            return False
        if self._rival(report, now) or self._is_fenced(report):
            return False
        if report.holding == ledger.epoch or (report.holding is None and report.lineage and self._frozen()):
            return True  # under a hold also for what a dead tree left, so that it is demoted under a lease
        return report.ready and not ledger.yielding and self._young(now)

    def _young(self, now: float) -> bool:
        return self.accepted_at is not None and now <= self.accepted_at + self.timing.lease

    def _rival(self, report: Report, now: float) -> bool:
        """Another boot of the same name may still hold a lease (rule 5.5)."""
        mine = (BLIND, report.boot, *report.lineage)
        frozen = self._frozen()
        return any(boot not in mine for boot, until in self.guards.items() if frozen or until > now)

    def _is_fenced(self, report: Report) -> bool:
        fenced = self.record.ledger.fenced
        if fenced is None or (fenced.name, fenced.epoch) != (report.name, self.record.ledger.epoch):
            return False
        return fenced.boot is None or fenced.boot in (report.boot, *report.lineage)

    def raise_guard(self, report: Report, received: float) -> None:
        """Having vouched, keep every other master away until its lease and grace have passed (rule 5.4)."""
        until = received + self.timing.span
        self.guards[report.boot] = max(until, self.guards.get(report.boot, until))
