"""Elector and runner of a simulated machine: the real core, fed and obeyed as the shell would."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Callable, Optional

from koi.core.commands import Command
from koi.core.effects import Become, Done, Log, Persist, Remember, Send, SetLease, Tell
from koi.core.elector import Elector
from koi.core.ledger import Record
from koi.core.messages import Report, State, Vouch
from koi.core.pipe import Freeze, Held, Heritage, NodeCommand, NodeResult, Order, Stopped
from koi.core.recovery import Recovery
from koi.core.runner import Runner, RunnerSettings
from koi.core.seat import Seat
from tests.sim.world import Process

if TYPE_CHECKING:
    from tests.sim.host import Host

PIPE_S = 0.0001
"""How long a message takes from one process of a node to another."""
RETRY_S = 0.1
"""How long after a failed write the next one is tried."""


class ElectorProcess(Process):
    """An elector with its disk."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.cluster.world, host.clock, f"{host.name}/elector")
        self.host, cluster = host, host.cluster
        seat = Seat(host.name, cluster.electors, host.new_boot(), host.rank, cluster.quorum)
        disk = host.disk if host.disk is not None or cluster.blank_rule else Record()
        self.machine = Elector(seat, cluster.timing, disk, Random(cluster.world.random.random()), host.clock.read())
        cluster.switch("elector", self.machine)
        self.slot: Optional[Persist] = None
        """What is to be written next."""
        self.writing = False
        self._carry_out(self.machine.start(host.clock.read()))

    def deadline(self) -> Optional[float]:
        return self.machine.deadline()

    def wake(self) -> None:
        self._carry_out(self.machine.handle_timer(self.clock.read()))

    def receive(self, sender: str, message: Any) -> None:
        """A datagram of another elector."""
        self._carry_out(self.machine.receive(sender, message, self.clock.read()))

    def report(self, origin: tuple[str, str], report: Report) -> None:
        """A datagram of a runner."""
        self._carry_out(self.machine.report(origin, report, self.clock.read()))

    def command(self, command: Command) -> None:
        """An administrator's request."""
        self._carry_out(self.machine.command(command, self.clock.read()))

    def resign(self) -> None:
        """Before an orderly end."""
        self._carry_out(self.machine.resign("koinode stops", self.clock.read()))

    def _persisted(self, number: int) -> None:
        self._carry_out(self.machine.persisted(number, self.clock.read()))

    def _write(self) -> None:
        """One record at a time, and of those that wait only the newest (koi/proc/writer.py)."""
        if self.slot is not None and not self.writing:
            effect, self.slot, self.writing = self.slot, None, True
            self.world.after(self.host.disk_delay(), self._wrote, effect)

    def _wrote(self, effect: Persist) -> None:
        self.writing = False
        if not self.alive:
            return
        if self.host.full_disk:
            self.slot = self.slot or effect
            self.world.after(RETRY_S, self._write)
            return
        self.host.disk = effect.record
        self.host.cluster.watch.accepted(effect.record.version, effect.record.ledger)
        self._write()
        self.deliver(self._persisted, effect.number)

    def _carry_out(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.to, effect.message)
            elif isinstance(effect, Persist):
                self.slot = effect
                self._write()
            elif isinstance(effect, Done):
                self.host.cluster.watch.acknowledged(effect, self.machine.acceptor.record.ledger.recent)
            elif isinstance(effect, Become):
                self.world.say(self.name, f"{effect.old} -> {effect.new}: {effect.why}")
            elif isinstance(effect, Log):
                self.world.say(self.name, effect.text)
        lead = self.machine.roles.lead
        if lead is not None:
            self.host.cluster.watch.leads(self.host.name, lead.term)

    def _send(self, to: Any, message: Any) -> None:
        cluster = self.host.cluster
        if isinstance(to, tuple):
            target = cluster.hosts[to[0]]
            cluster.network.send(self.host.name, target.name, target.to_runner, to[1], self.host.name, message)
        else:
            target = cluster.hosts[to]
            cluster.network.send(self.host.name, target.name, target.to_elector, self.host.name, message)


class RunnerProcess(Process):
    """A runner; its services live on the host."""

    def __init__(self, host: Host, heritage: Heritage) -> None:
        super().__init__(host.cluster.world, host.clock, f"{host.name}/runner")
        self.host, cluster = host, host.cluster
        self.boot = host.new_boot()
        majority = cluster.quorum or len(cluster.electors) // 2 + 1
        settings = RunnerSettings(
            host.name, self.boot, cluster.electors, majority, preference=host.preference, stuck=host.stuck,
            stopped=host.remembered.stopped, maintenance=host.remembered.maintenance,
        )
        recovery = Recovery(120, 1.0, 1.0, 60.0)
        self.machine = Runner(settings, cluster.timing, dict(host.priorities), recovery, heritage, host.clock.read())
        cluster.switch("runner", self.machine)
        self.carry_out(self.machine.start(host.clock.read()))

    def deadline(self) -> Optional[float]:
        return self.machine.deadline()

    def wake(self) -> None:
        self.event(self.machine.handle_timer)

    def event(self, handle: Callable[..., list[Any]], *arguments: Any) -> None:
        """Any event; root is alive as long as the host is, and the elector shows when the last heartbeat came."""
        now, elector = self.clock.read(), self.host.elector
        self.machine.root_seen(now)
        self.machine.beat_at = self.machine.beat_at if elector is None else elector.machine.roles.beat_at
        self.carry_out(handle(*arguments, now))

    def answer(self, elector: str, message: Any) -> None:
        """An elector's datagram."""
        assert isinstance(message, (Vouch, State))
        self.event(self.machine.receive, elector, message)

    def command(self, verb: str) -> None:
        """start, stop or recover, from an administrator."""
        self.event(self.machine.command, NodeCommand(f"{self.name}-{self.world.events}", verb))

    def carry_out(self, effects: list[Any]) -> None:
        """Do what the runner asks for."""
        host, cluster = self.host, self.host.cluster
        for effect in effects:
            if isinstance(effect, Send):
                target = cluster.hosts[effect.to]
                cluster.network.send(host.name, target.name, target.to_elector_report, (host.name, self.boot), effect.message)
            elif isinstance(effect, SetLease):
                host.set_lease(effect.end, effect.grace)
            elif isinstance(effect, Remember):
                host.remembered = effect
            elif isinstance(effect, Tell):
                self._tell(effect.to, effect.message)
            elif isinstance(effect, Become):
                self.world.say(self.name, f"{effect.old} -> {effect.new}: {effect.why}")
            elif isinstance(effect, Log):
                self.world.say(self.name, effect.text)

    def _tell(self, to: str, message: Any) -> None:
        if isinstance(message, Held):
            previous = self.host.held
            self.host.note_held(message)
            if message.holding is not None and message.holding != previous.holding:
                self.host.cluster.watch.begins(self.host.name, message.holding)
        elif isinstance(message, (Order, Freeze)):
            worker = self.host.workers[to.removeprefix("service:")]
            handle = worker.order if isinstance(message, Order) else worker.freeze
            self.world.after(PIPE_S, worker.deliver, handle, message)
        elif isinstance(message, Stopped):
            self.host.stopped(message.detached)
        elif isinstance(message, NodeResult):
            self.world.say(self.name, f"{message.id}: {message.message}")
