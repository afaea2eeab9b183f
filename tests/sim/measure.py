"""Failover in the simulator: seconds of simulated time, quiet network, from a death to the begin of the next promote."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from random import Random
from typing import Optional

from koi.core import timing
from tests.sim.host import Cluster, Host
from tests.sim.judge import leader_of, settled
from tests.sim.switches import turn_off
from tests.sim.watch import Watch
from tests.sim.world import Clock, Network, World

QUIET_S = 20.0
"""By then a fresh cluster has a master."""
START_S = 0.5


@dataclass
class Measured:
    """What the deaths of one kind took."""

    kind: str
    failovers: list[float] = field(default_factory=list)
    elections: list[float] = field(default_factory=list)
    moved: int = 0
    """How often the master changed although it lived."""

    def line(self, failover: float) -> str:
        """One row of the table."""
        words = f"death of {self.kind:16}"
        for what, seconds in (("next promote", self.failovers), ("next leader", self.elections)):
            if seconds:
                low, high = min(seconds), max(seconds)
                words += f"  {what}: median {statistics.median(seconds):.3f} s ({low:.3f} to {high:.3f} s)"
        trials = max(len(self.failovers), len(self.elections))
        return f"{words}  masters moved: {self.moved}  (failover: {failover:g}s, {trials} trials)"


def three(seed: int, failover: float) -> tuple[Cluster, Random]:
    """Three nodes with one service each, which start within half a second."""
    world, random = World(seed), Random(seed)
    names = ("a", "b", "c")
    cluster = Cluster(world, Network(world), Watch(world), timing.derive(failover, bully_delay=3600.0), names, turn_off(()))
    for name in names:
        host = Host(cluster, name, {"vip": 10}, preference=random.choice((0, 0, 10)))
        host.clock = Clock(world, random.uniform(0, 1e5), random.uniform(0.9951, 1.0049))
        world.at(random.uniform(0.0, START_S), host.start)
    return cluster, random


def fresh(seed: int, failover: float) -> Cluster:
    """The three, up and with a master."""
    cluster, random = three(seed, failover)
    cluster.world.run(QUIET_S + random.uniform(0.0, failover))
    assert settled(cluster), "a quiet cluster has no master"
    return cluster


def first_promote(seed: int, failover: float) -> float:
    """When the first master of a fresh cluster begins to promote, to a twentieth of a second; the last node is up at START_S."""
    cluster, _ = three(seed, failover)
    at = 0.0
    while not cluster.watch.begun and at < QUIET_S:
        at += 0.05
        cluster.world.run(at)
    return at


def one(seed: int, kind: str, failover: float, measured: Measured) -> None:
    """Kill what `kind` says ("master", "leader", "master and leader") and note what it took."""
    cluster = fresh(seed, failover)
    leader = leader_of(cluster)
    assert leader is not None
    master = cluster.watch.begun[-1][2]
    if (master == leader.name) != (kind == "master and leader"):
        return
    killed = leader.name if kind == "leader" else master
    at, begun = cluster.world.now, len(cluster.watch.begun)
    cluster.hosts[killed].crash()
    elected = _until_leader(cluster, leader.name if killed == leader.name else None, at + 3 * failover)
    if elected is not None:
        measured.elections.append(elected - at)
    cluster.world.run(at + 3 * failover)
    new = cluster.watch.begun[begun:]
    if kind == "leader":
        measured.moved += len(new)
        return
    assert len(new) == 1, f"seed {seed}: {new}"
    measured.failovers.append(next(time for time, host in cluster.watch.promotes if time > at) - at)


def _until_leader(cluster: Cluster, other_than: Optional[str], until: float) -> Optional[float]:
    while other_than is not None and cluster.world.now < until:
        leader = leader_of(cluster)
        if leader is not None and leader.name != other_than:
            return cluster.world.now
        cluster.world.run(cluster.world.now + 0.005)
    return None


def measure(trials: int, failover: float = 3.0) -> list[Measured]:
    """All three kinds of death, over about `trials` seeds each."""
    found = [Measured(kind) for kind in ("master", "leader", "master and leader")]
    for seed in range(2 * trials):
        for measured in found:
            if max(len(measured.failovers), len(measured.elections)) < trials:
                one(seed, measured.kind, failover, measured)
    return found
