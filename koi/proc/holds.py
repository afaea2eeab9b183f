"""What the commands passive and maintenance wait for: that every node that is heard follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from koi.core import arbiter
from koi.core.messages import MAINTENANCE
from koi.proc.conditions import Condition, Verdict

if TYPE_CHECKING:
    from koi.proc.snapshot import Snapshot


class PassiveIs(Condition):
    """After `passive`: the node is excluded, and somebody else is master if it was."""

    def __init__(self, node: str) -> None:
        self.node = node

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        ledger, master = snapshot.view.ledger, snapshot.master()
        if self.node not in ledger.passive:
            return Verdict(False, f"{self.node} is active again: {ledger.reason}")
        if master == self.node and ledger.hold != MAINTENANCE:
            return None
        what = f"{master} is master" if master else f"nobody is master: {snapshot.nobody()}"
        return Verdict(True, f"{self.node} is passive; {what}")

    def progress(self, snapshot: Snapshot) -> str:
        """demoting b."""
        return f"demoting {self.node}"


class ActiveIs(Condition):
    """After `active`: the node may be promoted again."""

    def __init__(self, node: str) -> None:
        self.node = node

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        if self.node in snapshot.view.ledger.passive:
            return Verdict(False, f"{self.node} is passive again: {snapshot.view.ledger.reason}")
        why = arbiter.why_not(snapshot.view, self.node)
        return Verdict(True, f"{self.node} is active" + (f", and cannot be promoted yet: {why}" if why else ""))


class OffIs(Condition):
    """After `recover NODE --force`: the stuck node counts as off."""

    def __init__(self, node: str) -> None:
        self.node = node

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        what = "the next master is chosen once its lease and grace have surely passed ('koi wait master' waits for that)"
        return Verdict(True, f"{self.node} counts as off; {what}")


class MaintenanceIs(Condition):
    """After `maintenance`: every runner that is heard runs scripts no more, or again."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def _behind(self, snapshot: Snapshot) -> list[str]:
        reports = [arbiter.heard(snapshot.view, name) for name in snapshot.machine.reports]
        return [report.name for report in reports if report is not None and report.frozen != self.on]

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        hold = snapshot.view.ledger.hold
        if (hold == MAINTENANCE) != self.on:
            what = "off" if self.on else "on"
            return Verdict(False, f"maintenance was turned {what} again meanwhile: {snapshot.view.ledger.reason}")
        if (hold is None) == self.on or self._behind(snapshot):
            return None
        silent = [name for name in snapshot.machine.reports if arbiter.heard(snapshot.view, name) is None]
        tail = f"; not heard, and so not known to follow: {', '.join(sorted(silent))}" if silent else ""
        if self.on:
            return Verdict(True, f"maintenance is on: no script is run and no master is changed{tail}")
        return Verdict(True, f"maintenance is off; what status finds is put right, see 'koi failures'{tail}")

    def progress(self, snapshot: Snapshot) -> str:
        """waiting for b to run scripts again."""
        behind = ", ".join(self._behind(snapshot))
        if snapshot.view.ledger.hold is not None and not self.on:
            return f"waiting for {snapshot.view.ledger.master} to take its lease up again"
        what = "say that no script is run any more" if self.on else "run scripts again"
        return f"waiting for {behind} to {what}" if behind else "waiting for a majority of electors"
