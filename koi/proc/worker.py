"""The worker: one process for each service, the shell around koi.core.service.

Rule: it only carries out what the machine asks for, in order, and hands every event back to it. It wakes for messages,
ends of scripts and the machine's deadline, and for nothing else. When root's pipe ends or root says `Stop`, it demotes
and stops its service and then exits; the lease and the worker's own deadline go on to count (docs/protocol.md section 7).

The `run` program takes the place of `start` and `stop`: `start` begins it and has succeeded at once, `stop` sends SIGTERM to
its group and SIGKILL after stop_timeout; when it ends otherwise, the machine is told by `program_ended`.

Of the Context it uses config, node, definition, link (through send), loop, cell, unclean, respawned, last, and the callbacks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Mapping, Optional, Union

from koi import log
from koi.config import override
from koi.core.effects import ERROR, Become, EndScript, KillAll, Log, RunScript, Tell
from koi.core.pipe import Announce, Freeze, Order, Redefine, Restart, Stop
from koi.core.service import Service
from koi.core.states import (
    RUN,
    SELF_FENCE,
    START,
    STATUS,
    STOP,
    WATCH,
    farewell,
)
from koi.proc.changing import Changing
from koi.proc.child import Context
from koi.proc.given import OWN_ENVIRONMENT, Awaited, Home, directory, enter, settings
from koi.proc.reload import Reconfigured
from koi.proc.takeover import Program, Takeover
from koi.service import catalog, leftovers
from koi.service.script import KILL_DELAY_S, NO_INTERPRETER, NotRun, Script, Tail

MAX_TAILS = 16
"""Pipes of daemons that scripts have left behind and that still print; the oldest is given up."""
TOLD_LAST = (Become, Log)
"""Only people are told by these: neither runner nor script waits for that."""

Event = Callable[[], list[Any]]


def main(context: Context) -> None:
    """The life of a worker; returns when its service is stopped after Stop or after root's end."""
    Worker(context).run()


class Worker(Changing, Takeover):
    """One service's process."""

    def __init__(self, context: Context) -> None:
        self.context, self.loop, self.definition = context, context.loop, context.definition
        own = catalog.settings(context.definition, context.config.service, override)
        self.settings = settings(context, own)
        self.directory = directory(context, own)
        self.home = Home(self.definition.path, self.settings)
        self.mark = self.home.marks[0]
        self.service = Service(self.settings)
        self.script: Union[Script, Awaited, None] = None
        self.program: Optional[Program] = None
        self.watch: Optional[Script] = None
        self.fence: Optional[Script] = None
        self.stopping_since: Optional[float] = None
        """`stop` waits for the end of the program since then."""
        self.tails: deque[Tail] = deque()
        self.ending: Optional[leftovers.Ending] = None
        self.search = leftovers.Search()
        self.leaving = False
        """The process ends as soon as the service is stopped."""
        self.detaching = False
        """The process ends as soon as no script runs; the service is left as it is."""
        self.changed: Optional[catalog.Definition] = None
        """How the folder looks now; taken up once the service is stopped."""
        self.events: deque[Event] = deque()

    # --- life -------------------------------------------------------------------------------

    def run(self) -> None:
        """Take over what is there, then work until it is time to leave."""
        self.context.on_message(self._message)
        self.context.on_end(self._leave)
        self._begin()
        if not self._may_leave():
            self.context.run(self._deadline, self._timer)
        self._note_end()
        self.home.close()

    def _message(self, message: Any) -> None:
        if isinstance(message, Order):
            if not self.leaving:
                self._post(lambda: self.service.order(message, *self._now()))
        elif isinstance(message, Announce):
            self._post(self.service.announce)
        elif isinstance(message, Freeze):
            self._freeze(message.on)
        elif isinstance(message, Restart):
            self._post(lambda: self.service.restart(message.why, *self._now()))
        elif isinstance(message, Reconfigured):
            self.context.config = message.config
            self._take_up(self.definition, self.changed)
        elif isinstance(message, Redefine):
            self._redefine(message.definition)
        elif isinstance(message, Stop):
            self._leave()
        self._work()

    def _leave(self) -> None:
        """Stop the service and then end: root said so, or is gone. In maintenance just end, and leave all as it is."""
        if self.waits:
            self._decide_alone()
        self._detach_if_right(self.waits)
        if not self.leaving and not self.detaching:
            self.leaving = True
            if self.context.link.ended:
                log.get().warning(f"root has ended: {self.settings.name} is demoted if need be, and stopped")
            order = farewell(self.service.asked, self.settings.name)
            self._post(lambda: self.service.order(order, *self._now()))
        self._work()

    def _detach_if_right(self, waits: bool = False) -> None:
        """In maintenance nothing is stopped, unless it is promoted under a lease that ends: that is demoted first."""
        if not self.detaching and (waits or self.service.may_be_left(self.context.cell.read(), self.context.link.ended)):
            self.leaving = self.detaching = True
            why = "there is maintenance" if waits or self.service.frozen else "it is stuck, and nobody else is promoted meanwhile"
            log.get().info(f"leaves {self.settings.name} as it is, {self.service.state}: {why}")

    def _may_leave(self) -> bool:
        if self.leaving:
            self._detach_if_right()
        if self.detaching:
            return self.script is None and self.watch is None
        return self.leaving and self.service.settled and self.script is None and self.program is None and self.watch is None

    # --- events and effects -------------------------------------------------------------------

    def _now(self) -> tuple[float, Optional[float]]:
        """What every event needs: the time and the lease, read in this moment, with the electors' G if that is the shorter."""
        grace = min(self.settings.grace, self.context.cell.grace)
        if grace != self.service.settings.grace:
            self.service.settings = replace(self.settings, grace=grace)
        return self.loop.now(), self.context.cell.read()

    def _post(self, event: Event) -> None:
        self.events.append(event)

    def _work(self) -> None:
        """Hand over the events one by one, and carry out what each asks for: first what other processes and scripts do."""
        told_last: list[Any] = []
        try:
            while self.events:
                for effect in self.events.popleft()():
                    told_last.append(effect) if isinstance(effect, TOLD_LAST) else EFFECTS[type(effect)](self, effect)
                self._follow()
        finally:
            for effect in told_last:
                EFFECTS[type(effect)](self, effect)
        if self._may_leave():
            self.loop.stop()

    def _deadline(self) -> Optional[float]:
        """When it wakes next; it also looks whether its folder is still the same, as often as it wakes."""
        self.home.refresh()
        times = [one.deadline() for one in (self.script, self.program, self.watch, self.fence) if one is not None]
        times += [self.service.deadline(*self._now()), self.ending.deadline if self.ending else None, self.decides_at]
        return min((at for at in times if at is not None), default=None)

    def _timer(self, now: float) -> None:
        for script in (self.script, self.program, self.watch, self.fence):
            if script is not None:
                script.handle_timer(now)
        if self.ending is not None:
            self.ending.handle_timer(now)
        self._decide_if_due(now)
        self._post(lambda: self.service.handle_timer(*self._now()))
        self._work()

    def _become(self, effect: Become) -> None:
        log.get().info(f"{effect.old} -> {effect.new}: {effect.why}")
        self.context.title(effect.new)

    def _log(self, effect: Log) -> None:
        log.get().write(effect.level, effect.text)

    def _tell(self, effect: Tell) -> None:
        self.context.send(effect.to, effect.message)

    # --- scripts ------------------------------------------------------------------------------

    def _run_script(self, effect: RunScript) -> None:
        """Start the script of an action; every way in which that goes ends in `ended`."""
        moved = self.home.moved(self.definition)
        if moved is not None:
            self._take_up(moved, self.changed)
        if effect.action == START and self.changed is not None:
            effect = self._start_changed(self.changed)
        awaited = self._await(effect)
        if awaited is None:
            self._run_now(effect)
        else:
            self.script = awaited

    def _run_now(self, effect: RunScript) -> None:
        """Whatever is there."""
        if effect.action == SELF_FENCE:
            self._run_fence(effect)
        elif self.definition.is_run and effect.action == START:
            self._run_program(effect)
        elif self.definition.is_run and effect.action == STOP:
            self._stop_program()
        else:
            command = self.definition.command(effect.action)
            self.script = self._start(effect, effect.action, command, effect.timeout, self._script_ended)

    def _start(
        self, effect: RunScript, name: str, command: list[str], timeout: Optional[float], on_end: Callable[[str, Script], None],
    ) -> Optional[Script]:
        """Start a command; None: it did not start, or there is none, which the machine has been told."""
        environment: Mapping[str, str] = {**OWN_ENVIRONMENT, **dict(effect.environment), "KOI_ACTION": name,
                                          "KOI_SERVICE_DIR": self.settings.folder}
        ended = partial(on_end, effect.action)
        try:
            enter("/" if name == SELF_FENCE else self.directory, self._is_retired or name == STATUS or self.home.is_deleted())
            return Script(self.loop, command, environment, timeout, self._line(name), ended, self._closed)
        except FileNotFoundError:
            if self.home.is_deleted() and name != STATUS:
                log.get().warning(f"{name}: {self.definition.path} is deleted, so nothing can be run; it counts as done")
            if name == RUN and not self.home.is_deleted():
                self._not_run(effect.action, NotRun(NO_INTERPRETER, f"{command[0]} is not there"))
            else:
                self._ended(effect.action, 0, 0.0, "")
        except NotRun as error:
            self._not_run(effect.action, error)
        return None

    def _not_run(self, action: str, error: NotRun) -> None:
        """It could not be executed: a failure, but for `status`, which then has said nothing."""
        service, line = self.service, str(error)
        if action != STATUS or not service.blind:
            self._post(lambda: [Log(ERROR, f"{action}: {error}")])
        if action == STATUS:
            self._post(lambda: service.unasked(error.exit, line, *self._now()))
        elif action == WATCH:
            self._post(lambda: service.program_ended(error.exit, line, *self._now(), WATCH))
        else:
            self._ended(action, error.exit, 0.0, line)

    def _ended(self, action: str, exit: Optional[int], seconds: float, line: str) -> None:
        self._post(lambda: self.service.ended(action, exit, seconds, line, *self._now()))

    def _script_ended(self, action: str, script: Script) -> None:
        self.script = None
        self._keep(script.tail)
        self._ended(action, script.exit, script.seconds, script.output.last)
        self._work()

    def _end_script(self, effect: EndScript) -> None:
        if self.script is not None:
            (self.script.kill if effect.at_once else self.script.end)()

    def _run_program(self, effect: RunScript) -> None:
        self.program = self._start(effect, RUN, self.definition.command(RUN), None, self._program_ended)
        if self.program is not None:
            self._ended(START, 0, 0.0, "")

    def _stop_program(self) -> None:
        self.stopping_since = self.loop.now()
        if self.program is None:
            self._program_stopped()
        else:
            self.program.end(self.settings.stop_timeout)

    def _program_stopped(self) -> None:
        """It has ended; what it left behind, in its session or out of it, has to end too before `stop` is done."""
        left = self.search.of_action(self.home.marks, RUN)
        if not left:
            self._all_stopped()
            return
        log.get().warning(f"ends {len(left)} processes that the program of {self.settings.name} left behind")
        self.ending = leftovers.Ending(self.loop, left, KILL_DELAY_S, self._rest_ended)

    def _rest_ended(self) -> None:
        self._all_stopped()
        self._work()

    def _all_stopped(self) -> None:
        since, self.stopping_since = self.stopping_since, None
        if since is not None:
            self._ended(STOP, 0, self.loop.now() - since, "")

    def _program_ended(self, action: str, program: Program) -> None:
        """The program is gone: as `stop` wanted, because everything was killed, or by itself."""
        self.program = None
        if program.tail is not None:
            self._keep(program.tail)
        if self.stopping_since is not None:
            self._program_stopped()
        elif not program.told:
            exit, line, seconds = program.exit or 0, program.output.last, program.seconds
            self._post(lambda: self.service.program_ended(exit, line, *self._now(), RUN, seconds))
        self._work()

    def _kill_all(self, effect: KillAll) -> None:
        for script in (self.script, self.program, self.watch):
            if script is not None:
                script.kill()
        killed = []
        try:
            killed = [pid for mark in self.home.marks for pid in leftovers.kill(mark)]
        except OSError as error:  # self_fence comes next, and may not be kept from it
            log.get().critical(f"what else {self.settings.name} has started cannot be looked for: {error.strerror}")
        if killed:
            log.get().warning(f"killed {len(killed)} processes of {self.settings.name}: {effect.why}")

    def _run_fence(self, effect: RunScript) -> None:
        command = ["/bin/sh", "-c", self.context.config.node.self_fence]
        self.fence = self._start(effect, SELF_FENCE, command, effect.timeout, self._fence_ended)

    def _fence_ended(self, action: str, script: Script) -> None:
        self.fence = None
        self._ended(action, script.exit, script.seconds, script.output.last)
        self._work()

    # --- what it knows of its scripts -----------------------------------------------------------

    def _line(self, action: str) -> Callable[[str], None]:
        """Log a line that a script printed; the log adds the name of the process, and so of the service."""
        return lambda text: log.get().info(f"{action}: {text}")

    def _keep(self, tail: Tail) -> None:
        """A daemon that the script has left may print on."""
        if tail.open:
            self.tails.append(tail)
            if len(self.tails) > MAX_TAILS:
                self.tails[0].close()

    def _closed(self, tail: Tail) -> None:
        if tail in self.tails:
            self.tails.remove(tail)


EFFECTS: Mapping[type, Callable[[Worker, Any], None]] = {
    Become: Worker._become,
    Log: Worker._log,
    Tell: Worker._tell,
    RunScript: Worker._run_script,
    EndScript: Worker._end_script,
    KillAll: Worker._kill_all,
}
