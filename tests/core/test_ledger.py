"""What one elector accepts and vouches for: the accept rule as a table, guard and `free` to the instant, each vouch condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest

from koi.core import timing
from koi.core.ledger import BLIND, Acceptor, Record
from koi.core.messages import ENDING, MAINTENANCE, STUCK, Fenced, Ledger, Report

T = timing.derive(3.0)
X = Ledger(epoch=5, master="x")
TINY = 1e-6


def acceptor(ledger: Ledger = X, version: tuple[int, int] = (1, 1), now: float = 0.0, **record: Any) -> Acceptor:
    """One that knows for whom it vouched."""
    return Acceptor(T, Record(version=version, ledger=ledger, **record), now, blind=False)


def report(name: str = "x", boot: str = "x1", **fields: Any) -> Report:
    fields.setdefault("holding", 5)
    fields.setdefault("ready", True)
    return Report(name, boot, 1, **fields)


def guarded(ledger: Ledger = X, at: float = 0.0) -> Acceptor:
    """One that vouched for x at this time."""
    one = acceptor(ledger)
    one.raise_guard(report(), at)
    return one


# --- the accept rule (4.3) ---

SAME, SAME_BUT_FLAGS = X, replace(X, yielding=True, manual=True, target="y", passive=("y",), reason="why")
OTHER_EPOCH, OTHER_MASTER, OTHER_BOTH = replace(X, epoch=6), replace(X, master="y"), Ledger(6, "y")

ACCEPT = [
    # version offered, ledger, guard up -> accepted, pending
    ((1, 0), SAME, False, False, False),
    ((1, 1), SAME, False, False, False),
    ((0, 9), OTHER_BOTH, False, False, False),
    ((1, 0), OTHER_BOTH, True, False, False),
    ((1, 2), SAME, False, True, False),
    ((1, 2), SAME, True, True, False),
    ((2, 0), SAME_BUT_FLAGS, True, True, False),
    ((1, 2), OTHER_EPOCH, False, True, False),
    ((1, 2), OTHER_EPOCH, True, False, True),
    ((1, 2), OTHER_MASTER, False, True, False),
    ((1, 2), OTHER_MASTER, True, False, True),
    ((2, 1), OTHER_BOTH, False, True, False),
    ((2, 1), OTHER_BOTH, True, False, True),
]


@pytest.mark.parametrize("version, ledger, up, accepted, pending", ACCEPT)
def test_the_accept_rule(version: tuple[int, int], ledger: Ledger, up: bool, accepted: bool, pending: bool) -> None:
    one = guarded() if up else acceptor()
    assert one.offer(version, ledger, 1.0) is accepted
    assert (one.pending is not None) is pending
    assert one.record.version == (version if accepted else (1, 1))
    assert one.record.ledger == (ledger if accepted else X)
    assert one.record.top >= (ledger.epoch if version > (1, 1) else 0)


def test_any_accepted_ledger_ends_pending() -> None:
    one = guarded()
    assert not one.offer((2, 1), OTHER_BOTH, 1.0) and one.pending is not None
    assert one.offer((3, 1), SAME, 1.1) and one.pending is None


def test_a_pending_ledger_is_accepted_when_the_guard_is_down_and_not_before() -> None:
    one = guarded(at=0.0)
    one.offer((2, 1), OTHER_BOTH, 1.0)
    assert not one.settle(T.span - TINY) and one.record.ledger == X
    assert one.guard_ends() == T.span
    assert one.settle(T.span) and one.record.ledger == OTHER_BOTH and one.accepted_at == T.span


def test_the_newest_pending_ledger_counts() -> None:
    one = guarded()
    one.offer((2, 1), OTHER_BOTH, 1.0)
    one.offer((2, 2), replace(OTHER_BOTH, epoch=7), 1.1)
    assert one.settle(T.span) and one.record.ledger.epoch == 7


# --- the guard (5.4 to 5.6) and free (4.4) ---


def test_the_guard_stands_for_the_whole_span_and_no_longer() -> None:
    one = guarded(at=2.0)
    assert T.span == pytest.approx((T.lease + T.grace) * 1.02)
    assert one.guard_up(2.0) and one.guard_up(2.0 + T.span - TINY) and not one.guard_up(2.0 + T.span)
    assert one.free(2.0 + T.span - TINY) is None and one.free(2.0 + T.span) == 5


def test_an_older_report_never_lowers_the_guard() -> None:
    one = guarded(at=2.0)
    one.raise_guard(report(), 1.0)
    assert one.guard_ends() == 2.0 + T.span


def test_free_is_not_told_within_a_lease_after_a_new_epoch() -> None:
    one = acceptor()
    one.offer((2, 1), OTHER_BOTH, 10.0)
    assert not one.guard_up(10.0)
    assert one.free(10.0 + T.lease - TINY) is None and one.free(10.0 + T.lease) == 6
    assert one.free_at() == 10.0 + T.lease


def test_an_elector_that_starts_behaves_as_if_it_had_just_vouched_for_the_longer_span() -> None:
    for on_disk in (0.0, 1.0, 20.0):
        one = Acceptor(T, Record(ledger=X, version=(1, 1), span=on_disk), 100.0)
        ends = 100.0 + max(T.span, on_disk)
        assert one.guards == {BLIND: ends} and one.guard_up(ends - TINY) and not one.guard_up(ends)
        assert not one.offer((2, 1), OTHER_BOTH, 100.1)


def test_an_elector_that_starts_says_how_long_it_stands_for_nobody() -> None:
    one = Acceptor(T, Record(ledger=X, version=(1, 1)), 100.0)
    assert one.stands_aside(100.0) is None, "for the master that it knows it stands at once"
    one.offer((2, 1), OTHER_BOTH, 100.5)
    assert one.stands_aside(100.5) == pytest.approx(T.span - 0.5)
    assert not one.stands_for(report("y", "y1", holding=6), 100.5)
    assert one.settle(100.0 + T.span) and one.stands_aside(100.0 + T.span) is None
    known = guarded()
    known.offer((2, 1), OTHER_BOTH, 0.1)
    assert known.pending is not None and known.stands_aside(0.1) is None, "it has run all the time: a move is going on"
    held = Acceptor(T, Record(ledger=replace(X, hold=STUCK), version=(1, 1)), 100.0)
    held.offer((2, 1), replace(OTHER_BOTH, hold=STUCK), 100.1)
    assert held.stands_aside(1e6) == float("inf")


def test_without_a_master_there_is_nothing_to_guard() -> None:
    assert not Acceptor(T, Record(), 0.0).guard_up(0.0)


RENOUNCING = [
    # boot, lineage, renounced, name -> guard down
    ("x1", (), 5, "x", True),
    ("x1", (), 6, "x", True),
    ("x1", (), 4, "x", False),
    ("x1", (), None, "x", False),
    ("x2", (), 5, "x", False),
    ("x2", ("x1",), 5, "x", True),
    ("x3", ("x1", "x2"), 5, "x", True),
    ("x1", (), 5, "y", False),
]


@pytest.mark.parametrize("boot, lineage, renounced, name, down", RENOUNCING)
def test_who_may_take_the_guard_down_by_renouncing(
    boot: str, lineage: tuple[str, ...], renounced: Optional[int], name: str, down: bool,
) -> None:
    one = guarded()
    one.heard_renounce(report(name, boot, lineage=lineage, renounced=renounced, holding=None))
    assert one.guard_up(0.1) is not down


def test_an_elector_that_has_just_started_believes_no_renounce() -> None:
    """It does not know for which boot it vouched."""
    one = Acceptor(T, Record(ledger=X, version=(1, 1)), 0.0)
    one.heard_renounce(report(renounced=5, holding=None))
    assert one.guard_up(0.1)


FENCES = [
    (Fenced("x", "x1", 5), True), (Fenced("x", "x2", 5), False), (Fenced("x", "x1", 4), False), (Fenced("y", "x1", 5), False),
]


@pytest.mark.parametrize("fenced, down", FENCES)
def test_a_fence_takes_down_the_guard_of_this_name_boot_and_epoch_alone(fenced: Fenced, down: bool) -> None:
    one = guarded()
    assert one.offer((1, 2), replace(X, fenced=fenced), 0.1)
    assert one.guard_up(0.2) is not down


@pytest.mark.parametrize("hold", [MAINTENANCE, ENDING, STUCK])
def test_under_a_hold_the_guard_does_not_run_out_and_afterwards_it_starts_anew(hold: str) -> None:
    one = guarded()
    assert one.offer((1, 2), replace(X, hold=hold), 1.0)
    assert one.guard_up(1e6) and one.guard_ends() is None and one.free(1e6) is None
    assert one.offer((1, 3), X, 1e6)
    assert one.guard_ends() == 1e6 + T.span


def test_a_ledger_without_hold_that_is_pending_starts_the_guard_anew_once() -> None:
    one = guarded(replace(X, hold=MAINTENANCE))
    assert not one.offer((2, 1), OTHER_BOTH, 1000.0)
    assert not one.offer((2, 2), OTHER_BOTH, 1001.0)
    assert one.guard_ends() == 1000.0 + T.span
    assert one.settle(1000.0 + T.span)


def test_a_guard_that_was_down_when_the_hold_began_stays_down() -> None:
    one = guarded()
    assert one.offer((1, 2), replace(X, hold=MAINTENANCE), T.span)
    assert not one.guard_up(1000.0) and one.free(1000.0) == 5


# --- vouching (5.3) ---

AGE = T.lease
LEFT: dict[str, Any] = {"holding": None, "ready": False, "lineage": ("x0",)}
"""What the successor of a dead tree reports until all that was left is demoted."""
VOUCH = [
    # ledger, report, seconds since it was accepted -> vouches
    (X, {}, 0.0, True),
    (X, {}, 99.0, True),
    (X, {"name": "y"}, 0.0, False),
    (X, {"holding": 4}, 99.0, False),
    (X, {"holding": None}, 0.0, True),
    (X, {"holding": None}, AGE, True),
    (X, {"holding": None}, AGE + TINY, False),
    (X, {"holding": None, "ready": False}, 0.0, False),
    (X, {"holding": 4}, 0.0, True),
    (X, {"ready": False, "failed": True}, 99.0, True),
    (X, {"renounced": 4}, 99.0, True),
    (X, {"renounced": 5}, 0.0, False),
    (X, {"renounced": 5, "holding": None}, 0.0, False),
    (X, {"renounced": 6}, 0.0, False),
    (replace(X, yielding=True), {}, 99.0, True),
    (replace(X, yielding=True), {"holding": None}, 0.0, False),
    (replace(X, hold=MAINTENANCE), {}, 99.0, True),
    *((replace(X, hold=hold), LEFT, 99.0, True) for hold in (MAINTENANCE, ENDING, STUCK)),
    (replace(X, hold=STUCK, yielding=True), LEFT, 99.0, True),
    (X, LEFT, 0.0, False),
    (replace(X, hold=STUCK), {**LEFT, "lineage": ()}, 99.0, False),
    (replace(X, hold=STUCK), {**LEFT, "holding": 4}, 99.0, False),
    (replace(X, hold=STUCK), {**LEFT, "renounced": 5}, 99.0, False),
    (replace(X, hold=STUCK), {**LEFT, "name": "y"}, 99.0, False),
    (replace(X, hold=STUCK, fenced=Fenced("x", "x0", 5)), LEFT, 99.0, False),
    (replace(X, fenced=Fenced("x", "x1", 5)), {}, 0.0, False),
    (replace(X, fenced=Fenced("x", None, 5)), {}, 0.0, False),
    (replace(X, fenced=Fenced("x", "x0", 5)), {"lineage": ("x0",)}, 0.0, False),
    (replace(X, fenced=Fenced("x", "x0", 5)), {}, 0.0, True),
    (replace(X, fenced=Fenced("x", "x1", 4)), {}, 0.0, True),
]


@pytest.mark.parametrize("ledger, fields, age, vouches", VOUCH)
def test_when_an_elector_vouches(ledger: Ledger, fields: dict[str, Any], age: float, vouches: bool) -> None:
    one = acceptor(Ledger(4, "w"))
    assert one.offer((1, 2), ledger, 10.0)
    assert one.stands_for(report(**fields), 10.0 + age) is vouches


def test_once_the_hold_may_be_over_it_vouches_no_more_for_what_was_left() -> None:
    one = guarded(replace(X, hold=STUCK))
    assert one.stands_for(report(**LEFT, boot="x2"), 1.0) is False, "x1 is not of its lineage"
    assert one.stands_for(report(**{**LEFT, "lineage": ("x1",)}, boot="x2"), 1.0)
    assert not one.offer((2, 1), OTHER_BOTH, 1.0)
    assert not one.stands_for(report(**{**LEFT, "lineage": ("x1",)}, boot="x2"), 1.1)


def test_while_a_ledger_is_pending_it_vouches_for_nobody() -> None:
    one = guarded()
    assert one.stands_for(report(), 1.0)
    one.offer((2, 1), OTHER_BOTH, 1.0)
    assert not one.stands_for(report(), 1.0) and not one.stands_for(report("y", "y1", holding=None), 1.0)


def test_a_master_accepted_before_this_process_began_may_not_begin_but_go_on() -> None:
    one = acceptor()
    assert one.accepted_at is None
    assert one.stands_for(report(), 0.0) and not one.stands_for(report(holding=None), 0.0)


RIVALS = [("x1", (), True), ("x2", (), False), ("x2", ("x1",), True), ("x2", ("x0",), False)]


@pytest.mark.parametrize("boot, lineage, vouches", RIVALS)
def test_another_boot_of_the_name_is_vouched_for_only_as_a_successor(boot: str, lineage: tuple[str, ...], vouches: bool) -> None:
    one = guarded(at=0.0)
    assert one.stands_for(report(boot=boot, lineage=lineage), 0.1) is vouches
    assert one.stands_for(report(boot=boot, lineage=lineage), T.span) is True


def test_under_a_hold_a_rival_waits_for_ever() -> None:
    one = guarded(replace(X, hold=MAINTENANCE))
    assert not one.stands_for(report(boot="x2"), 1e6)


def test_promises_only_grow() -> None:
    one = acceptor()
    one.promise(3, "b")
    one.promise(3, "b")
    assert (one.record.promised, one.record.promised_to) == (3, "b")
    with pytest.raises(AssertionError):
        one.promise(2, "c")
