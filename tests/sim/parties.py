"""The parties of the exhaustive exploration: the real Elector and Runner, each with the little that surrounds it.

A party is a deterministic machine: an event and the time go in, mail and observations come out. Abstracted are: the disk,
which writes at once unless it hangs; root, which always answers; the scripts, of which only `demote` takes time (it ends by
an event of its own). A worker keeps its own deadline: what is active ends at the end of the lease + G at the latest (rule 7).
"""

from __future__ import annotations

import pickle
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType
from typing import Any, NamedTuple, Optional, Union

from koi.core.commands import Command
from koi.core.effects import Persist, Send, SetLease, Tell
from koi.core.elector import Elector
from koi.core.ledger import Record
from koi.core.messages import Report, ServiceInfo
from koi.core.pipe import Held, Heritage, Order, ServiceState
from koi.core.recovery import Recovery
from koi.core.runner import Runner, RunnerSettings
from koi.core.seat import Seat
from koi.core.timing import Timing
from tests.sim.switches import turn_off

ELECTORS, RUNNERS = ("a", "b", "c"), ("x", "y")
NAMES = (*ELECTORS, *RUNNERS)
PREFERENCES = {"x": 10, "y": 0}
SERVICE = "s"
TIMING = Timing(
    heartbeat=1.0, lease=3.2, grace=1.5, leader_timeout=3.0, failover=6.0, bully_delay=1000.0, blank_wait=20.0,
    promote_timeout=30.0, demote_timeout=30.0,
)
"""Short leases in proportion to heartbeats: fewer steps until something ends."""
RATES = {"a": 1.0045, "b": 1.0045, "c": 1.0, "x": 0.9955, "y": 1.0045}
"""Close clocks, as far apart as they may be: guards of a and b run out early, the lease of x ends late."""
TICKS = 1_000_000
"""Abstract time is counted in millionths of a second."""
ZERO_S = 1000.0

MAX_ROUNDS = 100
"""Answers of one node to itself within one event."""


class Mail(NamedTuple):
    """A datagram; `boot`: of the sending runner, or for which boot of a runner it is."""

    source: str
    to: str
    boot: str
    message: Any


class Outcome(NamedTuple):
    """What one event of a party leads to."""

    mail: tuple[Mail, ...]
    seen: tuple[tuple[Any, ...], ...]
    """Observations: ("leads", term, name), ("ledger", version, ledger), ("begins", epoch, name)."""


def local(name: str, ticks: int) -> float:
    """The clock of a party, in seconds."""
    return ZERO_S + ticks / TICKS * RATES[name]


def ticks(name: str, at: float) -> int:
    """The first tick at which the clock of a party shows at least `at`."""
    return int((at - ZERO_S) / RATES[name] * TICKS) + 1


class Half:
    """Chance that is none."""

    def random(self) -> float:
        """Always the same."""
        return 0.5


class Party:
    """What electors and runners have in common."""

    name: str
    machine: Any = None

    def __init__(self, name: str) -> None:
        self.name, self.boots = name, 0
        self.mail: list[Mail] = []
        self.seen: list[tuple[Any, ...]] = []

    def take(self, verb: str, what: Any, now: float, off: tuple[str, ...]) -> Outcome:
        """Carry an event out."""
        self.mail, self.seen = [], []
        if verb == "restart":
            self.boots += 1
            self.start(now, off)
        elif verb == "crash":
            self.crash()
        else:
            self.handle(verb, what, now, off)
        mail, seen = tuple(self.mail), tuple(self.seen)
        self.mail, self.seen = [], []
        return Outcome(mail, seen)

    def start(self, now: float, off: tuple[str, ...]) -> None:
        """A new process."""
        raise NotImplementedError

    def crash(self) -> None:
        """The power fails."""
        self.machine = None

    def handle(self, verb: str, what: Any, now: float, off: tuple[str, ...]) -> None:
        """Any other event."""
        raise NotImplementedError

    def deadline(self) -> Optional[float]:
        """Of its own clock; None: it is down."""
        return None if self.machine is None else float(self.machine.deadline())


class ElectorParty(Party):
    """An elector and its disk."""

    machine: Optional[Elector]

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.disk: Optional[Record] = Record()
        """None: it is lost."""
        self.hangs = False
        self.slot: Optional[Persist] = None
        """What a disk that hangs has not written."""

    @property
    def whole(self) -> bool:
        """Its disk is there, and it takes part or will."""
        return self.disk is not None and (self.machine is None or self.machine.roles.blank is None)

    def crash(self) -> None:
        super().crash()
        self.hangs, self.slot = False, None

    def start(self, now: float, off: tuple[str, ...]) -> None:
        quorum = 1 if "majority" in off else None
        seat = Seat(self.name, ELECTORS, f"{self.name}{self.boots}", 0, quorum)
        disk = Record() if self.disk is None and "blank start" in off else self.disk
        self.machine = Elector(seat, TIMING, disk, Half(), now)
        turn_off(off)("elector", self.machine)
        self._carry_out(self.machine.start(now), now)

    def handle(self, verb: str, what: Any, now: float, off: tuple[str, ...]) -> None:
        machine = self.machine
        if machine is None:
            return
        if verb == "wipe":
            self.crash()
            self.disk = None
            return
        if verb == "hang":
            self.hangs = True
            return
        if verb == "written":
            effects = self._written(machine, now)
        elif verb == "timeout":
            effects = machine.handle_timer(now)
        elif verb == "command":
            effects = machine.command(Command("k", "promote", what, False, ""), now)
        elif isinstance(what.message, Report):
            effects = machine.report((what.source, what.boot), what.message, now)
        else:
            effects = machine.receive(what.source, what.message, now)
        self._carry_out(effects, now)

    def _written(self, machine: Elector, now: float) -> list[Any]:
        """The disk goes on, with the newest record."""
        slot, self.hangs, self.slot = self.slot, False, None
        return [] if slot is None else self._persist(machine, slot, now)

    def _persist(self, machine: Elector, effect: Persist, now: float) -> list[Any]:
        if self.hangs:
            self.slot = effect
            return []
        self.disk = effect.record
        self.seen.append(("ledger", effect.record.version, effect.record.ledger))
        return machine.persisted(effect.number, now)

    def _carry_out(self, effects: list[Any], now: float) -> None:
        machine = self.machine
        assert machine is not None
        todo = list(effects)
        for _ in range(MAX_ROUNDS):
            if not todo:
                break
            effect = todo.pop(0)
            if isinstance(effect, Send):
                to, boot = effect.to if isinstance(effect.to, tuple) else (effect.to, "")
                self.mail.append(Mail(self.name, to, boot, effect.message))
            elif isinstance(effect, Persist):
                todo.extend(self._persist(machine, effect, now))
        assert not todo, "an elector does not come to rest"
        if machine.roles.lead is not None:
            self.seen.append(("leads", machine.roles.lead.term, self.name))


class RunnerParty(Party):
    """A runner, the cell and the one service of its node."""

    machine: Optional[Runner]

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.boot = ""
        self.lineage: tuple[str, ...] = ()
        self.held: Optional[Held] = None
        self.state, self.goal = "Stopped", "stopped"
        self.cell: Optional[float] = None
        self.end = 0.0
        """The last end of a lease that the cell said: what is active goes on until then, and G."""

    @property
    def active(self) -> bool:
        """Between the begin of promote and the end of demote."""
        return self.state in ("Promoted", "Demoting")

    def crash(self) -> None:
        super().crash()
        self.state, self.goal, self.cell, self.held, self.lineage = "Stopped", "stopped", None, None, ()

    def start(self, now: float, off: tuple[str, ...]) -> None:
        """After a failure of the power, or, when only the process was killed, as successor."""
        self.boot = f"{self.name}{self.boots}"
        majority = 1 if "majority" in off else len(ELECTORS) // 2 + 1
        settings = RunnerSettings(self.name, self.boot, ELECTORS, majority, preference=PREFERENCES[self.name])
        held = self.held
        heritage = Heritage() if held is None else Heritage(self.lineage, held.holding, held.renounced, self.cell)
        self.machine = Runner(settings, TIMING, {SERVICE: 10}, Recovery(9, 1.0, 1.0, 60.0), heritage, now)
        turn_off(off)("runner", self.machine)
        self._carry_out([*self.machine.start(now), *self._tell(now)], now)

    def handle(self, verb: str, what: Any, now: float, off: tuple[str, ...]) -> None:
        if verb == "kill":
            self.lineage = (*self.lineage, self.boot)
            self.boots += 1
            self.start(now, off)
        elif verb in ("demoted", "expire"):
            self.state = "Started"
            self._carry_out(self._tell(now), now)
        elif self.machine is not None and (verb == "timeout" or what.boot == self.boot):
            self.machine.root_seen(now)
            timer = verb == "timeout"
            effects = self.machine.handle_timer(now) if timer else self.machine.receive(what.source, what.message, now)
            self._carry_out(effects, now)

    def _tell(self, now: float) -> list[Any]:
        """The worker's word."""
        if self.machine is None:
            return []
        self.machine.root_seen(now)
        return self.machine.service(ServiceState(ServiceInfo(SERVICE, 10, self.state), self.active), now)

    def _carry_out(self, effects: list[Any], now: float) -> None:
        todo = list(effects)
        for _ in range(MAX_ROUNDS):
            if not todo:
                return
            effect = todo.pop(0)
            if isinstance(effect, Send):
                self.mail.append(Mail(self.name, effect.to, self.boot, effect.message))
            elif isinstance(effect, SetLease):
                self.cell = effect.end
                self.end = self.end if effect.end is None else effect.end
            elif isinstance(effect, Tell) and isinstance(effect.message, Held):
                self._note(effect.message)
            elif isinstance(effect, Tell) and isinstance(effect.message, Order):
                self.goal = effect.message.goal
                todo.extend(self._obey(now))
        raise AssertionError("a runner does not come to rest")

    def _note(self, held: Held) -> None:
        before = None if self.held is None else self.held.holding
        self.held = held
        if held.holding is not None and held.holding != before:
            self.seen.append(("begins", held.holding, self.name))

    def _obey(self, now: float) -> list[Any]:
        """The service follows its order as far as it may at once."""
        said: list[Any] = []
        for old, goals, new in STEPS:
            may = new != "Promoted" or (self.cell is not None and now < self.cell)
            if self.state == old and self.goal in goals and may:
                self.state = new
                said.extend(self._tell(now))
        return said


STEPS = (
    ("Promoted", ("started", "stopped"), "Demoting"), ("Stopped", ("started", "promoted"), "Started"),
    ("Started", ("stopped",), "Stopped"), ("Started", ("promoted",), "Promoted"),
)
"""Old state, goals, new state, in the order in which one order goes through them."""

AnyParty = Union[ElectorParty, RunnerParty]


def freeze(value: Any, met: set[int]) -> Any:
    """The plain data of a party, hashable, without order and without functions."""
    if value is None or isinstance(value, (str, int, float, frozenset)):
        return value
    if isinstance(value, dict):
        return frozenset((key, freeze(item, met)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item, met) for item in value)
    if isinstance(value, (set,)):
        return frozenset(value)
    if isinstance(value, (FunctionType, MethodType)) or id(value) in met:
        return None
    if is_dataclass(value) and type(value).__hash__ is not None:
        return value
    met.add(id(value))
    names = list(vars(value)) if hasattr(value, "__dict__") else [f.name for f in fields(value)]
    return type(value).__name__, tuple((name, freeze(getattr(value, name), met)) for name in sorted(names))


def dump(party: AnyParty) -> bytes:
    """A snapshot; what a switch has put into the machine is left out."""
    for part in _parts(party):
        for name in [name for name, value in vars(part).items() if isinstance(value, FunctionType)]:
            delattr(part, name)
    return pickle.dumps(party, pickle.HIGHEST_PROTOCOL)


def load(snapshot: bytes, off: tuple[str, ...]) -> AnyParty:
    """The party of a snapshot, its rules turned off again."""
    party: AnyParty = pickle.loads(snapshot)
    if off and party.machine is not None:
        turn_off(off)("elector" if isinstance(party, ElectorParty) else "runner", party.machine)
    return party


def _parts(party: AnyParty) -> list[Any]:
    machine = party.machine
    if machine is None:
        return []
    return [machine, machine.acceptor, machine.roles] if isinstance(machine, Elector) else [machine, machine.lease]
