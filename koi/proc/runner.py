"""The runner process: reports to all electors, keeps the lease, orders the services.

A shell around koi.core.runner. On a node without an elector it owns the node's port and answers clients too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from koi import log
from koi.config import Config
from koi.core.effects import Become, Log, Remember, Send, SetLease, Tell
from koi.core.messages import Request, State, Vouch
from koi.core.pipe import (
    Failure,
    FailuresList,
    FailuresQuery,
    Held,
    NodeBegun,
    NodeCommand,
    NodeResult,
    Pids,
    Redefine,
    ServiceState,
    Stop,
    Stopped,
)
from koi.core.recovery import Recovery
from koi.core.runner import Runner, RunnerSettings
from koi.proc import files, speech
from koi.proc.child import Context
from koi.proc.failures import Failures
from koi.proc.folder import FolderWatch
from koi.proc.leasefile import LeaseFile
from koi.proc.loop import now as clock
from koi.proc.reload import Reconfigured
from koi.proc.runner_control import RunnerControl
from koi.proc.watchdog import Watchdog

MAX_TURN = 64


def main(context: Context) -> None:
    """Run the runner until root ends it."""
    RunnerProcess(context).run()


def remembered(path: str) -> Remember:
    """What node.json says; KoiError is not raised: an unreadable file counts as none, which is logged."""
    try:
        content = files.read_json(path) or {}
        return Remember(bool(content.get("stopped", False)), bool(content.get("maintenance", False)))
    except (OSError, ValueError, AttributeError) as error:
        log.get().error(f"{path} cannot be read ({error}); a stop by hand or maintenance before this start is forgotten")
        return Remember(False, False)


def exposed(machine: Runner) -> bool:
    """Whether something may be active that only a running lease allows; what was left stays so in maintenance, guarded."""
    may_be_active = machine.left and (machine.is_stuck or not machine.all_demoted)
    return machine.holding is not None or (may_be_active and machine.maintenance is not True)


def turn(effect: Any) -> int:
    """When an effect is carried out: nobody waits for what comes later."""
    return 2 if isinstance(effect, (Become, Log)) else 1 if isinstance(effect, Send) else 0


class RunnerProcess:
    """Socket, workers and clock around one Runner."""

    def __init__(self, context: Context) -> None:
        self.context, self.config = context, context.config
        config = context.config
        files.prepare_folder(config.node.state_dir, "node.state_dir")
        self.node_file = f"{config.node.state_dir}/node.json"
        self.lease_file = LeaseFile(config.node.run_dir)
        boot = speech.new_boot()
        self.owns_port = not config.node.elector
        self.electors = speech.Electors(config)
        self.endpoint = speech.open_endpoint(config, config.cluster.bind, config.cluster.port if self.owns_port else 0, boot)
        self.electors.speaks(self.endpoint, config.node.name)
        self.failures = Failures(f"{config.node.state_dir}/failures.json", config.node.name)
        self.machine = Runner(
            self._settings(boot.hex()), config.timing, {d.name: d.priority for d in context.definitions}, self._recovery(config),
            context.heritage, clock(),
        )
        self.control = RunnerControl(self) if self.owns_port else None
        path, timing = config.node.watchdog, config.timing
        self.watchdog = Watchdog(path, timing.lease, timing.grace) if path is not None else None
        self.noise_told: dict[str, Any] = {}
        self.folder = FolderWatch(config, context.definitions, clock())
        self.machine.disabled.update(one.name for one in context.definitions if one.disabled)
        self.pids = Pids(0, None, None, ())

    def _settings(self, boot: str) -> RunnerSettings:
        config, kept = self.config, remembered(self.node_file)
        return RunnerSettings(
            config.node.name, boot, config.cluster.electors.names, config.cluster.quorum, config.node.mode,
            config.node.preference, config.cluster.port, self.context.release, config.digest, config.service.stuck,
            kept.stopped, kept.maintenance, config.stands_in,
        )

    def _recovery(self, config: Config) -> Recovery:
        service, time = config.service, config.time
        return Recovery(service.auto_recover, service.auto_recover_wait_factor, time.auto_recover_time, time.failcount_reset)

    def run(self) -> None:
        """The process's life."""
        context = self.context
        for fd in self.endpoint.filenos():
            context.loop.add(fd, self._datagrams)
        self.electors.attach(context.loop)
        context.on_message(self._message)
        context.title(self.machine.state)
        context.send("root", Held(self.machine.settings.boot, self.machine.holding, self.machine.renounced))
        self.machine.root_seen(clock())
        self._write_watchdog(clock())
        self.carry_out(self.machine.start(clock()))
        try:
            context.run(self._deadline, self._due)
        finally:
            self.failures.save()

    # --- events ---

    def _deadline(self) -> float:
        own = min(self.machine.deadline(), self.electors.deadline(), self.folder.due, self.failures.due)
        return own if self.watchdog is None else min(own, self.watchdog.due)

    def _look_around(self) -> None:
        """What elector and root show without a message."""
        self.machine.root_seen(self.context.root_seen())
        self.machine.beat_at = self.context.beat_at()

    def _due(self, now: float) -> None:
        self._look_around()
        self._write_watchdog(now)
        self.electors.handle_timer(now)
        if now >= self.failures.due:
            self.failures.save()
        if now >= self.folder.due:
            self._look_at_folder(now)
        self.carry_out(self.machine.handle_timer(now))

    def _datagrams(self) -> None:
        self._look_around()
        for address, sender, message, _ in self.endpoint.receive(MAX_TURN):
            if isinstance(message, (Vouch, State)) and self.electors.is_from(sender, address):
                self.machine.hear(sender, message, clock())
            elif isinstance(message, Request) and self.control is not None:
                self.control.request(address, message)
            else:
                speech.count_stranger(self.endpoint, address, sender, message)
        self.carry_out(self.machine.handle_timer(clock()))
        if len(self.endpoint.noise) > len(self.noise_told):
            speech.count_noise(self.endpoint, self.noise_told)

    def _message(self, message: Any) -> None:
        self._look_around()
        now = clock()
        if isinstance(message, ServiceState):
            self.carry_out(self.machine.service(message, now))
        elif isinstance(message, Failure):
            self.failures.add(message, now)
            self.machine.failure(message)
        elif isinstance(message, NodeCommand):
            self.command(message)
        elif isinstance(message, FailuresQuery):
            self.context.send("elector", FailuresList(message.id, tuple(self.failures.entries)))
        elif isinstance(message, Pids):
            self._pids(message)
        elif isinstance(message, Reconfigured):
            self._reconfigure(message.config, now)
        elif isinstance(message, NodeResult) and self.control is not None:
            self.control.node_result(message)
        elif isinstance(message, Stop):
            self.carry_out(self.machine.stop(now))

    def _look_at_folder(self, now: float) -> None:
        """New, changed and vanished services; root hears first, so that there is a worker."""
        for name, definition in self.folder.changes(now).items():
            if definition is None:
                text = f"the folder of {name} has vanished: it is demoted and stopped with what is left of its scripts"
                log.get().warning(text)
                self.carry_out(self.machine.retire(name, now))
            else:
                log.get().info(f"{definition.path} is {'changed' if name in self.machine.services else 'new'}")
                self.context.send("root", Redefine(definition))
                self.carry_out(self.machine.define(name, definition.priority, definition.disabled, now))
        self.machine.folder_fault = self.folder.fault

    def command(self, command: NodeCommand) -> None:
        """start, stop or recover of this node."""
        log.get().info(f"{command.verb} of this node asked by {command.origin}{': ' + command.reason if command.reason else ''}")
        self.carry_out(self.machine.command(command, clock()))

    def _reconfigure(self, config: Config, now: float) -> None:
        """What a runner can take over as it is; for the rest root replaces it."""
        self.config, machine, new = config, self.machine, self._recovery(config)
        machine.mode = config.node.mode
        machine.settings = replace(
            machine.settings, mode=config.node.mode, preference=config.node.preference, stuck=config.service.stuck,
            config=config.digest, warning=config.stands_in,
        )
        machine.recovery = replace(new, count=machine.recovery.count, recent=machine.recovery.recent)
        self.folder.reconfigured(config, now)
        self.carry_out(machine.handle_timer(now))

    def _pids(self, pids: Pids) -> None:
        """A worker with another pid is a new one, which knows of no order."""
        known = dict(self.pids.services)
        for name, pid in pids.services:
            if pid is not None and known.get(name) not in (None, pid):
                self.machine.forget_orders(name)
        self.pids = pids
        self.carry_out(self.machine.handle_timer(clock()))

    def _write_watchdog(self, now: float) -> None:
        """While this node may be master, or has services that a dead tree left, only a running lease counts."""
        if self.watchdog is None:
            return
        machine = self.machine
        end = machine.told_lease or 0.0
        self.watchdog.look(now, end if exposed(machine) else None, self.context.cell.grace)
        if self.watchdog.trouble and self.watchdog.trouble != machine.watchdog_trouble:
            log.get().error(f"{self.watchdog.trouble}; this node is not promotable without it")
        machine.watchdog_trouble = self.watchdog.trouble

    # --- effects ---

    def carry_out(self, effects: list[Any]) -> None:
        """Do what the core asks for, in order, but datagrams after what goes to processes of this node, for each takes 0.3 ms;
        last what is only told to people. A report counts from when the core made it, so it may be later (rule 6.1)."""
        for effect in sorted(effects, key=turn):
            if isinstance(effect, Send):
                self.endpoint.send_all(self.electors.addresses.get(effect.to, ()), effect.message)
            elif isinstance(effect, SetLease):
                self.context.cell.write(effect.end, effect.grace)
                self.lease_file.write(effect.end, self.context.cell.grace)
            elif isinstance(effect, Tell):
                self._tell(effect.to, effect.message)
            elif isinstance(effect, Become):
                log.get().info(f"{effect.old} -> {effect.new}: {effect.why}")
                self.context.title(effect.new)
            elif isinstance(effect, Log):
                log.write(effect.level, effect.text)
            elif isinstance(effect, Remember):
                self._remember(effect)

    def _tell(self, to: str, message: Any) -> None:
        if to == "failures":
            self.failures.add(message, clock())
        elif isinstance(message, Stopped) and self.watchdog is not None:
            self.watchdog.close()
        if isinstance(message, NodeBegun) and self.control is not None:
            self.control.node_begun(message.command)
        elif isinstance(message, NodeResult) and self.control is not None:
            self.control.node_result(message)
        else:
            self.context.send(to, message)

    def _remember(self, kept: Remember) -> None:
        try:
            content = {"format": files.FORMAT, "stopped": kept.stopped, "maintenance": kept.maintenance}
            files.write_json(self.node_file, content)
        except OSError as error:
            log.get().error(f"{self.node_file} cannot be written: {error.strerror}; a restart of koinode forgets a stop by hand")
