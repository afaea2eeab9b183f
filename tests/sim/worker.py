"""A simulated worker: the real machine of one service, and its scripts, which only take time, fail or hang.

It begins and takes over as koi/proc/takeover.py does: what an earlier koinode left is touched only once the runner has
said whether there is maintenance.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any, Optional

from koi.core.deadman import decides_alone
from koi.core.effects import EndScript, KillAll, RunScript, Tell
from koi.core.facts import Debt
from koi.core.pipe import Freeze, Order, ServiceState
from koi.core.service import Service
from koi.core.states import Settings, farewell
from tests.sim.processes import PIPE_S
from tests.sim.world import Process

if TYPE_CHECKING:
    from tests.sim.host import Host

KILL_S = 1.0
"""From TERM to KILL."""


@dataclass
class Scripts:
    """How the scripts of a host behave: duration in seconds and chance of failure, by action."""

    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    failing: dict[str, float] = field(default_factory=dict)
    hanging: dict[str, float] = field(default_factory=dict)

    def draw(self, action: str, random: Random) -> tuple[Optional[float], int]:
        """Duration (None: it hangs) and exit code."""
        if random.random() < self.hanging.get(action, 0.0):
            return None, 0
        low, high = self.seconds.get(action, (0.01, 0.05))
        return random.uniform(low, high), int(random.random() < self.failing.get(action, 0.0))


class Worker(Process):
    """A service's machine and its scripts."""

    def __init__(
        self, host: Host, name: str, unclean: bool = False, last: Optional[ServiceState] = None, frozen: bool = False,
        debt: Optional[Debt] = None,
    ) -> None:
        """`last`: what its predecessor told; `unclean`: a koinode before this one left it, under the lease of `debt`;
        `frozen`: there is maintenance."""
        super().__init__(host.cluster.world, host.clock, f"{host.name}/{name}")
        self.host, self.service, self.scripts = host, name, host.scripts
        self.settings = settings = Settings(
            name, node=host.name, priority=host.priorities[name], grace=host.own_grace,
            promote_timeout=5.0, demote_timeout=5.0, start_timeout=8.0, stop_timeout=5.0,
        )
        self.unclean, self.last = unclean, last
        self.running = 0
        """Which script runs; an end of another one is of the past."""
        self.waits = unclean and not frozen
        """Nothing is touched before the runner says whether there is maintenance."""
        self.took_over = False
        self.debt = debt
        self.machine = Service.unclean(settings) if unclean else Service(settings)
        if last is not None and frozen:
            self._take_over()
        elif not self.waits:
            self._begin_anew()

    def _now(self) -> tuple[float, Optional[float]]:
        """The time and the lease; G is the electors' if that is the shorter, as in koi/proc/worker.py."""
        self.machine.settings = replace(self.settings, grace=min(self.settings.grace, self.host.cell_grace))
        return self.clock.read(), self.host.cell

    def _begin_anew(self) -> None:
        """Without maintenance what was left is demoted and stopped."""
        if self.unclean:
            self.machine = Service.unclean(self.settings)
        elif self.last is not None:
            self.machine = Service.adopted(self.settings, self.last)
        if self.debt is not None:
            self.machine.owe(self.debt)
        self.carry_out(self.machine.begin(*self._now()))

    def _take_over(self) -> None:
        """In maintenance all stays as it is."""
        if self.last is not None:
            self.machine = Service.adopted(self.settings, self.last)
        self.machine.frozen, self.machine.guarded = True, False
        if self.debt is not None:
            self.machine.owe(self.debt)
        self.took_over = True
        self.carry_out(self.machine.announce())

    def freeze(self, message: Freeze) -> None:
        """The runner's word: maintenance is on or off."""
        now, cell = self._now()
        if self.waits:
            self.waits = False
            (self._take_over if message.on else self._begin_anew)()
        elif not message.on and self.took_over:
            self.took_over = False
            self.carry_out(self.machine.freeze(False, now, cell))
            self.carry_out(self.machine.begin(*self._now()))
        else:
            self.carry_out(self.machine.freeze(message.on, now, cell))

    def deadline(self) -> Optional[float]:
        due = self.machine.deadline(*self._now())
        if self.waits and self.debt is not None and not self._covered:
            alone = decides_alone(self.debt, self.settings.grace)
            return alone if due is None else min(due, alone)
        return due

    @property
    def _covered(self) -> bool:
        """Whether the state folder's word keeps what was left promoted (koi/proc/takeover.py)."""
        return self.host.remembered.maintenance and self.debt is not None and self.debt.covered

    def wake(self) -> None:
        if self.waits and self.debt is not None and self.clock.read() >= decides_alone(self.debt, self.settings.grace):
            self.freeze(Freeze(self._covered))
        self.carry_out(self.machine.handle_timer(*self._now()))

    def order(self, order: Order) -> None:
        """The runner's wish."""
        self.carry_out(self.machine.order(order, *self._now()))

    def leave(self) -> None:
        """Root is gone: demote and stop; in maintenance leave all as it is, if the guards wait for it."""
        if self.detached_by_right():
            self.alive = False
            return
        self.order(farewell(self.machine.asked, self.service))

    def detached_by_right(self) -> bool:
        """Whether the service may be left as it is: it waits or is frozen, and is not promoted under a lease that ends."""
        return self.waits or self.machine.may_be_left(self.host.cell, self.host.leaving)

    @property
    def left(self) -> bool:
        """Whether it has nothing more to do after the death of root; what it had to demote in maintenance may be left then."""
        return not self.alive or self.machine.settled or (self.machine.action is None and self.detached_by_right())

    def announce(self) -> None:
        """A new runner asks."""
        self.carry_out(self.machine.announce())

    def _ended(self, number: int, action: str, exit: Optional[int], seconds: float) -> None:
        if number != self.running:
            return
        self.running += 1
        if exit == 0 and action in ("demote", "stop"):
            self.host.cluster.watch.inactive(self.host.name, self.service)
        self.world.say(self.name, f"{action} ended: {exit}")
        self.carry_out(self.machine.ended(action, exit, seconds, "", *self._now()))

    def carry_out(self, effects: list[Any]) -> None:
        """Do what the service asks for."""
        for effect in effects:
            if isinstance(effect, RunScript):
                self._run(effect)
            elif isinstance(effect, EndScript):
                signal = -9 if effect.at_once else -15
                self.world.after(0.001, self.deliver, self._ended, self.running, self.machine.action, signal, 0.1)
            elif isinstance(effect, KillAll):
                self.world.say(self.name, f"everything killed: {effect.why}")
                self.host.cluster.watch.inactive(self.host.name, self.service)
                if self.machine.action is not None:
                    self.world.after(0.001, self.deliver, self._ended, self.running, self.machine.action, -9, 0.1)
            elif isinstance(effect, Tell):
                self.world.after(PIPE_S, self.host.tell_runner, effect.message)

    def _run(self, effect: RunScript) -> None:
        action, host = effect.action, self.host
        if action == "promote":
            host.cluster.watch.promote(host.name, self.service)
        self.running += 1
        seconds, code = self.scripts.draw(action, self.world.random)
        self.world.say(self.name, f"{action} begins")
        timeout = effect.timeout
        if seconds is None or seconds > timeout:
            self.world.after(timeout + KILL_S, self.deliver, self._ended, self.running, action, None, timeout)
        else:
            self.world.after(seconds, self.deliver, self._ended, self.running, action, code, seconds)
