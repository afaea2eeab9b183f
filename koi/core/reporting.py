"""What a runner tells the electors, and when (docs/protocol.md rule 5.1).

Each H while there is a lease, a master's or that of what a dead tree left, else each 3 H; at once when anything in it
changes or when nudged. Every report goes to every elector under one number; the list of services travels only to an elector
that does not know its digest. A long list is followed at once by a report without it, so that no lease hangs on a large
datagram.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from koi.core.effects import Send
from koi.core.messages import Report, ServiceInfo

if TYPE_CHECKING:
    from koi.core.runner import Runner

IDLE_BEATS = 3
"""A runner that is not master reports every so many H."""

DETAIL_BEATS = 0.25
"""Changes of services that decide nothing are told at most once in so many H."""

LIGHT_LIST = 20
"""Services whose list fits one packet of any network. A longer one may be lost again and again, where fragments are dropped."""

ORDERS_FIRST_S = 0.002
"""A report that only tells what the node is about to do leaves so long after the orders: scripts wait for these, and the electors
that it wakes must not take the processors from them. That an epoch is given up is told at once, for others wait for that."""

MAX_WARNINGS = 4


class Reporter:
    """Builds the reports of one runner and knows when the next one is due."""

    def __init__(self, runner: Runner, lineage: tuple[str, ...], now: float) -> None:
        self.runner = runner
        self.lineage = lineage
        self.started_at = now
        self.number = 0
        self.sent_at: Optional[float] = None
        self.ordered_at = now - ORDERS_FIRST_S
        """When services were last given orders."""
        self.due = now
        """When the next report is to be sent, in seconds."""
        self.hearing = False
        self.last: Optional[Report] = None
        self.told_deciding: tuple[Any, ...] = ()
        self.told_details: tuple[Any, ...] = ()
        self.listed: tuple[ServiceInfo, ...] = ()
        self.list_number = 0
        self.digest = f"{runner.settings.boot[:8]}.0"
        self.digests: dict[str, str] = {}
        self.warnings: tuple[str, ...] = ()

    def known(self, elector: str, digest: str) -> None:
        """The elector knows the list of services of this digest."""
        self.digests[elector] = digest

    def soon(self, now: float, seen: Optional[int] = None) -> None:
        """A nudge: report at once. `seen`: the number of the last report that its elector had; a newer one that has just left is
        on its way, and counts as lost only after a while."""
        on_its_way = seen is not None and seen < self.number and self.sent_at is not None
        self.due = min(self.due, self._details_at(now)) if on_its_way else now

    def _details_at(self, now: float) -> float:
        """When there may be another report, if it decides nothing."""
        return now if self.sent_at is None else max(now, self.sent_at + DETAIL_BEATS * self.runner.timing.heartbeat)

    def warn(self, text: str) -> bool:
        """Carry a warning in the reports; False when it is carried already."""
        if text in self.warnings:
            return False
        self.warnings = (*self.warnings, text)[-MAX_WARNINGS:]
        return True

    def _warnings(self) -> tuple[str, ...]:
        lasting = (self.runner.settings.warning, self.runner.folder_fault, self.runner.stuck_beside_others())
        return tuple([text for text in lasting if text]) + self.warnings

    def reports(self, now: float) -> list[Any]:
        """The reports to send now, one for each elector, or none."""
        why = self.runner.why_not_ready(now)
        hears = self.runner.lease.hears(now, self.runner.timing.lease)
        self.hearing = hears >= self.runner.settings.majority
        digest = self._list()
        self._note_change(self._deciding(why), self._details(why, hears, digest), now)
        if now < self.due:
            return []
        runner = self.runner
        self.sent_at, self.due = now, self._next_due(now)
        lacking = [name for name in runner.settings.electors if self.digests.get(name) != digest]
        self._count(now)
        full = self._build(why, hears, digest, self.listed, now) if lacking else None
        everybody = full if len(lacking) == len(runner.settings.electors) else None
        self.last = report = everybody or self._build(why, hears, digest, None, now)
        leader = runner.lease.leader()
        electors = sorted(runner.settings.electors, key=lambda name: name != leader)  # it decides, so it hears first
        sends = [Send(name, full if name in lacking else report) for name in electors]
        if lacking and len(self.listed) > LIGHT_LIST:
            self._count(now)
            self.last = report = self._build(why, hears, digest, None, now)
            sends += [Send(name, report) for name in lacking]
        return sends

    def _next_due(self, now: float) -> float:
        """Rule 5.1, on the leader's beat."""
        runner, timing = self.runner, self.runner.timing
        beats = IDLE_BEATS if runner.holding is None and runner.told_lease is None else 1
        return timing.on_beat(timing.next_beat(self.due, now) + (beats - 1) * timing.heartbeat, runner.beat_at)

    def _count(self, now: float) -> None:
        """A report leaves now, under a number of its own."""
        self.number += 1
        self.runner.lease.note_sent(self.number, now)

    def _note_change(self, deciding: tuple[Any, ...], details: tuple[Any, ...], now: float) -> None:
        """What decides something is told at once, or once the orders that come of it are carried out; the rest soon."""
        if deciding != self.told_deciding:
            gives_up = self.last is None or self.last.renounced != self.runner.told_renounced
            self.due = min(self.due, now if gives_up else max(now, self.ordered_at + ORDERS_FIRST_S))
        elif details != self.told_details:
            self.due = min(self.due, self._details_at(now))
        if now >= self.due:
            self.told_deciding, self.told_details = deciding, details

    def _deciding(self, why: str) -> tuple[Any, ...]:
        r = self.runner
        return (
            r.holding, r.told_renounced, not why, r.state, r.mode, bool(r.failed), r.blocks_others(), r.stopped, r.acknowledged,
            r.maintenance, r.stopping,
        )

    def _details(self, why: str, hears: int, digest: str) -> tuple[Any, ...]:
        return digest, why, hears, self.runner.last_failure, self._warnings(), self.runner.recovery.count

    def _list(self) -> str:
        """The digest of the list of services: a number that grows when the list changes."""
        services, names = self.runner.services, (*self.runner.priorities, *self.runner.retired)
        listed = tuple([services[name].info for name in names if name in services])
        if listed != self.listed:
            self.listed = listed
            self.list_number += 1
            self.digest = f"{self.runner.settings.boot[:8]}.{self.list_number}"
        return self.digest

    def _build(
        self, why: str, hears: int, digest: str, services: Optional[tuple[ServiceInfo, ...]], now: float,
    ) -> Report:
        runner, settings = self.runner, self.runner.settings
        failed_ago = None if runner.failed_at is None else now - runner.failed_at
        recovers_in = None if runner.recover_at is None or not runner.failed else max(0.0, runner.recover_at - now)
        if recovers_in is None and runner.failed:
            recovers_in = runner.recover_delay
        return Report(
            settings.name, settings.boot, self.number, self.lineage, runner.holding, runner.told_renounced, not why, why,
            runner.state, runner.mode, settings.preference, now - self.started_at, hears, bool(runner.failed), failed_ago,
            runner.recovery.count, recovers_in, runner.blocks_others(), runner.stopped, runner.acknowledged,
            runner.last_failure, settings.port, settings.release,
            settings.config, digest, services, self._warnings(), bool(runner.maintenance),
        )
