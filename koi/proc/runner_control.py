"""What clients ask of a node without an elector: its own affairs are answered, all else is redirected.

Redirects go to the leader that the electors named last, else to each elector in turn (docs/guide.md, Programs).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Optional

from koi import __version__
from koi.core.messages import Request
from koi.core.pipe import NodeCommand, NodeResult
from koi.names import written
from koi.proc.asked import entries_wanted, journaled, node_command
from koi.proc.journal import JournalFile
from koi.proc.reload import Reconfigure
from koi.proc.replies import Replies, arguments
from koi.proc.snapshot import services
from koi.wire.udp import Address

if TYPE_CHECKING:
    from koi.proc.runner import RunnerProcess

OWN = ("start", "stop", "recover", "restart")


def own_host(towards: Address) -> Optional[str]:
    """The own address on the way to another; nothing is sent. None where there is no way."""
    family = socket.AF_INET6 if ":" in towards[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(towards)
            return str(probe.getsockname()[0])
        except OSError:
            return None


class RunnerControl:
    """The requests of one runner process."""

    def __init__(self, shell: RunnerProcess) -> None:
        self.shell = shell
        self.replies = Replies(shell.endpoint)
        config = shell.config
        self.journal = JournalFile(f"{config.node.state_dir}/journal.jsonl", config.node.name)
        self.turn = 0

    def request(self, address: Address, request: Request) -> None:
        """A client asks."""
        if self.replies.repeated(address, request):
            return
        given = arguments(request)
        here = given.get("node") in (None, self.shell.config.node.name)
        if request.command == "local":
            self.replies.answer(request.id, self._local())
        elif request.command == "failures" and here:
            self.replies.answer(request.id, {"failures": list(self.shell.failures.entries)})
        elif request.command == "why" and given.get("node") == self.shell.config.node.name:
            self.replies.answer(request.id, {"entries": self.journal.newest(entries_wanted(request))})
        elif request.command in OWN and here:
            self._own(request)
        elif request.command == "reconfigure" and here:
            self.shell.context.send("root", Reconfigure(request.id, "runner"))
        else:
            self._redirect(request)

    def node_begun(self, command: NodeCommand) -> None:
        """A command is being carried out: only now it is a change that `why` tells of."""
        self.journal.write(journaled(command, self.shell.config.node.name, self._epoch()))
        if command.no_wait:
            self.replies.answer(command.id, {"done": True, "message": f"{command.verb} has begun", "epoch": self._epoch()})

    def node_result(self, result: NodeResult) -> None:
        """A command has its effect, or failed."""
        if result.done:
            self.replies.answer(result.id, {"done": True, "message": result.message, "epoch": self._epoch()})
        else:
            self.replies.refuse(result.id, result.message)

    def _own(self, request: Request) -> None:
        self.replies.progress(request.id, f"{request.command} of {self.shell.config.node.name} is under way")
        self.shell.command(node_command(request))

    def _redirect(self, request: Request) -> None:
        electors = self.shell.electors
        address = electors.first(self.shell.machine.lease.leader())
        if address is None:
            names = sorted(name for name, addresses in electors.addresses.items() if addresses)
            address = electors.first(names[self.turn % len(names)]) if names else None
            self.turn += 1
        if address is None:
            self.replies.refuse(request.id, "no elector of cluster.electors has an address that can be resolved")
        else:
            self.replies.redirect(request.id, address)

    def _epoch(self) -> int:
        newest = self.shell.machine.lease.newest()
        return newest.epoch if newest is not None else 0

    def _address(self) -> Optional[str]:
        """Where this node answers clients: the address from which it speaks to the leader."""
        electors = self.shell.electors
        towards = electors.first(self.shell.machine.lease.leader()) or electors.first(next(iter(electors.addresses), None))
        host = None if towards is None else own_host(towards)
        if host is None:
            return None
        return written((host, self.shell.config.cluster.port))

    def _local(self) -> dict[str, Any]:
        machine, pids = self.shell.machine, self.shell.pids
        report = machine.reporter.last
        newest = machine.lease.newest()
        return {
            "name": self.shell.config.node.name, "address": self._address(), "elector": None, "runner": True,
            "state": machine.state, "mode": machine.mode, "promotable": bool(report and report.ready),
            "preference": machine.settings.preference, "seen": 0.0, "uptime": report.uptime if report else 0.0,
            "failcount": machine.recovery.count,
            "last_failure": machine.last_failure, "version": __version__,
            "services": services(s.info for s in machine.services.values()), "why": report.why if report else "",
            "recovers_in": report.recovers_in if report else None, "stopped": machine.stopped,
            "failed_ago": report.failed_ago if report else None,
            "failed": bool(machine.failed), "stuck": machine.stuck(), "holding": machine.holding,
            "pids": {"root": pids.root, "elector": pids.elector, "runner": pids.runner, "services": dict(pids.services)},
            "leader": machine.lease.leader(), "master": newest.master if newest is not None else None,
        }
