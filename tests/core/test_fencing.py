"""Fencing: what the leader orders, and when; that success drops the guard at once, and failure changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koi.core import fencing
from koi.core.arbiter import Seen, View
from koi.core.effects import EndFence, RunFence
from koi.core.fencing import Fencer
from koi.core.ledger import Acceptor, Record
from koi.core.messages import MAINTENANCE, STUCK, Fenced, Ledger, Report
from koi.core.timing import derive

TIMING = derive(3.0)
LEDGER = Ledger(epoch=7, master="b")
ORDER = Fenced("b", "0b", 7)


def view(ledger: Ledger = LEDGER, lost_by: int = 2, heard_ago: float = 5.0, **report: object) -> View:
    said = Report("b", "0b", 3, holding=7, **report)  # type: ignore[arg-type]
    return View(ledger, (1, 1), 7, 100.0, 0.0, {"b": Seen(said, 100.0 - heard_ago)}, 0, 2, 3, TIMING, None, True, lost_by)


def test_a_lost_master_is_fenced() -> None:
    ledger = fencing.order(view())
    assert ledger is not None and ledger.fencing == ORDER and "lost by 2 of 3 electors (last heard 5.0 s ago)" in ledger.reason


@pytest.mark.parametrize("without", [
    replace(view(), fence=False), view(lost_by=1), view(renounced=7), view(replace(LEDGER, hold=MAINTENANCE)),
    view(replace(LEDGER, fenced=ORDER)), view(replace(LEDGER, master=None)),
], ids=["no command", "heard by a majority", "renounced", "maintenance", "fenced already", "no master"])
def test_nobody_is_fenced_without_need(without: View) -> None:
    assert fencing.order(without) is None


def test_a_stuck_master_is_fenced_although_it_is_heard() -> None:
    ledger = fencing.order(view(replace(LEDGER, hold=STUCK), lost_by=0, heard_ago=0.1))
    assert ledger is not None and ledger.fencing == ORDER and ledger.hold == STUCK


def test_one_that_is_heard_again_is_spared() -> None:
    ordered = replace(LEDGER, fencing=ORDER)
    assert fencing.order(view(ordered, lost_by=2)) is None
    spared = fencing.order(view(ordered, lost_by=0, heard_ago=0.1))
    assert spared is not None and spared.fencing is None


def test_an_order_that_the_leader_has_no_command_for_is_taken_back() -> None:
    """Found: cluster.fence was removed while a fence failed, and every leader ended for want of a command to run."""
    spared = fencing.order(replace(view(replace(LEDGER, fencing=ORDER, hold=STUCK)), fence=False))
    assert spared is not None and spared.fencing is None and spared.hold == STUCK


def test_one_at_a_time_and_again_with_growing_delays() -> None:
    fencer = Fencer()
    assert fencer.follow(ORDER, 0.0) == [RunFence("b", 7)] and fencer.follow(ORDER, 1.0) == []
    now, waits = 1.0, []
    for _ in range(9):
        fencer.ended("b", 7, False, "the command exited 1", now)
        assert "fence of b failed (the command exited 1)" in fencer.trouble and fencer.retry_at is not None
        waits.append(fencer.retry_at - now)
        assert fencer.follow(ORDER, fencer.retry_at - 0.01) == []
        now = fencer.retry_at
        assert fencer.follow(ORDER, now) == [RunFence("b", 7)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_order_that_is_taken_back_ends_the_command() -> None:
    fencer = Fencer()
    fencer.follow(ORDER, 0.0)
    assert fencer.follow(None, 1.0) == [EndFence()] and fencer.follow(None, 2.0) == []
    fencer.ended("b", 7, True, "", 3.0)
    assert fencer.done is None


def test_success_is_told_once_and_for_its_order_only() -> None:
    fencer = Fencer()
    fencer.follow(ORDER, 0.0)
    fencer.ended("c", 7, True, "", 1.0)
    assert fencer.done is None
    fencer.ended("b", 7, True, "", 1.0)
    assert fencer.done == ORDER and fencer.follow(ORDER, 2.0) == []


@pytest.mark.parametrize("hold", [None, STUCK])
def test_success_drops_the_guard_at_once(hold: str | None) -> None:
    ledger = replace(LEDGER, hold=hold, fencing=ORDER)
    acceptor = Acceptor(TIMING, Record(ledger=ledger, version=(1, 1)), 0.0)
    acceptor.raise_guard(Report("b", "0b", 1), 0.0)
    assert acceptor.guard_up(0.1)
    assert acceptor.offer((1, 2), fencing.fenced(ledger, ORDER), 0.1)
    assert not acceptor.guard_up(0.1) and acceptor.record.ledger.hold is None
    assert not acceptor.stands_for(Report("b", "0c", 9, lineage=("0b",), holding=7), 0.2)
    assert acceptor.offer((1, 3), Ledger(epoch=8, master="c"), 0.2)


def test_an_elector_says_whom_it_has_lost() -> None:
    acceptor = Acceptor(TIMING, Record(ledger=LEDGER), 0.0)
    acceptor.heard(Report("b", "0b", 1), 10.0)
    acceptor.heard(Report("c", "0c", 1), 20.0)
    assert acceptor.lost(10.0 + TIMING.lease) is None and acceptor.lost(10.01 + TIMING.lease) == 7
