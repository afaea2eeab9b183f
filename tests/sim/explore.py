"""All that can happen up to a bound, to the real core: `python -m tests.sim.explore [--seconds 600] [--faults 1,2,3] [--off RULE]`.

Breadth first, over 3 electors and 2 runners. By itself a cluster goes on in order: the oldest datagram is delivered, else
the party whose deadline comes first has its timeout, and time goes on to it. At every step a fault may come instead: drop
(for good, or delivered late at any later step), duplicate, crash, kill (a runner's process alone), pause, cut (two parties
hear each other no more), expire (the worker's own deadline before the runner's word) or a command `promote y`; restart,
resume, heal and late delivery may follow at any step, and cost nothing. `--faults` bounds how many faults a path has; with
many it is every interleaving there is. After each step the invariants of watch.py hold: at most one node active, one leader for each term, one
ledger for each version, an epoch begun by one node only and epochs growing.

A state is (time, local state of each party, mail, history ...). Parties are never copied: each distinct local state is
pickled once and has a number, and what an event does to it is remembered, for the same local step occurs in very many states.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from array import array
from dataclasses import dataclass, field
from typing import Any, Iterator, NamedTuple, Optional

from tests.sim.parties import (
    ELECTORS, NAMES, RUNNERS, TICKS, TIMING, ElectorParty, Mail, RunnerParty, dump, freeze, load, local, ticks,
)
from tests.sim.switches import NAMES as RULES

MAX_STATES = 12_000_000
MAX_REMEMBERED = 3_000_000
"""Local steps that are remembered; above that they are worked out anew."""
PAIRS = tuple((one, other) for one in ELECTORS for other in NAMES if one < other)
"""Whom a cut may part; runners do not talk to each other."""
COMMANDED = "y"

Action = tuple[str, Any]


class State(NamedTuple):
    """One state of the whole cluster; locals, mail and history are numbers of what the Explorer keeps once."""

    now: int
    parties: tuple[int, ...]
    mail: tuple[int, ...]
    """Under way, oldest first."""
    late: tuple[int, ...] = ()
    """Dropped, or not: it may come at any time."""
    paused: frozenset[int] = frozenset()
    cut: frozenset[tuple[str, str]] = frozenset()
    history: int = 0
    left: int = 0
    """Faults that may still come."""


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class History:
    """What was seen on a path, as far as an invariant needs it."""

    leaders: frozenset[tuple[int, str]] = frozenset()
    ledgers: frozenset[tuple[Any, Any]] = frozenset()
    epochs: tuple[tuple[int, str], ...] = ()

    def after(self, seen: tuple[tuple[Any, ...], ...]) -> History:
        """With these observations. Raises Broken."""
        leaders, ledgers, epochs = dict(self.leaders), dict(self.ledgers), self.epochs
        for what, key, value in seen:
            if what == "leads" and leaders.setdefault(key, value) != value:
                raise Broken(f"{value} and {leaders[key]} both lead term {key}")
            if what == "ledger" and ledgers.setdefault(key, value) != value:
                raise Broken(f"two ledgers of version {key}: {value} and {ledgers[key]}")
            if what == "begins":
                self._begins(key, value)
                epochs = (*epochs, (key, value)) if (key, value) not in epochs else epochs
        return History(frozenset(leaders.items()), frozenset(ledgers.items()), epochs)

    def _begins(self, epoch: int, name: str) -> None:
        if dict(self.epochs).get(epoch, name) != name:
            raise Broken(f"{name} begins epoch {epoch} of {dict(self.epochs)[epoch]}")
        if self.epochs and epoch < self.epochs[-1][0]:
            raise Broken(f"{name} begins epoch {epoch} after {self.epochs[-1][0]}")


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


class Explorer:
    """All that is kept once: local states, mail, histories, and what each local step leads to."""

    def __init__(self, off: tuple[str, ...] = ()) -> None:
        self.off = off
        self.snapshots: list[bytes] = []
        self.numbers: dict[int, int] = {}
        self.deadlines: list[Optional[int]] = []
        self.active_until: list[Optional[int]] = []
        self.demoting: list[bool] = []
        self.up: list[bool] = []
        self.letters: list[Mail] = []
        self.receivers: list[int] = []
        self.links: list[tuple[str, str]] = []
        self.letter_numbers: dict[Mail, int] = {}
        self.histories: list[History] = [History()]
        self.history_numbers: dict[History, int] = {History(): 0}
        self.remembered: dict[tuple[Any, ...], tuple[int, tuple[int, ...], tuple[tuple[Any, ...], ...]]] = {}
        self.followed: dict[tuple[Any, ...], int] = {}

    # --- what is kept once ---

    def _keep(self, party: Any) -> int:
        key = hash(freeze(party, set()))
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.snapshots)
            self.snapshots.append(dump(party))
            due = party.deadline()
            self.deadlines.append(None if due is None or due == float("inf") else ticks(party.name, due))
            active = isinstance(party, RunnerParty) and party.active
            self.active_until.append(ticks(party.name, party.end + TIMING.grace) if active else None)
            self.demoting.append(active and party.state == "Demoting")
            self.up.append(party.machine is not None)
        return number

    def _letter(self, mail: Mail) -> int:
        number = self.letter_numbers.setdefault(mail, len(self.letters))
        if number == len(self.letters):
            self.letters.append(mail)
            self.receivers.append(NAMES.index(mail.to))
            self.links.append((min(mail.source, mail.to), max(mail.source, mail.to)))
        return number

    def _follow(self, history: int, seen: tuple[tuple[Any, ...], ...]) -> int:
        number = self.followed.get((history, seen))
        if number is None:
            after = self.histories[history].after(seen)
            number = self.history_numbers.setdefault(after, len(self.histories))
            if number == len(self.histories):
                self.histories.append(after)
            self.followed[(history, seen)] = number
        return number

    def _local(self, party: int, index: int, verb: str, what: Any, now: int) -> tuple[int, tuple[int, ...], Any]:
        key = (party, verb, what, now)
        found = self.remembered.get(key)
        if found is None:
            machine = load(self.snapshots[party], self.off)
            given = self.letters[what] if verb == "deliver" else what
            outcome = machine.take(verb, given, local(NAMES[index], now), self.off)
            found = self._keep(machine), tuple(self._letter(mail) for mail in outcome.mail), outcome.seen
            if len(self.remembered) < MAX_REMEMBERED:
                self.remembered[key] = found
        return found

    # --- steps ---

    def start(self) -> State:
        """Everything is off and nothing has ever happened."""
        parties = [RunnerParty(name) if name in RUNNERS else ElectorParty(name) for name in NAMES]
        state = State(0, tuple(self._keep(party) for party in parties), ())
        for index in range(len(NAMES)):
            state = self.step(state, index, "restart")
        return state

    def step(self, state: State, index: int, verb: str, what: Any = None, now: Optional[int] = None) -> State:
        """One event of one party. Raises Broken."""
        at = state.now if now is None else now
        number, sent, seen = self._local(state.parties[index], index, verb, what, at)
        parties = (*state.parties[:index], number, *state.parties[index + 1 :])
        mail = state.mail
        if sent:
            mail = (*mail, *(n for n in sent if self.links[n] not in state.cut)) if state.cut else (*mail, *sent)
        history = self._follow(state.history, seen) if seen else state.history
        if sum(self.active_until[one] is not None for one in parties[-len(RUNNERS) :]) > 1:
            raise Broken("both runners are active")
        return state._replace(now=at, parties=parties, mail=mail, history=history)

    def actions(self, state: State) -> Iterator[Action]:
        """All that can happen next."""
        yield from self._usual(state)
        yield from (("late", number) for number in dict.fromkeys(state.late))
        yield from (("restart", i) for i, party in enumerate(state.parties) if not self.up[party])
        yield from (("resume", index) for index in state.paused)
        yield from (("heal", pair) for pair in state.cut)
        if state.left:
            yield from self._faults(state)

    def _usual(self, state: State) -> list[Action]:
        """What happens when nothing goes wrong."""
        found: list[Action] = [("demoted", i) for i, party in enumerate(state.parties) if self.demoting[party]]
        number = next((n for n in state.mail if not state.paused or self.receivers[n] not in state.paused), None)
        if number is not None:
            return [("deliver", number), *found]
        due = [
            (self.deadlines[party], index) for index, party in enumerate(state.parties)
            if self.deadlines[party] is not None and index not in state.paused
        ]
        first = min(due, default=None)  # type: ignore[type-var]
        if first is not None and self._may_wait(state, max(state.now, first[0] or 0), -1):
            return [("timeout", first[1]), *found]
        return [*(("expire", i) for i, party in enumerate(state.parties) if self.active_until[party] is not None), *found]

    def _faults(self, state: State) -> Iterator[Action]:
        number = next((n for n in state.mail if not state.paused or self.receivers[n] not in state.paused), None)
        if number is not None:
            yield "drop", number
            yield "duplicate", number
        for index, party in enumerate(state.parties):
            if self.active_until[party] is not None:
                yield "expire", index
            if not self.up[party]:
                continue
            yield "crash", index
            yield "kill" if NAMES[index] in RUNNERS else "command", index
            if index not in state.paused:
                yield "pause", index
        yield from (("cut", pair) for pair in PAIRS if pair not in state.cut)

    def apply(self, state: State, action: Action) -> Optional[State]:
        """The state after it; None when it cannot happen. Raises Broken."""
        verb, what = action
        if verb in FAULTS and not (verb == "expire" and action in self._usual(state)):
            state = state._replace(left=state.left - 1)
        if verb in ("deliver", "late", "drop", "duplicate"):
            return self._carry(state, verb, what)
        if verb in ("pause", "resume"):
            return state._replace(paused=state.paused ^ {what})
        if verb in ("cut", "heal"):
            return state._replace(cut=state.cut ^ {what})
        if verb in ("timeout", "expire"):
            return self._wait(state, verb, what)
        return self.step(state, what, verb, COMMANDED if verb == "command" else None)

    def _carry(self, state: State, verb: str, number: int) -> State:
        if verb == "late":
            state = state._replace(late=_without(state.late, number))
        elif verb != "duplicate":
            state = state._replace(mail=_without(state.mail, number))
        if verb in ("drop", "duplicate"):
            return state._replace(late=tuple(sorted((*state.late, number))))
        return self.step(state, self.receivers[number], "deliver", number)

    def _wait(self, state: State, verb: str, index: int) -> Optional[State]:
        due = (self.deadlines if verb == "timeout" else self.active_until)[state.parties[index]]
        assert due is not None
        now = max(state.now, due)
        return self.step(state, index, verb, None, now) if self._may_wait(state, now, index if verb == "expire" else -1) else None

    def _may_wait(self, state: State, now: int, index: int) -> bool:
        """Time never goes on past the deadline that a worker keeps by itself."""
        ends = [self.active_until[party] for i, party in enumerate(state.parties) if i != index]
        return all(end is None or now <= end for end in ends)

    def words(self, action: Action) -> str:
        """One step of a path, for people."""
        verb, what = action
        if verb in ("deliver", "late", "drop", "duplicate"):
            letter = self.letters[what]
            return f"{verb} {letter.source} -> {letter.to}: {letter.message}"
        return f"{verb} {' - '.join(what) if isinstance(what, tuple) else NAMES[what]}"


FAULTS = frozenset({"drop", "duplicate", "crash", "kill", "pause", "cut", "expire", "command"})


def _without(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    at = numbers.index(number)
    return (*numbers[:at], *numbers[at + 1 :])


# --- where an exploration begins ---


def settled(explorer: Explorer) -> State:
    """A leader, a master with a lease, nothing under way: everything in its usual order since the start."""
    return _in_order(explorer, explorer.start(), 20.0)


def leaderless(explorer: Explorer) -> State:
    """The same; then the leader loses its power, which costs nothing of the budget."""
    state = settled(explorer)
    leader = next(i for i, party in enumerate(state.parties) if getattr(load(explorer.snapshots[party], ()).machine, "roles", None)
                  and load(explorer.snapshots[party], ()).machine.roles.lead is not None)  # type: ignore[union-attr]
    return explorer.step(state, leader, "crash")


def _in_order(explorer: Explorer, state: State, seconds: float) -> State:
    """Nothing goes wrong."""
    while True:
        action = explorer._usual(state)[-1]
        after = explorer.apply(state, action)
        assert after is not None
        if after.now > seconds * TICKS:
            return state
        state = after


ROOTS = {"settled": settled, "leaderless": leaderless, "cold": Explorer.start}


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
