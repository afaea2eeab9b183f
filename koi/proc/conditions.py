"""What a client may wait for, judged on a snapshot: `koi wait` and the effects of changing commands.

A verdict ends the waiting, well or badly; None: not yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Union

from koi.core.data import dataclass
from koi.core.messages import MAINTENANCE, STUCK
from koi.core.states import still_active

if TYPE_CHECKING:
    from koi.proc.snapshot import Snapshot

STATES = ("Stopped", "Live", "Backup", "Master", "Failed", "Disconnected")


@dataclass(frozen=True)
class Verdict:
    """The end of a wait."""

    ok: bool
    message: str


class Condition:
    """Waits for something; `begin` before the command, `committed` once its ledger is."""

    epoch: Optional[int] = None
    """The epoch when the command was committed; None while it is not, and for `koi wait`."""
    asked = False

    def begin(self, snapshot: Snapshot) -> None:
        """Note what was so before; from now on it waits for the commit."""
        self.asked = True

    def committed(self, epoch: int) -> None:
        """The command is agreed on."""
        self.asked = False
        self.epoch = epoch

    def judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        """Whether it is so, or cannot become so."""
        if self.asked:
            return None
        verdict, why = self._judge(snapshot), stuck(snapshot)
        fencing = snapshot.view.fence and not snapshot.machine.fencer.trouble
        if verdict is None and why and self.epoch is not None and not fencing:
            return Verdict(False, f"begun, and goes on once this is mended: {why}")
        return verdict

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether it is so already."""
        verdict = self.judge(snapshot)
        return verdict is not None and verdict.ok

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        raise NotImplementedError

    def progress(self, snapshot: Snapshot) -> str:
        """What there is to tell meanwhile."""
        return snapshot.nobody() if snapshot.master() is None else f"{snapshot.master()} is master"


def stuck(snapshot: Snapshot) -> str:
    """Why nothing is changed until an administrator acts (hold: stuck); empty when that is not so."""
    ledger = snapshot.view.ledger
    return still_active(str(ledger.master)) if ledger.hold == STUCK else ""


def _is_master(snapshot: Snapshot, name: str) -> bool:
    seen = snapshot.machine.reports.get(name)
    return snapshot.master() == name and seen is not None and seen.report.state == "Master"


def _frozen(snapshot: Snapshot) -> Optional[Verdict]:
    """Maintenance that was turned on meanwhile: nothing changes until it is off."""
    if snapshot.view.ledger.hold != MAINTENANCE:
        return None
    return Verdict(False, "maintenance was turned on meanwhile, so no master is changed; 'koi maintenance off' ends it")


class MasterIs(Condition):
    """`master` or `master=NODE`: promoted on every service."""

    def __init__(self, node: Optional[str]) -> None:
        self.node = node
        self.before: Optional[str] = None
        self.failures: Optional[int] = None

    def begin(self, snapshot: Snapshot) -> None:
        """Note how often the node has failed already."""
        super().begin(snapshot)
        self.before = snapshot.master()
        seen = snapshot.machine.reports.get(str(self.node))
        self.failures = seen.report.failcount if seen is not None else 0

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        master = snapshot.master()
        if master is not None and (self.node in (None, master)) and _is_master(snapshot, master):
            return Verdict(True, f"{master} is master (epoch {snapshot.view.ledger.epoch})")
        if self.epoch is not None and self.node is None and snapshot.machine.nobody:
            return Verdict(True, f"manual mode is over; nobody is master yet: {snapshot.machine.nobody}")
        return self._missed(snapshot) if self.epoch is not None and self.node is not None else None

    def _missed(self, snapshot: Snapshot) -> Optional[Verdict]:
        """A promotion that was asked for has failed: say what happened instead."""
        ledger, node = snapshot.view.ledger, str(self.node)
        seen = snapshot.machine.reports.get(node)
        failed = seen is not None and seen.report.failed and seen.report.failcount != self.failures
        if ledger.target == node or (ledger.master == node and not failed and snapshot.master() == node):
            return _frozen(snapshot)
        if ledger.epoch == self.epoch and not failed:
            return Verdict(False, f"{node} was not made master: {ledger.reason}") if ledger.target is None else None
        if not snapshot.machine.nobody and not _is_master(snapshot, str(snapshot.master())):
            return None
        now = f"{snapshot.master()} is master" if snapshot.master() else f"nobody is master: {snapshot.nobody()}"
        if failed and seen is not None:
            return Verdict(False, f"{node} failed to become master ({seen.report.last_failure}); {now}; see 'koi failures'")
        return Verdict(False, f"{node} was not made master; {now} ({ledger.reason}); see 'koi why'")

    def progress(self, snapshot: Snapshot) -> str:
        """demoting b, promoting c."""
        ledger = snapshot.view.ledger
        if ledger.hold == STUCK:
            return stuck(snapshot)
        if ledger.yielding and snapshot.master() is not None:
            return f"demoting {ledger.master}"
        if snapshot.master() is not None and (self.node in (None, snapshot.master())):
            return f"promoting {snapshot.master()}"
        return super().progress(snapshot)


class NobodyIs(Condition):
    """After `demote`: the old master is demoted."""

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        ledger = snapshot.view.ledger
        if snapshot.master() is None:
            return Verdict(True, "nobody is master; 'koi elect' or 'koi promote NODE' ends manual mode")
        if self.epoch is not None and not ledger.manual:
            return Verdict(False, f"manual mode was ended meanwhile: {ledger.reason}")
        return _frozen(snapshot) if self.epoch is not None else None

    def progress(self, snapshot: Snapshot) -> str:
        """demoting b."""
        return f"demoting {snapshot.master()}"


class LeaderIs(Condition):
    """There is a leader."""

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        leader = snapshot.leader()
        return None if leader is None else Verdict(True, f"{leader} leads")

    def progress(self, snapshot: Snapshot) -> str:
        """c leads; 1 of 3 electors agree."""
        leader, electors = snapshot.leader(), len(snapshot.machine.seat.electors)
        return snapshot.nobody() if leader is None else f"{leader} leads; {snapshot.have()} of {electors} electors agree"


class QuorumIs(LeaderIs):
    """A majority of electors agrees on the ledger."""

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        if snapshot.lead is None or snapshot.stale() is not None or snapshot.have() < snapshot.machine.seat.majority:
            return None
        return Verdict(True, f"{snapshot.have()} of {len(snapshot.machine.seat.electors)} electors agree")


class StateIs(Condition):
    """`state NODE STATE`."""

    def __init__(self, node: str, state: str) -> None:
        self.node, self.state = node, state

    def _judge(self, snapshot: Snapshot) -> Optional[Verdict]:
        if self.node not in snapshot.names():
            return None
        state = snapshot.node(self.node)["state"]
        return Verdict(True, f"{self.node} is {state}") if state == self.state else None

    def progress(self, snapshot: Snapshot) -> str:
        """c is Live."""
        if self.node not in snapshot.names():
            return f"no node named {self.node} is known yet"
        return f"{self.node} {'runs no services' if (state := snapshot.node(self.node)['state']) is None else f'is {state}'}"


def parse(text: str) -> Union[Condition, str]:
    """The condition of these words, or what is wrong with them."""
    words = text.split()
    if words == ["nobody"]:
        return NobodyIs()
    if words == ["leader"]:
        return LeaderIs()
    if words == ["quorum"]:
        return QuorumIs()
    if words == ["master"]:
        return MasterIs(None)
    if len(words) == 1 and words[0].startswith("master=") and words[0] != "master=":
        return MasterIs(words[0].partition("=")[2])
    if len(words) == 3 and words[0] == "state":
        if words[2] not in STATES:
            return f"there is no state '{words[2]}'; states: {', '.join(STATES)}"
        return StateIs(words[1], words[2])
    return f"'{text}' is no condition; conditions: master, master=NODE, state NODE STATE, leader, quorum"
