"""Each rule can be turned off, and then the simulator finds what it prevents: so the invariants do watch.

With the rule in force the same seeds break nothing. The number of seeds is the promise; most rules need one or two.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import pytest

from koi.core import timing
from koi.core.lease import Lease
from koi.core.ledger import Acceptor, Record
from koi.core.messages import Ledger, Report, Version, Vouch
from tests.sim import families, switches
from tests.sim.plan import Plan
from tests.sim.run import simulate
from tests.sim.watch import Violation, Watch
from tests.sim.world import World

Shape = Optional[tuple[int, int]]

UNSAFE: dict[str, tuple[int, Callable[[Plan], None], Shape]] = {
    "guard": (30, Plan.schedule, None),
    "majority": (30, Plan.schedule, None),
    "renounce": (30, Plan.schedule, None),
    "accept rule": (5, families.stale_free, families.WIDE),
    "blank start": (5, families.lost_disk, families.SHAPE),
    "counting from sending": (5, families.late_answers, families.SHAPE),
    "own promise first": (5, families.lost_promise, families.SHAPE),
    "dead tree's debt": (10, families.dead_trees, None),
    "end of what was left": (10, families.left_under_hold, families.SHAPE),
    "majority of hold": (10, families.half_a_hold, families.ALL),
    "one version of a hold": (5, families.stale_hold, families.ALL),
}
"""Rule -> seeds within which two masters, two leaders of a term or the like are found, by which faults, in which shape."""

NOT_LIVE: dict[str, tuple[int, Callable[[Plan], None], Shape]] = {
    "pending": (5, families.stale_free, families.WIDE),
    "majority of free": (5, families.lost_link, families.SHAPE),
}
"""Rule -> the same; without it nothing unsafe happens, but no master comes again, or one is moved without need."""


def _first(rule: str, cases: dict[str, Any], safety: bool) -> str:
    seeds, family, shape = cases[rule]
    for seed in range(seeds):
        found = simulate(seed, (rule,), shape=shape, family=family)
        if found.broken and found.safety is safety:
            return found.broken
    raise AssertionError(f"without the rule {rule} nothing was broken in {seeds} seeds")


@pytest.mark.parametrize("rule", UNSAFE)
def test_without_the_rule_something_unsafe_is_found(rule: str) -> None:
    assert _first(rule, UNSAFE, True)


@pytest.mark.parametrize("rule", NOT_LIVE)
def test_without_the_rule_liveness_is_lost(rule: str) -> None:
    assert _first(rule, NOT_LIVE, False)


@pytest.mark.parametrize("rule", [*UNSAFE, *NOT_LIVE])
def test_with_the_rule_the_same_seeds_are_well(rule: str) -> None:
    seeds, family, shape = {**UNSAFE, **NOT_LIVE}[rule]
    assert [simulate(seed, shape=shape, family=family).broken for seed in range(min(seeds, 5))] == [""] * min(seeds, 5)


def test_every_rule_is_covered() -> None:
    assert {*UNSAFE, "one version to begin"} == set(switches.SAFETY)
    assert {*UNSAFE, *NOT_LIVE, "one version to begin"} == set(switches.NAMES)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="no rule named"):
        switches.turn_off(("gravity",))


# --- one version to begin: needs three leaders within a quarter of a second, and then patience ---

TIMING = timing.derive(3.0)
OLD = Ledger(epoch=4, master="w")
X, Y = Ledger(epoch=5, master="x"), Ledger(epoch=5, master="y")


class Electors:
    """Five acceptors, and a runner's reports to them; the leaders of the scenario are only their proposals."""

    def __init__(self) -> None:
        self.watch = Watch(World(0))
        self.acceptors = {n: Acceptor(TIMING, Record(version=(0, 9), ledger=OLD, top=4), 0.0, blind=False) for n in "abcde"}

    def propose(self, names: str, version: Version, ledger: Ledger, now: float) -> list[bool]:
        """A leader's heartbeat reaches these electors."""
        return [self.acceptors[name].offer(version, ledger, now) for name in names]

    def settle(self, names: str, now: float) -> list[bool]:
        """The guards of these electors have run out."""
        return [self.acceptors[name].settle(now) for name in names]

    def report(self, runner: str, off: bool, now: float) -> None:
        """A runner that is ready reports to all; vouches come back, and it begins if it may."""
        lease = Lease(runner, runner, 3)
        if off:
            lease.same_version = lambda word: (0, 0)  # type: ignore[method-assign]
        lease.note_sent(1, now)
        report = Report(runner, runner, 1, ready=True)
        for name, acceptor in self.acceptors.items():
            if acceptor.stands_for(report, now):
                acceptor.raise_guard(report, now)
                ledger, version = acceptor.record.ledger, acceptor.record.version
                lease.hear(name, Vouch(ledger.epoch, version, runner, 1, TIMING.lease, TIMING.grace), now)
        offer = lease.offered(now)
        if offer is not None:
            self.watch.begins(runner, offer[0])


def _three_leaders(off: bool) -> list[tuple[float, int, str]]:
    """Each leader knows what its voters hold, as rule 3.3 wants it, and is cut off after its first heartbeat."""
    electors = Electors()
    assert electors.propose("ab", (1, 2), X, 10.0) == [True, True]  # term 1, votes of any three
    assert electors.propose("d", (2, 2), Y, 10.1) == [True]  # term 2, votes of c, d, e: they hold OLD
    assert electors.propose("c", (3, 1), X, 10.2) == [True]  # term 3, votes of a, b, c: x in (1, 2)
    electors.report("x", off, 10.3)
    assert electors.propose("abd", (4, 1), Y, 10.4) == [False, False, True]  # term 4, votes of a, b, d: y in (2, 2)
    later = 10.3 + TIMING.span + 0.01
    assert electors.settle("ab", later) == [True, True]
    assert electors.propose("e", (4, 1), Y, later) == [True]
    electors.report("y", off, later + 0.1)
    return electors.watch.begun


def test_without_one_version_to_begin_two_nodes_begin_one_epoch() -> None:
    with pytest.raises(Violation, match="y begins epoch 5 of x"):
        _three_leaders(off=True)


def test_with_one_version_to_begin_only_the_chosen_one_begins() -> None:
    assert [(epoch, host) for _, epoch, host in _three_leaders(off=False)] == [(5, "y")]
