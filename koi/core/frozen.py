"""A service in maintenance: no script is begun, what ends meanwhile is kept, and afterwards `status` has the first word.

Rule: maintenance changes nothing about the lease. A promoted service whose lease ends is demoted although the runner
says maintenance, for only a lease without end (docs/protocol.md section 7) tells that a majority says so too. A service
that was taken over from a koinode that is gone waits with that until it has seen a lease, or until maintenance is over.
"""

from __future__ import annotations

import math
from typing import Optional

from koi.core.deadman import Watched
from koi.core.effects import INFO, WARNING
from koi.core.facts import Debt
from koi.core.states import PROMOTE, QUIET, RUN, STATUS, STOPPED


class Frozen(Watched):
    """A service that may be frozen."""

    __slots__ = ()

    @property
    def _may_act(self) -> bool:
        """Whether scripts may be begun: not in maintenance, unless the lease is lost (rule 7)."""
        return not self.frozen or self.lost_at is not None or self._owes_last_stop

    @property
    def _must_let_go(self) -> bool:
        """Whether the lease was lost although the service is frozen, and something must be done about it."""
        return self.forced or (self.action == PROMOTE and self.lost_at is not None) or self._owes_last_stop

    @property
    def _owes_last_stop(self) -> bool:
        """Everything of it was killed: nothing stays as it is any more, and a worker whose root is gone ends after `stop`."""
        return self.overrun and self.last_stop

    def _postpone(self, action: str, why: str) -> None:
        """The script that follows on one that ended in maintenance."""
        self.postponed = action, why
        self._log(INFO, f"{action} of {self.settings.name} waits for the end of maintenance: {why}")

    def _note_program_gone(self, name: str, exit: int) -> None:
        self.program_gone = self.program_gone or name == RUN
        self._log(WARNING, f"{name} of {self.settings.name} has ended (exit {exit}); in maintenance that is left as it is")

    def _thaw(self, now: float) -> None:
        """Maintenance is over: what has ended meanwhile is put right, and `status` is asked first."""
        self.guarded = True
        if self.debt is not None:
            self.owe(Debt(now, now, self.debt.grace))
        if self.program_gone and self.state in QUIET:
            self.up = False
            why = "its program has ended in maintenance"
            what = f"it was {self.state}, but {why}; it is put right"
            self._log(WARNING, f"{self.settings.name}: {what}")
            self._tell_failure(RUN, None, 0.0, "", what)
            self.become(STOPPED, why)
        self.program_gone = False
        if self.settings.status_interval is not None and self.state in QUIET:
            self.status_at, self.check_first = now, True

    def may_be_left(self, lease: Optional[float], orphaned: bool) -> bool:
        """Whether a worker may end and leave the service as it is: there is maintenance, and no lease that ends stands behind it.

        A promoted service whose lease ends is no longer waited for once the hold is over, so somebody has to demote it. One
        that is stuck under a hold is left to the next koinode by a worker whose root is gone (`orphaned`): a lease without end
        never ends for it, and while it waits no other koinode can begin.
        """
        if orphaned and self.stuck and self.action is None and lease == math.inf:
            return True
        return self.frozen and (not self.promoted or not self.guarded or lease == math.inf)

    @property
    def _checks(self) -> bool:
        """Whether `status` comes before all else."""
        return self.check_first and self.state in QUIET and self.lost_at is None and not self.failed

    def _checked(self, action: str) -> None:
        if action == STATUS:
            self.check_first = False
