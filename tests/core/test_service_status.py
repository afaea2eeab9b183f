"""What status finds and puts right, and how a service begins: unclean after a dead tree, or under a new worker."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Optional

import pytest

from koi.core.effects import KillAll
from koi.core.service import Service
from tests.core.drive import FAR, SETTINGS, Drive, adopt, failures, has, in_state, promoted, scripts, started, status_says

# --- status -----------------------------------------------------------------------------------


def test_status_comes_an_interval_after_start_and_repeats() -> None:
    drive = started()
    assert drive.deadline() == 10.0
    drive.at(9.9)
    assert drive.service.action is None
    status_says(drive, 0)
    assert drive.deadline() == 20.0


def test_without_a_status_script_nothing_wakes() -> None:
    drive = Drive(Service(replace(SETTINGS, status_interval=None)))
    drive.order("started")
    drive.ended()
    assert drive.deadline() is None
    drive.lease = FAR
    drive.order("promoted")
    drive.ended()
    assert drive.deadline() == FAR, "promoted: once per lease"
    drive.lease = math.inf
    assert drive.deadline() is None


@pytest.mark.parametrize("exit", [1, 2, 89, 94, 127, -9, None])
def test_status_failure(exit: Optional[int]) -> None:
    drive = started()
    effects = status_says(drive, exit)
    assert drive.state == "Failing" and len(failures(effects)) == 1 and failures(effects)[0].action == "status"


def test_promoted_on_a_backup_is_demoted() -> None:
    drive = started()
    assert scripts(status_says(drive, 90)) == ["demote"]
    drive.ended()
    assert drive.state == "Started" and not drive.service.promoted


def test_stopped_from_outside_is_started_and_promoted_again() -> None:
    drive = promoted()
    assert scripts(status_says(drive, 92)) == ["start"] and not drive.service.promoted
    assert scripts(drive.ended()) == ["promote"]
    drive.ended()
    assert drive.state == "Promoted"


@pytest.mark.parametrize("exit", [91, 93])
def test_only_running_on_the_master_is_promoted_again(exit: int) -> None:
    drive = promoted()
    assert scripts(status_says(drive, exit)) == ["promote"]


@pytest.mark.parametrize("exit", [0, 90])
def test_status_agrees_on_the_master(exit: int) -> None:
    drive = promoted()
    assert scripts(status_says(drive, exit)) == [] and drive.state == "Promoted"


def test_live() -> None:
    drive = started()
    status_says(drive, 93)
    assert drive.state == "Started" and drive.service.report().live
    status_says(drive, 91)
    assert not drive.service.report().live


def test_a_fourth_correction_within_a_minute_is_a_failure() -> None:
    drive = started()
    for _ in range(3):
        assert scripts(status_says(drive, 92)) == ["start"]
        drive.ended()
    effects = status_says(drive, 92)
    assert drive.state == "Failing" and "4 times" in failures(effects)[0].what


def test_corrections_are_forgotten_after_a_minute() -> None:
    drive = started()
    for _ in range(8):
        assert scripts(status_says(drive, 92)) == ["start"]
        drive.ended()
        drive.now += 20
        drive.service.status_at = drive.now


# --- how it begins ----------------------------------------------------------------------------


def test_unclean_demotes_and_stops_before_anything_else() -> None:
    drive = Drive(Service.unclean(SETTINGS), begin=False)
    drive.order("started")
    assert scripts(drive.seen) == [], "nothing before what was left running was ended"
    assert scripts(drive.do(drive.service.begin)) == ["demote"]
    report = drive.service.report()
    assert report.promoted and not report.clean
    assert scripts(drive.ended()) == ["stop"]
    effects = drive.ended()
    assert has(effects, KillAll) and drive.service.report().clean and scripts(effects) == ["start"]


def test_unclean_has_the_whole_demote_timeout() -> None:
    drive = Drive(Service.unclean(SETTINGS))
    assert drive.deadline() is None
    assert drive.at(25.0) == [] and drive.state == "Demoting"


def test_unclean_whose_demote_fails_is_stopped_and_no_failure() -> None:
    drive = Drive(Service.unclean(SETTINGS))
    assert scripts(drive.ended(1)) == ["stop"]
    drive.ended()
    assert drive.state == "Stopped" and not drive.service.failed and drive.service.clean


def test_unclean_whose_demote_and_stop_fail_is_stuck() -> None:
    drive = Drive(Service.unclean(SETTINGS))
    drive.ended(1)
    drive.ended(1)
    report = drive.service.report()
    assert (drive.state, report.stuck, report.promoted, report.clean) == ("Failed", True, True, False)
    assert drive.service.settled


def test_unclean_whose_stop_alone_fails() -> None:
    drive = Drive(Service.unclean(SETTINGS))
    drive.ended()
    drive.ended(1)
    report = drive.service.report()
    assert (drive.state, report.stuck, report.promoted, report.clean) == ("Failed", False, False, True)


@pytest.mark.parametrize(("state", "first"), [
    ("Stopped", []), ("Starting", ["stop"]), ("Started", ["status"]), ("Promoting", ["demote"]), ("Promoted", ["status"]),
    ("Demoting", ["demote"]), ("Stopping", ["stop"]), ("Failing", []), ("Failed", []),
])
def test_a_new_worker_takes_over(state: str, first: list[str]) -> None:
    drive = adopt(in_state(state))
    assert scripts(drive.seen) == first
    if state in ("Stopped", "Started", "Promoted", "Failing", "Failed"):
        assert drive.state == state


def test_a_promoted_service_stays_promoted_under_a_new_worker() -> None:
    drive = adopt(promoted())
    drive.ended(0)
    assert drive.order("promoted") == [] and drive.state == "Promoted"


def test_a_program_that_died_with_its_worker_is_started_once_more() -> None:
    drive = adopt(promoted(), program_gone=True)
    assert drive.state == "Stopped" and drive.service.promoted
    assert scripts(drive.order("promoted")) == ["start"]
    assert scripts(drive.ended()) == ["promote"]
    drive.ended()
    assert drive.state == "Promoted" and not drive.service.failed and failures(drive.seen) == []


def test_a_program_that_died_with_its_worker_is_demoted_when_the_goal_fell() -> None:
    drive = adopt(promoted(), program_gone=True)
    assert scripts(drive.order("started")) == ["demote"]
    assert scripts(drive.ended()) == ["start"]


def test_a_new_runner_is_told() -> None:
    drive = promoted()
    effects = drive.service.announce()
    assert len(effects) == 1 and effects[0].to == "runner" and effects[0].message.info.state == "Promoted"
    assert effects[0].message.info.pid == 42 and effects[0].message.info.priority == 20
