"""One simulation from one seed: a phase of faults, then healing and what it owes."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Callable, Optional

from tests.sim import families
from tests.sim.judge import heal
from tests.sim.plan import FAULTS_UNTIL_S, Plan, build
from tests.sim.switches import turn_off
from tests.sim.watch import Violation
from tests.sim.world import World

DEAD_TREES_EVERY = 8

Family = Callable[[Plan], None]
"""Schedules faults of one kind in place of all kinds: a directed scenario, drawn from the seed."""


@dataclass
class Outcome:
    """What became of one seed."""

    seed: int
    events: int
    begun: int
    broken: str = ""
    """The invariant or the promise of liveness that was broken; empty when all is well."""
    safety: bool = False
    """Whether it was an invariant."""
    trace: tuple[str, ...] = ()


def prepare(seed: int, off: tuple[str, ...] = (), tracing: bool = False, shape: Optional[tuple[int, int]] = None) -> Plan:
    """A cluster that has not started yet, and its faults."""
    world, random = World(seed, tracing), Random(seed * 7919 + 1)
    quorum = 1 if "majority" in off else None
    cluster = build(world, random, turn_off(off), "blank start" not in off, quorum, shape)
    cluster.debt_rule = "dead tree's debt" not in off
    return Plan(cluster, random)


def simulate(
    seed: int, off: tuple[str, ...] = (), tracing: bool = False, shape: Optional[tuple[int, int]] = None,
    family: Optional[Family] = None,
) -> Outcome:
    """Run one seed; never raises for what it finds. Without a family: faults of all kinds, dead trees in one seed of eight."""
    if family is None:
        family = families.dead_trees if seed % DEAD_TREES_EVERY == DEAD_TREES_EVERY - 1 else Plan.schedule
    plan = prepare(seed, off, tracing, shape)
    world, cluster = plan.world, plan.cluster
    outcome = Outcome(seed, 0, 0)
    try:
        family(plan)
        world.run(FAULTS_UNTIL_S)
        heal(cluster, plan)
    except Violation as broken:
        outcome.broken, outcome.safety = str(broken), True
    except AssertionError as broken:
        outcome.broken = f"{world.now:.3f} s: {broken}"
    outcome.events, outcome.begun, outcome.trace = world.events, len(cluster.watch.begun), tuple(world.trace)
    return outcome

