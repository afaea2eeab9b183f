"""One step of the exhaustive exploration: what can happen to a cluster in some state, and the state that follows (explore.py).

Parties are never copied: each distinct local state is pickled once and has a number, and what an event does to it is
remembered, for the same local step occurs in very many states of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, NamedTuple, Optional

from tests.sim import parties as kinds
from tests.sim.parties import ELECTORS, NAMES, RUNNERS, TIMING, ElectorParty, Mail, RunnerParty

MAX_REMEMBERED = 3_000_000
"""Local steps that are remembered; above that they are worked out anew."""
PAIRS = tuple((one, other) for one in ELECTORS for other in NAMES if one < other)
"""Whom a cut may part; runners do not talk to each other."""
COMMANDED = "y"
"""The target of the command."""

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
        self.whole: list[bool] = []
        """Of electors: its disk is there."""
        self.hangs: list[bool] = []
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
        key = hash(kinds.freeze(party, set()))
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.snapshots)
            self.snapshots.append(kinds.dump(party))
            due = party.deadline()
            self.deadlines.append(None if due is None or due == float("inf") else kinds.ticks(party.name, due))
            active = isinstance(party, RunnerParty) and party.active
            self.active_until.append(kinds.ticks(party.name, party.end + TIMING.grace) if active else None)
            self.demoting.append(active and party.state == "Demoting")
            self.up.append(party.machine is not None)
            self.whole.append(isinstance(party, ElectorParty) and party.whole)
            self.hangs.append(isinstance(party, ElectorParty) and party.hangs)
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
            machine = kinds.load(self.snapshots[party], self.off)
            given = self.letters[what] if verb == "deliver" else what
            outcome = machine.take(verb, given, kinds.local(NAMES[index], now), self.off)
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
        yield from self.usual(state)
        yield from (("late", number) for number in dict.fromkeys(state.late))
        yield from (("restart", i) for i, party in enumerate(state.parties) if not self.up[party])
        yield from (("written", i) for i, party in enumerate(state.parties) if self.hangs[party])
        yield from (("resume", index) for index in state.paused)
        yield from (("heal", pair) for pair in state.cut)
        if state.left:
            yield from self._faults(state)

    def usual(self, state: State) -> list[Action]:
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
            if NAMES[index] in RUNNERS:
                yield "kill", index
            else:
                yield from self._elector_faults(state, index)
            if index not in state.paused:
                yield "pause", index
        yield from (("cut", pair) for pair in PAIRS if pair not in state.cut)

    def _elector_faults(self, state: State, index: int) -> Iterator[Action]:
        """A disk is lost only while every other elector has its own (rule 2.2)."""
        yield "command", index
        if not self.hangs[state.parties[index]]:
            yield "hang", index
        if all(self.whole[party] for i, party in enumerate(state.parties[: len(ELECTORS)]) if i != index):
            yield "wipe", index

    def apply(self, state: State, action: Action) -> Optional[State]:
        """The state after it; None when it cannot happen. Raises Broken."""
        verb, what = action
        if verb in FAULTS and not (verb == "expire" and action in self.usual(state)):
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


FAULTS = frozenset({"drop", "duplicate", "crash", "kill", "pause", "cut", "expire", "command", "hang", "wipe"})


def _without(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    at = numbers.index(number)
    return (*numbers[:at], *numbers[at + 1 :])
