"""Fencing: a command that makes sure that a node is off, ordered through the ledger (docs/protocol.md rules 5.5 and 9.5).

Rule: a fence is ordered only by a committed ledger, for one (node, boot, epoch), one at a time. Only what has surely lost its
lease is fenced: no majority of electors has heard it for M, or its demote and stop failed. Success lets the electors drop their
guard through the ledger; until then, and when it fails, the guard goes on as without a fence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Union

from koi.core.arbiter import View, ago, heard, is_fenced
from koi.core.data import dataclass
from koi.core.effects import EndFence, RunFence
from koi.core.messages import STUCK, Fenced, Ledger

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0


def order(view: View) -> Optional[Ledger]:
    """The ledger that orders a fence, or takes an order back; None: neither is due."""
    ledger = view.ledger
    if ledger.fencing is not None:
        return _take_back(view)
    if not view.fence or ledger.master is None or is_fenced(ledger):
        return None
    why = _why(view)
    if not why:
        return None
    seen = view.reports.get(ledger.master)
    target = Fenced(ledger.master, None if seen is None else seen.report.boot, ledger.epoch)
    return replace(ledger, fencing=target, reason=f"fence {ledger.master}: {why}")


def _why(view: View) -> str:
    """Why the master has to be fenced, in words."""
    ledger = view.ledger
    if ledger.hold == STUCK:
        return "it may still be active, for its demote and stop failed"
    if ledger.hold is not None or view.lost_by < view.majority:
        return ""
    seen = view.reports.get(str(ledger.master))
    if seen is not None and seen.report.renounced is not None and seen.report.renounced >= ledger.epoch:
        return ""
    last = "never heard" if seen is None else f"last heard {ago(view.now - seen.at)} ago"
    return f"lost by {view.lost_by} of {view.electors} electors ({last})"


def _take_back(view: View) -> Optional[Ledger]:
    """A master that is heard again and is not stuck needs no fence any more; without a command there is none."""
    ledger = view.ledger
    if not view.fence:
        return replace(ledger, fencing=None, reason="the fence is taken back: the leader has no cluster.fence")
    stale = ledger.fencing is not None and (ledger.fencing.name, ledger.fencing.epoch) != (ledger.master, ledger.epoch)
    back = ledger.hold != STUCK and view.lost_by < view.majority and heard(view, str(ledger.master)) is not None
    if not stale and not back:
        return None
    return replace(ledger, fencing=None, reason=f"{ledger.master} is heard again; the fence is taken back")


@dataclass
class Fencer:
    """What the leader does about the order in the ledger. Times are seconds."""

    order: Optional[Fenced] = None
    running: bool = False
    failures: int = 0
    retry_at: Optional[float] = None
    done: Optional[Fenced] = None
    """The command has succeeded; the ledger is to say so."""
    trouble: str = ""
    """The last failure, for status."""

    def follow(self, wanted: Optional[Fenced], now: float) -> list[Union[RunFence, EndFence]]:
        """What to run or to end, for the order of a committed ledger, or for none."""
        effects: list[Union[RunFence, EndFence]] = []
        if wanted != self.order:
            if self.running:
                effects.append(EndFence())
            self.order, self.running, self.failures, self.retry_at, self.done, self.trouble = wanted, False, 0, None, None, ""
        due = self.retry_at is None or now >= self.retry_at
        if wanted is not None and not self.running and self.done is None and due:
            self.running = True
            effects.append(RunFence(wanted.name, wanted.epoch))
        return effects

    def ended(self, name: str, epoch: int, ok: bool, what: str, now: float) -> None:
        """The command has ended; `what` says how it failed."""
        if self.order is None or (self.order.name, self.order.epoch) != (name, epoch):
            return
        self.running = False
        if ok:
            self.done, self.trouble = self.order, ""
            return
        wait = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.retry_at = now + wait
        self.trouble = self.words(name, what, wait)

    @staticmethod
    def words(name: str, what: str, wait: float) -> str:
        """A failure, in words."""
        return f"fence of {name} failed ({what}); it is tried again in {wait:g} s, and the electors' guards go on"


def fenced(ledger: Ledger, done: Fenced) -> Ledger:
    """The ledger that says that the command has succeeded."""
    hold = None if ledger.hold == STUCK else ledger.hold
    words = f"{done.name} is fenced: the fence command says that it is off"
    return replace(ledger, fencing=None, fenced=done, hold=hold, reason=words)
