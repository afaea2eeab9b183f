"""All that can happen up to a bound, to the real core: `python -m tests.sim.explore [--seconds 600] [--faults 1,2,3]`.

Breadth first, over 3 electors and 2 runners. By itself a cluster goes on in order: the oldest datagram is delivered, else
the party whose deadline comes first has its timeout, and time goes on to it. At every step a fault may come instead: drop
(for good, or delivered late at any later step), duplicate, crash, kill (a runner's process alone), pause, cut (two parties
hear each other no more), expire (the worker's own deadline before the runner's word), a command `promote y`, and of an
elector: hang (its disk writes nothing any more) and wipe (its power fails and its disk is lost: it starts blank); restart,
resume, heal, written (the disk goes on) and late delivery may follow at any step, and cost nothing. `--faults` bounds how
many faults a path has: the fewer, the deeper. After each step the invariants of watch.py hold: at most one node active, one
leader for each term, one ledger for each version, an epoch begun by one node only and epochs growing.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from array import array
from dataclasses import dataclass, field

from koi.core.elector import Elector
from tests.sim.parties import TICKS, TIMING, load
from tests.sim.steps import Action, Broken, Explorer, State
from tests.sim.switches import NAMES as RULES

MAX_STATES = 12_000_000


@dataclass
class Result:
    """What an exploration came to."""

    root: str
    states: int = 0
    steps: int = 0
    depth: int = 0
    """Levels that are complete: every state within so many steps of the root was looked at."""
    seconds: float = 0.0
    locals: int = 0
    why: str = "complete"
    broken: list[tuple[str, list[str]]] = field(default_factory=list)
    """Words and path of each violation."""

    def line(self) -> str:
        """For people."""
        return (
            f"root {self.root}: {self.states} states, {self.steps} steps, depth {self.depth} complete ({self.why}),"
            f" {self.seconds:.1f} s, {self.states / max(self.seconds, 1e-9):.0f} states/s, {self.locals} local states,"
            f" {len(self.broken)} violations"
        )


# --- where an exploration begins ---


def settled(explorer: Explorer) -> State:
    """A leader, a master with a lease, nothing under way: everything in its usual order since the start."""
    return _in_order(explorer, explorer.start(), 20.0)


def leaderless(explorer: Explorer) -> State:
    """The same; then the leader loses its power, which costs nothing of the budget."""
    state = settled(explorer)
    machines = [load(explorer.snapshots[party], ()).machine for party in state.parties]
    leads = [isinstance(machine, Elector) and machine.roles.lead is not None for machine in machines]
    return explorer.step(state, leads.index(True), "crash")


def unheard(explorer: Explorer) -> State:
    """Settled, and one elector that does not lead has not heard the master for so long that its guard is down."""
    state = settled(explorer)
    state = state._replace(cut=frozenset({("a", "x")}))
    return _in_order(explorer, state, state.now / TICKS + TIMING.span + 1.0)


def _in_order(explorer: Explorer, state: State, seconds: float) -> State:
    """Nothing goes wrong."""
    while True:
        action = explorer.usual(state)[-1]
        after = explorer.apply(state, action)
        assert after is not None
        if after.now > seconds * TICKS:
            return state
        state = after


ROOTS = {"settled": settled, "leaderless": leaderless, "unheard": unheard, "cold": Explorer.start}


# --- the search ---


@dataclass
class Search:
    """Breadth first from one root; of a state that is done only its hash and the way to it are kept."""

    root: str
    explorer: Explorer
    faults: int
    parents: array[int] = field(default_factory=lambda: array("I", [0]))
    ways: array[int] = field(default_factory=lambda: array("I", [0]))
    actions: list[Action] = field(default_factory=lambda: [("root", 0)])
    action_numbers: dict[Action, int] = field(default_factory=dict)

    def run(self, seconds: float, depth: int, most: int = MAX_STATES, enough: int = 1) -> Result:
        """Up to so many seconds, levels, states or violations."""
        began, result = time.monotonic(), Result(f"{self.root}, {self.faults} faults")
        first = ROOTS[self.root](self.explorer)._replace(left=self.faults)
        met, level = {hash(first)}, [(0, first)]
        while level and result.depth < depth and result.why == "complete":
            following: list[tuple[int, State]] = []
            for place, (number, state) in enumerate(level):
                if place % 256 == 0 and time.monotonic() - began > seconds:
                    result.why = f"out of time, {100 * place // len(level)} % of level {result.depth + 1}"
                elif len(met) >= most:
                    result.why = f"{most} states, {100 * place // len(level)} % of level {result.depth + 1}"
                elif len(result.broken) >= enough:
                    result.why = "violated"
                if result.why != "complete":
                    break
                self._expand(number, state, met, following, result)
            else:
                result.depth += 1
            level = following
        if result.why == "complete" and level:
            result.why = "bound reached"
        result.states, result.seconds, result.locals = len(met), time.monotonic() - began, len(self.explorer.snapshots)
        return result

    def _expand(self, number: int, state: State, met: set[int], following: list[tuple[int, State]], result: Result) -> None:
        explorer = self.explorer
        for action in explorer.actions(state):
            try:
                after = explorer.apply(state, action)
            except Broken as broken:
                result.broken.append((str(broken), [*self._path(number), explorer.words(action)]))
                continue
            result.steps += 1
            if after is None or (key := hash(after)) in met:
                continue
            met.add(key)
            self.parents.append(number)
            self.ways.append(self._number(action))
            following.append((len(self.parents) - 1, after))

    def _number(self, action: Action) -> int:
        number = self.action_numbers.setdefault(action, len(self.actions))
        if number == len(self.actions):
            self.actions.append(action)
        return number

    def _path(self, number: int) -> list[str]:
        steps = []
        while number:
            steps.append(self.explorer.words(self.actions[self.ways[number]]))
            number = self.parents[number]
        return steps[::-1]


def explore(
    root: str, faults: int, seconds: float = 600.0, depth: int = 1000, off: tuple[str, ...] = (), most: int = MAX_STATES,
) -> Result:
    """Explore from one root with fresh memory."""
    return Search(root, Explorer(off), faults).run(seconds, depth, most)


def main() -> int:
    """The command; 1 when an invariant was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="in all, shared by what is explored")
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--faults", default="1,2,3", help="how many on one path")
    parser.add_argument("--root", action="append", default=[], choices=list(ROOTS))
    parser.add_argument("--off", action="append", default=[], choices=RULES, help="turn a rule off")
    options = parser.parse_args()
    cases = list(itertools.product(options.root or list(ROOTS), map(int, options.faults.split(","))))
    found = []
    for root, faults in cases:
        result = explore(root, faults, options.seconds / len(cases), options.depth, tuple(options.off))
        print(result.line(), flush=True)
        found += result.broken
    for words, path in found:
        print(words, *path, sep="\n  ")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
