"""The worker: one process for each service, the shell around koi.core.service.

Rule: it only carries out what the machine asks for, in order, and hands every event back to it. It wakes for messages,
ends of scripts and the machine's deadline, and for nothing else. When root's pipe ends or root says `Stop`, it demotes
and stops its service and then exits; the lease and the worker's own deadline go on to count (PROTOCOL.md section 7).

The `run` program takes the place of `start` and `stop`: `start` begins it and has succeeded at once, `stop` sends SIGTERM to
its group and SIGKILL after stop_timeout; when it ends otherwise, the machine is told by `program_ended`.

Of the Context it uses config, node, definition, link (through send), loop, cell, unclean, respawned, last, and the callbacks.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Mapping, Optional

from koi import log
from koi.config import ServiceDefaults, override
from koi.core.effects import Become, EndScript, KillAll, Log, RunScript, Tell
from koi.core.messages import Announce, Order, Stop
from koi.core.service import Service
from koi.core.states import GOAL_STOPPED, SELF_FENCE, START, STOP, STOPPED, Settings
from koi.proc.child import Context
from koi.service import catalog, leftovers
from koi.service.output import Output
from koi.service.script import KILL_DELAY_S, NO_INTERPRETER, NotRun, Script, Tail

MAX_TAILS = 16
"""Pipes of daemons that scripts have left behind and that still print; the oldest is given up."""
NOT_FOR_SCRIPTS = ("KOI_SECRET", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""Variables of koinode that are not its scripts' business."""

Event = Callable[[], list[Any]]


def main(context: Context) -> None:
    """The life of a worker; returns when its service is stopped after Stop or after root's end."""
    Worker(context).run()


class Worker:
    """One service's process."""

    def __init__(self, context: Context) -> None:
        self.context, self.loop, self.definition = context, context.loop, context.definition
        own = catalog.settings(context.definition, context.config.service, override)
        self.settings = settings(context, own)
        self.directory = directory(context, own)
        self.mark = leftovers.Mark(self.settings.folder, self.settings.node, self.settings.cluster_id)
        self.environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_SCRIPTS}
        self.service = Service(self.settings)
        self.script: Optional[Script] = None
        self.program: Optional[Script] = None
        self.fence: Optional[Script] = None
        self.stopping_since: Optional[float] = None
        """`stop` waits for the end of the program since then."""
        self.tails: deque[Tail] = deque()
        self.ending: Optional[leftovers.Ending] = None
        self.leaving = False
        """The process ends as soon as the service is stopped."""
        self.events: deque[Event] = deque()

    # --- life -------------------------------------------------------------------------------

    def run(self) -> None:
        """Take over what is there, then work until it is time to leave."""
        self.context.on_message(self._message)
        self.context.on_end(self._leave)
        self._begin()
        if not self._may_leave():
            self.context.run(self._deadline, self._timer)

    def _begin(self) -> None:
        """What a predecessor or a dead tree left is ended first; then the machine begins."""
        last = self.context.last if self.context.respawned else None
        found = leftovers.find(self.mark) if last is not None or self.context.unclean else []
        interrupted = last.info.action if last is not None else None
        rest = leftovers.unfinished(found, self._scripts(), interrupted)
        program = any(one.action == catalog.RUN for one in rest)
        if last is not None:
            self.service = Service.adopted(self.settings, last, program_gone=self.definition.is_run)
        elif self.context.unclean:
            self.service = Service.unclean(self.settings)
        for pipe in leftovers.pipes([one for one in found if one not in rest]):
            self._keep(Tail(self.loop, pipe, Output(self._line("left"), self.loop.now), self._closed))
        if rest:
            log.get().warning(f"ends {len(rest)} processes that an earlier worker of {self.settings.name} left")
        self.context.title(self.service.state)
        patience = self.settings.stop_timeout if program else KILL_DELAY_S
        self.ending = leftovers.Ending(self.loop, [one.pid for one in rest], patience, self._begun)

    def _begun(self) -> None:
        self._post(lambda: self.service.begin(*self._now()))
        self._work()

    def _message(self, message: Any) -> None:
        if isinstance(message, Order):
            if not self.leaving:
                self._post(lambda: self.service.order(message, *self._now()))
        elif isinstance(message, Announce):
            self._post(self.service.announce)
        elif isinstance(message, Stop):
            self._leave()
        self._work()

    def _leave(self) -> None:
        """Stop the service and then end: root said so, or is gone."""
        if not self.leaving:
            self.leaving = True
            last = self.service.asked or Order(self.settings.name, GOAL_STOPPED, None, None, STOPPED)
            order = replace(last, goal=GOAL_STOPPED, failed_service=None, recover=False)
            self._post(lambda: self.service.order(order, *self._now()))
        self._work()

    def _may_leave(self) -> bool:
        return self.leaving and self.service.settled and self.script is None and self.program is None

    # --- events and effects -------------------------------------------------------------------

    def _now(self) -> tuple[float, Optional[float]]:
        """What every event needs: the time and the lease, read in this moment."""
        return self.loop.now(), self.context.cell.read()

    def _post(self, event: Event) -> None:
        self.events.append(event)

    def _work(self) -> None:
        """Hand over the events one by one, and carry out what each asks for."""
        while self.events:
            for effect in self.events.popleft()():
                EFFECTS[type(effect)](self, effect)
        if self._may_leave():
            self.loop.stop()

    def _deadline(self) -> Optional[float]:
        times = [one.deadline() for one in (self.script, self.program, self.fence) if one is not None]
        times += [self.service.deadline(*self._now()), self.ending.deadline if self.ending else None]
        return min((at for at in times if at is not None), default=None)

    def _timer(self, now: float) -> None:
        for script in (self.script, self.program, self.fence):
            if script is not None:
                script.handle_timer(now)
        if self.ending is not None:
            self.ending.handle_timer(now)
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
        """Start a command; None: it did not start, or there is none, which `ended` has been told."""
        environment: Mapping[str, str] = {**self.environment, **dict(effect.environment), "KOI_ACTION": name}
        ended = partial(on_end, effect.action)
        try:
            self._enter(name)
            return Script(self.loop, command, environment, timeout, self._line(name), ended, self._closed)
        except FileNotFoundError:
            self._ended(effect.action, 0, 0.0, "")
        except NotRun as error:
            log.get().error(f"{effect.action}: {error}")
            self._ended(effect.action, error.exit, 0.0, str(error))
        return None

    def _enter(self, name: str) -> None:
        """Scripts run in their service's folder. NotRun: it is gone, which is not the same as a missing script."""
        directory = "/" if name == SELF_FENCE else self.directory
        try:
            os.chdir(directory)
        except OSError as error:
            raise NotRun(NO_INTERPRETER, f"its folder {directory} cannot be entered: {error.strerror}") from None

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
        self.program = self._start(effect, catalog.RUN, self.definition.command(catalog.RUN), None, self._program_ended)
        if self.program is not None:
            self._ended(START, 0, 0.0, "")

    def _stop_program(self) -> None:
        self.stopping_since = self.loop.now()
        if self.program is None:
            self._program_stopped()
        else:
            self.program.end(self.settings.stop_timeout)

    def _program_stopped(self) -> None:
        since, self.stopping_since = self.stopping_since, None
        if since is not None:
            self._ended(STOP, 0, self.loop.now() - since, "")

    def _program_ended(self, action: str, program: Script) -> None:
        """The program is gone: as `stop` wanted, because everything was killed, or by itself."""
        self.program = None
        self._keep(program.tail)
        if self.stopping_since is not None:
            self._program_stopped()
        elif not program.told:
            exit, line = program.exit or 0, program.output.last
            self._post(lambda: self.service.program_ended(exit, line, *self._now()))
        self._work()

    def _kill_all(self, effect: KillAll) -> None:
        for script in (self.script, self.program):
            if script is not None:
                script.kill()
        killed = leftovers.kill(self.mark)
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

    def _scripts(self) -> set[str]:
        """The paths by which the service's scripts are known among the processes."""
        return {self.definition.command(action)[0] for action in (*catalog.ACTIONS, catalog.RUN)}


def directory(context: Context, own: ServiceDefaults) -> str:
    """Where scripts run: the service's folder, unless its service.yaml names another; a single file: service.workingdir."""
    common = None if context.definition.kind == catalog.FILE else context.config.service.workingdir
    return own.workingdir if own.workingdir and own.workingdir != common else str(context.definition.directory)


def settings(context: Context, own: ServiceDefaults) -> Settings:
    """What the machine must know of this node and its service; `own` are the settings of the service."""
    config, definition = context.config, context.definition
    return Settings(
        name=definition.name, node=config.node.name, cluster_id=config.cluster.id, folder=definition.path,
        priority=definition.priority, pid=os.getpid(), grace=config.timing.grace,
        status_interval=config.time.status_interval if "status" in definition.scripts else None,
        self_fence=config.node.self_fence is not None,
        start_timeout=own.start_timeout, stop_timeout=own.stop_timeout, status_timeout=own.status_timeout,
        promote_timeout=own.promote_timeout, demote_timeout=own.demote_timeout, failed_timeout=own.failed_timeout,
        environment=tuple(own.env),
    )


EFFECTS: Mapping[type, Callable[[Worker, Any], None]] = {
    Become: Worker._become,
    Log: Worker._log,
    Tell: Worker._tell,
    RunScript: Worker._run_script,
    EndScript: Worker._end_script,
    KillAll: Worker._kill_all,
}
