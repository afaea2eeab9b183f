"""Priorities: who may act now, for every combination of states and levels."""

from __future__ import annotations

import itertools
from typing import Optional

import pytest

from koi.core.messages import ServiceInfo
from koi.core.ordering import PROMOTED, STARTED, STOPPED, demoted, downward, reached, upward
from koi.core.pipe import ServiceState
from koi.core.states import STATES

LEVELS = (STOPPED, STARTED, PROMOTED)
BOOLEANS = (False, True)


def service(state: str, promoted: bool = False, failed: bool = False, stuck: bool = False, clean: bool = True) -> ServiceState:
    return ServiceState(ServiceInfo("s", 10, state, failed=failed), promoted, stuck, False, clean)


def expected(state: str, promoted: bool, failed: bool, stuck: bool, level: str) -> bool:
    if level == STOPPED:
        return state in ("Stopped", "Failed") and (stuck or not promoted)
    good = {"Promoted"} if level == PROMOTED else {"Started", "Promoting", "Promoted", "Demoting"}
    return state in good and not failed


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("state", STATES)
def test_what_each_level_asks_of_each_state(state: str, level: str) -> None:
    for promoted, failed, stuck in itertools.product(BOOLEANS, repeat=3):
        found = reached(service(state, promoted, failed, stuck), level)
        assert found is expected(state, promoted, failed, stuck, level), (promoted, failed, stuck)
        left = reached(service(state, promoted, failed, stuck, clean=False), level)
        assert left is (level == STOPPED and stuck and state in ("Stopped", "Failed")), "what was left, and nothing more is tried"
    assert not reached(None, level)


def test_demoted_means_surely_not_active_or_nothing_more_to_be_done() -> None:
    for state, promoted, stuck in itertools.product(STATES, BOOLEANS, BOOLEANS):
        assert demoted(service(state, promoted, stuck=stuck)) is (stuck or not promoted)
    assert not demoted(None)


PRIORITIES: dict[str, Optional[int]] = {"a": 10, "b": 10, "c": 20, "d": 30, "free": None}
AT = {
    STOPPED: service("Stopped"), STARTED: service("Started"), PROMOTED: service("Promoted", promoted=True),
}


def test_up_goes_the_lowest_that_is_not_there_and_all_of_its_priority() -> None:
    for levels in itertools.product(LEVELS, repeat=len(PRIORITIES)):
        states = {name: AT[level] for name, level in zip(PRIORITIES, levels, strict=True)}
        for level in (STARTED, PROMOTED):
            names = upward(PRIORITIES, states, level)
            waiting = [p for name, p in PRIORITIES.items() if p is not None and not reached(states[name], level)]
            assert "free" in names
            for name, priority in PRIORITIES.items():
                if priority is not None:
                    below = [n for n, p in PRIORITIES.items() if p is not None and p < priority]
                    assert (name in names) is all(reached(states[n], level) for n in below), (levels, level, name)
            assert not waiting or any(PRIORITIES[name] == min(waiting) for name in names)


def test_down_goes_the_highest_that_is_still_there_first() -> None:
    for levels in itertools.product(LEVELS, repeat=len(PRIORITIES)):
        states = {name: AT[level] for name, level in zip(PRIORITIES, levels, strict=True)}
        for level in (STARTED, STOPPED):
            names = downward(PRIORITIES, states, level)
            assert "free" in names
            for name, priority in PRIORITIES.items():
                if priority is not None:
                    above = [n for n, p in PRIORITIES.items() if p is not None and p > priority]
                    done = all(demoted(states[n]) if level == STARTED else reached(states[n], STOPPED) for n in above)
                    assert (name in names) is done, (levels, level, name)


def test_a_service_that_is_not_known_yet_holds_the_others_back() -> None:
    assert upward(PRIORITIES, {}, STARTED) == ["a", "b", "free"]
    assert downward(PRIORITIES, {}, STOPPED) == ["d", "free"]


def test_a_stuck_service_does_not_hold_back_the_stop_of_others() -> None:
    states = {name: AT[PROMOTED] for name in PRIORITIES}
    states["d"] = service("Failed", promoted=True, failed=True, stuck=True)
    assert "c" in downward(PRIORITIES, states, STARTED) and "c" in downward(PRIORITIES, states, STOPPED)
    assert "a" not in downward(PRIORITIES, states, STARTED)
