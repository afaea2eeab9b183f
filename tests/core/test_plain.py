"""The core's state is plain data: comparable, cheap to copy, and the same after the same events."""

from __future__ import annotations

import copy
import enum
from typing import Any

import pytest

from koi.core.arbiter import decide
from tests.core.views import view
from tests.sim.plan import Plan
from tests.sim.run import prepare

PLAIN = (type(None), bool, int, float, str, bytes)


def state(thing: Any, seen: tuple[int, ...] = ()) -> Any:
    """Everything that an object of the core remembers, as nested tuples; a callable is only named."""
    if isinstance(thing, PLAIN) or isinstance(thing, enum.Enum):
        return thing
    if id(thing) in seen:
        return "..."
    seen = (*seen, id(thing))
    if isinstance(thing, dict):
        return tuple(sorted(((repr(key), state(value, seen)) for key, value in thing.items())))
    if isinstance(thing, (set, frozenset)):
        return tuple(sorted(repr(one) for one in thing))
    if isinstance(thing, (list, tuple)):
        return tuple(state(one, seen) for one in thing)
    if callable(thing):
        return getattr(thing, "__qualname__", "?")
    assert type(thing).__module__.startswith("koi.core") or type(thing).__name__ == "Random", f"{thing!r} is not plain"
    names = sorted({*getattr(thing, "__dict__", ()), *(n for c in type(thing).__mro__ for n in getattr(c, "__slots__", ()))})
    if type(thing).__name__ == "Random":
        return "chance"
    return (type(thing).__name__, *((name, state(getattr(thing, name), seen)) for name in names))


def machines(plan: Plan) -> dict[str, Any]:
    """All machines of a simulated cluster, by name."""
    found: dict[str, Any] = {}
    for host in plan.cluster.hosts.values():
        for process in (host.elector, host.runner, *host.workers.values()):
            if process is not None:
                found[process.name] = process.machine
    return found


def run(seed: int, until: float) -> Plan:
    plan = prepare(seed)
    plan.schedule()
    plan.world.run(until)
    return plan


@pytest.mark.parametrize("seed", range(5))
def test_two_runs_of_the_same_events_give_equal_state(seed: int) -> None:
    for until in (5.0, 20.0, 37.0):
        one, other = machines(run(seed, until)), machines(run(seed, until))
        assert one.keys() == other.keys() and one
        for name in one:
            assert one[name] is not other[name]
            assert state(one[name]) == state(other[name]), name


def test_the_state_does_change() -> None:
    one, other = machines(run(1, 10.0)), machines(run(1, 10.4))
    assert any(state(one[name]) != state(other[name]) for name in one)


def test_records_messages_and_services_are_compared_by_value_and_hashed() -> None:
    plan, again = run(1, 20.0), run(1, 20.0)
    for name, machine in machines(plan).items():
        twin = machines(again)[name]
        if name.endswith("/elector"):
            assert machine.acceptor.record == twin.acceptor.record and hash(machine.acceptor.record) == hash(twin.acceptor.record)
            assert machine.reports == twin.reports
        elif name.endswith("/runner"):
            assert machine.lease.words == twin.lease.words and machine.services == twin.services
        else:
            assert machine == twin and copy.copy(machine) == machine


def test_a_decision_is_a_pure_function_of_what_is_known() -> None:
    for fields in ({}, {"free_by": 3}, {"b": {"stuck": True}}, {"a": None, "free_by": 2}):
        known = view(**copy.deepcopy(fields))
        before = copy.deepcopy(known)
        assert decide(known) == decide(known) == decide(before)
        assert known == before
