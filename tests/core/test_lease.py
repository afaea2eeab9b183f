"""The runner's lease: the majority-th latest, counted from sending, begun only on one version (docs/protocol.md section 6)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Optional

import pytest

from koi.core import timing
from koi.core.heir import MAINTAINED
from koi.core.lease import REMEMBERED_REPORTS, Lease
from koi.core.messages import ENDING, MAINTENANCE, STUCK, State, Vouch
from koi.core.timing import usable

T = timing.derive(3.0)
NAMES = ("a", "b", "c", "d", "e")
USABLE = usable(T.lease)


def lease(majority: int = 2, sent: int = 9) -> Lease:
    """Of runner x, boot x1; report n was sent at n seconds."""
    one = Lease("x", "x1", majority)
    for number in range(1, sent + 1):
        one.note_sent(number, float(number))
    return one


def vouch(number: int, epoch: int = 5, version: tuple[int, int] = (1, 1), **fields: Any) -> Vouch:
    return Vouch(epoch, version, "x1", number, T.lease, T.grace, **fields)


def state(number: int, epoch: int = 5, version: tuple[int, int] = (1, 1), master: Optional[str] = "x", **fields: Any) -> State:
    return State("x1", number, version, master=master, epoch=epoch, **fields)


@pytest.mark.parametrize("n", range(1, 6))
def test_the_lease_ends_at_the_majority_th_latest(n: int) -> None:
    """All ways in which n electors vouched for one of three reports, or for none."""
    majority = n // 2 + 1
    for numbers in itertools.product((None, 1, 2, 3), repeat=n):
        one = lease(majority)
        for name, number in zip(NAMES, numbers, strict=False):
            if number is not None:
                one.hear(name, vouch(number), 3.5)
        sent = sorted((number for number in numbers if number is not None), reverse=True)
        assert one.ends(5) == (pytest.approx(sent[majority - 1] + USABLE) if len(sent) >= majority else None)


def test_it_is_counted_from_sending_not_from_receiving() -> None:
    one = lease(1)
    one.hear("a", vouch(2), 100.0)
    assert one.ends(5) == pytest.approx(2.0 + USABLE)
    assert USABLE < T.lease * 0.99 < T.lease < T.span


def test_a_vouch_says_how_long_it_stands() -> None:
    one = lease(1)
    one.hear("a", Vouch(5, (1, 1), "x1", 1, 10.0, 1.0), 1.1)
    assert one.ends(5) == pytest.approx(1.0 + usable(10.0))


def test_the_grace_is_that_of_the_vouch_that_stands_longest_and_the_least_of_all_electors() -> None:
    """Found: it was sent and never read, so a node with a longer G of its own went on after the guards had run out."""
    one = lease(1)
    assert one.grace(5) is None
    one.hear("a", Vouch(5, (1, 1), "x1", 1, 10.0, 1.0), 1.1)
    one.hear("a", Vouch(5, (1, 1), "x1", 2, 1.0, 3.0), 2.1)
    assert one.grace(5) == 1.0, "its guard still stands for the first"
    one.hear("a", Vouch(5, (1, 1), "x1", 3, 10.0, 3.0), 3.1)
    one.hear("a", state(4), 4.1)
    assert one.grace(5) == 3.0
    one.hear("b", Vouch(5, (1, 1), "x1", 4, 1.0, 2.0), 4.1)
    one.hear("c", Vouch(4, (1, 1), "x1", 4, 1.0, 0.5), 4.1)
    assert one.grace(5) == 2.0 and one.grace(6) is None and one.grace(None) is None


def test_an_older_vouch_never_shortens_and_a_late_one_may_lengthen() -> None:
    for order in itertools.permutations((1, 2, 3)):
        one = lease(1)
        for number in order:
            one.hear("a", vouch(number), 3.5)
        assert one.ends(5) == pytest.approx(3.0 + USABLE)


@pytest.mark.parametrize("answer", [
    Vouch(5, (1, 1), "x0", 1, T.lease, T.grace), State("x0", 1, (1, 1)), vouch(10), state(10), vouch(0),
])
def test_answers_to_another_boot_or_to_no_report_of_ours_count_for_nothing(answer: Any) -> None:
    one = lease()
    assert one.hear("a", answer, 2.0) is False
    assert one.words == {} and one.hears(2.0, T.lease) == 0


def test_only_so_many_reports_are_remembered() -> None:
    one = lease(1, sent=REMEMBERED_REPORTS + 5)
    assert len(one.sent) == REMEMBERED_REPORTS
    assert one.hear("a", vouch(5), 1.0) is False and one.hear("a", vouch(6), 1.0) is True


def test_a_state_does_not_take_away_what_was_vouched_for() -> None:
    one = lease(1)
    one.hear("a", vouch(1), 1.1)
    one.hear("a", state(2), 2.1)
    assert one.ends(5) == pytest.approx(1.0 + USABLE) and one.offered(1.2) is None


def test_vouches_for_another_epoch_do_not_add_up() -> None:
    one = lease(2)
    one.hear("a", vouch(3, 5), 3.1)
    one.hear("b", vouch(3, 6), 3.1)
    assert one.ends(5) is None and one.ends(6) is None and one.offered(3.2) is None


def test_an_elector_that_went_on_to_a_higher_epoch_does_not_go_back() -> None:
    one = lease(1)
    one.hear("a", vouch(3, 6, (2, 1)), 3.1)
    one.hear("a", vouch(2, 5, (1, 1)), 3.2)
    assert one.ends(5) is None and one.ends(6) == pytest.approx(3.0 + USABLE)


BEGIN = [
    # versions of a, b, c (None: no vouch) -> may begin, with a majority of 2
    (((1, 1), (1, 1), None), True),
    (((1, 1), (1, 2), None), False),
    (((1, 1), (1, 2), (1, 2)), True),
    (((1, 1), (1, 2), (1, 3)), False),
    (((1, 1), None, None), False),
]


@pytest.mark.parametrize("versions, begins", BEGIN)
def test_it_begins_only_with_a_majority_on_one_version(versions: tuple[Any, ...], begins: bool) -> None:
    one = lease(2)
    for name, version in zip(NAMES, versions, strict=False):
        if version is not None:
            one.hear(name, vouch(1, 5, version), 1.1)
    assert (one.offered(1.2) is not None) is begins


@pytest.mark.parametrize("hold", [MAINTENANCE, ENDING, STUCK])
def test_nothing_begins_under_a_hold(hold: str) -> None:
    one = lease(1)
    one.hear("a", vouch(1, hold=hold), 1.1)
    assert one.ends(5) is not None and one.offered(1.2) is None
    one.hear("a", vouch(2), 2.1)
    assert one.offered(2.2) is not None


def test_it_begins_only_while_the_lease_runs_and_nobody_says_yield() -> None:
    one = lease(2)
    one.hear("a", vouch(1), 1.1)
    one.hear("b", vouch(2), 2.1)
    ends = 1.0 + USABLE
    found = one.offered(ends - 0.001)
    assert found is not None and found[0] == 5 and found[1] == pytest.approx(ends) and one.offered(ends) is None
    one.hear("b", vouch(3, yielding=True), 3.1)
    assert one.offered(ends - 0.001) is None


@pytest.mark.parametrize("told", list(itertools.product((False, True), repeat=3)))
def test_it_yields_when_a_majority_of_latest_answers_says_so(told: tuple[bool, ...]) -> None:
    one = lease(2)
    for name, yielding in zip(NAMES, told, strict=False):
        one.hear(name, vouch(1, yielding=not yielding), 1.1)
        one.hear(name, state(2, yielding=yielding), 2.1)
    assert one.yielding(5) is (sum(told) >= 2)
    assert one.yielding(4) is False


def test_told_to_yield_means_this_node_as_master_of_this_epoch() -> None:
    one = lease(2)
    for name in "ab":
        one.hear(name, state(1, master="y", yielding=True), 1.1)
    assert one.yielding(5) is False


@pytest.mark.parametrize("holds", list(itertools.product((None, MAINTENANCE, STUCK, ENDING), repeat=3)))
def test_unlimited_only_by_a_majority_of_vouches_that_say_hold(holds: tuple[Optional[str], ...]) -> None:
    one = lease(2)
    for name, hold in zip(NAMES, holds, strict=False):
        one.hear(name, vouch(1, hold=hold), 1.1)
    frozen = sum(hold in (MAINTENANCE, STUCK) for hold in holds)
    assert one.held(5) is (frozen >= 2)
    ending = sum(hold == ENDING for hold in holds) >= 2
    assert one.ending(5, 1.2) == ((1, 1) if ending else None)
    assert one.ending(5, 1.0 + USABLE) is None


def test_what_electors_say_of_different_ledgers_makes_no_majority_for_a_hold() -> None:
    """Found: one had last spoken of a maintenance long over, the other, cut off with the master, alone of a new one."""
    one = lease(2)
    one.hear("a", replace(vouch(1, hold=MAINTENANCE), version=(1, 2)), 1.1)
    one.hear("b", replace(vouch(1, hold=MAINTENANCE), version=(1, 4)), 1.1)
    assert one.held(5) is None and one.saying(frozenset({MAINTENANCE})) == 1
    one.hear("c", replace(vouch(1, hold=MAINTENANCE), version=(1, 4)), 1.1)
    assert one.held(5) is True and one.saying(frozenset({MAINTENANCE})) == 2 and one.saying(frozenset({STUCK})) == 0


def test_a_state_says_nothing_of_the_hold() -> None:
    one = lease(2)
    for name in "abc":
        one.hear(name, state(1, hold=MAINTENANCE), 1.1)
    assert one.held(5) is None


def test_maintenance_is_what_the_newest_ledger_says_blank_electors_aside() -> None:
    one = lease()
    assert one.frozen(MAINTAINED) is None
    one.hear("a", state(1, version=(9, 9), hold=None, blank=True), 1.1)
    assert one.frozen(MAINTAINED) is None
    one.hear("b", state(1, version=(1, 1), hold=MAINTENANCE), 1.1)
    assert one.frozen(MAINTAINED) is True
    one.hear("c", state(1, version=(1, 2), hold=None), 1.1)
    assert one.frozen(MAINTAINED) is False


def test_hearing_counts_answers_younger_than_the_lease() -> None:
    one = lease(2)
    assert one.hears_until(T.lease) is None
    one.hear("a", state(1), 1.0)
    one.hear("b", vouch(2), 2.0)
    one.hear("c", vouch(3), 3.0)
    assert one.hears(2.5, T.lease) == 3
    assert one.hears_until(T.lease) == 2.0 + T.lease
    assert one.hears(2.0 + T.lease - 0.001, T.lease) == 2 and one.hears(2.0 + T.lease, T.lease) == 1


def test_the_leader_and_the_newest_ledger_come_from_the_latest_words() -> None:
    one = lease()
    assert one.leader() is None and one.newest() is None
    one.hear("a", state(1, version=(2, 1), leader="a"), 1.0)
    one.hear("b", state(2, version=(1, 1), leader="b"), 2.0)
    newest = one.newest()
    assert one.leader() == "b" and newest is not None and newest.version == (2, 1)
