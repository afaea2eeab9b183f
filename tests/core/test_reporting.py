"""When a runner reports, and what: at once on a change that decides, each H as master, else each 3 H (docs/protocol.md 5.1)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from koi.core import timing
from koi.core.effects import Send, Tell
from koi.core.elector import Elector
from koi.core.ledger import Record
from koi.core.messages import Report, ServiceInfo, State, Vouch
from koi.core.pipe import Failure, Heritage, Order, ServiceState
from koi.core.recovery import Recovery
from koi.core.reporting import DETAIL_BEATS, IDLE_BEATS, LIGHT_LIST, MAX_WARNINGS, ORDERS_FIRST_S
from koi.core.runner import Runner, RunnerSettings
from koi.core.seat import Seat
from koi.core.timing import AHEAD_S

T = timing.derive(3.0)
H = T.heartbeat
ELECTORS = ("a", "b", "c")


def runner(heritage: Heritage | None = None, **settings: Any) -> Runner:
    """Of node x, with one service."""
    values = RunnerSettings("x", "boot-of-x", ELECTORS, 2)
    return Runner(replace(values, **settings), T, {"vip": 10}, Recovery(10, 1.0, 1.0, 60.0), heritage or Heritage(), 100.0)


def service(state: str = "Started", promoted: bool = False, action: str | None = None) -> ServiceState:
    return ServiceState(ServiceInfo("vip", 10, state, action), promoted)


def reports(effects: list[Any]) -> list[Report]:
    return [e.message for e in effects if isinstance(e, Send)]


def after_its_orders(one: Runner, effects: list[Any], now: float) -> list[Report]:
    """What is reported of a change in which orders were given, which leave before it."""
    assert [e for e in effects if isinstance(e, Tell) and isinstance(e.message, Order)] and reports(effects) == []
    assert one.deadline() == pytest.approx(now + ORDERS_FIRST_S)
    return reports(one.handle_timer(one.deadline()))


def settled(heritage: Heritage | None = None) -> Runner:
    """One whose service is started and that hears all electors; its last report left at 101 s and was answered."""
    one = runner(heritage)
    one.start(100.0)
    one.service(service(), 100.1)
    for name in ELECTORS:
        one.receive(name, State("boot-of-x", one.reporter.number, (1, 1), digest=one.reporter.digest), 100.2)
    one.root_seen(101.0)
    one.reporter.soon(101.0)
    one.handle_timer(101.0)
    for name in ELECTORS:
        one.receive(name, State("boot-of-x", one.reporter.number, (1, 1), digest=one.reporter.digest), 101.001)
    return one


def test_the_first_report_goes_to_every_elector_at_once_under_one_number() -> None:
    effects = runner().start(100.0)
    assert {e.to for e in effects if isinstance(e, Send)} == set(ELECTORS)
    assert {r.number for r in reports(effects)} == {1}


def test_a_report_comes_with_the_leader_s_heartbeat_and_never_later_than_without_it() -> None:
    one = settled()
    one.beat_at = 101.1

    def report(at: float) -> float:
        """At that time, and answered; when the next is due."""
        one.root_seen(at)
        assert len(reports(one.handle_timer(at))) == 3
        for name in ELECTORS:
            one.receive(name, State("boot-of-x", one.reporter.number, (1, 1), digest=one.reporter.digest), at + 0.002)
        return one.reporter.due

    due = report(101.0 + IDLE_BEATS * H)
    assert due == pytest.approx(101.1 + (2 * IDLE_BEATS - 1) * H - AHEAD_S), "the last beat before 3 H are over"
    for _ in range(5):
        one.beat_at, was = due + 0.002, due
        due = report(due + 0.001)
        assert due == pytest.approx(was + IDLE_BEATS * H)


def test_the_leader_hears_a_report_first() -> None:
    one = settled()
    one.receive("b", State("boot-of-x", one.reporter.number, (1, 1), "c", digest=one.reporter.digest), 101.1)
    effects = one.handle_timer(101.0 + IDLE_BEATS * H)
    assert [e.to for e in effects if isinstance(e, Send)] == ["c", "a", "b"]


def test_a_failure_is_reported_with_the_state_that_follows_it() -> None:
    one = settled()
    one.failure(Failure("vip", "run", 1, 0.1, "", "run exited 1"))
    failed = ServiceState(ServiceInfo("vip", 10, "Failing", None, failed=True), False)
    found = after_its_orders(one, one.service(failed, 101.2), 101.2)
    assert [(r.number, r.failed, r.last_failure) for r in found] == [(one.reporter.number, True, "vip: run exited 1")] * 3


def test_an_idle_runner_reports_every_three_heartbeats() -> None:
    one = settled()
    assert one.reporter.due == pytest.approx(101.0 + IDLE_BEATS * H)
    assert reports(one.handle_timer(101.0 + IDLE_BEATS * H - 0.01)) == []
    found = reports(one.handle_timer(101.0 + IDLE_BEATS * H))
    assert [r.number for r in found] == [one.reporter.number] * 3


def begin(one: Runner) -> list[Any]:
    """A majority vouches for epoch 5."""
    number, effects = one.reporter.number, []
    for name in ("a", "b"):
        vouch = Vouch(5, (1, 1), "boot-of-x", number, T.lease, T.grace, digest=one.reporter.digest)
        effects += one.receive(name, vouch, 101.1)
    return effects


def orders(effects: list[Any]) -> list[tuple[str, str | None]]:
    """The goals that services are given, and who is master by them."""
    return [(e.message.goal, e.message.master) for e in effects if isinstance(e, Tell) and isinstance(e.message, Order)]


def test_that_a_node_was_named_is_no_news_to_its_services_until_it_begins() -> None:
    """Found: the first vouch had every worker told who is master, and the next one, a moment later, to promote."""
    one = settled()
    number = one.reporter.number
    other = State("boot-of-x", number, (1, 2), "c", "y", 4, digest=one.reporter.digest)
    assert orders(one.receive("c", other, 101.05)) == [("started", "y")]
    vouch = Vouch(5, (1, 3), "boot-of-x", number, T.lease, T.grace, digest=one.reporter.digest)
    assert orders(one.receive("a", vouch, 101.1)) == []
    assert orders(one.receive("b", vouch, 101.1)) == [("promoted", "x")]


def test_a_master_reports_at_once_and_then_every_heartbeat() -> None:
    one = settled()
    found = after_its_orders(one, begin(one), 101.1)
    assert one.holding == 5 and {r.holding for r in found} == {5}
    sent = one.reporter.sent_at
    assert sent == pytest.approx(101.1 + ORDERS_FIRST_S) and one.reporter.due == pytest.approx(sent + H)


FAILING = replace(service("Failing"), info=ServiceInfo("vip", 10, "Failing", failed=True))


def test_what_decides_something_is_told_at_once_or_after_the_orders_that_come_of_it() -> None:
    one = settled()
    assert {r.number for r in reports(one.service(service("Stopped"), 101.05))} == {one.reporter.number}
    for change in (lambda one: one.service(FAILING, 101.05), lambda one: one.stop(101.05)):
        one = settled()
        number = one.reporter.number
        assert {r.number for r in after_its_orders(one, change(one), 101.05)} == {number + 1}


def test_no_flow_of_orders_puts_a_report_off_for_longer() -> None:
    one = settled()
    one.service(FAILING, 101.05)
    assert reports(one.stop(101.05 + ORDERS_FIRST_S / 2)) == []
    assert one.deadline() == pytest.approx(101.05 + ORDERS_FIRST_S)


def test_that_an_epoch_is_given_up_is_told_with_the_orders() -> None:
    """Others wait for nothing else."""
    one = settled()
    begin(one)
    one.service(service("Promoted", promoted=True), 101.2)
    failed = ServiceInfo("vip", 10, "Failing", failed=True)
    after_its_orders(one, one.service(ServiceState(failed, promoted=True), 101.3), 101.3)
    effects = one.service(ServiceState(failed, promoted=False), 101.4)
    assert [e for e in effects if isinstance(e, Tell) and isinstance(e.message, Order)], "it is stopped now"
    assert [(r.holding, r.renounced) for r in reports(effects)] == [(None, 5)] * 3


def test_what_decides_nothing_is_told_soon_but_not_at_once() -> None:
    one = settled()
    assert reports(one.service(service(action="status"), 101.01)) == []
    assert one.deadline() == pytest.approx(101.0 + DETAIL_BEATS * H)
    assert len(reports(one.handle_timer(101.0 + DETAIL_BEATS * H))) == 3


def test_a_nudge_is_answered_at_once_but_only_when_it_is_meant_for_this_boot() -> None:
    one = settled()
    assert reports(one.receive("a", State("another", 1, (1, 1), nudge=True), 101.01)) == []
    nudge = State("boot-of-x", one.reporter.number, (1, 1), nudge=True)
    assert len(reports(one.receive("a", nudge, 101.01))) == 3


def test_a_nudge_that_crosses_a_report_is_answered_again_only_when_that_may_be_lost() -> None:
    """Found: three electors that accepted a ledger nudged one after the other, and each got three reports."""
    one = settled()
    nudge = State("boot-of-x", one.reporter.number, (1, 1), nudge=True)
    assert len(reports(one.receive("a", nudge, 101.01))) == 3
    assert reports(one.receive("b", nudge, 101.011)) == reports(one.receive("c", nudge, 101.012)) == []
    assert one.reporter.due == pytest.approx(101.01 + DETAIL_BEATS * H)
    assert len(reports(one.handle_timer(one.reporter.due))) == 3


def test_the_list_of_services_travels_only_to_those_that_do_not_know_it() -> None:
    one = runner()
    assert [r.services for r in reports(one.start(100.0))] == [()] * 3
    found = reports(one.service(service(), 100.1))
    assert [r.services for r in found] == [(service().info,)] * 3
    one.receive("a", State("boot-of-x", found[0].number, (1, 1), digest=found[0].digest), 100.2)
    one.reporter.soon(100.3)
    known = {e.to: e.message.services for e in one.handle_timer(100.3) if isinstance(e, Send)}
    assert known == {"a": None, "b": (service().info,), "c": (service().info,)}
    assert {r.digest for r in found} == {one.reporter.digest}


def test_a_long_list_is_followed_by_a_report_without_it_until_it_is_known() -> None:
    """Found: where large datagrams are lost, a node with many services was heard by nobody, and lost its lease at a change."""
    one = runner()
    names = [f"service-{number}" for number in range(LIGHT_LIST + 1)]
    for name in names:
        one.define(name, None, False, 100.0)
        one.service(ServiceState(ServiceInfo(name, None, "Started"), False), 100.0)
    one.root_seen(101.0)
    one.reporter.soon(101.0)
    effects = one.handle_timer(101.0)
    long, short = reports(effects)[:3], reports(effects)[3:]
    assert {len(r.services or ()) for r in long} == {len(names)} and {r.services for r in short} == {None}
    assert {r.number for r in long} == {one.reporter.number - 1} and {r.number for r in short} == {one.reporter.number}
    one.receive("a", State("boot-of-x", one.reporter.number, (1, 1), digest=one.reporter.digest), 101.001)
    one.receive("b", State("boot-of-x", one.reporter.number, (1, 1)), 101.001)
    one.reporter.soon(102.0)
    told = [(e.to, e.message.services is None) for e in one.handle_timer(102.0) if isinstance(e, Send)]
    assert told == [("a", True), ("b", False), ("c", False), ("b", True), ("c", True)]


def test_an_elector_keeps_the_list_it_knows_until_a_newer_one_comes() -> None:
    elector = Elector(Seat("a", ELECTORS, "boot-a"), T, Record(), random.Random(1), 0.0)

    def hear(number: int, digest: str, *services: ServiceInfo) -> tuple[str, tuple[ServiceInfo, ...] | None]:
        report = Report("x", "boot-of-x", number, digest=digest, services=services or None)
        [answer] = [e.message for e in elector.report(("x", 1), report, 1.0) if isinstance(e, Send)]
        return answer.digest, elector.reports["x"].report.services

    old, new = ServiceInfo("vip", 10, "Started"), ServiceInfo("vip", 10, "Promoted")
    assert hear(1, "1", old) == ("1", (old,))
    assert hear(2, "2") == ("", (old,))
    assert hear(3, "2") == ("", (old,))
    assert hear(4, "2", new) == ("2", (new,))
    assert hear(5, "2") == ("2", (new,))


def test_a_report_that_is_refused_leaves_no_list_behind() -> None:
    """Found: a node that was restarted had no services in the status until its second report to be believed."""
    elector = Elector(Seat("a", ELECTORS, "boot-a"), T, Record(), random.Random(1), 0.0)

    def hear(boot: str, uptime: float, now: float) -> str:
        number, listed = 1 if now < 2.0 else 2, (ServiceInfo("vip", 10, "Started"),)
        report = Report("x", boot, number, digest="1", services=listed, uptime=uptime)
        [answer] = [e.message for e in elector.report(("x", 1), report, now) if isinstance(e, Send)]
        return str(answer.digest)

    assert hear("first", 9.0, 1.0) == "1"
    assert hear("second", 0.1, 1.1) == "" and elector.reports["x"].report.boot == "first"
    assert hear("second", 8.0, 9.0) == "1" and elector.reports["x"].report.boot == "second"


def test_the_digest_changes_with_the_list_and_differs_between_boots() -> None:
    one, other = runner(), runner(boot="second-boot")
    first = one.reporter.digest
    one.service(service(), 100.1)
    assert one.reporter.digest != first != other.reporter.digest


def test_a_runner_whose_root_is_silent_reports_nothing_and_renews_nothing() -> None:
    one = settled()
    begin(one)
    silent = one.root_seen_at + T.lease
    assert reports(one.handle_timer(silent)) == [] and one.root_lost
    end = one.lease_end
    one.receive("c", Vouch(5, (1, 1), "boot-of-x", one.reporter.number, T.lease, T.grace), silent + 0.01)
    assert one.lease_end == end
    one.root_seen(silent + 0.1)
    assert len(reports(one.handle_timer(silent + 0.1))) == 3


@pytest.mark.parametrize("hearing", [True, False])
def test_a_runner_without_root_looks_each_heartbeat_whether_it_is_back(hearing: bool) -> None:
    """Found: it spun as soon as it heard no majority, or slept for good, for root's sign of life wakes nobody."""
    one = settled()
    now = one.root_seen_at + T.lease
    if not hearing:
        one.lease.words.clear()
    for _ in range(5):
        one.handle_timer(now)
        assert one.root_lost and one.deadline() == pytest.approx(now + H)
        now = one.deadline()
    one.root_seen(now)
    assert len(reports(one.handle_timer(now))) == 3 and not one.root_lost


def test_the_lineage_and_what_it_gave_up_are_told() -> None:
    found = reports(runner(Heritage(("old",), None, 7)).start(100.0))
    assert {(r.lineage, r.renounced) for r in found} == {(("old",), 7)}


def test_what_a_dead_tree_held_is_not_given_up_before_it_is_demoted_and_stopped() -> None:
    one = runner(Heritage(("old",), None, 7, unclean=True))
    assert {r.renounced for r in reports(one.start(100.0))} == {None}
    one.service(replace(service("Stopping", promoted=True), clean=False), 100.1)
    for name in ELECTORS:
        one.receive(name, State("boot-of-x", 1, (1, 1), leader="a", master="x", epoch=7), 100.2)
    assert one.told_renounced is None
    found = reports(one.service(service("Stopped"), 100.3))
    assert {r.renounced for r in found} == {7}


def test_so_many_warnings_are_carried_each_once() -> None:
    one = runner()
    texts = [f"warning {n}" for n in range(MAX_WARNINGS + 2)]
    assert all(one.reporter.warn(text) for text in texts) and not one.reporter.warn(texts[-1])
    assert one.reporter.warnings == tuple(texts[-MAX_WARNINGS:])


@pytest.mark.parametrize("vouched, warns", [(None, False), (T.grace, False), (T.grace / 2, True)])
def test_a_slow_demote_is_measured_by_the_electors_grace(vouched: float | None, warns: bool) -> None:
    """This node's own was raised, those of the electors not yet: they count, and the warning did not come."""
    one = runner()
    one.start(100.0)
    if vouched is not None:
        one.holding, one.lease_end = 7, 101.0
        for name in ("a", "b"):
            one.receive(name, Vouch(7, (1, 2), "boot-of-x", 1, T.lease, vouched), 100.1)
    one.service(replace(service("Started"), demote_seconds=0.4 * T.grace), 100.2)
    assert [f"({T.grace / 2:g} s)" in text for text in one.reporter.warnings] == [True] * warns
