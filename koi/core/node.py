"""The services of one node taken together: what they said last, what they are told, and the node's state.

Rule: orders follow the priorities, and a service goes up only while everything below it is up. What follows from the
services' states is drawn anew only when one of them changes. runner.py decides when a lease begins and ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

from koi.core.effects import Become, Tell
from koi.core.ordering import ENDED, PROMOTED, STARTED, STOPPED, demoted, downward, reached, upward
from koi.core.pipe import Freeze, Order, ServiceState

if TYPE_CHECKING:
    from koi.core.runner import RunnerSettings

HOLD = "hold"
"""service.stuck: nobody is promoted until a stuck node is known to be clean; otherwise others take over."""

STATES = ("Stopped", "Live", "Backup", "Master", "Failed")


class Node:
    """What a runner knows of its node's services, and how it drives them."""

    def __init__(self, settings: RunnerSettings, priorities: dict[str, Optional[int]], holding: Optional[int]) -> None:
        self.settings, self.priorities = settings, priorities
        self.holding = holding
        """The epoch under which this node may be promoted."""
        self.letting_go = ""
        """Why the epoch is being given up; empty while it is not."""
        self.state = STATES[0]
        self.services: dict[str, ServiceState] = {}
        self.orders: dict[str, Order] = {}
        self.recovering: set[str] = set()
        self.stopped, self.stopping = settings.stopped, False
        self.failed = ""
        """The service that made the node fail."""
        self.retired: dict[str, Optional[int]] = {}
        """Services whose folder has vanished, which are being stopped, with their priorities."""
        self.disabled: set[str] = set()
        """Services that are not to be started."""
        self.detaching = False
        """koinode ends in maintenance and leaves its services as they are."""
        self.told_freeze: dict[str, bool] = {}
        self.maintenance: Optional[bool] = None
        """None: not known yet (rule 6.5)."""
        self.out: list[Any] = []
        self.ordered: Optional[tuple[Any, ...]] = None
        """The situation in which the last orders were given; None when they have to be given anew."""
        self._take_stock()

    # --- what the services said ---

    def _heard_from(self, state: ServiceState) -> None:
        known = self.services.get(state.info.name)
        if known is None or known.info.pid != state.info.pid:
            self.forget_orders(state.info.name)
        self.services[state.info.name] = state
        if not state.info.failed:
            self.recovering.discard(state.info.name)
        self._take_stock()

    def _take_stock(self) -> None:
        """What follows from the services' states alone."""
        self.ordered = None
        services = self.services
        self.levels = {level: self._all_reached(level) for level in (STOPPED, STARTED, PROMOTED)}
        self.all_demoted = all(demoted(services.get(name)) for name in (*self.priorities, *self.retired))
        self.knows_all = all(name in services for name in self.priorities)
        self.known_demoted = all(demoted(state) for state in services.values())
        self.live = next((name for name, state in services.items() if state.live), "")
        self.is_stuck = any(state.stuck and state.promoted for state in services.values())
        self.unclean = {name: p for name, p in self.priorities.items() if name in services and not services[name].clean}

    def _all_reached(self, level: str) -> bool:
        return all(reached(self.services.get(name), level) for name in self.priorities)

    def _all_ended(self) -> bool:
        return self.levels[STOPPED] and all(state.info.state in ENDED for state in self.services.values())

    def stuck(self) -> bool:
        """Whether demote and stop failed somewhere, so that it may still be active."""
        return self.is_stuck

    def blocks_others(self) -> bool:
        """Whether nobody else may be promoted because of it (service.stuck: hold)."""
        return self.is_stuck and self.settings.stuck == HOLD

    def stuck_beside_others(self) -> str:
        """What there is to tell of a stuck node beside which another may be promoted (service.stuck: takeover); else empty."""
        if not self.is_stuck or self.blocks_others():
            return ""
        names = ", ".join(name for name, state in self.services.items() if state.stuck and state.promoted)
        what = "may still be active, for demote and stop failed, and service.stuck is takeover, so another node may be master too"
        return f"{names} {what}; stop it by hand, then 'koi recover {self.settings.name}'"

    def _unfinished(self) -> str:
        """What keeps the node from being a backup, in words."""
        if self.live:
            return f"{self.live} says: running, but not ready to be promoted"
        words = [f"{name} is {self._word(name)}" for name in self.priorities if name in self.services
                 and not reached(self.services[name], STARTED)]
        return ", ".join(words) or "workers have not reported yet"

    def _word(self, name: str) -> str:
        return "disabled" if name in self.disabled else self.services[name].info.state

    # --- orders ---

    def level(self) -> str:
        """What the whole node is driven to."""
        if self.holding is not None and not self.letting_go:
            return PROMOTED
        if self.holding is not None and not (self.failed and self.all_demoted):
            return STARTED
        if self.stopping or self.stopped or self.failed:
            return STOPPED
        return STARTED

    def _give_orders(self, master: Optional[str]) -> None:
        if self.maintenance is None or self._is_frozen:
            return
        level = self.level()
        situation = (level, self.holding, master, self.state, self.failed, frozenset(self.recovering))
        if situation == self.ordered:
            return
        self.ordered = situation
        if self._stuck_again():
            self._order(downward(self.priorities, self._unexcused(), STOPPED), STOPPED, master)
        elif self.unclean:
            self._order(downward(self.unclean, self.services, STOPPED), STOPPED, master)
        elif level == STOPPED:
            self._order(downward(self.priorities, self.services, STOPPED), STOPPED, master)
        elif level == STARTED and not self.known_demoted:
            self._order(downward(self.priorities, self.services, STARTED), STARTED, master)
        else:
            wanted = {name: p for name, p in self.priorities.items() if name not in self.disabled}
            self._order(upward(wanted, self.services, level), level, master)
            self._order([name for name in self.priorities if name in self.disabled], STOPPED, master)
        self._order(list(self.retired), STOPPED, master)

    def _stuck_again(self) -> bool:
        """Whether demote and stop, which failed, are to be tried again: that comes first, and no other service waits to go up."""
        return any(name in self.recovering and state.stuck and state.promoted for name, state in self.services.items())

    def _unexcused(self) -> dict[str, ServiceState]:
        """The services, those that are tried again as ones that have to go down: stuck, they count as down elsewhere."""
        return {name: replace(s, stuck=False) if name in self.recovering else s for name, s in self.services.items()}

    @property
    def _is_frozen(self) -> bool:
        """Whether no order is given: maintenance, unless koinode ends under a lease that runs."""
        return bool(self.maintenance) and not (self.stopping and not self.detaching)

    def _tell_freeze(self) -> None:
        """Each worker hears whether there is maintenance; before that it runs nothing that it has not begun (rule 6.5)."""
        if self.maintenance is None:
            return
        for name in self.services:
            if self.told_freeze.get(name) != self._is_frozen:
                self.told_freeze[name] = self._is_frozen
                self.out.append(Tell(f"service:{name}", Freeze(self._is_frozen)))

    def _order(self, names: list[str], goal: str, master: Optional[str]) -> None:
        for name in names:
            state = self.services.get(name)
            idle = goal == STARTED and bool(self.letting_go) and name not in self.recovering
            if state is None or (idle and demoted(state)):
                continue
            retired = name in self.retired
            recover = name in self.recovering or (retired and state.info.failed)
            order = Order(name, goal, self.holding, master, self.state, self.failed or None, recover, retired)
            if order != self.orders.get(name):
                self.orders[name] = order
                self.out.append(Tell(f"service:{name}", order))

    def forget_orders(self, name: str) -> None:
        """The worker of this service is a new one: it has to be told again."""
        self.orders.pop(name, None)
        self.told_freeze.pop(name, None)
        self.ordered = None

    # --- what the node is ---

    def _name_state(self) -> None:
        state, why = self._state()
        if state != self.state:
            self.out.append(Become("runner", self.state, state, why))
            self.state = state

    def _state(self) -> tuple[str, str]:
        if self.failed:
            return "Failed", f"service {self.failed} failed"
        if self.holding is not None and not self.letting_go and self.levels[PROMOTED]:
            return "Master", f"every service is promoted, epoch {self.holding}"
        if self._all_ended() and (self.stopped or self.stopping or self.priorities):
            return "Stopped", "stopped by hand" if self.stopped else "every service is stopped"
        if self.levels[STARTED] and not self.live:
            return "Backup", self.letting_go or "every service is started"
        return "Live", self._unfinished()
