"""A hold is for one epoch: once a majority says that a later one has begun, nothing stays promoted under it (docs/protocol.md 7).

Found: a master that was cut off in maintenance, which was then ended by force, stayed promoted beside the next one for good
when it was heard again; so did, until the end of a maintenance, what a dead koinode had left, although another was master.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest

from koi.core.effects import Log, SetLease
from koi.core.heir import UNSURE
from koi.core.lease import UNLIMITED
from koi.core.messages import MAINTENANCE, STUCK, State, Vouch
from koi.core.pipe import Freeze, Heritage
from koi.core.runner import Runner
from tests.core.test_reporting import ELECTORS, T, begin, runner, service, settled


def later(one: Runner, now: float, names: str = "abc", master: Optional[str] = "y", epoch: int = 6,
          hold: Optional[str] = None) -> list[Any]:
    """These electors answer that the ledger is of another epoch."""
    one.root_seen(now)
    one.reporter.soon(now)
    effects = one.handle_timer(now)
    for name in names:
        word = State("boot-of-x", one.reporter.number, (2, epoch), leader="a", master=master, epoch=epoch, hold=hold)
        effects += one.receive(name, word, now + 0.01)
    return effects


def held(hold: str = MAINTENANCE) -> Runner:
    """Master of epoch 5 under a hold, promoted."""
    one = settled()
    begin(one)
    one.service(service("Promoted", promoted=True), 101.2)
    for name in ELECTORS:
        one.receive(name, Vouch(5, (1, 2), "boot-of-x", one.reporter.number, T.lease, T.grace, hold=hold), 101.3)
    assert one.unlimited and one.lease_end is not None
    return one


@pytest.mark.parametrize("hold", [None, MAINTENANCE])
def test_a_master_under_a_hold_lets_go_once_a_later_epoch_has_begun(hold: Optional[str]) -> None:
    one = held()
    found = later(one, 200.0, hold=hold)
    assert not one.unlimited and "a later epoch" in one.letting_go and one.maintenance is False
    assert [e.end for e in found if isinstance(e, SetLease)] == [None], "no lease, so the demote begins now and has one G"
    assert any(getattr(e, "message", None) == Freeze(False) for e in found)
    one.service(service(), 200.2)
    assert one.holding is None and one.renounced == 5 and one.maintenance is (hold is not None)


@pytest.mark.parametrize("names, epoch, hold", [
    ("", 6, None), ("a", 6, None), ("a", 5, None), ("abc", 5, MAINTENANCE), ("abc", 4, None),
])
def test_a_minority_or_an_old_ledger_ends_no_hold(names: str, epoch: int, hold: Optional[str]) -> None:
    one = held()
    found = later(one, 200.0, names, master="y" if epoch == 4 else "x", epoch=epoch, hold=hold)
    assert one.unlimited and not one.letting_go and not any(isinstance(e, SetLease) for e in found)


@pytest.mark.parametrize("now", [101.5, 200.0])
def test_who_ends_a_hold_by_force_is_heard_although_nobody_vouches_any_more(now: float) -> None:
    """`recover --force` fences the epoch: the next master waits for the guard, by which a node that is not off has to demote."""
    one = held(STUCK)
    later(one, now, master="x", epoch=5)
    assert not one.unlimited and not one.lease.superseded(5)
    assert one.told_lease == (pytest.approx(one.lease.ends(5)) if now < 102.0 else None)
    one.handle_timer(now + T.lease)
    assert one.letting_go


def test_a_stuck_node_is_not_held_either() -> None:
    one = held(STUCK)
    assert one.told_lease == UNLIMITED
    later(one, 200.0)
    assert one.told_lease is None


def taken_up(heritage: Heritage, **answers: Any) -> Runner:
    """A koinode that has just begun and hears that there is maintenance."""
    one = runner(heritage)
    one.start(100.0)
    one.service(replace(service("Promoted", promoted=True), clean=False), 100.05)
    later(one, 100.1, hold=MAINTENANCE, **answers)
    return one


def test_what_a_dead_tree_left_is_demoted_in_maintenance_if_another_node_is_master() -> None:
    one = taken_up(Heritage(("old",), None, 5, unclean=True, owes=True))
    assert one.left and one.maintenance is False
    later(one, 101.0, hold=MAINTENANCE)
    assert one.maintenance is False, "until all is demoted and stopped"
    one.service(service("Stopped"), 102.0)
    assert not one.left and one.maintenance is True


@pytest.mark.parametrize("heritage, master", [
    (Heritage(("old",), None, 5, unclean=True, owes=True), "x"), (Heritage(("old",), None, None, unclean=True), "y"),
])
def test_what_may_be_covered_by_the_hold_or_held_nothing_stays_as_it_is(heritage: Heritage, master: str) -> None:
    one = taken_up(heritage, master=master)
    assert one.maintenance is True and one.left


def test_what_was_detached_is_not_taken_up_once_another_node_is_master() -> None:
    one = taken_up(Heritage(("old",), None, None, None, True, 5, covered=True))
    assert "a later epoch" in one.letting_go and one.maintenance is False, "the first elector's word was not enough"
    one.service(service(), 102.0)
    assert one.holding is None and one.maintenance is True and one.told_renounced == 5


def test_what_was_detached_is_given_up_at_once_when_a_majority_speaks_first() -> None:
    one = runner(Heritage(("old",), None, None, None, True, 5))
    one.start(100.0)
    for name in ELECTORS:
        one.hear(name, State("boot-of-x", 1, (2, 6), leader="a", master="y", epoch=6, hold=MAINTENANCE), 100.1)
    one.handle_timer(100.1)
    assert one.holding is None and one.left and one.renounced == 5 and one.maintenance is False
    later(one, 101.0, hold=MAINTENANCE)
    assert one.maintenance is False and one.told_renounced is None
    one.service(service("Stopped"), 102.0)
    assert one.maintenance is True and one.told_renounced == 5


def test_what_was_taken_up_without_a_word_of_the_electors_is_let_go_when_they_speak() -> None:
    one = runner(Heritage(("old",), None, None, None, True, 5, True, True), maintenance=True)
    one.start(100.0)
    one.service(service("Promoted", promoted=True), 100.05)
    one.handle_timer(100.0 + 4 * T.heartbeat)
    assert one.holding == 5 and one.awaits_lease and one.maintenance is True
    later(one, 110.0, hold=MAINTENANCE)
    assert "a later epoch" in one.letting_go and one.maintenance is False


# --- whether there is a hold at all ----------------------------------------------------------------


@pytest.mark.parametrize("names, waited, maintenance", [
    ("a", False, None), ("ab", False, False), ("a", True, False), ("", True, False), ("", False, None),
])
def test_that_there_is_no_hold_is_believed_of_a_majority_or_after_a_while(
    names: str, waited: bool, maintenance: Optional[bool],
) -> None:
    """Found: a koinode that was down when maintenance began asked its own elector, down with it, and ran scripts."""
    one = runner(Heritage(("old",), None, 5, unclean=True, owes=True))
    one.start(100.0)
    later(one, 100.01, names, master="x", epoch=5)
    if waited:
        one.handle_timer(100.0 + 4 * T.heartbeat)
    assert one.maintenance is maintenance
    assert waited or maintenance is False or one.deadline() <= 100.0 + 3 * T.heartbeat


@pytest.mark.parametrize("owes, covered", [(True, True), (False, False)])
def test_that_there_is_a_hold_is_believed_of_one_elector_where_nobody_else_can_be_promoted(owes: bool, covered: bool) -> None:
    one = runner(Heritage(("old",), None, 5, unclean=True, owes=owes, covered=covered))
    one.start(100.0)
    later(one, 100.01, "a", master="x", epoch=5, hold=MAINTENANCE)
    assert one.maintenance is True


@pytest.mark.parametrize("owes, detached", [(True, None), (True, 5), (False, 5)])
@pytest.mark.parametrize("names", ["a", ""])
def test_one_word_for_a_hold_keeps_nothing_that_had_a_lease_with_an_end(names: str, owes: bool, detached: Optional[int]) -> None:
    """Found: a leader that was cut off accepted a hold alone, its tree was killed, and the next one left all as it was.

    Nor is held on what is demoted already: its workers outlived their root.
    """
    one = runner(Heritage(("old",), None, 4, None, True, detached, owes), maintenance=True)
    one.start(100.0)
    later(one, 100.01, names, master="x", epoch=5, hold=MAINTENANCE)
    assert one.maintenance is None and one.deadline() <= 100.0 + 3 * T.heartbeat
    told = one.handle_timer(100.0 + 3 * T.heartbeat)
    assert one.maintenance is False and [e.text for e in told if isinstance(e, Log)] == [UNSURE]
    later(one, 101.0, "a", master="x", epoch=5, hold=MAINTENANCE)
    assert one.maintenance is False, "until all is demoted and stopped"
    later(one, 101.1, "ab", master="x", epoch=5, hold=MAINTENANCE)
    assert one.maintenance is True, "a majority's word"


def test_a_majority_is_believed_at_once() -> None:
    one = runner(Heritage(("old",), None, 4, None, True, 5, True))
    one.start(100.0)
    one.service(service("Promoted", promoted=True), 100.05)
    later(one, 100.1, "ab", master="x", epoch=5, hold=MAINTENANCE)
    assert one.maintenance is True and one.holding == 5
