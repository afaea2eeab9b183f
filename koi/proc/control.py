"""What clients ask of a node with an elector: answered here, passed to the runner, or redirected to who can.

`local` is answered by the node asked; start, stop and recover by the node named; all else by the leader (INTERFACE.md,
Programs). Changing commands are answered when their effect is there; meanwhile the client hears progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from koi import __version__
from koi.core.commands import Command
from koi.core.effects import Done
from koi.core.messages import STUCK, FailuresList, FailuresQuery, NodeCommand, NodeResult, Request
from koi.proc.conditions import Condition, parse
from koi.proc.replies import Replies, arguments
from koi.proc.snapshot import Snapshot
from koi.wire.udp import Address

if TYPE_CHECKING:
    from koi.proc.elector import ElectorProcess

PROGRESS_S = 2.0
"""A client that waits hears something at least so often."""

MAX_WAITING = 64
NO_LEADER_S = 5.0
"""How long a command waits for a leader before it is refused."""

NOT_BUILT = ("passive", "active", "maintenance", "restart", "reconfigure", "why")


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


class Control:
    """The requests of one elector process."""

    def __init__(self, shell: ElectorProcess) -> None:
        self.shell = shell
        self.replies = Replies(shell.endpoint)
        self.waiting: dict[str, Waiting] = {}
        self._commands: dict[str, Callable[[Request, float], None]] = {
            "local": self._local, "status": self._status, "tree": self._status, "wait": self._wait, "failures": self._failures,
            "promote": self._cluster_command, "demote": self._cluster_command, "elect": self._cluster_command,
            "start": self._node_command, "stop": self._node_command, "recover": self._node_command,
        }

    @property
    def name(self) -> str:
        """This node."""
        return str(self.shell.config.node.name)

    # --- events ---

    def request(self, address: Address, request: Request, now: float) -> None:
        """A client asks."""
        if self.replies.repeated(address, request):
            return
        if request.command in NOT_BUILT:
            self.replies.refuse(request.id, f"koi {request.command} is not built yet in version {__version__}")
        elif request.command not in self._commands:
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
                waiting.next_progress = now + PROGRESS_S
                text = waiting.condition.progress(snapshot) if waiting.condition is not None else waiting.message
                self.replies.progress(waiting.request.id, text or waiting.message or "waiting")

    # --- waiting ---

    def _enlist(
        self, request: Request, condition: Optional[Condition], now: float, message: str = "", for_leader: bool = False,
        give_up: Optional[float] = None,
    ) -> Waiting:
        waiting = Waiting(request, condition, now + PROGRESS_S, give_up, message, for_leader)
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
                self._succeed(waiting, verdict.message)
            elif verdict is not None:
                self._end(waiting.request.id)
                self.replies.refuse(waiting.request.id, verdict.message)
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
            self.replies.refuse(waiting.request.id, f"no leader, so nothing can be agreed: {snapshot.nobody()}")

    # --- reading ---

    def _local(self, request: Request, now: float) -> None:
        snapshot = Snapshot(self.shell, now)
        node = snapshot.node(self.shell.config.node.name)
        self.replies.answer(request.id, node | {"pids": snapshot.pids(), "leader": snapshot.leader(), "master": snapshot.master()})

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
        waiting = self._enlist(request, condition, now, for_leader=True)
        self._look(waiting, Snapshot(self.shell, now), now)

    # --- changing ---

    def _cluster_command(self, request: Request, now: float) -> None:
        given, snapshot = arguments(request), Snapshot(self.shell, now)
        node = given.get("node")
        wanted = {"promote": f"master={node}", "demote": "nobody", "elect": "master"}[request.command]
        condition = parse(wanted)
        assert isinstance(condition, Condition)
        self._to_leader(request, _command(request, request.command), condition, snapshot, now)

    def _to_leader(
        self, request: Request, command: Command, condition: Optional[Condition], snapshot: Snapshot, now: float
    ) -> None:
        waiting = self._enlist(request, condition, now, "waits for a majority of electors", True, now + NO_LEADER_S)
        if snapshot.lead is None:
            self._move_on(waiting, snapshot, now)
            return
        waiting.give_up = None
        if condition is not None:
            condition.begin(snapshot)
        self.shell.carry_out(self.shell.machine.command(command, now))

    def _node_command(self, request: Request, now: float) -> None:
        given = arguments(request)
        if request.command == "recover" and given.get("force") and self._is_stuck(given.get("node"), now):
            self._to_leader(request, _command(request, "release"), None, Snapshot(self.shell, now), now)
        elif not self._named_elsewhere(request, now):
            self._to_runner(request, given, now)

    def _is_stuck(self, node: Any, now: float) -> bool:
        ledger = Snapshot(self.shell, now).view.ledger
        return ledger.hold == STUCK and node == ledger.master

    def _to_runner(self, request: Request, given: dict[str, Any], now: float) -> None:
        name = self.name
        if not self.shell.config.node.runner:
            self.replies.refuse(request.id, f"{name} runs no services (node.runner is false)")
            return
        command = NodeCommand(request.id, request.command, bool(given.get("force")), str(given.get("reason") or ""), "koi")
        self._enlist(request, None, now, f"{request.command} of {name} is under way")
        self.shell.context.send("runner", command)
        if given.get("no_wait"):
            self._succeed(self.waiting[request.id], f"{request.command} of {name} has begun")

    def _named_elsewhere(self, request: Request, now: float) -> bool:
        """Send the client to the node that it names; True when that has been done, or cannot be."""
        node = arguments(request).get("node")
        if node is None or node == self.shell.config.node.name:
            return False
        snapshot = Snapshot(self.shell, now)
        address = snapshot.address(str(node))
        if address is None:
            self.replies.refuse(request.id, f"there is no node named {node}; nodes: {', '.join(snapshot.names())}")
        else:
            self.replies.redirect(request.id, address)
        return True


def _command(request: Request, verb: str) -> Command:
    given = arguments(request)
    force, reason = bool(given.get("force")), str(given.get("reason") or "")
    return Command(request.id, verb, given.get("node"), force=force, reason=reason, origin="koi")
