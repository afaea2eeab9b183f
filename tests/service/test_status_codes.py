"""Every exit code of `status` in every state in which it is asked: by real scripts, and by the machine alone in all others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from koi.core.pipe import ServiceState
from tests.core.drive import FAR, Drive, failures, in_state, scripts
from tests.proc.lone_worker import Lone
from tests.proc.waiting import until

ALL = ("start", "stop", "promote", "demote")
FAILURE = ("failure",)
CODES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "exit 0": ((), ()),
    "exit 90": (("demote",), ()),
    "exit 91": ((), ("promote",)),
    "exit 92": (("start",), ("start", "promote")),
    "exit 93": (("live",), ("promote",)),
    "exit 1": (FAILURE, FAILURE),
    "exit 2": (FAILURE, FAILURE),
    "exit 89": (FAILURE, FAILURE),
    "exit 94": (FAILURE, FAILURE),
    "exit 126": (FAILURE, FAILURE),
    "exit 127": (FAILURE, FAILURE),
    "exit 255": (FAILURE, FAILURE),
    "kill -9 $$": (FAILURE, FAILURE),
    "exec sleep 60": (FAILURE, FAILURE),
}
"""What status does -> what follows on a backup, and on the master: the scripts that are run, or how the service counts."""


PATIENT = "3s"
"""status_timeout: what a script takes on a machine that is far too busy is no failure; each that hangs costs so long."""


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Lone]:
    made = Lone(tmp_path, status_interval="50ms", service=f", status_timeout: {PATIENT}")
    made.scripts(*ALL)
    yield made
    made.close()


@pytest.mark.parametrize("promoted", [False, True], ids=["backup", "master"])
@pytest.mark.parametrize("says", CODES)
def test_what_follows(lone: Lone, tmp_path: Path, says: str, promoted: bool) -> None:
    code, expected = tmp_path / "code", CODES[says][promoted]
    lone.script("status", f"[ -e {code} ] || exit 0; rm {code}; {says}")
    lone.fork()
    lone.lease(math.inf)
    lone.order("promoted" if promoted else "started")
    state = "Promoted" if promoted else "Started"
    lone.until(state)
    before = len([act for act in lone.actions() if act != "status"])
    code.touch()
    until(lambda: not code.exists(), what="status to be asked")
    if expected == FAILURE:
        lone.until("Failing")
        assert [failure.action for failure in lone.failures()] == ["status"] and "status" in lone.failures()[0].what
        return
    if expected == ("live",):
        until(lambda: any(isinstance(one, ServiceState) and one.live for one in lone.hear()))
    asked = lone.actions().count("status")
    until(lambda: lone.actions().count("status") > asked + 1, what="status to be asked again")
    assert lone.until(state).promoted == promoted and not lone.until(state).live
    acts = tuple(act for act in lone.actions() if act != "status")[before:]
    assert acts == (() if expected == ("live",) else expected)
    put_right = [failure.what for failure in lone.failures()]
    assert all(what.endswith("it is put right") for what in put_right) and len(put_right) == (1 if acts else 0)


@pytest.mark.parametrize("exit", [0, 90, 91, 92, 93, 1, 126, -9, None])
@pytest.mark.parametrize("state", ["Started", "Promoted"])
@pytest.mark.parametrize("goal", ["stopped", "started"])
def test_a_status_that_was_ended_for_something_more_urgent_says_nothing(state: str, exit: Optional[int], goal: str) -> None:
    if (state, goal) == ("Started", "started"):
        return
    drive = in_state(state)
    drive.lease = FAR
    drive.at(float(drive.service.status_at or 0))
    assert drive.service.action == "status"
    drive.order(goal)
    drive.seen.clear()
    assert scripts(drive.ended(exit)) == ["demote" if state == "Promoted" else "stop"] and failures(drive.seen) == []


@pytest.mark.parametrize("exit", [0, 90, 91, 92, 93, 1, 126, -9, None])
@pytest.mark.parametrize("state", ["Started", "Promoted"])
def test_a_status_that_ends_after_the_service_has_failed_says_nothing(state: str, exit: Optional[int]) -> None:
    drive = in_state(state)
    drive.lease = FAR
    drive.at(float(drive.service.status_at or 0))
    drive.do(drive.service.program_ended, 1, "")
    drive.seen.clear()
    drive.ended(exit)
    assert (drive.state, scripts(drive.seen), failures(drive.seen)) == ("Failing", [], [])


@pytest.mark.parametrize("state", ["Stopped", "Starting", "Promoting", "Demoting", "Stopping", "Failing", "Failed"])
def test_in_all_other_states_it_is_not_asked(state: str) -> None:
    drive: Drive = in_state(state)
    drive.lease = FAR if state in ("Promoting", "Demoting") else None
    drive.at(500.0)
    assert "status" not in scripts(drive.seen)
