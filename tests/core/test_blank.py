"""An elector without its state file: how many others it needs, for every size of cluster (docs/protocol.md rule 2.2)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from koi.core import timing
from koi.core.blank import BLANK_TOP, Blank
from koi.core.messages import Known, Ledger

T = timing.derive(3.0, blank_wait=60.0)
NAMES = ("b", "c", "d", "e")


def blank(n: int) -> Blank:
    return Blank("boot", n - 1, n // 2 + 1, T, 100.0)


def known(nonce: str = "boot", **fields: Any) -> Known:
    values: dict[str, Any] = {"rank": 0, "blank": False, "promised": 0, "version": (0, 0), "ledger": Ledger(), "top": 0} | fields
    return Known(nonce, **values)


@pytest.mark.parametrize("n, need", [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_it_needs_the_state_of_so_many_others(n: int, need: int) -> None:
    assert blank(n).need == need


@pytest.mark.parametrize("n", range(2, 6))
def test_those_it_asks_meet_every_majority_that_it_may_have_been_part_of(n: int) -> None:
    """Whatever a majority with it decided, one of those asked was part of it; with one fewer, not always."""
    majority = n // 2 + 1
    others = range(1, n)
    decided = [set(group) for group in itertools.combinations(others, majority - 1)]
    asked = [set(group) for group in itertools.combinations(others, blank(n).need)]
    assert all(group & who for group in decided for who in asked)
    fewer = [set(group) for group in itertools.combinations(others, blank(n).need - 1)]
    assert not all(group & who for group in decided for who in fewer)


@pytest.mark.parametrize("n", range(1, 6))
def test_it_takes_part_when_enough_answered_and_the_span_is_over(n: int) -> None:
    for answered in range(n):
        one = blank(n)
        for name in NAMES[:answered]:
            one.answer(name, known(blank=True))
        assert one.complete() is (answered >= one.need)
        assert one.over(100.0 + T.span - 0.001) is False
        assert one.over(100.0 + T.span) is one.complete()
        assert one.over(100.0 + 60.0) is True


def test_only_answers_to_this_very_boot_count_and_each_elector_once() -> None:
    one = blank(3)
    one.answer("b", known("an older boot"))
    assert one.known == {}
    one.answer("b", known())
    one.answer("b", known(promised=9))
    assert len(one.known) == 1 and one.learned().promised == 9 and not one.complete()


def test_it_takes_the_highest_of_everything() -> None:
    one = blank(3)
    one.answer("b", known(promised=7, version=(3, 1), ledger=Ledger(4, "x"), top=4))
    one.answer("c", known(promised=3, version=(3, 2), ledger=Ledger(5, "y"), top=9))
    record = one.learned()
    assert (record.promised, record.version, record.ledger, record.top) == (7, (3, 2), Ledger(5, "y"), 9)


def test_with_too_few_answers_it_leaves_room_above_the_highest_epoch() -> None:
    one = blank(3)
    one.answer("b", known(top=4))
    assert one.learned().top == 4 + BLANK_TOP
    one.answer("c", known(top=2))
    assert one.learned().top == 4


def test_it_asks_every_heartbeat_until_it_takes_part() -> None:
    one = blank(3)
    assert one.deadline() == 100.0
    assert one.hello(5, 100.0).nonce == "boot"
    assert one.deadline() == 100.0 + T.heartbeat
    one.next_hello = 1e9
    assert one.deadline() == 160.0
    for name in "bc":
        one.answer(name, known())
    assert one.deadline() == 100.0 + T.span
