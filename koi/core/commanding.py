"""What an administrator asks of one node: start, stop, recover, and restart of one service.

Rule: a command is answered when its effect is there, or cannot come. In maintenance all of them are refused, for no
script is run then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from koi.core.effects import Remember, Tell
from koi.core.node import Node
from koi.core.ordering import PROMOTED, STARTED, reached
from koi.core.pipe import NodeBegun, NodeCommand, NodeResult, Restart, ServiceState
from koi.core.states import still_active

if TYPE_CHECKING:
    from koi.core.recovery import Recovery

MAX_COMMANDS = 16
IN_MAINTENANCE = "the cluster is in maintenance, so no script is run; 'koi maintenance off' ends it"


class Commanded(Node):
    """A node that takes commands."""

    recovery: Recovery
    recover_delay: Optional[float]
    recover_at: Optional[float]
    last_failure: Optional[str]
    commands: list[NodeCommand]
    went_down: set[str]
    """Ids of restart commands whose service has been seen stopping."""
    failed_anew: set[str]
    """Ids of commands during which the node has failed."""

    def _take(self, command: NodeCommand, now: float) -> None:
        """Begin to carry a command out, or refuse it."""
        refused = self._refusal(command)
        if refused:
            self.out.append(Tell("elector", NodeResult(command.id, False, refused)))
        elif command.id not in [c.id for c in self.commands]:
            self.commands.append(command)
            self.out.append(Tell("elector", NodeBegun(command)))
            verbs = {"start": self._start, "stop": self._stop, "recover": self._recover, "restart": self._restart}
            verbs[command.verb](command, now)

    def _refusal(self, command: NodeCommand) -> str:
        name = self.settings.name
        if len(self.commands) >= MAX_COMMANDS:
            return "too many commands wait on this node; try again later"
        if self.maintenance:
            return IN_MAINTENANCE
        if command.verb != "restart":
            return ""
        if command.service not in self.priorities:
            return f"{name} has no service {command.service}; services: {', '.join(sorted(self.priorities)) or 'none'}"
        if self.failed or self.stopped or self.stopping:
            verb = "recover" if self.failed else "start"
            return f"{name} is {self.state}, so {command.service} is not running; 'koi {verb} {name}' starts it"
        if command.service in self.disabled:
            return f"{command.service} is disabled on {name}; remove the file `disabled` from its folder to start it"
        return ""

    def _start(self, command: NodeCommand, now: float) -> None:
        if self.stopped:
            self.stopped = False
            self.out.append(Remember(False, bool(self.maintenance)))

    def _stop(self, command: NodeCommand, now: float) -> None:
        if not self.stopped:
            self.stopped = True
            self.out.append(Remember(True, bool(self.maintenance)))

    def _recover(self, command: NodeCommand, now: float) -> None:
        self.recovery.forget()
        if self.failed:
            self.recover_at = now

    def _restart(self, command: NodeCommand, now: float) -> None:
        why = f"asked by {command.origin or 'an administrator'}{': ' + command.reason if command.reason else ''}"
        self.out.append(Tell(f"service:{command.service}", Restart(why)))

    def _watch_restarts(self, state: ServiceState) -> None:
        """A service that was seen down after the command was given is being restarted."""
        if not reached(state, STARTED) or state.info.state == "Demoting":
            self.went_down.update(c.id for c in self.commands if c.verb == "restart" and c.service == state.info.name)

    def _answer_commands(self) -> None:
        for command in list(self.commands):
            overtaken = self._overtaken(command)
            result = NodeResult(command.id, False, overtaken) if overtaken else self._result(command)
            if result is not None:
                self.commands.remove(command)
                self.went_down.discard(command.id)
                self.failed_anew.discard(command.id)
                self.out.append(Tell("elector", result))

    def _overtaken(self, command: NodeCommand) -> str:
        """What another command has done meanwhile, so that this one cannot come to its end; empty while it can."""
        name = self.settings.name
        if self.maintenance:
            return f"maintenance was turned on meanwhile: {IN_MAINTENANCE}"
        if command.verb == "stop" and not self.stopped:
            return f"{name} was started again meanwhile; see 'koi why'"
        if command.verb in ("start", "restart") and self.stopped:
            return f"{name} was stopped meanwhile; see 'koi why'"
        return ""

    def _result(self, command: NodeCommand) -> Optional[NodeResult]:
        name = self.settings.name
        if command.verb == "restart":
            return self._restarted(command)
        if command.verb == "stop":
            return self._stopped_by_hand(command)
        if self.state in ("Backup", "Master"):
            return NodeResult(command.id, True, f"{name} is {self.state}")
        if self._waits_live:
            return NodeResult(command.id, True, f"{name} is Live: {self._unfinished()}")
        if self.stopped and command.verb == "recover":
            what = f"failures of {name} are forgotten; it is stopped by hand, 'koi start {name}' starts it"
            return NodeResult(command.id, True, what)
        if command.id in self.failed_anew:
            again = " again" if command.verb == "recover" else ""
            return NodeResult(command.id, False, f"{name} failed{again} ({self.last_failure}); see 'koi failures'")
        if self._has_given_up:
            what = self.last_failure or f"service {self.failed} failed"
            return NodeResult(command.id, False, f"{name} has failed ({what}) and has given up; 'koi recover {name}' starts it")
        return None

    def _stopped_by_hand(self, command: NodeCommand) -> Optional[NodeResult]:
        name = self.settings.name
        if self.stuck():
            return NodeResult(command.id, False, still_active(name, self.blocks_others() and self.holding is not None))
        if not self._all_ended() or self.holding is not None:
            return None
        if self.failed and command.id in self.failed_anew:
            return NodeResult(command.id, False, f"{name} failed while it stopped ({self.last_failure}); see 'koi failures'")
        return NodeResult(command.id, True, f"{name} is stopped")

    @property
    def _waits_live(self) -> bool:
        """Whether all is started that is to be, and it depends on others when the node will be a backup: 93, or `disabled`."""
        started = all(reached(self.services.get(name), STARTED) for name in self.priorities if name not in self.disabled)
        return self.state == "Live" and started and bool(self.live or self.disabled)

    @property
    def _has_given_up(self) -> bool:
        """Whether it has failed and only 'koi recover' gets it up again."""
        waits = self.recover_at is not None or self.recover_delay is not None
        return bool(self.failed) and not waits and self._all_ended()

    def _restarted(self, command: NodeCommand) -> Optional[NodeResult]:
        service, name = command.service, self.settings.name
        if self.failed:
            what = f"{service} of {name} was not restarted: {self.last_failure}; see 'koi failures'"
            return NodeResult(command.id, False, what)
        if service not in self.priorities:
            return NodeResult(command.id, False, f"{service} of {name} was not restarted: its folder has vanished")
        level = PROMOTED if self.holding is not None and not self.letting_go else STARTED
        state = self.services.get(service)
        if command.id not in self.went_down or state is None or not reached(state, level):
            return None
        return NodeResult(command.id, True, f"{service} of {name} was restarted and is {state.info.state}")
