"""What is put right on the node itself, before the node counts as failed.

What `status` finds is taken as the truth (status.py), and a service with `restarts` is stopped and started again when
it fails. Both are told like failures, so that `koi failures` has them.
"""

from __future__ import annotations

from koi.core import status
from koi.core.effects import WARNING
from koi.core.facts import Lease, Result
from koi.core.frozen import Frozen
from koi.core.messages import Last
from koi.core.states import FAILING, GOAL_STOPPED, PROMOTED, STATUS, STOPPED, outcome


class Mending(Frozen):
    """A service that is put right."""

    __slots__ = ()

    def _status_ended(self, result: Result, now: float, lease: Lease) -> None:
        self.blind = False
        if result.exit not in status.MEANINGFUL:
            self._failure(result, now)
            return
        finding = status.found(self.state, result.exit)
        if finding is not None:
            self._correct(finding, result, now)
        self.live = result.exit == status.LIVE

    def _not_asked(self, exit: int, line: str) -> None:
        """Told once, until `status` can be run again."""
        self._checked(STATUS)
        self.last = Last(STATUS, exit, 0.0)
        if not self.blind:
            self.blind = True
            what = f"status cannot be run: how {self.settings.name} is, is not known, and it goes on as it was"
            self._tell_failure(STATUS, exit, 0.0, line, what)

    def _correct(self, finding: status.Finding, result: Result, now: float) -> None:
        """What status finds is the truth; put right more than three times in a minute it is a failure."""
        self.promoted = finding.state == PROMOTED
        self.corrections = status.noted(self.corrections, now)
        if status.too_many(self.corrections):
            what = f"{finding.why}, {len(self.corrections)} times within {status.CORRECTIONS_S:g} s"
            self._fails(Result(STATUS, result.exit, result.seconds, result.line), what, now)
            return
        self.up = finding.state != STOPPED
        what = f"it was {self.state}, but {finding.why}; it is put right"
        self._log(WARNING, f"{self.settings.name}: {what}")
        self._tell_failure(STATUS, result.exit, result.seconds, result.line, what)
        self.become(finding.state, finding.why)

    def _failure(self, result: Result, now: float) -> None:
        """A script failed: the service waits for the runner, which demotes and stops the node in its order."""
        self._fails(result, outcome(result.action, result.exit, self.settings.timeout(result.action)), now)

    def _fails(self, result: Result, what: str, now: float) -> None:
        """The service fails; while it has restarts left it is stopped and started again instead of failing its node."""
        if not self._starts_again(result, what, now):
            self._fail(result.action, result.exit, result.seconds, result.line, what)
        self.become(FAILING, what)

    def _starts_again(self, result: Result, what: str, now: float) -> bool:
        """Whether a restart is left, and wanted; it is then under way."""
        settings = self.settings
        recent = tuple(at for at in self.restarts if now - at < settings.restarts_reset)
        if len(recent) >= settings.restarts or self.goal in (None, GOAL_STOPPED) or self.forced or self.failed:
            return False
        self.restarts = (*recent, now)
        self.restarting = True
        what = f"{what}; it is stopped and started again ({len(self.restarts)} of {settings.restarts} times)"
        self._log(WARNING, f"{settings.name}: {what}{': ' + result.line if result.line else ''}")
        self._tell_failure(result.action, result.exit, result.seconds, result.line, what)
        return True
