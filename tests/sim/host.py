"""One simulated machine: power, clock, disk and processes, and the cluster that all machines share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from koi.core.effects import Remember
from koi.core.facts import Debt
from koi.core.ledger import Record
from koi.core.messages import Report
from koi.core.pipe import Held, Heritage, ServiceState
from koi.core.timing import Timing
from tests.sim.processes import PIPE_S, ElectorProcess, RunnerProcess
from tests.sim.watch import Violation, Watch
from tests.sim.worker import Scripts, Worker
from tests.sim.world import Clock, Network, World

WAIT_FOR_WORKERS_S = 15.0
"""How long a new koinode waits for the workers of a dead one."""


@dataclass
class Cluster:
    """What all hosts share."""

    world: World
    network: Network
    watch: Watch
    timing: Timing
    electors: tuple[str, ...]
    switch: Callable[[str, Any], None] = lambda kind, machine: None
    """Turns rules off in a new machine."""
    quorum: Optional[int] = None
    blank_rule: bool = True
    debt_rule: bool = True
    """What a dead tree left is demoted in time (rule 6.4)."""
    hosts: dict[str, Host] = field(default_factory=dict)


class Host:
    """A machine: power, clock, disk, processes."""

    def __init__(
        self, cluster: Cluster, name: str, priorities: dict[str, Optional[int]], rank: int = 0, preference: int = 0,
    ) -> None:
        self.cluster, self.name, self.rank, self.preference = cluster, name, rank, preference
        self.priorities = priorities
        self.stuck = "hold"
        self.scripts = Scripts()
        self.disk: Optional[Record] = None
        self.slow_disk = 0.0
        self.full_disk = False
        self.remembered = Remember(False, False)
        self.cell: Optional[float] = None
        self.own_grace = cluster.timing.grace
        self.cell_grace = math.inf
        """G of the electors, beside the end of the lease."""
        self.lease_file: Optional[float] = None
        """As koi/proc/leasefile.py: outlives all processes."""
        self.debts: dict[str, Debt] = {}
        self.covered = False
        """The lease of what was left was without end."""
        """Service -> the lease under which a dead tree left it."""
        self.boots = 0
        self.clock = Clock(cluster.world, 1000.0, 1.0)
        self.elector: Optional[ElectorProcess] = None
        self.runner: Optional[RunnerProcess] = None
        self.workers: dict[str, Worker] = {}
        self.held = Held("", None, None)
        self.detached: Optional[int] = None
        """What a tree before this one held in maintenance, which this one has not taken up yet."""
        self.maintenance = False
        self.crashed = True
        """The power failed, or was never on."""
        self.leaving = False
        """Root is dead and its workers have not all ended."""
        self.stopping = False
        self.lineage: tuple[str, ...] = ()
        cluster.hosts[name] = self

    def new_boot(self) -> str:
        """An identity for a new process."""
        self.boots += 1
        return f"{self.name}-{self.boots:04d}"

    def disk_delay(self) -> float:
        """How long a write takes, in seconds."""
        return self.cluster.world.random.uniform(0.001, 0.004) + self.slow_disk

    # --- power ---

    @property
    def up(self) -> bool:
        """Whether the machine runs."""
        return self.elector is not None or self.runner is not None

    def start(self) -> None:
        """Start koinode; after a crash no service runs and nothing is known of what ran before."""
        if not self.crashed:
            self._start_again()
        elif not self.up and not self.leaving:
            self.crashed = False
            self.cluster.world.say(self.name, "starts")
            self._start_afresh()

    def _start_tree(self, heritage: Heritage) -> None:
        self.cell, self.cell_grace, self.held = None, math.inf, Held("", None, heritage.renounced)
        lasts = {name: worker.machine.told for name, worker in self.workers.items()} if heritage.detached is not None else {}
        if self.name in self.cluster.electors:
            self.start_elector()
        if self.priorities:
            self.workers = {n: Worker(self, n, heritage.unclean, lasts.get(n), debt=self.debts.get(n)) for n in self.priorities}
            for worker in self.workers.values():
                worker.arm()
            self.start_runner(heritage)

    def start_elector(self) -> None:
        """A new elector process on the old disk."""
        if self.elector is None:
            self.elector = ElectorProcess(self)
            self.elector.arm()

    def start_runner(self, heritage: Heritage) -> None:
        """A new runner beside the workers."""
        self.runner = RunnerProcess(self, heritage)
        self.runner.arm()
        for worker in self.workers.values():
            self.cluster.world.after(PIPE_S, worker.deliver, worker.announce)

    def crash(self) -> None:
        """The power fails."""
        self.cluster.world.say(self.name, "crashes")
        self.crashed = True
        self._end(*self.workers.values())
        self.cluster.watch.inactive(self.name)

    def _end(self, *workers: Worker, keep: bool = False) -> None:
        for process in (self.elector, self.runner, *workers):
            if process is not None:
                process.alive = False
        self.elector = self.runner = None
        self.leaving = self.stopping = False
        if workers and not keep:
            self.workers = {}

    def kill_elector(self) -> None:
        """SIGKILL; root starts a new one a little later."""
        if self.elector is not None:
            self.cluster.world.say(self.name, "elector killed")
            self.elector.alive = False
            self.elector = None
            self.cluster.world.after(0.02, self._revive_elector)

    def _revive_elector(self) -> None:
        if (self.runner is not None or not self.priorities) and not self.leaving:
            self.start_elector()

    def kill_runner(self) -> None:
        """SIGKILL; root hands what it held to a new one."""
        if self.runner is not None:
            self.cluster.world.say(self.name, "runner killed")
            old = self.runner
            old.alive = False
            self._remember_boot(old)
            self.cluster.world.after(0.02, self._revive_runner, old)

    def note_held(self, word: Held) -> None:
        """What root keeps for the runner's successor (koi/proc/treefile.py)."""
        self.held = word
        if word.maintenance is not None:
            self.maintenance, self.detached = word.maintenance, None

    def _remember_boot(self, runner: Optional[RunnerProcess]) -> None:
        if runner is not None:
            self.lineage = (*(boot for boot in self.lineage if boot != runner.boot), runner.boot)[-8:]

    def _revive_runner(self, old: RunnerProcess) -> None:
        if self.runner is old:
            unclean = any(not worker.machine.clean for worker in self.workers.values())
            owes = any(worker.debt is not None and not worker.machine.clean for worker in self.workers.values())
            held, left = self.held, (unclean, self.detached, owes, self.covered)
            self.start_runner(Heritage(self.lineage, held.holding, held.renounced, self.cell, *left))

    def kill_worker(self, name: str) -> None:
        """SIGKILL of one worker; root ends what it ran and starts a new one that adopts the service."""
        old = self.workers.get(name)
        if old is not None and old.alive and not self.leaving and old.machine.told is not None:
            self.cluster.world.say(old.name, "killed")
            old.alive = False
            self.cluster.world.after(0.05, self._revive_worker, old)

    def _revive_worker(self, old: Worker) -> None:
        if self.workers.get(old.service) is not old or self.leaving:
            return
        self.workers[old.service] = new = Worker(
            self, old.service, old.waits, old.last if old.waits else old.machine.told, old.machine.frozen, old.debt,
        )
        new.arm()
        if self.runner is not None:
            self.runner.machine.forget_orders(old.service)
        self.cluster.world.after(PIPE_S, new.deliver, new.announce)

    # --- orderly end, and the death of root ---

    def stop_orderly(self) -> None:
        """SIGTERM: the runner demotes, renounces and stops everything, then the tree ends."""
        if self.runner is not None and not self.leaving:
            self.cluster.world.say(self.name, "stops")
            self.stopping = True
            self.runner.deliver(self.runner.event, self.runner.machine.stop)

    def stopped(self, detached: bool) -> None:
        """Everything of this node is stopped, or left as it is in maintenance: the elector resigns and the tree ends."""
        stuck = self.runner is not None and self.runner.machine.stuck()
        active = self.cluster.watch.active.get(self.name)
        if active and not stuck and not detached:
            raise Violation(f"{self.cluster.world.now:.3f} s: {self.name} says that it is stopped while {active} may be active")
        if self.elector is not None:
            self.elector.resign()
        self._remember_boot(self.runner)
        if stuck and not detached:
            self.crash()
        else:
            self._end(*self.workers.values(), keep=detached)

    def _start_again(self) -> None:
        """After an orderly end: only in maintenance is anything left in the run folder."""
        if self.up or self.leaving:
            return
        self.cluster.world.say(self.name, "starts again")
        if self.maintenance:
            self._find_debts({})
            self._start_tree(self._after())
        else:
            self._start_afresh()

    def _start_afresh(self) -> None:
        self.lineage, self.detached, self.maintenance = (), None, False
        self.held = Held("", None, None)
        self.lease_file, self.debts = None, {}
        self._start_tree(Heritage())

    def _after(self) -> Heritage:
        """What a new tree takes over from the one before (koi/proc/treefile.py, adopt)."""
        if self.maintenance:
            self.detached = _highest(self.held.holding, self.detached)
            return Heritage(self.lineage, None, self.held.renounced, None, True, self.detached, bool(self.debts), self.covered)
        renounced = _highest(self.held.holding, self.held.renounced)
        return Heritage(self.lineage, None, renounced, None, True, None, bool(self.debts), self.covered)

    def kill_root(self, again_after: float) -> None:
        """Root dies: elector and runner with it; the workers demote, stop and end; then a new root takes over."""
        if self.up and self.priorities and not self.leaving:
            self.cluster.world.say(self.name, "root dies")
            self._remember_boot(self.runner)
            self._end()
            self.leaving = True
            for worker in self.workers.values():
                worker.deliver(worker.leave)
            now = self.cluster.world.now
            self.cluster.world.after(again_after, self._take_over, self.workers, now + WAIT_FOR_WORKERS_S)

    def kill_tree(self, again_after: float) -> None:
        """SIGKILL of everything at once: what is promoted stays so, and nobody demotes it until a new koinode comes."""
        if self.up and self.priorities and not self.leaving:
            self.cluster.world.say(self.name, "the whole tree is killed")
            self._remember_boot(self.runner)
            self._end()
            self.leaving = True
            for worker in self.workers.values():
                worker.alive = False
            self.cluster.world.after(again_after, self._take_over, self.workers, self.cluster.world.now)

    def _take_over(self, workers: dict[str, Worker], until: float) -> None:
        """A new koinode waits for the workers of the dead tree, for so long; then it cleans up."""
        if not self.leaving or self.workers is not workers:
            return
        if self.cluster.world.now < until and not all(worker.left for worker in workers.values()):
            self.cluster.world.after(0.05, self._take_over, workers, until)
            return
        self.cluster.world.say(self.name, "a new root takes over")
        self._find_debts(workers)
        self._end(*workers.values(), keep=True)
        self._start_tree(self._after())

    def _find_debts(self, workers: dict[str, Worker]) -> None:
        """What the run folder says of the lease, but for what workers have demoted after the death of their root."""
        now, end, grace = self.clock.read(), self.lease_file, self.cell_grace
        self.covered = end == math.inf
        demoted = {name for name, worker in workers.items() if worker.alive and not worker.machine.promoted}
        owed = () if end is None or not self.cluster.debt_rule else set(self.priorities) - demoted
        self.debts = {name: Debt(now if end is None or end == math.inf else end, now, grace, self.covered) for name in owed}

    # --- what comes in ---

    def set_lease(self, end: Optional[float], grace: Optional[float]) -> None:
        """The lease cell: shared memory, which wakes nobody."""
        self.cell = self.lease_file = end
        self.cell_grace = self.cell_grace if grace is None else grace

    def to_elector(self, sender: str, message: Any) -> None:
        """A datagram arrives."""
        if self.elector is not None:
            self.elector.deliver(self.elector.receive, sender, message)

    def to_elector_report(self, origin: tuple[str, str], report: Report) -> None:
        """A report arrives."""
        if self.elector is not None:
            self.elector.deliver(self.elector.report, origin, report)

    def to_runner(self, boot: str, elector: str, message: Any) -> None:
        """An answer arrives at the socket of that boot."""
        if self.runner is not None and self.runner.boot == boot:
            self.runner.deliver(self.runner.answer, elector, message)

    def tell_runner(self, message: Any) -> None:
        """A worker's word on the pipe."""
        runner = self.runner
        if runner is None:
            return
        if isinstance(message, ServiceState):
            runner.deliver(runner.event, runner.machine.service, message)
        else:
            runner.deliver(runner.machine.failure, message)


def _highest(*epochs: Optional[int]) -> Optional[int]:
    return max((e for e in epochs if e is not None), default=None)
