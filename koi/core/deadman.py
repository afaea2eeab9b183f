"""The worker's own deadline, docs/protocol.md section 7: no master outlives its lease by more than the grace.

Rule: whatever else dies, hangs or is late, a worker with a promoted service looks at the lease cell when the lease was
to end. From the end of the lease on, counted once (rule 6.4):

    at once        a running promote is killed
    grace / 4      no demote has come from the runner: the worker demotes by itself
    grace          not demoted: everything is killed

What a dead koinode left promoted owes the same: its lease went on after its death, and the run folder says until when.
A koinode that starts only after the grace kills what runs at once, for another node may be master, and then has one
grace for the demote.

Pure functions of the content of the lease cell: None (no lease), the point in time at which it ends, or inf; then what
they mean for a service.
"""

from __future__ import annotations

import math
from typing import Optional

from koi.core.effects import CRITICAL, KillAll
from koi.core.facts import Debt, Facts, Lease
from koi.core.states import DEMOTE, FAILED, LEAVING, SELF_FENCE

PATIENCE = 0.25
"""The part of the grace that a worker waits for the runner's own demote."""


def running(lease: Lease, now: float) -> bool:
    """Whether the lease runs at `now`; only then may a promote begin (rule 6.2)."""
    return lease is not None and now < lease


def lost_since(lost_at: Optional[float], lease: Lease, now: float, leaving: bool) -> Optional[float]:
    """Since when a promoted service is without a lease; None while it has one.

    No lease at all counts as ended at the moment it is first seen. A lease that was renewed late is good again, unless
    the service is `leaving` already: what is left of the grace is counted once (rule 6.4).
    """
    if running(lease, now):
        return lost_at if leaving else None
    if lost_at is not None:
        return lost_at
    return now if lease is None else lease


def counted_from(debt: Debt, grace: float) -> float:
    """From when the grace of what a dead tree left counts: the end of its lease; when that was too long ago, from now on."""
    return debt.found_at if overdue(debt.lease_end, min(grace, debt.grace), debt.found_at) else debt.lease_end


def decides_alone(debt: Debt, grace: float) -> float:
    """Until when a worker that was left something waits to be told of maintenance; then enough is left for a quick demote."""
    return counted_from(debt, grace) + (1 - PATIENCE) * min(grace, debt.grace)


def must_leave(lost_at: Optional[float], grace: float, now: float) -> bool:
    """Whether the worker waits no longer for the runner and demotes by itself."""
    return lost_at is not None and now >= lost_at + PATIENCE * grace


def overdue(lost_at: Optional[float], grace: float, now: float) -> bool:
    """Whether the time to demote is over."""
    return lost_at is not None and now >= lost_at + grace


def next_look(lost_at: Optional[float], lease: Lease, now: float, grace: float, leaving: bool) -> Optional[float]:
    """When a promoted service must be looked at next: once per lease, and at each step after its end."""
    if lost_at is None:
        if not running(lease, now):
            return now
        return None if lease == math.inf else lease
    return lost_at + grace if leaving else min(lost_at + PATIENCE * grace, lost_at + grace)


class Watched(Facts):
    """A service that is not promoted longer than its lease and grace allow."""

    __slots__ = ()

    @property
    def _grace(self) -> float:
        """G. What a dead tree left counts with the shorter of ours and that of its own lease, if this node has another G now."""
        owed = math.inf if self.clean or self.debt is None else self.debt.grace
        return min(self.settings.grace, owed)

    def owe(self, debt: Debt) -> None:
        """Rule 6.4 for what a dead tree left: counted from the end of its lease, whatever died since.

        In maintenance no guard runs out; the count begins with its end.
        """
        self.debt = debt
        if self.clean or self.frozen or not self.promoted:
            return
        self.lost_at = counted_from(debt, self.settings.grace)
        if self.lost_at == debt.lease_end:
            return
        late = debt.found_at - debt.lease_end
        what = f"a dead koinode left it, found {late:.1f} s after its lease had ended"
        self._log(CRITICAL, f"{self.settings.name} may still be promoted although another node may be master: {what}; "
                            "its processes are killed, then it is demoted")
        self._effects += (KillAll(what),)

    @property
    def _on_the_way(self) -> bool:
        return self.state in LEAVING or self.state == FAILED or self.forced

    def _watch(self, now: float, lease: Lease) -> None:
        """Rule 7: without a lease nothing stays promoted, whoever else is dead."""
        self.guarded = self.guarded or lease is not None  # also one that has ended: a worker before this one saw it run
        if not self.owes_demote:
            self.lost_at, self.forced = None, False
            return
        leaving = self._on_the_way and self.clean  # a lease of what was left is the electors' word, good whenever it comes
        self.lost_at = lost_since(self.lost_at, lease, now, leaving)
        if overdue(self.lost_at, self._grace, now):
            self._kill_everything()
        elif must_leave(self.lost_at, self._grace, now) and not self._on_the_way:
            self.forced = True

    def _next_look(self, now: float, lease: Lease) -> Optional[float]:
        if not self.owes_demote:
            return None
        return next_look(self.lost_at, lease, now, self._grace, self._on_the_way)

    def _kill_everything(self) -> None:
        """Not demoted in time (rule 7): kill, mark Failed, fence; then `stop` is still worth a try."""
        since = "the lease had ended" if self.clean else "the lease of the dead koinode that left it had ended, or it was found"
        what = f"not demoted within {self._grace:g} s after {since}"
        self._effects += (KillAll(what),)
        self._log(CRITICAL, f"{self.settings.name} was {what}: everything of it is killed; another node may be master now")
        self._fail(DEMOTE, None, self._grace, "", what)
        self.overrun, self.last_stop, self.lost_at, self.forced, self.debt = True, not self.stuck, None, False, None
        self.ending = self.ending or self.action is not None
        self.become(FAILED, what)
        if self.settings.self_fence:
            self._run(SELF_FENCE)
