"""What clients ask of a node with an elector: answered here, passed to the runner, or redirected to who can.

`local` is answered by the node asked; start, stop and recover by the node named; all else by the leader (docs/guide.md,
Programs). Changing commands are answered when their effect is there; meanwhile the client hears progress.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from koi import __version__
from koi.core.commands import Command, Refused
from koi.core.data import dataclass
from koi.core.effects import Done
from koi.core.messages import STUCK, Request
from koi.core.pipe import FailuresList, FailuresQuery, NodeCommand, NodeResult
from koi.names import unknown_node
from koi.proc import plan
from koi.proc.asked import entries_wanted, journaled, node_command, origin
from koi.proc.conditions import Condition, parse
from koi.proc.holds import ActiveIs, MaintenanceIs, OffIs, PassiveIs
from koi.proc.reload import Reconfigure
from koi.proc.replies import Replies, arguments
from koi.proc.snapshot import Snapshot
from koi.wire.udp import Address

if TYPE_CHECKING:
    from koi.proc.elector import ElectorProcess

PROGRESS_S = 2.0
"""A client that waits hears something at least so often."""

MAX_WAITING = 64
NO_LEADER_S = 5.0
"""How long a command waits for a leader before it is refused; for its ledger to be agreed twice lease + grace longer."""
MAY_COME = "once electors can agree again the command may still be carried out; see 'koi status'"


@dataclass
class Waiting:
    """A client that waits for an effect."""

    request: Request
    condition: Optional[Condition]
    """None: the outcome comes by itself (Done, NodeResult)."""
    next_progress: float
    give_up: Optional[float] = None
    message: str = ""
    for_leader: bool = False
    since: float = 0.0
    told: str = ""
    """The last progress."""


class Control:
    """The requests of one elector process."""

    def __init__(self, shell: ElectorProcess) -> None:
        self.shell = shell
        self.replies = Replies(shell.endpoint)
        self.waiting: dict[str, Waiting] = {}
        self._commands: dict[str, Callable[[Request, float], None]] = {
            "local": self._local, "status": self._status, "tree": self._status, "wait": self._wait, "failures": self._failures,
            "reconfigure": self._reconfigure, "why": self._why, "plan": self._plan,
            "promote": self._cluster_command, "demote": self._cluster_command, "elect": self._cluster_command,
            "passive": self._cluster_command, "active": self._cluster_command, "maintenance": self._cluster_command,
            "start": self._node_command, "stop": self._node_command, "recover": self._node_command, "restart": self._node_command,
        }

    @property
    def name(self) -> str:
        """This node."""
        return str(self.shell.config.node.name)

    @property
    def _agree_s(self) -> float:
        """A ledger that names another master waits for guards; what is asked meanwhile waits for that ledger."""
        timing = self.shell.config.timing
        return float(NO_LEADER_S + 2 * (timing.lease + timing.grace))

    # --- events ---

    def request(self, address: Address, request: Request, now: float) -> None:
        """A client asks."""
        if self.replies.repeated(address, request):
            return
        if request.command not in self._commands:
            self.replies.refuse(request.id, f"{self.name} (version {__version__}) knows no command {request.command!r}")
        elif len(self.waiting) >= MAX_WAITING:
            self.replies.refuse(request.id, f"{MAX_WAITING} clients wait on {self.name} already; try again later")
        else:
            self._commands[request.command](request, now)

    def done(self, done: Done, now: float) -> None:
        """A command to the cluster is committed, or refused."""
        waiting = self.waiting.get(done.id)
        if waiting is None:
            return
        if not done.ok:
            self._end(done.id)
            self.replies.refuse(done.id, done.message)
        elif waiting.condition is None or arguments(waiting.request).get("no_wait"):
            self._succeed(waiting, done.message, done.epoch)
        else:
            waiting.message = done.message
            waiting.condition.committed(done.epoch)
            if done.already and waiting.condition.holds(Snapshot(self.shell, now)):
                self._succeed(waiting, done.message, done.epoch)

    def node_begun(self, command: NodeCommand) -> None:
        """A command to this node is being carried out: only now it is a change that `why` tells of."""
        self.shell.journal.write(journaled(command, self.name, self.shell.machine.acceptor.record.ledger.epoch))
        waiting = self.waiting.get(command.id)
        if waiting is not None and command.no_wait:
            self._succeed(waiting, f"{command.verb} of {self.name} has begun")

    def node_result(self, result: NodeResult, now: float) -> None:
        """A command to this node has its effect, or failed."""
        waiting = self.waiting.get(result.id)
        if waiting is None:
            return
        if result.done:
            self._succeed(waiting, result.message)
        else:
            self._end(result.id)
            self.replies.refuse(result.id, result.message)

    def failures_list(self, listed: FailuresList) -> None:
        """The runner's answer to FailuresQuery."""
        self.replies.answer(listed.id, {"failures": list(listed.failures)})

    def changed(self, now: float) -> None:
        """Something may have changed: does it end a wait?"""
        if not self.waiting:
            return
        snapshot = Snapshot(self.shell, now)
        for waiting in list(self.waiting.values()):
            self._look(waiting, snapshot, now)

    def deadline(self) -> float:
        """When the next progress is due."""
        return min((waiting.next_progress for waiting in self.waiting.values()), default=float("inf"))

    def handle_timer(self, now: float) -> None:
        """Tell those who wait that they are not forgotten."""
        snapshot = Snapshot(self.shell, now)
        for waiting in list(self.waiting.values()):
            self._look(waiting, snapshot, now)
            if waiting.request.id in self.waiting and now >= waiting.next_progress:
                self._progress(waiting, snapshot, now)

    def _progress(self, waiting: Waiting, snapshot: Snapshot, now: float, only_news: bool = False) -> None:
        words = waiting.condition.progress(snapshot) if waiting.condition is not None else waiting.message
        text = words or waiting.message or "waiting"
        if only_news and text == waiting.told:
            return
        waiting.next_progress, waiting.told = now + PROGRESS_S, text
        self.replies.progress(waiting.request.id, text)

    # --- waiting ---

    def _enlist(
        self, request: Request, condition: Optional[Condition], now: float, message: str = "", for_leader: bool = False,
        give_up: Optional[float] = None,
    ) -> Waiting:
        waiting = Waiting(request, condition, now + PROGRESS_S, give_up, message, for_leader, now)
        self.waiting[request.id] = waiting
        return waiting

    def _end(self, request_id: str) -> None:
        self.waiting.pop(request_id, None)

    def _succeed(self, waiting: Waiting, message: str, epoch: Optional[int] = None) -> None:
        self._end(waiting.request.id)
        if epoch is None:
            epoch = self.shell.machine.acceptor.record.ledger.epoch
        self.replies.answer(waiting.request.id, {"done": True, "message": message, "epoch": epoch})

    def _look(self, waiting: Waiting, snapshot: Snapshot, now: float) -> None:
        if waiting.for_leader and snapshot.lead is None:
            self._move_on(waiting, snapshot, now)
            return
        if waiting.condition is not None:
            verdict = waiting.condition.judge(snapshot)
            if verdict is not None and verdict.ok:
                took = "" if waiting.condition.epoch is None else f"; done in {now - waiting.since:.2f} s"
                self._succeed(waiting, verdict.message + took)
            elif verdict is not None:
                self._end(waiting.request.id)
                self.replies.refuse(waiting.request.id, verdict.message)
            elif waiting.condition.epoch is not None:
                self._progress(waiting, snapshot, now, only_news=True)
            elif waiting.condition.asked and now >= waiting.since + self._agree_s:
                self._end(waiting.request.id)
                self.replies.refuse(waiting.request.id, f"nothing can be agreed: {snapshot.nobody()}; {MAY_COME}")
        if waiting.give_up is not None and now >= waiting.give_up and waiting.request.id in self.waiting:
            self._end(waiting.request.id)
            self.replies.refuse(waiting.request.id, waiting.message)

    def _move_on(self, waiting: Waiting, snapshot: Snapshot, now: float) -> None:
        """This node does not lead (any more): send the client to who does."""
        leader = snapshot.address(snapshot.leader())
        if leader is not None and snapshot.leader() != self.name:
            self._end(waiting.request.id)
            self.replies.redirect(waiting.request.id, leader)
        elif waiting.give_up is not None and now >= waiting.give_up:
            self._end(waiting.request.id)
            self.replies.refuse(waiting.request.id, f"nothing can be agreed: {snapshot.nobody()}")

    # --- reading ---

    def _local(self, request: Request, now: float) -> None:
        snapshot = Snapshot(self.shell, now)
        more = {"pids": snapshot.pids(), "leader": snapshot.leader(), "master": snapshot.master()}
        self.replies.answer(request.id, snapshot.node(self.name) | more)

    def _status(self, request: Request, now: float) -> None:
        snapshot = Snapshot(self.shell, now)
        leader = snapshot.leader()
        address = snapshot.address(leader)
        if snapshot.lead is not None or leader is None or address is None:
            self.replies.answer(request.id, snapshot.status())
        else:
            self.replies.redirect(request.id, address)

    def _failures(self, request: Request, now: float) -> None:
        if self._named_elsewhere(request, now):
            return
        if not self.shell.config.node.runner:
            self.replies.answer(request.id, {"failures": []})
            return
        self.shell.context.send("runner", FailuresQuery(request.id))

    def _wait(self, request: Request, now: float) -> None:
        condition = parse(str(arguments(request).get("condition", "")))
        if isinstance(condition, str):
            self.replies.refuse(request.id, condition)
            return
        waiting, snapshot = self._enlist(request, condition, now, for_leader=True), Snapshot(self.shell, now)
        self._look(waiting, snapshot, now)
        if request.id in self.waiting:
            self._progress(waiting, snapshot, now)

    def _why(self, request: Request, now: float) -> None:
        """This node's own journal; who asks merges those of all nodes."""
        if not self._named_elsewhere(request, now):
            self.replies.answer(request.id, {"entries": self.shell.journal.newest(entries_wanted(request))})

    def _plan(self, request: Request, now: float) -> None:
        """`promote --dry-run`: what would happen; nothing is changed."""
        snapshot = Snapshot(self.shell, now)
        command = _command(request, "promote")
        if snapshot.lead is None or not snapshot.lead.committed():
            self._enlist(request, None, now, "waits for a majority of electors", True, now + NO_LEADER_S)
            self._move_on(self.waiting[request.id], snapshot, now)
            return
        planned = plan.promote(snapshot.view, command) if command.node in snapshot.names() else Refused(
            unknown_node(str(command.node), snapshot.names()))
        if isinstance(planned, Refused):
            self.replies.refuse(request.id, planned.message)
        else:
            epoch = snapshot.view.ledger.epoch
            self.replies.answer(request.id, {"done": False, "dry_run": True, "message": planned, "epoch": epoch})

    # --- changing ---

    def _cluster_command(self, request: Request, now: float) -> None:
        given, snapshot = arguments(request), Snapshot(self.shell, now)
        node = given.get("node")
        wanted: dict[str, Any] = {
            "promote": parse(f"master={node}"), "demote": parse("nobody"), "elect": parse("master"),
            "active": ActiveIs(str(node)), "passive": PassiveIs(str(node)), "maintenance": MaintenanceIs(bool(given.get("on"))),
        }
        if request.command in ("passive", "active") and node is None:
            self.replies.refuse(request.id, f"{request.command} needs the name of a node; nodes: {', '.join(snapshot.names())}")
        else:
            self._to_leader(request, _command(request, request.command), wanted[request.command], snapshot, now)

    def _to_leader(
        self, request: Request, command: Command, condition: Optional[Condition], snapshot: Snapshot, now: float
    ) -> None:
        waiting = self._enlist(request, condition, now, "waits for a majority of electors", True, now + NO_LEADER_S)
        if snapshot.lead is None:
            self._move_on(waiting, snapshot, now)
            return
        waiting.give_up = None
        if command.node is not None and command.node not in snapshot.names():
            self._end(request.id)
            self.replies.refuse(request.id, unknown_node(command.node, snapshot.names()))
            return
        if condition is not None:
            condition.begin(snapshot)
        self.shell.carry_out(self.shell.machine.command(command, now))

    def _node_command(self, request: Request, now: float) -> None:
        given = arguments(request)
        if request.command == "recover" and given.get("force") and self._is_stuck(given.get("node"), now):
            self._to_leader(request, _command(request, "release"), OffIs(str(given["node"])), Snapshot(self.shell, now), now)
        elif not self._named_elsewhere(request, now):
            self._to_runner(request, now)

    def _reconfigure(self, request: Request, now: float) -> None:
        """Root reads the file and tells the outcome (NodeResult) before it replaces anybody."""
        if not self._named_elsewhere(request, now):
            self._enlist(request, None, now, "the configuration is read")
            self.shell.context.send("root", Reconfigure(request.id, "elector"))

    def _is_stuck(self, node: Any, now: float) -> bool:
        ledger = Snapshot(self.shell, now).view.ledger
        return ledger.hold == STUCK and node == ledger.master

    def _to_runner(self, request: Request, now: float) -> None:
        name = self.name
        if not self.shell.config.node.runner:
            self.replies.refuse(request.id, f"{name} runs no services (node.runner is false); name a node that does")
            return
        self._enlist(request, None, now, f"{request.command} of {name} is under way")
        self.shell.context.send("runner", node_command(request))

    def _named_elsewhere(self, request: Request, now: float) -> bool:
        """Send the client to the node that it names; True when that has been done, or cannot be."""
        node = arguments(request).get("node")
        if node is None or node == self.shell.config.node.name:
            return False
        snapshot = Snapshot(self.shell, now)
        address = snapshot.address(str(node))
        if address is None:
            self.replies.refuse(request.id, unknown_node(str(node), snapshot.names()))
        else:
            self.replies.redirect(request.id, address)
        return True


def _command(request: Request, verb: str) -> Command:
    given = arguments(request)
    force, reason = bool(given.get("force")), str(given.get("reason") or "")
    return Command(request.id, verb, given.get("node"), bool(given.get("on")), force=force, reason=reason, origin=origin(request))
