"""H, M, G and E from one number, and each inequality that keeps them safe (docs/protocol.md sections 1 and 8)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koi.core.timing import AHEAD_S, MIN_HEARTBEAT_S, RHO, Timing, derive, faults, guard_span, usable

GOOD = derive(3.0)


@pytest.mark.parametrize("failover", [0.6, 1.0, 2.0, 3.0, 5.0, 10.0, 60.0, 600.0])
def test_everything_derives_from_failover_and_is_right(failover: float) -> None:
    t = derive(failover)
    assert (t.heartbeat, t.lease, t.grace) == pytest.approx((failover / 10, 0.52 * failover, 0.38 * failover))
    assert t.leader_timeout == pytest.approx(3 * t.heartbeat)
    assert faults(t) == []


@pytest.mark.parametrize("failover", [0.1, 0.2])
def test_a_failover_that_is_too_short_is_refused(failover: float) -> None:
    assert faults(derive(failover))


def test_a_heartbeat_of_100_ms_with_a_leader_timeout_of_300_ms_is_accepted() -> None:
    """Three times 0.1 is a little more than 0.3."""
    assert faults(derive(3.0, heartbeat=0.1, leader_timeout=0.3)) == []
    assert faults(derive(1.0)) == []


def test_each_of_the_four_can_be_given_alone() -> None:
    assert derive(3.0, heartbeat=0.2) == replace(GOOD, heartbeat=0.2, leader_timeout=3 * 0.2)
    assert derive(3.0, lease=2.0) == replace(GOOD, lease=2.0)
    assert derive(3.0, grace=2.0) == replace(GOOD, grace=2.0)
    assert derive(3.0, leader_timeout=2.0) == replace(GOOD, leader_timeout=2.0)


BROKEN = [
    (replace(GOOD, heartbeat=0.019, leader_timeout=0.9), "heartbeat"),
    (replace(GOOD, lease=0.96), "lease"),
    (replace(GOOD, leader_timeout=0.89), "leader_timeout"),
    (replace(GOOD, leader_timeout=2.51), "leader_timeout"),
    (replace(GOOD, forget_runner=2.7), "forget_runner"),
]


@pytest.mark.parametrize("t, key", BROKEN)
def test_each_broken_inequality_is_named_with_what_would_be_right(t: Timing, key: str) -> None:
    found = faults(t)
    assert [name for name, _ in found] == [key]
    assert "must" in found[0][1] and "s" in found[0][1]


BOUNDARIES = [
    replace(GOOD, heartbeat=MIN_HEARTBEAT_S, leader_timeout=0.9),
    replace(GOOD, lease=(3 * 0.3 + 0.05) / (1 - 2 * RHO)),
    replace(GOOD, leader_timeout=3 * 0.3),
    replace(GOOD, leader_timeout=GOOD.lease + GOOD.grace - 0.2),
]


@pytest.mark.parametrize("t", BOUNDARIES)
def test_the_boundaries_themselves_are_right(t: Timing) -> None:
    assert faults(t) == []


def test_all_faults_are_told_at_once() -> None:
    assert {key for key, _ in faults(Timing(0.01, 0.01, 0.01, 0.01, forget_runner=0.01))} == {
        "heartbeat", "lease", "leader_timeout", "forget_runner",
    }


def test_no_clock_is_fast_enough_to_outrun_a_guard_nor_slow_enough_to_outlive_one() -> None:
    """A lease counted on the slowest clock ends before a guard counted on the fastest."""
    for lease, grace in ((1.56, 1.14), (0.5, 0.1), (30.0, 10.0)):
        slow, fast = 1.0 - RHO / 2, 1.0 + RHO / 2
        assert (usable(lease) + grace) / slow < guard_span(lease, grace) / fast


def test_the_wait_for_an_answer_is_half_a_heartbeat_but_at_most_50_ms() -> None:
    assert derive(0.6).answer_wait == pytest.approx(0.03) and derive(3.0).answer_wait == 0.05


def test_what_is_done_on_time_keeps_its_beat() -> None:
    t = derive(3.0)
    assert t.next_beat(10.0, 10.03) == pytest.approx(10.3)
    assert t.next_beat(10.0, 10.2) == pytest.approx(10.5), "much too late"
    assert t.next_beat(10.0, 9.9) == pytest.approx(10.2), "before its time"


@pytest.mark.parametrize("due, beat, moved", [
    (20.0, None, 20.0), (20.0, 19.7, 20.0 - AHEAD_S), (20.0, 19.8, 19.8 - AHEAD_S), (20.0, 7.5, 19.8 - AHEAD_S),
    (20.0, 20.1, 19.8 - AHEAD_S), (20.0, 19.96, 19.96 - AHEAD_S), (20.0, 20.02, 20.02 - 0.02), (20.0, 19.74, 19.74 - AHEAD_S),
    (20.0 - AHEAD_S, 19.7, 20.0 - AHEAD_S),
])
def test_a_report_is_moved_to_the_beat_before_it_never_to_a_later_one(due: float, beat: float | None, moved: float) -> None:
    found = derive(3.0).on_beat(due, beat)
    assert found == pytest.approx(moved, abs=1e-9) and due - 0.3 < found <= due + 1e-9


ALONE = [{}, {"lease": 1.6}, {"heartbeat": 0.2}, {"grace": 1.3}, {"leader_timeout": 2.4}]


@pytest.mark.parametrize("alone", ALONE)
def test_intervals_that_keep_failover_are_not_warned_of(alone: dict[str, float]) -> None:
    assert derive(3.0, **alone).broken_promise == ""


def test_intervals_that_are_allowed_and_break_failover_are_warned_of() -> None:
    late = derive(3.0, lease=10.0)
    assert faults(late) == []
    assert "3 s does not hold" in late.broken_promise and "after 11.36 s" in late.broken_promise
    assert "raise failover" in late.broken_promise and derive(17.0, lease=10.0).broken_promise == ""
    assert derive(12.0, 0.3, 10.0, 1.14, 0.9).broken_promise == ""
    assert "after 3.10 s" in derive(3.0, leader_timeout=2.5).broken_promise
