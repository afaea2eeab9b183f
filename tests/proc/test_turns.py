"""In which order processes carry out what the core asks for: what others wait for first, what people read last."""

from __future__ import annotations

from typing import Any

from koi.core.effects import Become, Journal, Log, Persist, RunScript, Send, SetLease, Tell
from koi.core.ledger import Record
from koi.core.messages import Ack, State, Vouch
from koi.proc import elector, runner, worker

ORIGIN = ("192.0.2.1", 42012)
LOG, BECOME = Log("info", "words"), Become("vip", "Started", "Promoting", "why")


def test_an_elector_vouches_first_then_speaks_to_electors_writes_and_answers() -> None:
    state, vouch, ack = State("boot", 1, (1, 1)), Vouch(5, (1, 1), "boot", 1, 1.5, 1.1), Ack(1, 1, 0, (1, 1), None)
    journal, persist = Journal("master", "a", "b", 5, "why"), Persist(7, Record())
    asked: list[Any] = [LOG, journal, Send(ORIGIN, state), Send("b", ack), BECOME, persist, Send("c", ack), Send(ORIGIN, vouch)]
    assert sorted(asked, key=elector.turn) == [
        Send(ORIGIN, vouch), Send("b", ack), Send("c", ack), persist, Send(ORIGIN, state), LOG, journal, BECOME,
    ]


def test_a_runner_orders_its_workers_before_it_reports() -> None:
    lease, order, report = SetLease(7.0), Tell("service:vip", "an order"), Send("a", "a report")
    assert sorted([LOG, report, BECOME, lease, order], key=runner.turn) == [lease, order, report, LOG, BECOME]


def test_a_worker_tells_its_runner_before_it_runs_a_script_and_logs_after_that() -> None:
    tell, script = Tell("runner", "a state"), RunScript("promote", (), 1.0)
    assert sorted([LOG, BECOME, tell, script], key=worker.is_told_last) == [tell, script, LOG, BECOME]
