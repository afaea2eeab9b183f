"""A service that fails: every row of failure of every action, `failed`, recovery, stuck."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import pytest

from koi.core.effects import CRITICAL, EndScript, Log
from tests.core.drive import Drive, failures, has, in_state, order, promoted, scripts, started, status_says

BAD = [1, 127, -9, None]


@pytest.mark.parametrize("exit", BAD)
def test_start_fails(exit: Optional[int]) -> None:
    drive = in_state("Starting")
    effects = drive.ended(exit)
    failure = failures(effects)[0]
    assert drive.state == "Failing" and drive.service.report().info.failed and not drive.service.promoted
    assert (failure.service, failure.action, failure.exit, failure.line) == ("db", "start", exit, "said")
    words = {1: "exited 1", 127: "exited 127", -9: "was killed by signal 9", None: "outlived its timeout of 360 s"}
    assert failure.what == f"start {words[exit]}"
    assert drive.order("started") == [] and drive.order("promoted") == [], "it waits for the runner"
    assert scripts(drive.order("stopped", failed="db")) == ["failed"]
    assert scripts(drive.ended(3)) == ["stop"], "the exit of `failed` is ignored"
    drive.ended()
    assert drive.state == "Failed" and drive.service.settled


@pytest.mark.parametrize("exit", BAD)
def test_promote_fails(exit: Optional[int]) -> None:
    drive = in_state("Promoting")
    assert len(failures(drive.ended(exit))) == 1
    assert drive.state == "Failing" and drive.service.promoted, "it may be promoted"
    assert scripts(drive.order("started")) == ["demote"]
    drive.ended()
    assert drive.state == "Failing" and not drive.service.promoted
    assert drive.order("started") == []
    assert scripts(drive.order("stopped", failed="db")) == ["failed"]
    drive.all_end()
    assert drive.state == "Failed"


@pytest.mark.parametrize("exit", BAD)
def test_demote_fails_and_stop_does_it(exit: Optional[int]) -> None:
    drive = in_state("Demoting")
    effects = drive.ended(exit)
    assert scripts(effects) == ["stop"] and drive.service.promoted and len(failures(effects)) == 1
    drive.ended()
    assert drive.state == "Failing" and not drive.service.promoted and not drive.service.stuck
    assert scripts(drive.order("stopped", failed="db")) == ["failed"]
    assert scripts(drive.ended()) == [] and drive.state == "Failed", "it is stopped already"


@pytest.mark.parametrize("exit", BAD)
def test_demote_and_stop_fail(exit: Optional[int]) -> None:
    drive = in_state("Demoting")
    drive.ended(1)
    effects = drive.ended(exit)
    report = drive.service.report()
    assert (drive.state, report.stuck, report.promoted) == ("Failed", True, True)
    assert any(isinstance(one, Log) and one.level == CRITICAL for one in effects)
    assert drive.order("stopped") == [] and drive.order("started") == [], "nothing more is tried"
    assert scripts(drive.order("started", recover=True)) == ["demote"]
    assert scripts(drive.ended()) == ["stop"]
    assert scripts(drive.ended()) == ["start"] and not drive.service.report().stuck


@pytest.mark.parametrize("exit", BAD)
def test_stop_fails(exit: Optional[int]) -> None:
    drive = in_state("Stopping")
    assert len(failures(drive.ended(exit))) == 1
    report = drive.service.report()
    assert (drive.state, report.stuck, report.promoted, report.info.failed) == ("Failed", False, False, True)
    assert drive.service.settled
    assert scripts(drive.order("stopped", failed="db")) == ["failed"] and drive.state == "Failed"
    assert scripts(drive.ended()) == []


def test_status_fails_on_the_master() -> None:
    drive = promoted()
    status_says(drive, 1)
    assert drive.state == "Failing" and drive.service.promoted
    assert scripts(drive.order("started", failed="db")) == ["demote"]
    drive.ended()
    assert scripts(drive.order("stopped", failed="db")) == ["failed"]
    assert scripts(drive.ended()) == ["stop"]
    drive.ended()
    assert drive.state == "Failed"


def test_failed_runs_once_for_each_failure_of_the_node() -> None:
    drive = started()
    assert scripts(drive.order("stopped", failed="web")) == ["failed"]
    assert scripts(drive.ended(1)) == ["stop"] and not drive.service.failed
    drive.ended()
    assert drive.state == "Stopped", "it has not failed itself"
    assert drive.order("stopped", failed="web", epoch=9) == []
    assert scripts(drive.order("started")) == ["start"]
    drive.ended()
    assert scripts(drive.order("stopped", failed="web")) == ["failed"], "another failure"


def test_a_master_is_demoted_before_failed_runs() -> None:
    drive = promoted()
    assert scripts(drive.order("stopped", failed="web")) == ["demote"]
    assert scripts(drive.ended()) == ["failed"]


@pytest.mark.parametrize("state", ["Started", "Promoted"])
def test_the_program_ends(state: str) -> None:
    drive = in_state(state)
    effects = drive.do(drive.service.program_ended, -11, "segmentation fault")
    assert drive.state == "Failing" and failures(effects)[0].what == "run was killed by signal 11"
    assert failures(effects)[0].action == "run"


def test_the_program_ends_while_promote_runs() -> None:
    drive = in_state("Promoting")
    assert has(drive.do(drive.service.program_ended, 1, ""), EndScript)
    drive.ended(-15)
    assert drive.state == "Failing" and drive.service.promoted and len(failures(drive.seen)) == 1
    assert scripts(drive.order("started")) == ["demote"]


def test_the_program_ends_while_demote_runs() -> None:
    drive = in_state("Demoting")
    drive.do(drive.service.program_ended, 1, "")
    assert drive.state == "Demoting"
    drive.ended()
    assert drive.state == "Failing" and not drive.service.promoted


def test_the_program_ends_while_status_runs() -> None:
    drive = started()
    drive.at(10.0)
    drive.do(drive.service.program_ended, 1, "")
    assert EndScript(False) in drive.order("stopped", failed="db")
    assert scripts(drive.ended(92)) == ["failed"], "what that status says means nothing any more"


@pytest.mark.parametrize("state", ["Stopped", "Stopping", "Failing", "Failed"])
def test_an_end_of_the_program_that_means_nothing(state: str) -> None:
    drive = in_state(state)
    assert drive.do(drive.service.program_ended, 0, "") == [] and drive.state == state


def failed_drive() -> Drive:
    drive = in_state("Starting")
    drive.ended(1)
    drive.order("stopped", failed="db")
    drive.all_end()
    assert drive.state == "Failed"
    return drive


def test_failed_stays_failed_until_it_is_recovered() -> None:
    drive = failed_drive()
    assert drive.order("started") == [] and drive.order("promoted") == [] and drive.order("stopped") == []
    assert scripts(drive.order("started", recover=True)) == ["start"]
    drive.ended()
    assert drive.state == "Started" and not drive.service.report().info.failed


def test_one_recover_forgets_one_failure() -> None:
    drive = failed_drive()
    drive.order("started", recover=True)
    drive.ended(1)
    assert drive.state == "Failing"
    drive.order("stopped", failed="db")
    drive.all_end()
    assert drive.state == "Failed"


def test_a_recover_that_is_told_again_in_another_state_of_the_node_is_the_same_one() -> None:
    """Found: a start that failed at once was tried twice, for the node was Live meanwhile and the order told again."""
    drive = failed_drive()
    assert scripts(drive.order("started", recover=True)) == ["start"]
    drive.ended(1)
    assert scripts(drive.do(drive.service.order, replace(order("started", recover=True), state="Live"))) == []
    assert scripts(drive.order("stopped", failed="db")) == ["failed"]
    drive.all_end()
    assert drive.state == "Failed"
    assert scripts(drive.order("started", recover=True)) == ["start"], "the next one is a new one"


def test_recover_may_be_the_first_order_of_a_service_that_has_failed() -> None:
    drive = started()
    drive.service.asked, drive.service.failed, drive.service.state = None, True, "Failed"
    assert scripts(drive.order("started", recover=True)) == ["start"]


def test_recover_while_it_still_fails_stops_it_first() -> None:
    drive = promoted()
    status_says(drive, 1)
    assert scripts(drive.order("started", recover=True)) == ["demote"]
    assert scripts(drive.ended()) == ["stop"]
    assert scripts(drive.ended()) == ["start"]
    drive.ended()
    assert drive.state == "Started" and not drive.service.failed


def test_a_slow_demote_is_warned_of() -> None:
    drive = in_state("Demoting")
    effects = drive.ended(0, seconds=0.6)
    assert any(isinstance(one, Log) and "0.6" in one.text for one in effects)
    assert drive.service.report().demote_seconds == 0.6
