"""What a worker does when its service's folder changes: `watch` comes and goes, `run` too, all is away for a moment, or for good.

Rule: what is running is stopped as what it was started as. What is away may just be copied anew, so it is looked for once more
before a missing script counts as one; what was deleted cannot be run any more, and counts as done like a missing script.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

from koi.config import override
from koi.core.effects import RunScript
from koi.core.service import Service
from koi.core.states import FAILED, QUIET, RUN, SELF_FENCE, START, STATUS, STOP, STOPPED, WATCH, WATCHED, environment
from koi.proc.given import Awaited, Home, directory, settings
from koi.service import catalog, leftovers
from koi.service.script import Script, Tail

if TYPE_CHECKING:
    from koi.core.states import Settings
    from koi.proc.child import Context
    from koi.proc.loop import Loop

AWAY_S = 1.0
"""A service that is away for longer is not just copied anew; half the grace where that is shorter."""


class Changing:
    """The part of a worker that follows its folder."""

    context: Context
    loop: Loop
    settings: Settings
    definition: catalog.Definition
    directory: str
    home: Home
    mark: leftovers.Mark
    service: Service
    script: Union[Script, Awaited, None]
    watch: Optional[Script]
    leaving: bool
    changed: Optional[catalog.Definition]
    if TYPE_CHECKING:
        _post: Callable[[Callable[[], list[Any]]], None]
        _now: Callable[[], tuple[float, Optional[float]]]
        _work: Callable[[], None]
        _keep: Callable[[Tail], None]
        _ended: Callable[[str, Optional[int], float, str], None]
        _run_now: Callable[[RunScript], None]
        _start: Callable[..., Optional[Script]]

    def _follow(self) -> None:
        """`watch` runs beside a service that is started; a changed folder is taken up."""
        service = self.service
        wanted = self.definition.has_watch and service.begun and service.state in WATCHED and not service.failed
        wanted = wanted and not service.restarting and not service.frozen and not self.leaving
        if wanted and self.watch is None:
            self._run_watch()
        elif not wanted and self.watch is not None:
            self.watch.end()
        if self.changed is not None and service.action is None and service.state in (STOPPED, FAILED):
            self._take_up(self.changed)
        elif self.changed is not None and service.state in QUIET and not (service.restarting or service.frozen or service.failed):
            why = f"{RUN} has {'appeared in' if self.changed.is_run else 'vanished from'} its folder"
            self._post(lambda: service.restart(why, *self._now()))

    def _run_watch(self) -> None:
        """Begin it, if it is still there; when it cannot be run the service fails like one whose watch has ended."""
        command = self.definition.command(WATCH)
        if not os.path.lexists(command[0]):
            return
        effect = RunScript(WATCH, environment(self.settings, WATCH, self.service.asked), 0.0)
        self.watch = self._start(effect, WATCH, command, None, self._watch_ended)

    def _watch_ended(self, action: str, watch: Script) -> None:
        self.watch = None
        self._keep(watch.tail)
        if not watch.told:
            exit, line, seconds = watch.exit or 0, watch.output.last, watch.seconds
            self._post(lambda: self.service.program_ended(exit, line, *self._now(), WATCH, seconds))
        self._work()

    def _redefine(self, definition: catalog.Definition) -> None:
        """The folder has changed: at once, unless what stops the service would be another thing than what started it."""
        if definition.is_run == self.definition.is_run:
            self._take_up(definition)
        else:
            self.changed = definition
            self._follow()

    def _start_changed(self, definition: catalog.Definition) -> RunScript:
        """It was stopped as what it was and is started as what it is now."""
        self._take_up(definition)
        return RunScript(START, environment(self.settings, START, self.service.asked), self.settings.timeout(START))

    def _take_up(self, definition: catalog.Definition, changed: Optional[catalog.Definition] = None) -> None:
        """`changed` is still to be taken up later."""
        self.changed, self.definition = changed, definition
        own = catalog.settings(definition, self.context.config.service, override)
        self.context.definition = definition
        self.settings = self.service.settings = settings(self.context, own)
        self.directory = directory(self.context, own)
        self.home.settle(definition.path, self.settings)
        self.mark = self.home.marks[0]
        self._post(lambda: self.service.resettle(*self._now()))

    # --- a folder that is away --------------------------------------------------------------------

    @property
    def _is_retired(self) -> bool:
        """The runner has seen that the folder has vanished."""
        return self.service.asked is not None and self.service.asked.retired

    def _await(self, effect: RunScript) -> Optional[Awaited]:
        """What stands in the place of a script that is away; None: it is there, or need not be."""
        needless = effect.action in (STATUS, SELF_FENCE) or (self.definition.is_run and effect.action == STOP)
        if needless or self._is_retired or not self.home.is_away():
            return None
        patience = min(AWAY_S, self.service.settings.grace / 2)

        def over(wanted: bool) -> None:
            self.script = None
            if wanted:
                self._run_now(effect)
            else:
                self._ended(effect.action, None, 0.0, "")

        return Awaited(self.loop.now() + patience, lambda: over(True), lambda: over(False))
