"""What a dead koinode left under a lease is demoted in time, or killed (docs/protocol.md rule 6.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest

from koi.core import effects
from koi.core.deadman import decides_alone
from koi.core.effects import KillAll, Log, SetLease
from koi.core.facts import Debt
from koi.core.messages import ENDING, MAINTENANCE, STUCK, Vouch
from koi.core.pipe import Heritage, ServiceState
from koi.core.service import Service
from koi.core.timing import usable
from tests.core.drive import SETTINGS, Drive, failures, has, order, scripts
from tests.core.test_reporting import T, runner, service

# The grace of SETTINGS is 1 s.


def left(debt: Debt, now: float, begin: bool = True) -> Drive:
    """The machine of a worker that finds what a dead tree left."""
    drive = Drive(Service.unclean(replace(SETTINGS, self_fence=True)), begin=False)
    drive.now = now
    drive.service.owe(debt)
    if begin:
        drive.do(drive.service.begin)
    return drive


def critical(found: list[Any]) -> list[str]:
    return [one.text for one in found if isinstance(one, Log) and one.level == effects.CRITICAL]


@pytest.mark.parametrize("began", [1.0, 3.0, 3.9])
def test_the_grace_counts_from_the_end_of_the_dead_trees_lease(began: float) -> None:
    drive = left(Debt(3.0, began), began)
    assert scripts(drive.seen) == ["demote"] and not has(drive.seen, KillAll)
    assert drive.deadline() == 4.0 and drive.at(3.99) == []
    found = drive.at(4.0)
    assert has(found, KillAll) and scripts(found) == ["self_fence"] and len(critical(found)) == 1
    assert drive.state == "Failed" and failures(found) and drive.deadline() is None
    assert scripts(drive.ended(-9)) == ["stop"], "the last try"
    drive.ended(0)
    report = drive.service.report()
    assert (report.promoted, report.clean, report.stuck) == (False, True, False)


def test_the_dead_trees_grace_counts_when_this_koinode_has_a_longer_one() -> None:
    drive = left(Debt(3.0, 2.0, 0.4), 2.0)
    assert drive.deadline() == 3.4 and has(drive.at(3.4), KillAll)
    late = left(Debt(3.0, 3.5, 0.4), 3.5)
    assert has(late.seen, KillAll) and late.deadline() == 3.9
    assert decides_alone(Debt(3.0, 1.0, 0.4), 1.0) == pytest.approx(3.3)


def test_what_is_demoted_in_time_has_all_its_time_to_stop() -> None:
    drive = left(Debt(3.0, 2.0), 2.0)
    drive.now = 3.5
    assert scripts(drive.ended()) == ["stop"]
    assert drive.deadline() is None and drive.at(60.0) == []


def test_found_after_the_grace_its_processes_are_killed_at_once_and_it_is_demoted() -> None:
    """Another node may be master already: nothing waits for the demote, which has one grace from then on."""
    drive = left(Debt(3.0, 9.0), 9.0)
    assert has(drive.seen, KillAll) and scripts(drive.seen) == ["demote"] and not drive.service.failed
    assert "6.0 s after its lease had ended" in critical(drive.seen)[0]
    assert drive.deadline() == 10.0
    assert scripts(drive.at(10.0)) == ["self_fence"]


def test_it_counts_while_processes_are_still_being_ended() -> None:
    drive = left(Debt(3.0, 1.0), 1.0, begin=False)
    drive.at(2.0)
    drive.at(3.5)
    assert scripts(drive.seen) == [] and drive.deadline() == 4.0
    assert has(drive.at(4.0), KillAll)


def test_a_new_worker_counts_on() -> None:
    told = left(Debt(3.0, 2.0), 2.0).service.report()
    new = Drive(Service.adopted(SETTINGS, told), begin=False)
    new.now = 3.8
    new.service.owe(Debt(3.0, 2.0))
    new.do(new.service.begin)
    assert scripts(new.seen) == ["demote"] and new.deadline() == 4.0


def test_a_stuck_one_is_killed_too_and_its_worker_stays_for_that() -> None:
    drive = left(Debt(3.0, 2.0), 2.0)
    drive.ended(1)
    drive.ended(1)
    assert drive.service.stuck and not drive.service.settled and drive.deadline() == 4.0
    assert has(drive.at(4.0), KillAll) and drive.service.settled


def test_what_is_clean_owes_nothing() -> None:
    drive = Drive(Service(SETTINGS))
    drive.service.owe(Debt(3.0, 9.0))
    assert drive.at(9.0) == [] and drive.deadline() is None


def test_in_maintenance_the_count_begins_with_its_end() -> None:
    drive = Drive(Service.unclean(SETTINGS), begin=False)
    drive.service.frozen, drive.service.guarded = True, False
    drive.service.owe(Debt(3.0, 9.0))
    assert scripts(drive.at(100.0)) == [] and not has(drive.seen, KillAll) and drive.deadline() is None
    drive.now = 200.0
    drive.do(drive.service.freeze, False)
    assert scripts(drive.do(drive.service.begin)) == ["demote"] and drive.deadline() == 201.0


def test_while_the_electors_vouch_for_what_was_left_its_demote_may_take_its_time() -> None:
    """The runner writes their word into the lease cell; whether that comes before the first order or after it."""
    drive = left(Debt(3.0, 2.0), 2.0)
    assert scripts(drive.seen) == ["demote"] and drive.deadline() == 4.0
    for now in (2.5, 4.5, 6.5):
        drive.lease = now + 1.5
        assert drive.at(now) == [] and drive.deadline() == drive.lease
    assert drive.at(8.0) == [] and drive.deadline() == 9.0, "from the end of the lease"
    assert has(drive.at(9.0), KillAll) and drive.deadline() is None
    drive.do(drive.service.handle_timer)
    assert drive.service.debt is None and drive.deadline() is None, "nothing is left to do"


def test_a_lease_of_what_was_left_that_comes_back_is_good_again() -> None:
    drive = left(Debt(3.0, 2.0), 2.0)
    drive.at(3.5)
    drive.lease = 4.5
    assert drive.at(3.9) == [] and drive.deadline() == 4.5
    assert scripts(drive.ended()) == ["stop"] and drive.deadline() is None


def test_a_worker_that_is_not_told_of_maintenance_decides_while_a_demote_is_still_possible() -> None:
    assert decides_alone(Debt(3.0, 1.0), 1.0) == 3.75
    assert decides_alone(Debt(3.0, 9.0), 1.0) == 9.75


# --- the runner -------------------------------------------------------------------------------


def test_the_dead_trees_lease_counts_no_more_once_all_is_demoted_and_stopped() -> None:
    one = runner(Heritage(("old",), None, 7, unclean=True))
    word: ServiceState = replace(service("Stopping", promoted=True), clean=False)
    told = [*one.start(100.0), *one.service(word, 100.1)]
    assert not has(told, SetLease), "the run folder keeps the end of the dead tree's lease"
    assert SetLease(None) in one.service(service("Stopped"), 100.2)


@pytest.mark.parametrize("hold, counts", [(MAINTENANCE, False), (ENDING, True), (STUCK, True), (None, True)])
def test_what_electors_vouch_for_what_was_left_is_its_lease(hold: Optional[str], counts: bool) -> None:
    """A majority of them, counted from the sending of the report, until all is demoted and stopped; in maintenance it waits."""
    one = runner(Heritage(("old",), None, 7, unclean=True))
    told = [*one.start(100.0), *one.service(replace(service("Demoting", promoted=True), clean=False), 100.1)]
    vouch = Vouch(7, (1, 2), "boot-of-x", 1, T.lease, 0.5, hold=hold)
    told += one.receive("a", vouch, 100.2)
    assert not has(told, SetLease)
    told += one.receive("b", vouch, 100.3)
    assert [e for e in told if isinstance(e, SetLease)] == [SetLease(100.0 + usable(T.lease), 0.5)] * counts
    assert one.holding is None and one.told_renounced is None
    now = one.reporter.due
    one.handle_timer(now)
    assert one.reporter.due == pytest.approx(now + (1 if counts else 3) * T.heartbeat)
    assert SetLease(None) in one.service(service("Stopped"), 100.4)
    assert one.told_lease is None and one.holding is None


def test_maintenance_that_begins_anew_while_what_was_left_is_demoted_does_not_end_its_lease() -> None:
    """Electors go on vouching for it: else a demote that takes its time would be killed although nobody else can be promoted."""
    one = runner(Heritage(("old",), None, 7, unclean=True))
    told = [*one.start(100.0), *one.service(replace(service("Demoting", promoted=True), clean=False), 100.1)]
    for version, (hold, now) in enumerate(((ENDING, 100.2), (MAINTENANCE, 100.7), (MAINTENANCE, 101.2))):
        told += one.handle_timer(now - 0.1)
        number = one.reporter.number
        for elector in ("a", "b"):
            told += one.receive(elector, Vouch(7, (1, version), "boot-of-x", number, T.lease, 0.5, hold=hold), now)
    assert one.maintenance
    assert [e for e in told if isinstance(e, SetLease)][-1] == SetLease(pytest.approx(101.1 + usable(T.lease)), 0.5)


def test_a_runner_that_finds_nothing_left_says_what_its_lease_is() -> None:
    """Its predecessor may have died between the end of the last demote and the word that nothing is promoted any more."""
    assert SetLease(None) in runner(Heritage(("old",), None, 7)).start(100.0)
    assert SetLease(101.5) in runner(Heritage(("old",), 7, None, lease_end=101.5)).start(100.0)


def test_order_is_no_reason_to_count_anew() -> None:
    drive = left(Debt(3.0, 2.0), 2.0)
    drive.do(drive.service.order, order("stopped"))
    assert drive.deadline() == 4.0
