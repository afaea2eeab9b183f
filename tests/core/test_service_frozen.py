"""Maintenance, restarts and watch, for one service: driven by events alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from koi.core.effects import KillAll, RunScript
from koi.core.service import Service
from tests.core.drive import FAR, SETTINGS, Drive, failures, has, in_state, order, promoted, scripts, started, status_says

INF = float("inf")
MENDING = replace(SETTINGS, restarts=2, restarts_reset=100.0)


def freeze(drive: Drive, on: bool = True) -> list[Any]:
    return drive.do(drive.service.freeze, on)


def mending(state: str) -> Drive:
    """Started or promoted, with two restarts."""
    drive = Drive(Service(MENDING))
    drive.lease = FAR
    drive.order("promoted" if state == "Promoted" else "started")
    drive.all_end()
    assert drive.state == state
    drive.seen.clear()
    return drive


# --- maintenance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["Stopped", "Started", "Promoted", "Failed"])
@pytest.mark.parametrize("goal", ["stopped", "started", "promoted"])
def test_nothing_is_run_in_maintenance(state: str, goal: str) -> None:
    drive = in_state(state)
    drive.lease = INF
    freeze(drive)
    drive.seen.clear()
    drive.order(goal)
    drive.at(10_000.0)
    drive.do(drive.service.program_ended, 1, "")
    drive.do(drive.service.restart, "wanted")
    assert scripts(drive.seen) == [] and drive.state == state and drive.deadline() is None


@pytest.mark.parametrize(("state", "exit", "then"), [
    ("Starting", 0, "Started"), ("Starting", 1, "Failing"), ("Promoting", 0, "Promoted"), ("Promoting", 1, "Failing"),
    ("Demoting", 0, "Started"), ("Demoting", 1, "Demoting"), ("Stopping", 0, "Stopped"), ("Stopping", 1, "Failed"),
])
def test_a_script_that_runs_may_end_and_its_result_is_kept(state: str, exit: int, then: str) -> None:
    drive = in_state(state)
    drive.lease = INF
    freeze(drive)
    effects = drive.ended(exit)
    assert drive.state == then and scripts(effects) == [] and len(failures(effects)) == exit


def test_what_was_due_follows_afterwards() -> None:
    drive = in_state("Demoting")
    drive.lease = INF
    freeze(drive)
    drive.ended(1)
    assert scripts(freeze(drive, False)) == ["stop"]


@pytest.mark.parametrize(("exit", "then"), [(0, []), (91, []), (92, ["start"]), (90, ["demote"])])
def test_status_has_the_first_word_afterwards(exit: int, then: list[str]) -> None:
    drive = started()
    freeze(drive)
    assert scripts(freeze(drive, False)) == ["status"]
    assert scripts(drive.order("started", epoch=8)) == [] and scripts(drive.ended(exit)) == then


def test_a_lost_lease_is_stronger_than_maintenance() -> None:
    drive = promoted(lease=100.0)
    freeze(drive)
    assert drive.deadline() == 100.0
    drive.at(100.0)
    assert scripts(drive.at(100.0 + SETTINGS.grace / 4)) == ["demote"]


def test_a_worker_whose_root_is_gone_ends_although_its_demote_hung_in_maintenance() -> None:
    """Found by the simulator, seed 911906: it was killed, and the last stop waited for the end of maintenance, which nobody
    could tell any more; so the worker never ended, and the next koinode waited for it."""
    drive = promoted(lease=5.0)
    freeze(drive)
    drive.order("stopped")  # its own farewell: root is gone
    assert not drive.service.settled and scripts(drive.at(5.25)) == ["demote"]
    assert has(drive.at(6.0), KillAll) and not drive.service.settled
    assert scripts(drive.ended(-9)) == ["stop"]
    drive.ended(0)
    assert drive.service.settled and not drive.service.promoted


def test_what_was_killed_before_it_was_taken_over_stays_as_it_is_in_maintenance() -> None:
    drive = promoted(lease=5.0)
    drive.at(5.25)
    drive.at(6.0)
    told = drive.service.report()
    successor = Drive(Service.adopted(SETTINGS, told), begin=False)
    successor.service.frozen, successor.service.guarded = True, False
    assert successor.service.last_stop and scripts(successor.do(successor.service.begin)) == []


def test_a_promote_without_a_lease_is_killed_and_undone_in_maintenance_too() -> None:
    drive = in_state("Promoting")
    drive.lease = 50.0
    freeze(drive)
    drive.at(50.0)
    assert scripts(drive.ended(-9)) == ["demote"]


def test_what_was_taken_over_waits_for_its_first_lease() -> None:
    drive = promoted()
    told = drive.service.report()
    taken = Drive(Service.adopted(SETTINGS, told), begin=False)
    taken.service.frozen, taken.service.guarded = True, False
    taken.at(500.0)
    assert taken.deadline() is None and not has(taken.seen, KillAll)
    taken.lease = INF
    taken.at(600.0)
    taken.lease = 700.0
    assert taken.deadline() == 700.0
    taken.at(700.0)
    taken.at(700.0 + SETTINGS.grace / 4)
    assert scripts(taken.seen) == ["demote"]


def test_what_was_taken_over_from_a_worker_whose_lease_had_just_ended_is_demoted() -> None:
    """Found: a worker was killed between the end of its lease and its demote, while the runner had heard of maintenance from one
    elector; the next one waited for a lease, and stayed promoted."""
    taken = Drive(Service.adopted(SETTINGS, promoted().service.report()), begin=False)
    taken.service.frozen, taken.service.guarded = True, False
    taken.lease = 400.0
    taken.at(400.1)
    taken.at(400.0 + SETTINGS.grace / 4)
    assert scripts(taken.seen) == ["demote"]


def test_a_program_that_ended_in_maintenance_is_started_again() -> None:
    drive = promoted(lease=INF)
    freeze(drive)
    drive.do(drive.service.program_ended, 3, "")
    assert drive.state == "Promoted"
    assert scripts(freeze(drive, False)) == ["start"] and not drive.service.failed
    assert [one.what for one in failures(drive.seen)] == [
        "it was Promoted, but its program has ended in maintenance; it is put right"]
    drive.all_end()
    assert drive.state == "Promoted" and scripts(drive.seen)[-2:] == ["start", "promote"]


# --- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["Started", "Promoted"])
@pytest.mark.parametrize("how", ["status", "run", "watch"])
def test_a_failure_is_a_restart_first(state: str, how: str) -> None:
    drive = mending(state)
    around = (["demote"], ["promote"]) if state == "Promoted" else ([], [])
    for time in range(2):
        drive.seen.clear()
        fail(drive, how)
        drive.all_end()
        assert drive.state == state and not drive.service.failed
        assert [s for s in scripts(drive.seen) if s != "status"] == [*around[0], "stop", "start", *around[1]]
        assert f"({time + 1} of 2 times)" in failures(drive.seen)[0].what
    fail(drive, how)
    assert drive.state == "Failing" and drive.service.failed


def fail(drive: Drive, how: str) -> None:
    if how == "status":
        status_says(drive, 1)
    else:
        drive.seen += drive.service.program_ended(3, "", drive.now, drive.lease, how)


@pytest.mark.parametrize("action", ["start", "promote"])
def test_a_failing_start_or_promote_is_tried_again(action: str) -> None:
    drive = Drive(Service(MENDING))
    drive.lease = FAR
    drive.order("promoted")
    if action == "promote":
        drive.ended(0)
    drive.seen.clear()
    drive.ended(1)
    drive.all_end()
    assert drive.state == "Promoted" and len(failures(drive.seen)) == 1 and not drive.service.failed


def test_restarts_are_forgotten_after_a_while() -> None:
    drive = mending("Started")
    for time in (0.0, 1.0, 102.0, 103.0):
        drive.at(time)
        fail(drive, "run")
        drive.all_end()
        assert drive.state == "Started", time


def test_a_demote_that_fails_in_a_restart_fails_the_node() -> None:
    drive = mending("Promoted")
    fail(drive, "run")
    assert drive.service.action == "demote"
    drive.ended(1)
    drive.all_end()
    assert drive.service.failed and drive.state == "Failing"


def test_a_restart_by_hand() -> None:
    drive = promoted()
    drive.seen.clear()
    drive.do(drive.service.restart, "asked by ada")
    drive.all_end()
    assert scripts(drive.seen) == ["demote", "stop", "start", "promote"] and drive.state == "Promoted"
    stopped = in_state("Stopped")
    assert scripts(stopped.do(stopped.service.restart, "asked")) == []


def test_the_end_of_watch_is_told_by_its_name() -> None:
    drive = started()
    effects = drive.service.program_ended(4, "lost it", drive.now, drive.lease, "watch", 7.5)
    failure = failures(effects)[0]
    assert (failure.action, failure.exit, failure.seconds, failure.what) == ("watch", 4, 7.5, "watch exited 4")


@pytest.mark.parametrize("exit", [0, 1, None, -9])
def test_the_exit_of_failed_is_ignored(exit: int | None) -> None:
    drive = in_state("Failing")
    drive.order("stopped", failed="db")
    assert drive.service.action == "failed"
    effects = drive.ended(exit)
    assert scripts(effects) == ["stop"] and failures(effects) == []
    drive.ended(0)
    assert drive.state == "Failed"


def test_a_vanished_service_that_had_failed_is_undone_and_forgotten() -> None:
    drive = promoted()
    drive.order("stopped")
    drive.ended(127)
    drive.ended(127)
    assert drive.state == "Failed" and drive.service.stuck
    drive.do(drive.service.order, replace(order("stopped", recover=True), retired=True))
    drive.all_end()
    assert drive.state == "Stopped" and not drive.service.promoted and drive.service.clean


def test_every_script_has_its_timeout() -> None:
    drive = promoted()
    runs = [one for one in drive.seen if isinstance(one, RunScript)]
    assert {one.action: one.timeout for one in runs} == {"start": 360.0, "promote": 30.0}
