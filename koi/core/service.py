"""The machine of one service: its state, which script runs next, and when nothing may stay promoted.

Rule: at most one script at a time; `promote` begins only under a running lease, is killed when the lease ends, and
whoever dies, the service is demoted or killed by the end of the lease + grace (docs/protocol.md section 7, rule 6.4).

Pure: events come in with the time and the content of the lease cell, effects go out. What the worker owes it:

- `owe` before all else when a dead koinode left it under a lease;
- `begin` once, after what a predecessor left running was ended; then every `order`, every end of a script (`ended`) and
  of the `run` program (`program_ended`), and `handle_timer` when `deadline` has come; effects are carried out in order.
- `exit` of a script: 0 success (also when there is no such script), negative: killed by that signal, None: it outlived
  its timeout. A script that the machine had ended (EndScript, KillAll) still comes back as `ended`.

Every event returns a list of effects. The tables of states.py say what follows on what; an event that they lack changes
nothing.
"""

from __future__ import annotations

from typing import Callable, Mapping, Optional

from koi.core.deadman import running
from koi.core.effects import CRITICAL, INFO, WARNING, EndScript, KillAll, Tell
from koi.core.facts import Effect, Lease, Result
from koi.core.mending import Mending
from koi.core.messages import Last
from koi.core.pipe import Order, ServiceState
from koi.core.states import (
    DEMOTE,
    DEMOTING,
    DURING,
    FAILED,
    FAILED_SCRIPT,
    FAILING,
    GOAL_PROMOTED,
    GOAL_STOPPED,
    INTERRUPTED,
    NEXT,
    NOT_PROMOTED,
    PROMOTE,
    PROMOTED,
    PROMOTING,
    QUIET,
    RUN,
    SELF_FENCE,
    START,
    STARTED,
    STARTING,
    STATUS,
    STOP,
    STOPPED,
    STOPPING,
    Settings,
    outcome,
)

RETRY_PART = 0.25
"""A promote that waits for a lease looks again after this part of the grace."""


class Service(Mending):
    """One service and what comes next for it."""

    __slots__ = ()

    # --- how it begins ----------------------------------------------------------------------

    @classmethod
    def unclean(cls, settings: Settings) -> Service:
        """A service that a dead tree may have left promoted: it is demoted and stopped before all else (rule 6.5)."""
        return cls(settings, promoted=True, up=True, clean=False)

    @classmethod
    def adopted(cls, settings: Settings, told: ServiceState, program_gone: bool = False) -> Service:
        """A service whose worker died: `told` is the last that it said. `program_gone`: its `run` program was ended."""
        state = told.info.state
        service = cls(
            settings, state=state, promoted=told.promoted, up=state != STOPPED, clean=told.clean, failed=told.info.failed,
            stuck=told.stuck, live=told.live, last=told.info.last, demote_seconds=told.demote_seconds,
            failed_done=state == FAILED, last_stop=state == FAILED and told.promoted and not told.stuck,
        )
        if not told.clean and state != FAILED:
            service.state = STOPPED
        elif program_gone and state in QUIET:
            service.state, service.up = STOPPED, False
        return service

    # --- events -----------------------------------------------------------------------------

    def begin(self, now: float, lease: Lease) -> list[Effect]:
        """The first event: go on from what was found. An adopted service is asked for its status at once."""
        if not self.begun:
            self.begun = True
            self.status_at = None if self.settings.status_interval is None else now
            interrupted = {during: INTERRUPTED[action] for action, during in DURING.items()}.get(self.state)
            if interrupted is not None:
                self._begin(interrupted, "its worker died meanwhile")
        return self._react(now, lease)

    def order(self, order: Order, now: float, lease: Lease) -> list[Effect]:
        """The runner's goal; the same one again changes nothing."""
        if order != self.asked:  # orders to recover that follow each other are one: a failure after it is a new one
            again = self.asked is not None and self.asked.recover
            self.recovering = order.recover and self.failed and (self.recovering or not again)
        if order.failed_service is None:
            self.failed_done = False
        self.asked = order
        return self._react(now, lease)

    def ended(self, action: str, exit: Optional[int], seconds: float, line: str, now: float, lease: Lease) -> list[Effect]:
        """A script has ended; `line` is the last that it printed."""
        if action == SELF_FENCE:
            self._log(CRITICAL, f"self_fence of {self.settings.name} has ended: exit {exit}")
        elif action == self.action:
            result = Result(action, exit, seconds, line)
            early, self.action, self.ending, self.killed = self.ending, None, False, False
            self.last = Last(action, exit, seconds)
            if early and action in (START, PROMOTE):
                self._cut_short(result)
            elif not early and (self.state, action) in ENDINGS:
                ENDINGS[self.state, action](self, result, now, lease)
            self._checked(action)
            if action == STATUS:
                self._plan_status(now)
        return self._react(now, lease)

    def program_ended(
        self, exit: int, line: str, now: float, lease: Lease, name: str = RUN, seconds: float = 0.0,
    ) -> list[Effect]:
        """The `run` program, or `watch`, has ended although nobody stopped it: a failure at once. `exit` as of a script."""
        result = Result(name, exit, seconds, line)
        if self.frozen:
            self._note_program_gone(name, exit)
        elif self.state in QUIET:
            self._fails(result, outcome(name, exit, 0.0), now)
        elif self.state in (STARTING, PROMOTING) and self._starts_again(result, outcome(name, exit, 0.0), now):
            pass
        elif self.state in (STARTING, PROMOTING, DEMOTING) and not self.failed:
            self._fail(name, exit, seconds, line, outcome(name, exit, 0.0))
        return self._react(now, lease)

    def unasked(self, exit: int, line: str, now: float, lease: Lease) -> list[Effect]:
        """`status` could not be run at all: that says nothing about the service, which goes on as it was."""
        if self.action == STATUS:
            self.action, self.ending, self.killed = None, False, False
            self._not_asked(exit, line)
            self._plan_status(now)
        return self._react(now, lease)

    def freeze(self, on: bool, now: float, lease: Lease) -> list[Effect]:
        """Maintenance begins, or is over."""
        if on != self.frozen:
            self.frozen = on
            if not on:
                self._thaw(now)
        return self._react(now, lease)

    def restart(self, why: str, now: float, lease: Lease) -> list[Effect]:
        """An administrator's wish: stopped, started again, and promoted again if it was."""
        if self.state in (STARTING, STARTED, PROMOTING, PROMOTED) and not self.failed and not self.frozen:
            self.restarting = True
            self._log(INFO, f"{self.settings.name} is stopped and started again: {why}")
        return self._react(now, lease)

    def resettle(self, now: float, lease: Lease) -> list[Effect]:
        """The settings were changed: `status` may have appeared or vanished."""
        self._plan_status(now)
        return self._react(now, lease)

    def handle_timer(self, now: float, lease: Lease) -> list[Effect]:
        """The deadline has come, or the worker woke for another reason."""
        return self._react(now, lease)

    def announce(self) -> list[Effect]:
        """A new runner asks: tell the state again."""
        self.told = self.report()
        return [Tell("runner", self.told)]

    def deadline(self, now: float, lease: Lease) -> Optional[float]:
        """When `handle_timer` is due next: once per lease while promoted, else only for status."""
        looks = [self._next_look(now, lease)]
        if self.begun and self.action is None and self.clean and not self.frozen:
            if self.state in QUIET:
                looks.append(self.status_at)
            looks.append(self.retry_at)
        return min((at for at in looks if at is not None), default=None)

    # --- what comes next --------------------------------------------------------------------

    def _react(self, now: float, lease: Lease) -> list[Effect]:
        self._watch(now, lease)
        self.begun = self.begun or (self.frozen and self.forced)
        if self.begun and (not self.frozen or self._must_let_go):
            self._settle()
            self._drive(now, lease)
            self._plan_retry(now)
        self._tell()
        effects, self._effects = self._effects, ()
        return list(effects)

    def _drive(self, now: float, lease: Lease) -> None:
        """Run the script that is due; end the one that stands in its way."""
        due = self._due(now, lease)
        if self.action is None:
            postponed, self.postponed = self.postponed, None
            if postponed is not None and self.state != FAILED:
                self._begin(*postponed)
            elif self._checks:
                self._begin(STATUS, "")
            elif due is not None:
                self._begin(due, self._why())
            elif self._status_due(now):
                self._begin(STATUS, "")
        elif self._unwanted(due):
            self._end_script(at_once=self.lost_at is not None)

    def _due(self, now: float, lease: Lease) -> Optional[str]:
        """The action that is due, as if no script ran."""
        goal = self.goal
        if self.state == FAILED:
            return STOP if self.last_stop else self._failed_script()
        if not self.clean:
            return DEMOTE if self.promoted else STOP
        if self.promoted and (self.forced or goal in NOT_PROMOTED):
            return DEMOTE
        if goal is None:
            return None
        failed_script = self._failed_script()
        if failed_script is not None:
            return failed_script
        action = NEXT.get((self.state, goal))
        if action == PROMOTE and not running(lease, now):
            return None
        return None if action == STOP and not self.up else action

    def _failed_script(self) -> Optional[str]:
        """`failed` runs once for each failure of the node, before `stop`."""
        node_failed = self.asked is not None and self.asked.goal == GOAL_STOPPED and self.asked.failed_service is not None
        return FAILED_SCRIPT if node_failed and not self.failed_done else None

    def _settle(self) -> None:
        """Steps without a script: a failing service that is down is Failed; a Failed one that is recovered is Stopped."""
        if self.action is not None:
            return
        self.restarting = self.restarting and not self.failed and self.state not in (STOPPED, FAILED)
        down = not self.up and not self.promoted
        if self.state == FAILING and self.goal == GOAL_STOPPED and down and not self._failed_script():
            self.become(FAILED, "it is stopped")
        if self.state == FAILED and self.recovering and not self.last_stop:
            self._forget()

    def _forget(self) -> None:
        self.clean = self.clean and not self.promoted
        self.failed = self.stuck = self.overrun = self.failed_done = self.recovering = False
        self.corrections = ()
        self.become(STOPPED, "its failure is forgotten")

    def _unwanted(self, due: Optional[str]) -> bool:
        """Whether the running script stands in the way: the goal fell, the lease ended or the service failed meanwhile."""
        if self.action == START:
            return self.failed or self.forced or self.goal == GOAL_STOPPED
        if self.action == PROMOTE:
            return self.failed or self.lost_at is not None or self.goal in NOT_PROMOTED
        return self.action == STATUS and due is not None and not self._checks

    def _status_due(self, now: float) -> bool:
        return self.status_at is not None and now >= self.status_at and self.state in QUIET

    def _plan_status(self, now: float) -> None:
        interval = self.settings.status_interval
        self.status_at = None if interval is None else now + interval

    def _plan_retry(self, now: float) -> None:
        """A service that is to be promoted and has no lease yet wakes for it: the runner says nothing when it comes."""
        if self.state != STARTED or self.goal != GOAL_PROMOTED or self.action is not None:
            self.retry_at = None
        elif self.retry_at is None or now >= self.retry_at:
            self.retry_at = now + RETRY_PART * self.settings.grace

    # --- scripts ----------------------------------------------------------------------------

    def _begin(self, action: str, why: str) -> None:
        """Begin a script; the runner, and so root, hears of it before it runs."""
        if not self._may_act:
            self._postpone(action, why)
            return
        if action in DURING and self.state != FAILED:
            self.become(DURING[action], why)
        if action == START:
            self.up = True
        elif action == PROMOTE:
            self.promoted = True
        elif action == FAILED_SCRIPT:
            self.failed_done = True
        self.action = action
        self._tell()
        self._run(action)

    def _end_script(self, at_once: bool) -> None:
        """End the running script; a second time only to be harder on it."""
        if not self.ending or (at_once and not self.killed):
            self.ending, self.killed = True, at_once
            self._effects += (EndScript(at_once),)

    def _cut_short(self, result: Result) -> None:
        """A start or promote that was ended before its time: it counts as done and is undone."""
        if self.state != DURING[result.action]:
            return
        if self.failed:
            self.become(FAILING, "it failed meanwhile")
        else:
            self._begin(INTERRUPTED[result.action], f"{result.action} was ended before its time")

    def _start_ended(self, result: Result, now: float, lease: Lease) -> None:
        if result.ok:
            self._plan_status(now)
            self.become(STARTED, "start succeeded")
        else:
            self._failure(result, now)

    def _promote_ended(self, result: Result, now: float, lease: Lease) -> None:
        if not result.ok:
            self._failure(result, now)
        elif not running(lease, now):  # rule 7: checked again after promote
            self._begin(DEMOTE, "the lease ended while promote ran")
        else:
            self._plan_status(now)
            self.become(PROMOTED, "promote succeeded")

    def _demote_ended(self, result: Result, now: float, lease: Lease) -> None:
        self.demote_seconds = result.seconds
        if not result.ok:
            self._demote_failed(result)
            return
        self.promoted = False
        if result.seconds > self.settings.grace / 2:
            self._log(WARNING, f"demote of {self.settings.name} took {result.seconds:.3g} s; after a lost lease it is killed "
                               f"{self.settings.grace:g} s (demote_grace) later: make it faster or raise time.demote_grace")
        if self.clean:
            self._plan_status(now)
            self.become(FAILING if self.failed else STARTED if self.up else STOPPED, "demote succeeded")

    def _demote_failed(self, result: Result) -> None:
        """A demote that failed: stop at once, for that demotes too."""
        what = outcome(DEMOTE, result.exit, self.settings.demote_timeout)
        if self.clean:
            self._fail(DEMOTE, result.exit, result.seconds, result.line, what)
        else:
            self._log(WARNING, f"{self.settings.name}: {what}; it is stopped instead")
        self._begin(STOP, f"{what}; stop must do it")

    def _stop_ended(self, result: Result, now: float, lease: Lease) -> None:
        if not result.ok:
            self._stop_failed(result)
            return
        if not self.clean:
            self._effects += (KillAll("what a dead worker left is stopped"),)
        self.promoted, self.up, self.clean = False, False, True
        if not self.failed:
            self.become(STOPPED, "stop succeeded")
        elif self.goal == GOAL_STOPPED and self._failed_script() is None:
            self.become(FAILED, "stop succeeded after a failure")
        else:
            self.become(FAILING, "stop succeeded after a failure")

    def _stop_failed(self, result: Result) -> None:
        """Nothing more is tried; stuck if demote had failed before."""
        what = outcome(STOP, result.exit, self.settings.stop_timeout)
        self._fail(STOP, result.exit, result.seconds, result.line, what)
        self.stuck = self.promoted
        self.clean = self.clean or not self.promoted
        if self.stuck:
            self._log(CRITICAL, f"{self.settings.name} may still be promoted, for demote and stop both failed: "
                                "stop it by hand, then use `koi recover`")
        self.become(FAILED, what)

    def _last_stop_ended(self, result: Result, now: float, lease: Lease) -> None:
        """The stop that is tried once after everything was killed; the state stays Failed."""
        self.last_stop = False
        if result.ok:
            self.promoted, self.up, self.clean = False, False, True
            self._log(WARNING, f"{self.settings.name} was stopped after everything of it had been killed")
        else:
            self._stop_failed(result)


ENDINGS: Mapping[tuple[str, str], Callable[[Service, Result, float, Lease], None]] = {
    (STARTING, START): Service._start_ended,
    (PROMOTING, PROMOTE): Service._promote_ended,
    (DEMOTING, DEMOTE): Service._demote_ended,
    (STOPPING, STOP): Service._stop_ended,
    (FAILED, STOP): Service._last_stop_ended,
    (STARTED, STATUS): Service._status_ended,
    (PROMOTED, STATUS): Service._status_ended,
}
"""(state, script that ended) -> what follows. What the table lacks changes nothing: `failed`, a status of a service that
failed meanwhile, what was killed."""
