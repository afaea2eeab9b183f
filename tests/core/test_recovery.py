"""Fail counts, delays and giving up."""

from __future__ import annotations

from koi.core.recovery import MAX_DELAY_S, Recovery


def test_delays_grow_by_the_factor() -> None:
    recovery = Recovery(auto_recover=10, factor=2, base_s=10, reset_s=1800)
    assert [recovery.failed(now) for now in range(4)] == [10, 20, 40, 80]
    assert recovery.count == 4


def test_factor_one_waits_the_same() -> None:
    recovery = Recovery(120, 1, 10, 1800)
    assert {recovery.failed(now) for now in range(50)} == {10}


def test_it_gives_up_after_auto_recover() -> None:
    recovery = Recovery(2, 1, 10, 1800)
    assert [recovery.failed(0), recovery.failed(1), recovery.failed(2), recovery.failed(3)] == [10, 10, None, None]
    recovery.forget()
    assert recovery.failed(4) == 10


def test_zero_never_recovers() -> None:
    assert Recovery(0, 1, 10, 1800).failed(0) is None


def test_a_healthy_time_resets_the_count() -> None:
    recovery = Recovery(5, 2, 10, 100)
    recovery.failed(0)
    assert recovery.failed(99) == 20
    assert recovery.failed(199) == 10 and recovery.count == 1


def test_no_delay_is_longer_than_a_day() -> None:
    recovery = Recovery(10_000, 10, 10, 1e9)
    assert [recovery.failed(0) for _ in range(2000)][-1] == MAX_DELAY_S


def test_flapping_from_the_third_failure_within_an_hour() -> None:
    recovery = Recovery(120, 1, 10, 1800)
    flapping = []
    for now in (0, 1000, 3599, 3601, 9000):
        recovery.failed(now)
        flapping.append(recovery.flapping(now))
    assert flapping == [False, False, True, True, False]
    assert not recovery.flapping(9001)
