"""One elector: its roles, its ledger, the reports of the runners, and as leader the decisions.

The shell owes it: every datagram that opened, with its sender or origin; `persisted(n)` after each Persist;
`handle_timer` at `deadline`; and to carry out the effects of each call in their order. All times are seconds of one
clock that never jumps back (CLOCK_BOOTTIME).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Hashable, Optional

from koi.core import arbiter, chronicle, commands, fencing, rivals
from koi.core.arbiter import Decision, Seen, View
from koi.core.commands import AlreadySo, Command
from koi.core.desk import Desk
from koi.core.effects import CRITICAL, INFO, WARNING, Done
from koi.core.election import BLANK, Roles
from koi.core.leadership import Leadership
from koi.core.ledger import Acceptor, Record, same_master
from koi.core.messages import STUCK, Ledger, Report, State, Vouch
from koi.core.seat import Random, Seat
from koi.core.timing import Timing

MAX_RUNNERS = 500
MAX_COMMANDS = 32
FRESH_BEATS = 1.5
"""A report younger than this many H is answered again when a ledger is accepted (rule 5.4)."""
CALL_UP_BEATS = 0.5
"""Who will be chosen is nudged when its report is older than so many H: up to the next heartbeat it is fresh then."""


class Elector:
    """The machine of one elector."""

    def __init__(self, seat: Seat, timing: Timing, record: Optional[Record], random: Random, now: float) -> None:
        self.seat, self.timing = seat, timing
        self.acceptor = Acceptor(timing, record or Record(), now)
        self.desk = Desk(self.acceptor)
        if record is not None and (record.electors, record.span) != (seat.electors, timing.span):
            self.acceptor.record = replace(record, electors=seat.electors, span=max(record.span, timing.span))
        self.roles = Roles(seat, self.desk, timing, random, now, blank=record is None)
        self.reports: dict[str, Seen] = {}
        self.numbers: dict[str, int] = {}
        """boot -> number of its last report."""
        self.rivals: dict[str, rivals.Rivals] = {}
        self.queue: list[Command] = []
        self.proposed: Optional[Command] = None
        self.nobody = ""
        self.wake: Optional[float] = None
        self.target_since: Optional[float] = None
        self.called_up_at = now
        """When a runner was last nudged before its time."""
        self.told_free: Optional[int] = None
        self.fencer = fencing.Fencer()
        self.journaled = self.acceptor.record.ledger
        """The ledger up to which the journal has been written."""

    # --- events ---

    def start(self, now: float) -> list[Any]:
        """The first effects."""
        return self._finish(self.acceptor.record.version, now, decide=False)

    def receive(self, sender: str, message: Any, now: float) -> list[Any]:
        """A datagram of another elector."""
        was = self.acceptor.record.version
        self.roles.receive(sender, message, now)
        return self._finish(was, now, decide=self.roles.news)

    def persisted(self, number: int, now: float) -> list[Any]:
        """The record of this number is on disk."""
        was = self.acceptor.record.version
        self.desk.persisted(number)
        self.roles.persisted(now)
        return self._finish(was, now)

    def handle_timer(self, now: float) -> list[Any]:
        """Do what is due."""
        was = self.acceptor.record.version
        self.roles.handle_timer(now)
        return self._finish(was, now)

    def resign(self, why: str, now: float) -> list[Any]:
        """Before an orderly stop: hand the lead over (rule 3.6)."""
        self.roles.resign(why, now)
        return self.desk.drain()

    def command(self, command: Command, now: float) -> list[Any]:
        """An administrator's command to the leader; Done follows once its ledger is committed, or it is refused."""
        if self.roles.lead is None:
            self._done(command, False, "this node does not lead any more; try again")
        elif len(self.queue) >= MAX_COMMANDS:
            self._done(command, False, "too many commands wait for a majority of electors; try again later")
        elif command.id not in (c.id for c in self.queue) and command != self.proposed:
            self.queue.append(command)
        return self._finish(self.acceptor.record.version, now)

    def report(self, origin: Hashable, report: Report, now: float) -> list[Any]:
        """A runner's report: it is answered, whatever it says (rules 5.2 to 5.5)."""
        if not self._is_new(report):
            return []
        was, known = self.acceptor.record.version, self.reports.get(report.name)
        report = rivals.following(known, report)
        self._see_epochs(report)
        self.acceptor.heard(report, now)
        if self.roles.role != BLANK:
            self.acceptor.heard_renounce(report)
            self._settle(now)
        if known is not None and self._refuses(known, report, origin, now):
            self.desk.say_now(origin, replace(self._state(report, nudge=False), digest=""))  # its list is not kept
            return self._finish(was, now)
        self._answer(origin, report, now)
        self._remember(origin, report, now)
        return self._finish(was, now, decide=_tells(known, report))

    def deadline(self) -> float:
        """When handle_timer wants to be called, in seconds."""
        acceptor = self.acceptor
        free_at = acceptor.free_at() if self.told_free != acceptor.record.ledger.epoch else None
        settles_at = acceptor.guard_ends() if acceptor.pending is not None else None
        first = self.roles.deadline()
        for time in (free_at, settles_at, self.wake):
            if time is not None and time < first:
                first = time
        return first

    # --- after every event ---

    def _finish(self, was: Any, now: float, decide: bool = True) -> list[Any]:
        self._settle(now)
        if self.acceptor.record.version != was:
            self._accepted(now)
        freed = self._tell_free(now)
        if self.roles.lead is None:
            self._not_leading()
        elif decide or freed:
            self._decide(self.roles.lead, now)
        return self.desk.drain()

    def _settle(self, now: float) -> None:
        if self.acceptor.settle(now):
            self.roles.acknowledge(now)

    def _tell_free(self, now: float) -> bool:
        """Rule 4.4: an elector whose guard runs out between heartbeats says so at once. True when it changed."""
        free = self.acceptor.free(now)
        if free == self.told_free:
            return False
        self.told_free = free
        if free is not None:
            self.roles.acknowledge(now)
        return True

    # --- reports ---

    def _is_new(self, report: Report) -> bool:
        last = self.numbers.get(report.boot)
        if last is not None and report.number <= last:
            return False
        if last is None and len(self.numbers) >= MAX_RUNNERS:
            self.numbers.pop(next(iter(self.numbers)))
        self.numbers[report.boot] = report.number
        return True

    def _see_epochs(self, report: Report) -> None:
        for epoch in (report.holding, report.renounced):
            if epoch is not None and self.roles.role != BLANK:
                self.acceptor.see_top(epoch)

    def _remember(self, origin: Hashable, report: Report, now: float) -> None:
        known = self.reports.get(report.name)
        if report.services is None and known is not None and known.report.boot == report.boot:
            report = replace(report, services=known.report.services, digest=known.report.digest)  # an older list than none
        if known is not None or len(self.reports) < MAX_RUNNERS:
            self.reports[report.name] = Seen(report, now, origin)

    def _refuses(self, known: Seen, report: Report, origin: Hashable, now: float) -> bool:
        """Two living nodes of one name are named in a warning, and one of them is not believed."""
        if not rivals.strangers(known, report):
            return False
        before = self.rivals.get(report.name)
        self.rivals[report.name] = seen = rivals.watch(before, known, report, origin, now)
        if seen.warned_at is not None and (before is None or before.warned_at is None):
            self.desk.log(WARNING, seen.text)
        return rivals.refused(known, report, self.acceptor.record.ledger.epoch, self.timing, now)

    def _answer(self, origin: Any, report: Report, received: float) -> None:
        """Rules 5.3 and 5.4. What is vouched for is on disk: a lease that runs is renewed from there, without a write."""
        if self.roles.role == BLANK or not self.acceptor.stands_for(report, received):
            self.desk.say_now(origin, self._state(report, nudge=False))
            return
        durable = self.desk.durable_record
        if same_master(durable.ledger, self.acceptor.record.ledger) and durable.span >= self.timing.span:
            self._vouch(origin, report, received, durable, 0)
        else:
            self._vouch(origin, report, received, self.acceptor.record, self.desk.due())

    def _vouch(self, origin: Any, report: Report, received: float, record: Record, write: int) -> None:
        self.acceptor.raise_guard(report, received)
        vouch = Vouch(
            record.ledger.epoch, record.version, report.boot, report.number, self.timing.lease, self.timing.grace,
            record.ledger.yielding, record.ledger.hold, self.roles.leader, self._known_digest(report),
        )
        self.desk.say_after(write, origin, vouch)

    def _state(self, report: Report, nudge: bool) -> State:
        record, ledger = self.acceptor.record, self.acceptor.record.ledger
        return State(
            report.boot, report.number, record.version, self.roles.leader, ledger.master, ledger.epoch,
            ledger.yielding, ledger.hold, self.roles.role == BLANK, nudge, self._known_digest(report),
        )

    def _known_digest(self, report: Report) -> str:
        if report.services is not None:
            return report.digest
        seen = self.reports.get(report.name)
        known = seen is not None and seen.report.services is not None and seen.report.digest == report.digest
        return report.digest if known else ""

    # --- a ledger was accepted ---

    def _accepted(self, now: float) -> None:
        """Rule 5.4: the master named is vouched for if it reported just now, else it is nudged."""
        ledger = self.acceptor.record.ledger
        self.desk.out.extend(chronicle.changes(self.journaled, ledger))
        self.journaled = ledger
        seen = self.reports.get(ledger.master) if ledger.master is not None else None
        if seen is None or seen.report.holding == ledger.epoch and not ledger.yielding and ledger.hold is None:
            return
        if now - seen.at <= FRESH_BEATS * self.timing.heartbeat and self.acceptor.stands_for(seen.report, now):
            self._vouch(seen.origin, seen.report, seen.at, self.acceptor.record, self.desk.due())
        else:
            self.desk.say(seen.origin, self._state(seen.report, nudge=True))

    # --- leading ---

    def _not_leading(self) -> None:
        self.queue.clear()
        self.desk.out.extend(self.fencer.follow(None, self.roles.heard_at))
        self.proposed = None
        self.wake = self.target_since = None

    def view(self, lead: Leadership, now: float) -> View:
        """What the leader knows now."""
        return View(
            lead.ledger, lead.version, self.acceptor.record.top, now, lead.since, self.reports,
            lead.free_by(lead.ledger.epoch, self.acceptor.free(now), now), self.seat.majority, len(self.seat.electors),
            self.timing, self.target_since, self.seat.fence, lead.lost_by(lead.ledger.epoch, self.acceptor.lost(now), now),
        )

    def _decide(self, lead: Leadership, now: float) -> None:
        """Section 9: whenever something changed, on a committed ledger, commands first."""
        self.wake = None
        if not lead.committed():
            return
        if self.proposed is not None:
            self._done(self.proposed, True, lead.ledger.reason)
            self.proposed = None
        view = self.view(lead, now)
        if not self._carry_out(view, lead, now) and not self._fence(view, lead, now):
            self._follow_decision(arbiter.decide(view), lead, now)

    def _fence(self, view: View, lead: Leadership, now: float) -> bool:
        """Rule 9.5. True when the ledger was changed for it."""
        self.desk.out.extend(self.fencer.follow(lead.ledger.fencing if self.seat.fence else None, now))
        done = self.fencer.done
        ledger = fencing.order(view) if done is None else fencing.fenced(lead.ledger, done)
        if ledger is not None:
            self._propose(ledger, lead, now)
        return ledger is not None

    def fence_ended(self, node: str, epoch: int, ok: bool, what: str, now: float) -> list[Any]:
        """The fence command has ended; `what` says how it failed."""
        self.fencer.ended(node, epoch, ok, what, now)
        if self.fencer.trouble:
            self.desk.log(WARNING, self.fencer.trouble)
        return self._finish(self.acceptor.record.version, now)

    def _carry_out(self, view: View, lead: Leadership, now: float) -> bool:
        while self.queue:
            command = self.queue.pop(0)
            if command.id in lead.ledger.recent:
                self._done(command, True, "done already")
                continue
            outcome = commands.apply(view, command)
            if isinstance(outcome, Ledger):
                self.proposed = command
                self._propose(outcome, lead, now)
                return True
            already = isinstance(outcome, AlreadySo)
            self._done(command, already, outcome.message, already)
        return False

    def _follow_decision(self, decision: Decision, lead: Leadership, now: float) -> None:
        self.wake = decision.wake
        if _gist(decision.nobody) != _gist(self.nobody) and decision.nobody:
            level = CRITICAL if lead.ledger.hold == STUCK else INFO
            self.desk.log(level, decision.nobody if lead.ledger.hold else f"nobody is master: {decision.nobody}")
        self.nobody = decision.nobody
        if decision.next is not None:
            self._call_up(self.reports[decision.next], now)
        if decision.ledger is not None:
            self._propose(decision.ledger, lead, now)

    def _call_up(self, seen: Seen, now: float) -> None:
        """While the master lets go, who follows is nudged at each heartbeat: so all electors have a fresh report of it when they
        accept the ledger that names it, and vouch at once (rule 5.4)."""
        if now - max(seen.at, self.called_up_at) >= CALL_UP_BEATS * self.timing.heartbeat:
            self.called_up_at = now
            self.desk.say_now(seen.origin, self._state(seen.report, nudge=True))

    def _propose(self, ledger: Ledger, lead: Leadership, now: float) -> None:
        self._watch_target(lead.ledger, ledger, now)
        was = self.acceptor.record.version
        lead.propose(ledger, now)
        self.roles.beat(now)
        self.desk.log(INFO, f"ledger {lead.version[0]}.{lead.version[1]}, epoch {ledger.epoch}: {ledger.reason}")
        if self.acceptor.record.version != was:
            self._accepted(now)
        if lead.committed():
            self._decide(lead, now)

    def _watch_target(self, old: Ledger, new: Ledger, now: float) -> None:
        if new.target is None:
            self.target_since = None
        elif new.target != old.target or self.target_since is None:
            self.target_since = now

    def _done(self, command: Command, ok: bool, message: str, already: bool = False) -> None:
        self.desk.out.append(Done(command.id, ok, message, self.acceptor.record.ledger.epoch, already))


def _tells(known: Optional[Seen], report: Report) -> bool:
    """Whether a report says something that may change a decision."""
    if known is None:
        return True
    old = known.report
    return (
        old.boot, old.holding, old.renounced, old.ready, old.failed, old.stuck, old.state, old.mode, old.acknowledged, old.hears,
    ) != (
        report.boot, report.holding, report.renounced, report.ready, report.failed, report.stuck, report.state, report.mode,
        report.acknowledged, report.hears,
    )


def _gist(words: str) -> str:
    """The words without their numbers: an age that grows is no news."""
    return "".join(c for c in words if not c.isdigit())
