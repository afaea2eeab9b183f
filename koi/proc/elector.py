"""The elector process: the node's port, the election, the ledger, and what clients ask.

A shell around koi.core.elector: datagrams and the clock in, effects out. It answers reports while the disk writes.
"""

from __future__ import annotations

import random
from typing import Any

from koi import log
from koi.core.effects import WARNING, Become, Done, Journal, Log, Persist, Send
from koi.core.elector import Elector
from koi.core.ledger import Record
from koi.core.messages import FailuresList, NodeResult, Pids, Report, Request, State, Stop, Vouch
from koi.core.seat import Seat
from koi.errors import KoiError
from koi.proc import files, speech
from koi.proc.child import Context
from koi.proc.control import Control
from koi.proc.journal import JournalFile
from koi.proc.loop import now as clock
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
    if record is not None and record.electors and len(set(record.electors) ^ set(electors)) > 1:
        raise KoiError(
            f"cluster.electors is {', '.join(electors)}, but this node last ran with {', '.join(sorted(record.electors))}:"
            f" more than one name differs, which could give two masters. Change one elector at a time on all nodes, or, with the"
            f" whole cluster stopped, remove {path} on every node"
        )
    return record


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
        names = config.cluster.electors.names
        record = load_record(path, names)
        majority = len(names) // 2 + 1
        quorum = None if config.cluster.quorum == majority else config.cluster.quorum
        seat = Seat(config.node.name, names, boot.hex(), config.node.rank, quorum, config.cluster.preempt, config.digest)
        self.machine = Elector(seat, config.timing, record, random.SystemRandom(), clock())
        self.writer = Writer(path)
        self.journal = JournalFile(f"{config.node.state_dir}/journal.jsonl", config.node.name)
        self.control = Control(self)
        self.noise_told: dict[str, Any] = {}
        self.pids = Pids(0, None, None, ())
        self.role = self.machine.roles.role
        self.disk_warning = ""

    def run(self) -> None:
        """The process's life."""
        context = self.context
        for fd in self.endpoint.filenos():
            context.loop.add(fd, self._datagrams)
        context.loop.add(self.writer.fileno(), self._written)
        context.on_message(self._message)
        context.title(self.role)
        self.carry_out(self.machine.start(clock()))
        context.run(self._deadline, self._due)

    # --- events ---

    def _datagrams(self) -> None:
        for address, sender, message, _ in self.endpoint.receive(MAX_TURN):
            self._datagram(address, sender, message, clock())
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
        number, trouble = self.writer.done(), self.writer.trouble
        if trouble and trouble != self.disk_warning:
            log.get().critical(f"{trouble}; this elector can neither vote nor accept a ledger until it can")
        longest = self.writer.take_longest()
        limit = self.config.timing.leader_timeout / 6
        if longest > limit:
            text = f"a write to {self.writer.path} took {longest:.2f} s, above {limit:.2f} s"
            log.get().warning(f"{text}: the disk is slow for time.failover")
            self.disk_warning = f"the disk of {self.config.node.name} took {longest:.2f} s for a write"
        elif trouble or not longest:
            self.disk_warning = trouble
        self.carry_out(self.machine.persisted(number, clock()))

    def _message(self, message: Any) -> None:
        if isinstance(message, Pids):
            self.pids = message
        elif isinstance(message, NodeResult):
            self.control.node_result(message, clock())
        elif isinstance(message, FailuresList):
            self.control.failures_list(message)
        elif isinstance(message, Stop):
            self.carry_out(self.machine.resign("koinode stops", clock()))
            self.context.exit(0)

    def _deadline(self) -> float:
        return min(self.machine.deadline(), self.control.deadline())

    def _due(self, now: float) -> None:
        if now >= self.machine.deadline():
            self.carry_out(self.machine.handle_timer(now))
        if now >= self.control.deadline():
            self.control.handle_timer(now)

    # --- effects ---

    def carry_out(self, effects: list[Any]) -> None:
        """Do what the core asks for, in order."""
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.to, effect.message)
            elif isinstance(effect, Persist):
                self.writer.submit(effect.number, effect.record)
            elif isinstance(effect, Done):
                self.control.done(effect, clock())
            elif isinstance(effect, Become):
                self._become(effect)
            elif isinstance(effect, Journal):
                self.journal.write(effect.what, effect.old, effect.new, effect.epoch, effect.reason)
            elif isinstance(effect, Log):
                log.write(effect.level, effect.text)
        self.control.changed(clock())

    def _send(self, to: Any, message: Any) -> None:
        if isinstance(to, str):
            self.endpoint.send_all(self.electors.addresses.get(to, ()), message)
        else:
            self.endpoint.send(to, message)

    def _become(self, effect: Become) -> None:
        log.write(WARNING if effect.new == "candidate" else "info", f"{effect.old} -> {effect.new}: {effect.why}")
        self.role = effect.new
        self.context.title(effect.new)
        if "leader" in (effect.old, effect.new):
            old, new = (self.config.node.name if role == "leader" else None for role in (effect.old, effect.new))
            self.journal.write("leader", old, new, None, effect.why)
