"""The runner of one node: its lease, its services' order, its state (docs/protocol.md section 6).

The shell owes it: every answer of an elector, every word of a worker, when root last spoke, and `handle_timer` at
`deadline`. It answers with effects. After each event `_settle` draws all conclusions in one fixed order, so that nothing
waits for a next tick.
"""

from __future__ import annotations

from typing import Any, Optional, Union

from koi.core import effects
from koi.core.data import dataclass
from koi.core.effects import Log, SetLease, Tell
from koi.core.heir import Heir
from koi.core.lease import UNLIMITED, Lease
from koi.core.messages import ENDS, State, Version, Vouch
from koi.core.ordering import STARTED
from koi.core.pipe import Failure, Held, Heritage, NodeCommand, ServiceState, Stopped
from koi.core.recovery import Recovery
from koi.core.reporting import Reporter
from koi.core.timing import Timing

HOLD_WAIT_BEATS = 3
"""How many H a starting runner waits for an elector's word whether there is maintenance (rule 6.5)."""


@dataclass(frozen=True)
class RunnerSettings:
    """The part of the configuration that a runner needs."""

    name: str
    boot: str
    electors: tuple[str, ...]
    majority: int
    mode: str = "active"
    preference: int = 0
    port: int = 0
    release: str = ""
    config: str = ""
    stuck: str = "hold"
    stopped: bool = False
    """Stopped by hand before this start."""
    maintenance: bool = False
    """The state folder says that there was maintenance."""
    warning: str = ""
    """Of its configuration, while it lasts."""


class Runner(Heir):
    """The machine of one runner. Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self, settings: RunnerSettings, timing: Timing, priorities: dict[str, Optional[int]], recovery: Recovery,
        heritage: Heritage, now: float,
    ) -> None:
        super().__init__(settings, priorities, heritage.holding)
        self.timing, self.recovery = timing, recovery
        self.lease = Lease(settings.name, settings.boot, settings.majority)
        self.reporter = Reporter(self, heritage.lineage, now)
        self.renounced = heritage.renounced
        self.left = heritage.unclean
        """A dead tree left services that are not all demoted and stopped yet: nothing is claimed until then (rule 6.5)."""
        self.owes, self.covered = heritage.owes, heritage.covered
        self.detached = heritage.detached
        """Held in maintenance by a koinode that is gone; taken up again, or given up, once it is known whether it is still on."""
        self.awaits_lease = settings.maintenance and heritage.holding is not None and heritage.lease_end is None
        """It holds what a detached tree held, and has no lease for it yet."""
        self.lease_end = heritage.lease_end if heritage.holding is not None else None
        self.unlimited = self.lease_end == UNLIMITED
        self.told_lease, self.told_grace = self.lease_end, UNLIMITED
        self.acknowledged: Optional[Version] = None
        self.told_stopped = False
        self.told_master: Optional[str] = None
        self.mode = settings.mode
        self.failed_at: Optional[float] = None
        self.recover_delay: Optional[float] = None
        self.recover_at: Optional[float] = None
        self.last_failure: Optional[str] = None
        self.hold_wait_until = now + HOLD_WAIT_BEATS * timing.heartbeat
        self.root_seen_at = now
        self.looked_at = now
        self.beat_at: Optional[float] = None
        """When this node's elector last sent or heard a leader's heartbeat, by the shell's word; None: not known."""
        self.root_lost = False
        """Root has not spoken for M: no lease is renewed (rule 6.6)."""
        self.commands: list[NodeCommand] = []
        self.went_down: set[str] = set()
        self.failed_anew: set[str] = set()
        self.watchdog_trouble = ""
        self.folder_fault = ""
        """What is to be mended in the folder of services, by the shell's word."""

    # --- events ---

    def start(self, now: float) -> list[Any]:
        """The first effects. What a dead tree left stays known until it is clean; else the lease is what it says here."""
        if not self.left:
            self.out.append(SetLease(self.told_lease))
        return self._settle(now)

    def receive(self, elector: str, answer: Union[Vouch, State], now: float) -> list[Any]:
        """An elector's answer to a report, or a nudge."""
        self.hear(elector, answer, now)
        return self._settle(now)

    def hear(self, elector: str, answer: Union[Vouch, State], now: float) -> None:
        """Take an answer up without concluding anything yet: `handle_timer` is owed once all that came with it is heard."""
        if elector not in self.settings.electors:
            return
        nudged = isinstance(answer, State) and answer.nudge and answer.boot == self.settings.boot
        if self.lease.hear(elector, answer, now):
            self.reporter.known(elector, answer.digest)
        if nudged:
            self.reporter.soon(now, answer.number)

    def service(self, state: ServiceState, now: float) -> list[Any]:
        """A worker's word of its service."""
        if state.info.name in self.priorities or state.info.name in self.retired:
            self._heard_from(state)
            self._watch_demote(state)
            self._watch_restarts(state)
        return self._settle(now)

    def failure(self, failure: Failure) -> None:
        """A worker's word of a failed action, for status. The state of its service follows, and all that is concluded from it."""
        self.last_failure = f"{failure.service}: {failure.what}"

    def command(self, command: NodeCommand, now: float) -> list[Any]:
        """start, stop, recover, restart; NodeResult follows when the effect is there."""
        self._take(command, now)
        return self._settle(now)

    def stop(self, now: float) -> list[Any]:
        """Orderly end: demote, renounce, stop; Stopped to root at the end. In maintenance all is left as it is."""
        self.stopping = True
        return self._settle(now)

    def root_seen(self, now: float) -> None:
        """Root has spoken (rule 6.6)."""
        self.root_seen_at = now

    def handle_timer(self, now: float) -> list[Any]:
        """Do what is due."""
        return self._settle(now)

    def deadline(self) -> float:
        """When handle_timer wants to be called, in seconds."""
        first = min(self.reporter.due, self.root_seen_at + self.timing.lease)
        if self.root_lost:  # nothing else would wake it once root goes on
            first = self.looked_at + self.timing.heartbeat
        times = (
            self.recover_at if self._may_recover() else None,
            self.lease_end if self.holding is not None and not self.letting_go and not self.unlimited else None,
            self.lease.hears_until(self.timing.lease) if self.reporter.hearing and not self.root_lost else None,
            self.hold_wait_until if self.maintenance is None else None,
        )
        for time in times:
            if time is not None and time < first:
                first = time
        return first

    # --- all conclusions, in order ---

    def _settle(self, now: float) -> list[Any]:
        self.looked_at, self.root_lost = now, now >= self.root_seen_at + self.timing.lease
        self._look_at_left()
        self._learn_hold(now)
        self.detaching = self._may_detach()
        self._judge_services(now)
        self._count_lease(now)
        self._find_reason_to_let_go(now)
        self._renounce_if_demoted(now)
        self._begin_if_vouched(now)
        self._recover_if_due(now)
        self._tell_freeze()
        said = len(self.out)
        self._give_orders(self._master())
        if len(self.out) > said:
            self.reporter.ordered_at = now
        self._let_retired_go()
        self._name_state()
        self._answer_commands()
        self._tell_stopped()
        if not self.root_lost:
            self.out.extend(self.reporter.reports(now))
        out, self.out = self.out, []
        return out

    def _may_detach(self) -> bool:
        """Whether koinode may end and leave its services as they are: the electors' guards wait for it, or it holds nothing."""
        return self.stopping and self.maintenance is True and (self.holding is None or self.unlimited or self.awaits_lease)

    def _tell_held(self) -> None:
        self.out.append(Tell("root", Held(self.settings.boot, self.holding, self.renounced, self.maintenance)))

    def _judge_services(self, now: float) -> None:
        """A failing service fails its node."""
        bad = [name for name, s in self.services.items() if s.info.failed and name not in self.recovering]
        if bad and not self.failed:
            self._fail_node(bad[0], now)

    def _fail_node(self, service: str, now: float) -> None:
        self.failed, self.failed_at = service, now
        self.recover_delay, self.recover_at = self.recovery.failed(now), None
        if self.recover_delay is None:
            name, most = self.settings.name, self.recovery.auto_recover
            why = f"it failed more than {most} times in a row (service.auto_recover); 'koi recover {name}' starts it"
            self.out.append(Log(effects.ERROR, f"{name} does not recover by itself any more: {why}"))
        self.recovering.clear()
        self.failed_anew.update(command.id for command in self.commands)
        if self.recovery.flapping(now):
            self._warn("the node is flapping: it failed three times within an hour; see 'koi failures'")

    def _count_lease(self, now: float) -> None:
        """Rule 6.1; section 7 for the hold."""
        if self.holding is None:
            self._count_lease_of_left()
            return
        held, ends = self.lease.held(self.holding), self.lease.ends(self.holding)
        was, self.unlimited = self.unlimited, self.unlimited if held is None else held
        if was and not self.unlimited:
            self.lease_end = None  # where it ended long ago nobody could know: the demote has one G from now on
        if ends is not None and not self.root_lost and (ends > now or self.lease_end is not None):
            self.lease_end = ends if self.lease_end is None else max(ends, self.lease_end)
        over = self.lease.superseded(self.holding)
        self.awaits_lease = self.awaits_lease and not over and not self.unlimited and self.lease_end is None
        self._set_lease(UNLIMITED if self.unlimited else self.lease_end)
        self.acknowledged = self.lease.ending(self.holding, now) or self.acknowledged

    def _set_lease(self, end: Optional[float], epoch: Optional[int] = None) -> None:
        grace = None if end is None else self.lease.grace(self.holding if epoch is None else epoch)
        if end == self.told_lease and grace in (None, self.told_grace):
            return
        if self.told_lease == UNLIMITED != end:  # the cell wakes nobody, and no worker looks at a lease without end
            self.told_freeze.clear()
        self.told_lease, self.told_grace = end, self.told_grace if grace is None else grace
        self.out.append(SetLease(end, grace))

    def _find_reason_to_let_go(self, now: float) -> None:
        """Rule 6.3."""
        if self.holding is None or self.letting_go:
            return
        self.letting_go = self._reason_to_let_go(self.holding, now)
        if self.letting_go:
            self.out.append(Log(effects.INFO, f"lets epoch {self.holding} go: {self.letting_go}"))

    def _reason_to_let_go(self, epoch: int, now: float) -> str:
        offer = self.lease.offered(now)
        if self.stopping and not self.detaching:
            return ENDS
        if self.lease.stuck(epoch) or (self.is_stuck and self.maintenance is False):  # the hold ends only so (rule 9.1)
            return "demote and stop failed"
        if self.unlimited or (self.maintenance is not False and self.awaits_lease):
            return ""
        if self.failed:
            return f"service {self.failed} failed"
        if self.stopped:
            return "stopped by hand"
        if self.mode != "active":
            return "the node is passive"
        if self.lease.yielding(epoch):
            return "a majority of electors says yield"
        if self.lease.superseded(epoch):
            return "a majority of electors says that a later epoch has begun"
        if self.lease_end is None or now >= self.lease_end:
            electors = len(self.settings.electors)
            return f"the lease has ended: no majority of the {electors} electors stood for it in the last {self.timing.lease:g} s"
        if offer is not None and offer[0] > epoch:
            return f"epoch {offer[0]} follows"
        return ""

    def _renounce_if_demoted(self, now: float) -> None:
        """Rule 6.3: the last service demoted, it gives the epoch up for good."""
        if self.holding is None:
            self._renounce_unheld()
            return
        if not self.letting_go or not self.all_demoted:
            return
        stuck = self.stuck()
        if stuck and self.settings.stuck == "hold":
            return
        self._renounce(None if stuck else self.holding)
        self._learn_hold(now)  # one that was not for what was promoted here counts again

    def _renounce(self, epoch: Optional[int]) -> None:
        self.holding = None
        self.lease_end, self.unlimited, self.letting_go = None, False, ""
        self._set_lease(None)
        if epoch is not None and (self.renounced is None or epoch > self.renounced):
            self.renounced = epoch
        self._tell_held()

    def _renounce_unheld(self) -> None:
        """Told to yield and holding nothing, it renounces at once, unless something of it may still be active."""
        newest = self.lease.newest()
        if newest is None or newest.master != self.settings.name or self.left or not self.known_demoted:
            return
        if self.is_stuck:
            return
        above = self.renounced is None or newest.epoch > self.renounced
        if above and (self.lease.yielding(newest.epoch) or (self.knows_all and self.lease.is_awaited(newest.epoch))):
            self._renounce(newest.epoch)

    def _begin_if_vouched(self, now: float) -> None:
        """Rule 6.2."""
        if self.holding is not None or self.why_not_ready(now):
            return
        offer = self.lease.offered(now)
        if offer is None or (self.renounced is not None and offer[0] <= self.renounced):
            return
        self.holding, self.lease_end = offer
        self.acknowledged = None
        self._set_lease(self.lease_end)
        self._tell_held()
        self.out.append(Log(effects.INFO, f"begins epoch {self.holding}"))

    def _may_recover(self) -> bool:
        return bool(self.failed) and self._all_ended() and not self.maintenance

    def _recover_if_due(self, now: float) -> None:
        if not self._may_recover():
            return
        if self.recover_at is None and self.recover_delay is not None:
            self.recover_at = now + self.recover_delay
        if self.recover_at is not None and now >= self.recover_at:
            self.recovering = {name for name, s in self.services.items() if s.info.failed}
            self.failed, self.recover_at, self.recover_delay = "", None, None

    def _tell_stopped(self) -> None:
        ended = self._all_ended() and (self.holding is None or self.stuck())
        if self.stopping and not self.told_stopped and (ended or self.detaching):
            self.told_stopped = True
            self.out.append(Tell("root", Stopped(self.detaching)))

    # --- what the node is ---

    def _master(self) -> Optional[str]:
        """What scripts are told. That this node was named is no news until it begins: its workers would be woken for that, and
        again a moment later."""
        newest, name = self.lease.newest(), self.settings.name
        if self.holding is not None:
            self.told_master = name
        elif newest is not None and (newest.master != name or self.told_master is None):
            self.told_master = newest.master
        return self.told_master

    @property
    def told_renounced(self) -> Optional[int]:
        """What reports say is given up: what a dead tree held only once all that it left is demoted and stopped (rule 6.5)."""
        return None if self.left else self.renounced

    def why_not_ready(self, now: float) -> str:
        """Why this node cannot be made master, in words; empty when it can (rule 5.1)."""
        if self.stopping:
            return ENDS
        if self.stopped:
            return f"stopped by hand; 'koi start {self.settings.name}' starts it"
        if self.failed:
            return f"service {self.failed} failed"
        if self.mode != "active":
            return "node.mode is passive"
        if self.live or not self.levels[STARTED]:
            return self._unfinished()
        if self.maintenance is not False:
            return "maintenance"
        if self.root_lost or self.watchdog_trouble:
            return "koinode's root does not answer" if self.root_lost else self.watchdog_trouble
        heard = self.lease.hears(now, self.timing.lease)
        return "" if heard >= self.settings.majority else f"hears {heard} of {len(self.settings.electors)} electors"

    def _watch_demote(self, state: ServiceState) -> None:
        seconds, grace = state.demote_seconds, min(self.timing.grace, self.told_grace)  # the electors' may be the shorter
        if seconds is None or seconds <= grace / 2:
            return
        text = (
            f"demote of {state.info.name} took {seconds:.1f} s, more than half of demote_grace ({grace:g} s):"
            " were the lease lost, it would be killed at its end; raise time.demote_grace or time.failover"
        )
        self._warn(text)

    def _warn(self, text: str) -> None:
        if self.reporter.warn(text):
            self.out.append(Log(effects.WARNING, text))
