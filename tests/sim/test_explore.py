"""The exploration of everything that can happen, to a small bound; the long run is `python -m tests.sim.explore`."""

from __future__ import annotations

import pytest

from tests.sim.explore import ROOTS, explore
from tests.sim.parties import RUNNERS
from tests.sim.steps import Explorer

SMALL = 12_000
"""States: a second or less."""


@pytest.mark.parametrize("root", ROOTS)
def test_no_invariant_is_broken_whatever_happens_next(root: str) -> None:
    result = explore(root, faults=2, most=SMALL)
    assert result.broken == []
    assert result.states >= SMALL and result.depth >= 3


def test_without_faults_the_cluster_goes_its_one_way() -> None:
    """So what is explored is alive: each step leads to exactly one state, and a master is active at its end."""
    result = explore("settled", faults=0, depth=60)
    assert (result.states, result.depth, result.why) == (61, 60, "bound reached")
    explorer = Explorer()
    state = ROOTS["settled"](explorer)
    assert [explorer.active_until[party] is not None for party in state.parties[-len(RUNNERS) :]] == [True, False]


def test_without_the_guard_two_active_nodes_are_found_with_their_path() -> None:
    """One fault is enough: a command in the right moment."""
    result = explore("settled", faults=1, seconds=60.0, off=("guard",))
    [(words, path)] = result.broken
    assert words == "both runners are active"
    assert sum(step.startswith("command") for step in path) == 1
    assert path[-1].startswith("deliver") and "Vouch" in path[-1]


SHOWN = {
    "renounce": ("settled", "both runners are active", "command c"),
    "blank start": ("settled", "two ledgers of version (1, 1)", "wipe c"),
    "majority": ("leaderless", "a and b both lead term 2", "cut a - b"),
}
"""Rule -> where one fault is enough without it, what is broken then, and by which fault."""


@pytest.mark.parametrize("rule", SHOWN)
def test_without_the_rule_one_fault_is_enough(rule: str) -> None:
    root, words, fault = SHOWN[rule]
    result = explore(root, faults=1, seconds=90.0, off=(rule,))
    [(broken, path)] = result.broken
    assert broken.startswith(words) and fault in path
    assert explore(root, faults=1, seconds=90.0, depth=result.depth + 1).broken == []


def test_with_the_guard_the_same_depth_is_well() -> None:
    found = explore("settled", faults=1, seconds=60.0, depth=42)
    assert found.broken == [] and found.depth == 42
