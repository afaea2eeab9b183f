"""The elector process: the node's port, the election, the ledger, and what clients ask.

A shell around koi.core.elector: datagrams and the clock in, effects out. It answers reports while the disk writes.
"""

from __future__ import annotations

import random
from typing import Any

from koi import __version__, log
from koi.config import Config
from koi.core.effects import WARNING, Become, Done, EndFence, Journal, Log, Persist, RunFence, Send
from koi.core.elector import Elector
from koi.core.ledger import Record
from koi.core.messages import Report, Request, State, Vouch, Witness
from koi.core.pipe import FailuresList, NodeBegun, NodeResult, Pids, Stop
from koi.core.seat import Seat
from koi.errors import KoiError
from koi.proc import files, speech
from koi.proc.child import BEAT, Context
from koi.proc.control import Control
from koi.proc.fence import Fence
from koi.proc.journal import JournalFile
from koi.proc.leaders import Leaders
from koi.proc.loop import now as clock
from koi.proc.reload import Reconfigured
from koi.proc.troubles import Troubles
from koi.proc.writer import Writer

MAX_TURN = 128
"""Datagrams taken in one turn of the loop."""


def main(context: Context) -> None:
    """Run the elector until root tells it to stop or ends."""
    ElectorProcess(context).run()


def load_record(path: str, electors: tuple[str, ...]) -> Record | None:
    """The record on disk; None when there is none or it cannot be read, which makes the elector blank (rule 2.2)."""
    try:
        content = files.read_json(path)
        record = None if content is None else files.parse_record(content)
    except (OSError, ValueError) as error:
        log.get().error(f"{path} cannot be read ({error}); this elector starts blank and asks the others")
        return None
    fault = files.electors_fault(path, record, electors)
    if fault:
        raise KoiError(fault)
    return record


def witness_of(config: Config) -> Witness | None:
    """What this node says of itself when no runner does."""
    return None if config.node.runner else Witness(__version__, config.node.mode, config.node.preference)


def standing_aside(seconds: float | None) -> tuple[str, ...]:
    """What there is to warn of while an elector that has just started counts for nothing, for so many seconds more."""
    if seconds is None:
        return ()
    how_long = "while the hold lasts" if seconds == float("inf") else f"for {seconds:.1f} s more"
    why = "it may have stood for another one before it started"
    return (f"stands for no master {how_long}, because {why}; until then one elector less can be lost",)


def turn(effect: Any) -> int:
    """A new master begins on vouches alone, and reports when nudged; electors write what they are sent, people can wait.
    Whatever must not be sent before a write is not among the effects until that is done."""
    if isinstance(effect, Send):
        message = effect.message
        begins = isinstance(message, Vouch) or (isinstance(message, State) and message.nudge)
        return 0 if begins else 1 if isinstance(effect.to, str) else 3
    return 2 if isinstance(effect, Persist) else 4 if isinstance(effect, (Become, Journal, Log)) else 3


class ElectorProcess:
    """Sockets, disk and clock around one Elector."""

    def __init__(self, context: Context) -> None:
        self.context, self.config = context, context.config
        config = context.config
        files.prepare_folder(config.node.state_dir, "node.state_dir")
        path = f"{config.node.state_dir}/elector.json"
        boot = speech.new_boot()
        self.electors = speech.Electors(config)
        self.endpoint = speech.open_endpoint(config, config.cluster.bind, config.cluster.port, boot)
        self.electors.speaks(self.endpoint, config.node.name)
        names = config.cluster.electors.names
        record = load_record(path, names)
        majority = len(names) // 2 + 1
        quorum = None if config.cluster.quorum == majority else config.cluster.quorum
        seat = Seat(config.node.name, names, boot.hex(), config.node.rank, quorum, config.cluster.preempt, config.digest,
                    config.cluster.fence is not None, witness_of(config))
        self.fence = Fence(context.loop, config.cluster.fence, self._fence_ended)
        self.machine = Elector(seat, config.timing, record, random.SystemRandom(), clock())
        self.writer = Writer(path)
        self.journal = JournalFile(f"{config.node.state_dir}/journal.jsonl", config.node.name)
        self.leaders = Leaders(config.node.name)
        self.control = Control(self)
        self.noise_told: dict[str, Any] = {}
        self.pids = Pids(0, None, None, ())
        self.role = self.machine.roles.role
        self.troubles = Troubles(config.timing.heartbeat)

    def run(self) -> None:
        """The process's life."""
        context = self.context
        for fd in self.endpoint.filenos():
            context.loop.add(fd, self._datagrams)
        context.loop.add(self.writer.fileno(), self._written)
        self.electors.attach(context.loop)
        context.on_message(self._message)
        context.title(self.role)
        if lost := self.electors.lost(self.config.node.name):
            log.get().warning(lost)
        self.carry_out(self.machine.start(clock()))
        try:
            context.run(self._deadline, self._due)
        finally:
            self.fence.end()  # whoever leads next runs it anew

    # --- events ---

    def _datagrams(self) -> None:
        self._look_after_itself(clock())
        for address, sender, message, _ in self.endpoint.receive(MAX_TURN):
            self._datagram(address, sender, message, clock())
        self.electors.note_noise(self.endpoint, clock())
        if len(self.endpoint.noise) > len(self.noise_told):
            speech.count_noise(self.endpoint, self.noise_told)

    def _datagram(self, address: Any, sender: str, message: Any, now: float) -> None:
        if isinstance(message, Report):
            if sender == message.name:
                self.carry_out(self.machine.report(address, message, now))
        elif isinstance(message, Request):
            self.control.request(address, message, now)
        elif isinstance(message, (Vouch, State)) or not self.electors.is_from(sender, address):
            speech.count_stranger(self.endpoint, address, sender, message)
        elif sender != self.config.node.name:
            self.carry_out(self.machine.receive(sender, message, now))

    def _written(self) -> None:
        number, writer = self.writer.done(), self.writer
        self.troubles.note_disk(writer.path, writer.trouble, writer.take_longest(), self.config.timing.leader_timeout / 6)
        self.carry_out(self.machine.persisted(number, clock()))

    def _message(self, message: Any) -> None:
        if isinstance(message, Pids):
            self.pids = message
        elif isinstance(message, NodeBegun):
            self.control.node_begun(message.command)
        elif isinstance(message, NodeResult):
            self.control.node_result(message, clock())
        elif isinstance(message, Reconfigured):
            self.config = message.config
        elif isinstance(message, FailuresList):
            self.control.failures_list(message)
        elif isinstance(message, Stop):
            self.carry_out(self.machine.resign("its elector ends, for a stop or a new configuration", clock()))
            self.writer.finish()
            self.context.exit(0)

    def _deadline(self) -> float:
        return min(self.machine.deadline(), self.control.deadline(), self.electors.deadline(), self.fence.deadline())

    def warnings(self, now: float) -> tuple[str, ...]:
        """What this process has to warn of about its machine and itself, to stand after "elector NAME"."""
        return (*self.troubles.texts(now), *self.electors.warnings(), *standing_aside(self.machine.acceptor.stands_aside(now)))

    def _look_after_itself(self, now: float) -> None:
        self.troubles.note_late(self.context.loop.take_late(), now)
        self.machine.roles.shell_warnings = self.warnings(now)

    def _due(self, now: float) -> None:
        self._look_after_itself(now)
        self.electors.handle_timer(now)
        self.fence.handle_timer(now)
        if now >= self.machine.deadline():
            self.carry_out(self.machine.handle_timer(now))
        if now >= self.control.deadline():
            self.control.handle_timer(now)

    # --- effects ---

    def carry_out(self, effects: list[Any]) -> None:
        """Do what the core asks for, what is waited for most first; among equals in order."""
        for effect in sorted(effects, key=turn):
            if isinstance(effect, Send):
                self._send(effect.to, effect.message)
            elif isinstance(effect, Persist):
                self.writer.submit(effect.number, effect.record)
            elif isinstance(effect, Done):
                self.control.done(effect, clock())
            elif isinstance(effect, Become):
                self._become(effect)
            elif isinstance(effect, Journal):
                self.journal.write(effect)
            elif isinstance(effect, RunFence):
                self.fence.run(effect.node, effect.epoch)
            elif isinstance(effect, EndFence):
                self.fence.end()
            elif isinstance(effect, Log):
                log.write(effect.level, effect.text)
        self._note(self.leaders.look(self.machine.roles))
        self.context.signs.show(BEAT, self.machine.roles.beat_at or 0.0)
        self.control.changed(clock())

    def _fence_ended(self, node: str, epoch: int, ok: bool, what: str) -> None:
        now = clock()
        self.carry_out(self.machine.fence_ended(node, epoch, ok, what, now))

    def _send(self, to: Any, message: Any) -> None:
        if isinstance(to, str):
            self.endpoint.send_all(self.electors.addresses.get(to, ()), message)
        else:
            self.endpoint.send(to, message)

    def _become(self, effect: Become) -> None:
        log.write(WARNING if effect.new == "candidate" else "info", f"{effect.old} -> {effect.new}: {effect.why}")
        self.role = effect.new
        self.context.title(effect.new)
        self._note(self.leaders.become(effect, self.machine.roles))

    def _note(self, entry: Journal | None) -> None:
        if entry is not None:
            self.journal.write(entry)
