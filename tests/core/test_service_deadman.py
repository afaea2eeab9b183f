"""The worker's own deadline (docs/protocol.md section 7): nothing stays promoted without a lease."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from koi.core.effects import CRITICAL, EndScript, KillAll, Log, RunScript
from koi.core.service import Service
from tests.core.drive import FAR, SETTINGS, Drive, adopt, failures, has, in_state, promoted, scripts, started, status_says

# The grace of SETTINGS is 1 s: the worker waits 0.25 s for the runner.


def test_promote_begins_only_under_a_running_lease() -> None:
    for lease in (None, -1.0, 0.0):
        drive = started()
        drive.lease = lease
        assert scripts(drive.order("promoted")) == []
        assert drive.deadline() == 0.25, "it looks again"
        drive.now = 0.1
        assert drive.deadline() == 0.25, "asking does not put it off"
        drive.at(0.25)
        assert drive.deadline() == 0.5
    drive.lease = math.inf
    assert scripts(drive.at(0.5)) == ["promote"] and drive.deadline() is None


def test_it_wakes_once_per_lease() -> None:
    drive = promoted(lease=5.0)
    drive.service.status_at = None
    assert drive.deadline() == 5.0
    drive.lease = 9.0
    assert drive.at(5.0) == [] and drive.deadline() == 9.0


def test_a_running_promote_is_killed_when_the_lease_ends() -> None:
    drive = in_state("Promoting")
    drive.lease = 3.0
    assert drive.deadline() == 3.0
    assert drive.at(3.0) == [EndScript(at_once=True)]
    assert drive.deadline() == 4.0
    assert scripts(drive.ended(-9)) == ["demote"], "without waiting for the runner"
    drive.now = 3.5
    drive.ended()
    assert drive.state == "Started" and drive.deadline() is not None and not drive.service.failed


def test_a_promote_that_was_told_to_end_is_killed_when_the_lease_ends() -> None:
    drive = in_state("Promoting")
    drive.lease = 3.0
    assert EndScript(False) in drive.order("started")
    assert drive.at(3.0) == [EndScript(at_once=True)]
    assert drive.at(3.1) == []


def test_the_lease_is_looked_at_again_after_promote() -> None:
    drive = in_state("Promoting")
    drive.lease = 3.0
    drive.now = 3.01
    assert scripts(drive.ended(0)) == ["demote"] and drive.state == "Demoting"


@pytest.mark.parametrize("lease", [3.0, None])
def test_the_worker_demotes_by_itself(lease: float | None) -> None:
    drive = promoted()
    drive.lease = lease
    assert scripts(drive.at(3.0)) == []
    assert drive.deadline() == 3.25
    assert scripts(drive.at(3.25)) == ["demote"]
    drive.ended()
    assert drive.state == "Started" and not drive.service.promoted
    assert drive.order("promoted") == [], "no promote without a lease"


def test_the_runner_s_demote_comes_first() -> None:
    drive = promoted(lease=3.0)
    drive.at(3.0)
    drive.now = 3.1
    assert scripts(drive.order("started")) == ["demote"]
    assert drive.at(3.25) == []


def test_a_lease_that_is_renewed_late_is_good_again() -> None:
    drive = promoted(lease=3.0)
    drive.service.status_at = None
    drive.at(3.0)
    drive.lease = 5.0
    assert drive.at(3.25) == [] and drive.state == "Promoted" and drive.deadline() == 5.0
    assert scripts(drive.at(5.0)) == [] and drive.deadline() == 5.25


def test_not_demoted_in_time_everything_is_killed() -> None:
    drive = promoted(lease=3.0)
    drive.service.settings = replace(SETTINGS, self_fence=True)
    drive.at(3.0)
    drive.at(3.25)
    assert drive.service.action == "demote" and drive.deadline() == 4.0
    effects = drive.at(4.0)
    assert has(effects, KillAll) and scripts(effects) == ["self_fence"] and drive.state == "Failed"
    kinds = [type(one) for one in effects]
    assert kinds.index(KillAll) < kinds.index(RunScript)
    assert any(isinstance(one, Log) and one.level == CRITICAL for one in effects)
    assert len(failures(effects)) == 1 and drive.service.report().promoted
    assert drive.deadline() is None
    assert scripts(drive.ended(-9)) == ["stop"] and drive.state == "Failed", "stop is still worth a try"
    drive.ended(0)
    assert drive.state == "Failed" and not drive.service.promoted and not drive.service.stuck
    drive.do(drive.service.ended, "self_fence", 0, 1.0, "")
    assert scripts(drive.order("started", recover=True)) == ["start"]


def test_killed_and_stop_fails_too() -> None:
    drive = promoted(lease=3.0)
    drive.at(4.0)
    assert drive.state == "Failed" and drive.service.action == "stop"
    drive.ended(1)
    report = drive.service.report()
    assert report.stuck and report.promoted and drive.service.settled


def test_the_grace_counts_once_although_the_lease_comes_back() -> None:
    drive = promoted(lease=3.0)
    drive.at(3.0)
    drive.at(3.25)
    drive.lease = 9.0
    assert drive.at(3.5) == [] and drive.deadline() == 4.0
    assert has(drive.at(4.0), KillAll)


def test_a_demote_under_a_running_lease_may_take_its_time() -> None:
    drive = in_state("Demoting")
    drive.lease = 20.0
    assert drive.at(15.0) == [] and drive.deadline() == 20.0
    drive.at(20.0)
    assert drive.deadline() == 21.0
    assert has(drive.at(21.0), KillAll)


def test_a_stop_in_place_of_a_demote_has_the_same_deadline() -> None:
    drive = in_state("Demoting")
    drive.lease = 3.0
    drive.at(3.1)
    assert scripts(drive.ended(1)) == ["stop"] and drive.deadline() == 4.0
    assert has(drive.at(4.0), KillAll) and drive.state == "Failed"


def test_a_failing_master_is_demoted_without_a_runner() -> None:
    drive = promoted(lease=30.0)
    status_says(drive, 1)
    assert drive.state == "Failing" and drive.deadline() == 30.0
    drive.at(30.0)
    assert scripts(drive.at(30.25)) == ["demote"]


def test_a_stuck_service_is_killed_when_its_lease_ends() -> None:
    drive = in_state("Demoting")
    drive.ended(1)
    drive.ended(1)
    assert drive.service.stuck and drive.deadline() == FAR
    drive.at(FAR)
    effects = drive.at(FAR + 1)
    assert has(effects, KillAll) and scripts(effects) == [] and drive.deadline() is None


def test_status_is_killed_when_the_worker_must_demote() -> None:
    drive = promoted(lease=10.5)
    drive.at(10.0)
    assert drive.service.action == "status"
    drive.at(10.5)
    assert EndScript(at_once=True) in drive.at(10.75)
    assert scripts(drive.ended(-9)) == ["demote"]


def test_a_new_worker_counts_the_same_grace() -> None:
    drive = promoted(lease=3.0)
    drive.at(3.0)
    drive.at(3.25)
    drive.now = 3.9
    new = adopt(drive)
    assert new.service.action == "demote" and new.deadline() == 4.0


def test_a_new_worker_counts_while_it_still_ends_what_was_left() -> None:
    told = promoted(lease=3.0)
    new = Drive(Service.adopted(SETTINGS, told.service.report()), begin=False)
    new.lease = 3.0
    assert scripts(new.at(3.5)) == [] and new.deadline() == 4.0
    assert has(new.at(4.0), KillAll)


def test_a_worker_that_slept_too_long_kills_at_once() -> None:
    drive = promoted(lease=3.0)
    assert has(drive.at(30.0), KillAll) and drive.state == "Failed"


def test_unlimited_under_a_hold() -> None:
    drive = promoted(lease=math.inf)
    drive.service.status_at = None
    assert drive.deadline() is None and drive.at(1e9) == []
