"""In which order processes carry out what the core asks for: what others wait for first, what people read last."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from koi.core.effects import Become, Journal, Log, Persist, RunScript, Send, SetLease, Tell
from koi.core.ledger import Record
from koi.core.messages import Ack, State, Vouch
from koi.proc import elector, runner, worker

ORIGIN = ("192.0.2.1", 42012)
LOG, BECOME = Log("info", "words"), Become("vip", "Started", "Promoting", "why")


def test_an_elector_vouches_and_nudges_first_then_speaks_to_electors_writes_and_answers() -> None:
    state, vouch, ack = State("boot", 1, (1, 1)), Vouch(5, (1, 1), "boot", 1, 1.5, 1.1), Ack(1, 1, 0, (1, 1), None)
    nudge = State("boot", 1, (1, 1), nudge=True)
    journal, persist = Journal("master", "a", "b", 5, "why"), Persist(7, Record())
    asked: list[Any] = [LOG, journal, Send(ORIGIN, state), Send("b", ack), BECOME, persist, Send("c", ack), Send(ORIGIN, vouch),
                        Send(ORIGIN, nudge)]
    assert sorted(asked, key=elector.turn) == [
        Send(ORIGIN, vouch), Send(ORIGIN, nudge), Send("b", ack), Send("c", ack), persist, Send(ORIGIN, state),
        LOG, journal, BECOME,
    ]


def test_a_runner_orders_its_workers_before_it_reports() -> None:
    lease, order, report = SetLease(7.0), Tell("service:vip", "an order"), Send("a", "a report")
    assert sorted([LOG, report, BECOME, lease, order], key=runner.turn) == [lease, order, report, LOG, BECOME]


class Carrying(worker.Worker):
    """A worker that only notes what it is asked for."""

    def __init__(self, *events: list[Any]) -> None:
        self.events = deque((lambda effects=effects: effects) for effects in events)  # type: ignore[misc]
        self.done: list[Any] = []

    def _follow(self) -> None:
        self.done.append("follow")

    def _may_leave(self) -> bool:
        return False


def test_a_worker_tells_its_runner_and_runs_scripts_and_logs_after_the_last_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found: between the end of a program and its new start stood what the log was told of its end."""
    monkeypatch.setattr(worker, "EFFECTS", dict.fromkeys(worker.EFFECTS, lambda self, effect: self.done.append(effect)))
    tell, stop, start = Tell("runner", "a state"), RunScript("stop", (), 1.0), RunScript("start", (), 1.0)
    carrying = Carrying([LOG, BECOME, tell, stop], [start])
    carrying._work()
    assert carrying.done == [tell, stop, "follow", start, "follow", LOG, BECOME]


def test_what_a_worker_has_to_log_is_logged_also_when_it_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(worker, "EFFECTS", {Log: lambda self, effect: told.append(effect)})
    with pytest.raises(KeyError):
        Carrying([LOG, Tell("runner", "a state")])._work()
    assert told == [LOG]
