"""What a runner does about what a koinode before it left (docs/protocol.md rules 5.3, 6.4 and 6.5).

Rule: what a detached tree held is held on, what a dead one left is demoted and stopped before anything is claimed; neither is
touched before it is known whether there is maintenance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from koi.core.effects import WARNING, Log, Remember, SetLease
from koi.core.lease import Lease
from koi.core.messages import ENDING, MAINTENANCE
from koi.core.upkeep import Upkept

if TYPE_CHECKING:
    from collections.abc import Callable

MAINTAINED = frozenset({MAINTENANCE, ENDING})
"""The holds under which no script is run; what a dead tree left is demoted already while maintenance ends (rule 9.1)."""

SUPERSEDED = ("another node was made master since: what may still be promoted here is demoted, also in maintenance, for two are"
              " active")
UNSURE = ("fewer than a majority of the electors say that there is maintenance, and the lease of what a dead koinode left here"
          " had an end: it is demoted, for another node may be made master")


class Heir(Upkept):
    """A node that may find something left."""

    lease: Lease
    left: bool
    owes: bool
    """What was left may be promoted."""
    covered: bool
    """Its lease was without end."""
    detached: Optional[int]
    renounced: Optional[int]
    awaits_lease: bool
    told_lease: Optional[float]
    hold_wait_until: float
    root_lost: bool
    if TYPE_CHECKING:
        _tell_held: Callable[[], None]
        _set_lease: Callable[[Optional[float], Optional[int]], None]

    def _look_at_left(self) -> None:
        """Once all that a dead tree left is demoted and stopped, its lease is no longer counted (rule 6.4)."""
        if self.left and self.all_demoted and not self.unclean:
            self.left = False
            self.told_lease = None if self.holding is None else self.told_lease
            self.out.append(SetLease(self.told_lease))

    def _learn_hold(self, now: float) -> None:
        """Rule 6.5: whether there is maintenance, from an elector, or from the state folder when none answers in time.

        That there is none is believed of fewer than a majority only after that time: this node's own elector was down with it,
        and may not have heard of it yet. That there is one is not, where it would leave something promoted.
        """
        holds = MAINTAINED if self.detached is not None or not self.left else frozenset({MAINTENANCE})
        frozen = self.lease.frozen(holds)
        if frozen is None and self.maintenance is None and now >= self.hold_wait_until:
            frozen = self.settings.maintenance
        early = self.maintenance is None and now < self.hold_wait_until
        if early and not frozen and self.lease.answered() < self.settings.majority:
            return
        unsure = bool(frozen) and self._is_unsure(holds)
        if early and unsure:
            return
        superseded = bool(frozen) and self._is_superseded()
        frozen = False if superseded or unsure else frozen
        if frozen is None or frozen == self.maintenance:
            return
        if self.maintenance is not None or frozen != self.settings.maintenance:
            self.out.append(Remember(self.stopped, frozen))
        if superseded:
            self.out.append(Log(WARNING, SUPERSEDED))
        elif unsure:
            self.out.append(Log(WARNING, UNSURE))
        if self.maintenance is None and self.left:
            self._take_up(frozen)
        self.maintenance = frozen
        self._tell_held()

    def _is_unsure(self, holds: frozenset[str]) -> bool:
        """Whether something may be promoted here, or be held on, whose guards run out unless a majority has accepted the hold.

        A cut off leader accepts a hold that nobody else hears of. A tree that lived under the hold of a majority had a lease
        without end, and that is known.
        """
        exposed = self.left and (self.owes or self.detached is not None) and not self.covered and not self.maintenance
        return exposed and self.lease.saying(holds) < self.settings.majority

    def _is_superseded(self) -> bool:
        """Whether something here may be promoted although another node was made master since: maintenance does not cover it."""
        if self.holding is not None:
            return self.lease.superseded(self.holding)
        return self.left and (self.owes or self.detached is not None) and self.lease.superseded(self.detached)

    def _take_up(self, frozen: bool) -> None:
        """What a detached tree held is held on in maintenance; else it counts as given up once all that was left is demoted.

        What a tree left that died without maintenance stays as it is meanwhile too, but is not given up: the end of
        maintenance waits until it is demoted.
        """
        detached, self.detached = self.detached, None
        self.owes = self.owes or detached is not None
        if frozen and detached is not None:
            self.left, self.holding, self.awaits_lease = False, detached, True
        elif detached is not None and (self.renounced is None or detached > self.renounced):
            self.renounced = detached

    def _count_lease_of_left(self) -> None:
        """Under a hold the electors vouch for what a dead tree left, so that its demote may take its time (rules 5.3 and 6.4).

        A demote that was begun is counted on in a maintenance that begins anew meanwhile; else what was left waits in it.
        """
        newest, begun = self.lease.newest(), self.maintenance is False or (self.maintenance and self.told_lease is not None)
        if not self.left or not begun or newest is None or self.root_lost:
            return
        end = self.lease.ends(newest.epoch)
        if end is not None:
            self._set_lease(end, newest.epoch)
