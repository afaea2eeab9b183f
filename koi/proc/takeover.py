"""How a worker begins: with nothing, after one that died, after a koinode that died, or in maintenance.

Rule (docs/protocol.md 6.5): what an earlier koinode left is touched only once it is known whether there is maintenance. If
there is, everything stays as it is and the worker takes it over: the state that was told last, a `run` program that goes
on, the pipes of what still prints. If there is none, what was left is ended, demoted and stopped before all else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional, Union

from koi import log
from koi.core.deadman import counted_from, decides_alone
from koi.core.facts import Debt
from koi.core.pipe import ServiceState
from koi.core.service import Service
from koi.core.states import PROMOTED, QUIET, RUN
from koi.proc import files, treefile
from koi.service import leftovers
from koi.service.adopted import Adopted
from koi.service.leftovers import Leftover
from koi.service.output import Output
from koi.service.script import KILL_DELAY_S, Script, Tail

if TYPE_CHECKING:
    from koi.core.states import Settings
    from koi.proc.child import Context
    from koi.proc.loop import Loop
    from koi.service.catalog import Definition

Program = Union[Script, Adopted]


class Takeover:
    """The part of a worker that takes over."""

    context: Context
    loop: Loop
    settings: Settings
    definition: Definition
    mark: leftovers.Mark
    service: Service
    program: Optional[Program]
    ending: Optional[leftovers.Ending]
    if TYPE_CHECKING:
        _post: Callable[[Callable[[], list[Any]]], None]
        _now: Callable[[], tuple[float, Optional[float]]]
        _work: Callable[[], None]
        _line: Callable[[str], Callable[[str], None]]
        _keep: Callable[[Tail], None]
        _closed: Callable[[Tail], None]
        _program_ended: Callable[[str, Program], None]
    waits = False
    """Nothing is touched before the runner says whether there is maintenance."""
    took_over = False
    """It took a service over in maintenance; what else was left is ended when that is over."""
    decides_at: Optional[float] = None
    """When it waits no longer to be told whether there is maintenance: what was left may be promoted and has to be demoted."""

    @property
    def _last(self) -> Optional[ServiceState]:
        return self.context.last

    def _begin(self) -> None:
        """What comes first; a worker that finds nothing of an earlier one just begins."""
        left = self.context.unclean or self.context.respawned
        if left and self.context.frozen is None:
            self.waits = True
            self.service = Service.unclean(self.settings)
            debt = self._debt()
            if debt is not None:
                self.decides_at = decides_alone(debt, self.settings.grace)
            self._show()
        elif left and self.context.frozen:
            self._take_over()
        else:
            self._begin_anew()
        if self.context.frozen:
            self._post(lambda: self.service.freeze(True, *self._now()))
            self._work()

    def _freeze(self, on: bool) -> None:
        """The runner's word: maintenance is on or off."""
        if self.waits:
            self.waits = False
            (self._take_over if on else self._begin_anew)()
        elif not on and self.took_over:
            self.took_over = False
            self._post(lambda: self.service.freeze(False, *self._now()))  # it counts from now on (rule 6.4)
            self._work()
            self._end_rest(self.program.pid if self.program is not None else None, self._begun)
        else:
            self._post(lambda: self.service.freeze(on, *self._now()))

    def _decide_if_due(self, now: float) -> None:
        """The runner has not spoken, and what was left may not stay promoted any longer (rule 7)."""
        if self.decides_at is not None and now >= self.decides_at:
            self.decides_at = None
            if self.waits:
                self._decide_alone()

    def _decide_alone(self) -> None:
        """Root is gone, or time is short, before the runner has said anything: the state folder's word counts (rule 6.5).

        It may be that of a single elector, and does not keep promoted what had a lease with an end.
        """
        debt = self._debt()
        if debt is not None and not debt.covered:
            self._freeze(False)
            return
        path = f"{self.context.config.node.state_dir}/node.json"
        try:
            content = files.read_json(path)
        except (OSError, ValueError) as error:
            log.get().warning(f"{path} cannot be read: {error}; taken as no maintenance")
            content = None
        if not (isinstance(content, Mapping) and content.get("maintenance") is True):
            self._freeze(False)

    # --- without maintenance: what was left is ended ---

    def _begin_anew(self) -> None:
        last = self._last if self.context.respawned else None
        if last is not None:
            self.service = Service.adopted(self.settings, last, program_gone=self.definition.is_run)
        else:
            self.service = Service.unclean(self.settings) if self.context.unclean else Service(self.settings)
        self._owe()
        if last is not None or self.context.unclean:
            self._end_rest(None, self._begun)
        else:
            self._begun()

    def _owe(self) -> None:
        """What was left under a lease is demoted in time, also while its processes are still being ended (rule 6.4)."""
        debt = self._debt()
        if debt is not None:
            self.service.owe(debt)
            self._post(lambda: self.service.handle_timer(*self._now()))
            self._work()

    def _debt(self) -> Optional[Debt]:
        """What is owed. When it was too late already as koinode began, the first worker has the grace from now on."""
        debt = self.context.debt
        late = debt is not None and counted_from(debt, self.settings.grace) != debt.lease_end
        return replace(debt, found_at=self.loop.now()) if debt and late and not self.context.respawned else debt

    def _end_rest(self, spared: Optional[int], on_done: Callable[[], None]) -> None:
        """End what nobody waits for any more, keep the pipes of the rest. A `spared` program needs its children."""
        found = [one for one in leftovers.find(self.mark) if spared is None or one.action != RUN]
        interrupted = self._last.info.action if self._last is not None else None
        rest = leftovers.unfinished(found, interrupted)
        self._keep_pipes([one for one in found if one not in rest])
        if rest:
            log.get().warning(f"ends {len(rest)} processes that an earlier worker of {self.settings.name} left")
        program = any(one.action == RUN for one in rest)
        patience = self.settings.stop_timeout if program else KILL_DELAY_S
        self.context.title(self.service.state)
        self.ending = leftovers.Ending(self.loop, [one.pid for one in rest], patience, on_done)

    def _keep_pipes(self, found: list[Leftover]) -> None:
        for pipe in leftovers.pipes(found):
            self._keep(Tail(self.loop, pipe, Output(self._line("left"), self.loop.now), self._closed))

    def _begun(self) -> None:
        self._post(lambda: self.service.begin(*self._now()))
        self._work()

    # --- in maintenance: all stays as it is ---

    def _take_over(self) -> None:
        """Go on from what was told last; nothing is ended and nothing run."""
        found = leftovers.find(self.mark)
        last = self._last
        self.service = Service.unclean(self.settings) if last is None else Service.adopted(self.settings, last)
        self.service.frozen, self.service.guarded = True, False
        self._owe()
        self.took_over = True
        self._adopt_program(found)
        self._keep_pipes(found)
        state = self.service.state
        if self.service.clean:
            log.get().info(f"takes {self.settings.name} over as it is, {state}: there is maintenance")
        else:
            log.get().warning(f"it is not known what an earlier koinode left running of {self.settings.name}: there is "
                              "maintenance, so it stays as it is, and is demoted and stopped when that ends")
        if state == PROMOTED and self.context.cell.read() is None:
            log.get().debug(f"{self.settings.name} has seen no lease yet")
        self._show()

    def _adopt_program(self, found: list[Leftover]) -> None:
        one = next((one for one in found if one.action == RUN and one.leads), None)
        if one is not None:
            try:
                self.program = Adopted(self.loop, one.pid, self._line(RUN), lambda program: self._program_ended(RUN, program))
                return
            except OSError:
                log.get().info(f"the program of {self.settings.name} has just ended")
        self.service.program_gone = self.definition.is_run and self.service.state in QUIET

    # --- the end ---

    def _note_end(self) -> None:
        """Root is gone and cannot tell its successor that this service is not promoted; the run folder does."""
        if not self.context.link.ended or self.waits or self.service.promoted:
            return
        try:
            treefile.note_demoted(self.context.config.node.run_dir, self.settings.name)
        except OSError as error:
            log.get().error(f"that {self.settings.name} is not promoted cannot be noted: {error}; the next koinode allows for it "
                            "only the time that the lease of this one leaves")

    def _show(self) -> None:
        self.context.title(self.service.state)
        self._post(self.service.announce)
        self._work()
