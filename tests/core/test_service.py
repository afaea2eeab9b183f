"""The machine of one service: the way up and down, every event in every state, changes of the goal."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any, Callable, Optional

import pytest

from koi.core.effects import Become, EndScript, RunScript, Tell
from koi.core.pipe import Order
from koi.core.service import ENDINGS, Service
from koi.core.states import DURING, STATES, TRANSITIONS
from tests.core.drive import FAR, SETTINGS, Drive, failures, has, in_state, scripts, started

# --- the way up and down ------------------------------------------------------------------------


def test_up_to_promoted_and_down_again() -> None:
    drive = Drive()
    assert scripts(drive.order("promoted")) == ["start"]
    assert scripts(drive.ended()) == [], "no lease: promote must not begin"
    drive.lease = FAR
    assert scripts(drive.at(0.3)) == ["promote"] and drive.service.promoted
    drive.ended()
    assert drive.state == "Promoted" and drive.service.action is None
    assert scripts(drive.order("stopped")) == ["demote"]
    assert scripts(drive.ended()) == ["stop"] and not drive.service.promoted
    drive.ended()
    assert drive.state == "Stopped" and drive.service.settled
    ways = [(one.old, one.new) for one in drive.seen if isinstance(one, Become)]
    assert ways == list(itertools.pairwise(
        ["Stopped", "Starting", "Started", "Promoting", "Promoted", "Demoting", "Started", "Stopping", "Stopped"])) and all(
        one.why for one in drive.seen if isinstance(one, Become))


def test_the_log_says_what_an_order_means_for_the_service() -> None:
    drive = started()
    drive.lease = FAR
    for goal in ("promoted", "started", "stopped"):
        drive.order(goal)
        drive.all_end()
    whys = {one.new: one.why for one in drive.seen if isinstance(one, Become)}
    assert whys["Promoting"] == "it is to be promoted, epoch 7"
    assert whys["Demoting"] == "it is to be demoted"
    assert whys["Stopping"] == "it is to be stopped"


def test_the_runner_hears_of_a_change_before_its_script_runs() -> None:
    drive = started()
    drive.lease = FAR
    kinds = [type(one) for one in drive.order("promoted")]
    assert kinds == [Become, Tell, RunScript]


def test_the_same_order_again_is_harmless() -> None:
    for state in STATES:
        drive = in_state(state)
        if drive.service.asked is not None:
            before = copy.copy(drive.service)
            assert drive.do(drive.service.order, drive.service.asked) == []
            assert drive.service == before


def test_status_as_the_last_time_is_no_news() -> None:
    drive = started()
    told = []
    for turn in range(3):
        drive.at(10.0 * (turn + 1))
        assert drive.service.action == "status"
        told.append([one for one in drive.ended(0, seconds=0.01 * turn) if isinstance(one, Tell)])
    assert len(told[0]) == 1 and told[1:] == [[], []]


def test_environment() -> None:
    drive = started()
    drive.lease = FAR
    drive.do(drive.service.order, Order("db", "promoted", 8, "a", "Backup"))
    run = next(one for one in drive.seen if isinstance(one, RunScript) and one.action == "promote")
    assert dict(run.environment) == {
        "KOI_IS_PROMOTED": "1", "KOI_STATE": "Backup", "KOI_SERVICE": "db", "KOI_ACTION": "promote", "KOI_NODE": "a",
        "KOI_EPOCH": "8", "KOI_MASTER": "a", "KOI_CLUSTER_ID": "13", "KOI_SERVICE_DIR": "/srv/db",
    }
    assert run.timeout == 30.0
    drive.ended()
    drive.order("stopped", failed="web")
    drive.ended()
    run = drive.seen[-1]
    assert run.action == "failed" and dict(run.environment)["KOI_FAILED_SERVICE"] == "web"
    assert dict(run.environment)["KOI_IS_PROMOTED"] == "0" and run.timeout == 20.0


def test_a_service_s_own_variables_do_not_replace_those_of_koi() -> None:
    settings = replace(SETTINGS, environment=(("KOI_NODE", "x"), ("COLOUR", "red")))
    drive = Drive(Service(settings))
    run = drive.order("started")[-1]
    assert dict(run.environment)["KOI_NODE"] == "a" and dict(run.environment)["COLOUR"] == "red"
    assert dict(run.environment)["KOI_IS_PROMOTED"] == "0"


# --- every state and every event ----------------------------------------------------------------


EVENTS: dict[str, Callable[[Drive], Any]] = {
    **{f"order {goal}": (lambda d, g=goal: d.order(g)) for goal in ("stopped", "started", "promoted")},
    "order stopped, failed": lambda d: d.order("stopped", failed="db"),
    "order started, recover": lambda d: d.order("started", recover=True),
    "timer": lambda d: d.at(d.now),
    "timer, lease ended": lambda d: d.at(FAR + 0.5),
    "timer, grace over": lambda d: d.at(FAR + 2),
    "program ended": lambda d: d.do(d.service.program_ended, 1, ""),
    "begin": lambda d: d.do(d.service.begin),
    "announce": lambda d: d.service.announce(),
    **{f"{action} ended {exit}": (lambda d, a=action, e=exit: d.do(d.service.ended, a, e, 0.1, ""))
       for action in ("start", "stop", "promote", "demote", "status", "failed") for exit in (0, 1, -9, None, 90, 91, 92, 93)},
}


def legal(service: Service) -> bool:
    running_state = {during: action for action, during in DURING.items()}.get(service.state)
    agrees = running_state is None or service.action in (running_state, "failed")
    return agrees and (service.promoted or service.state not in ("Promoted", "Promoting", "Demoting"))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_state(state: str, event: str) -> None:
    drive = in_state(state)
    before = copy.copy(drive.service)
    drive.seen.clear()
    EVENTS[event](drive)
    for one in drive.seen:
        if isinstance(one, Become):
            assert one.new == "Failed" or one.new in TRANSITIONS[one.old]
    assert len(scripts(drive.seen)) <= 1 and legal(drive.service)
    if " ended " in event and before.action != event.split(" ", 1)[0]:
        assert drive.seen == [] and drive.service == before, "an end of what does not run changes nothing"
    if "promote" in scripts(drive.seen):
        assert drive.lease is not None and drive.now < drive.lease


@pytest.mark.parametrize("first", EVENTS)
@pytest.mark.parametrize("second", ["order stopped", "order started", "order promoted", "order stopped, failed"])
def test_it_always_comes_to_rest(first: str, second: str) -> None:
    """After any event in any state, an order and only successes lead to what the order asks, or to Failed."""
    for state in STATES:
        drive = in_state(state)
        EVENTS[first](drive)
        EVENTS[second](drive)
        drive.all_end()
        goal = second.split()[1].rstrip(",")
        rest = {"stopped": {"Stopped", "Failed"}, "started": {"Started", "Failing", "Failed"},
                "promoted": {"Promoted", "Started", "Failing", "Failed"}}[goal]
        assert drive.state in rest
        assert goal == "promoted" or not drive.service.promoted


def test_every_ending_of_the_table_is_reached_by_events() -> None:
    assert {action for _, action in ENDINGS} == {"start", "stop", "promote", "demote", "status"}
    assert {state for state, _ in ENDINGS} <= set(STATES)
    assert set(TRANSITIONS) == set(STATES)
    reachable = {"Stopped"}
    for _ in STATES:
        reachable |= {new for old in reachable for new in TRANSITIONS[old]} | {"Failed"}
    assert reachable == set(STATES)


# --- changes of the goal while a script runs ------------------------------------------------------


def test_goal_falls_while_start_runs() -> None:
    drive = in_state("Starting")
    assert EndScript(False) in drive.order("stopped")
    assert not has(drive.order("stopped"), EndScript), "told once"
    assert scripts(drive.ended(-15)) == ["stop"]
    drive.ended()
    assert drive.state == "Stopped" and not drive.service.failed and failures(drive.seen) == []


def test_goal_falls_while_start_runs_and_rises_again() -> None:
    drive = in_state("Starting")
    drive.order("stopped")
    drive.order("started")
    assert scripts(drive.ended(-15)) == ["stop"], "a start that was ended is undone first"
    assert scripts(drive.ended()) == ["start"]


@pytest.mark.parametrize("exit", [-15, 0, 1, None])
def test_goal_falls_while_promote_runs(exit: Optional[int]) -> None:
    drive = in_state("Promoting")
    assert EndScript(False) in drive.order("started")
    assert scripts(drive.ended(exit)) == ["demote"], "it may be promoted"
    drive.ended()
    assert drive.state == "Started" and not drive.service.promoted and not drive.service.failed


def test_status_stands_in_nobody_s_way() -> None:
    drive = started()
    drive.at(10.0)
    drive.lease = FAR
    assert EndScript(False) in drive.order("promoted")
    assert scripts(drive.ended(1)) == ["promote"] and not drive.service.failed


def test_goal_rises_while_demote_runs() -> None:
    drive = in_state("Demoting")
    assert drive.order("promoted") == []
    assert scripts(drive.ended()) == ["promote"]
