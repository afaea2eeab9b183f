"""What of a step from ledger to ledger goes into the journal: each change once, under a key that all electors give it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koi.core.chronicle import changes
from koi.core.messages import ENDING, MAINTENANCE, STUCK, Fenced, Ledger

BASE = Ledger(epoch=3, master="a", recent=("x",), reason="why")


def told(old: Ledger, new: Ledger) -> list[tuple[str, str | None, str | None]]:
    """What, from and to of each entry."""
    return [(entry.what, entry.old, entry.new) for entry in changes(old, new)]


@pytest.mark.parametrize(("change", "expected"), [
    ({}, []),
    ({"reason": "other words alone"}, []),
    ({"epoch": 4, "master": "b"}, [("master", "a", "b")]),
    ({"epoch": 4}, [("master", "a", "a")]),
    ({"yielding": True, "target": "b"}, [("yield", "a", "b")]),
    ({"target": "b", "recent": ("x", "y")}, [("command", None, "promote b")]),
    ({"manual": True, "yielding": True, "recent": ("x", "y")}, [("command", None, "demote")]),
    ({"passive": ("b",), "recent": ("x", "y")}, [("command", None, "passive b")]),
    ({"hold": MAINTENANCE, "recent": ("x", "y")}, [("maintenance", None, MAINTENANCE)]),
    ({"hold": STUCK}, [("stuck", None, STUCK)]),
])
def test_each_change_is_told_once(change: dict[str, object], expected: list[tuple[str, str | None, str | None]]) -> None:
    assert told(BASE, replace(BASE, **change)) == expected  # type: ignore[arg-type]


def test_an_elector_that_was_blank_tells_of_no_command_that_it_learns_of() -> None:
    """It said 'promote b' for whatever command had been the last one."""
    learned = replace(BASE, recent=("x", "y"), reason="a gave up epoch 2; a chosen: ready")
    assert told(Ledger(), learned) == [("master", None, "a")]
    first = Ledger(passive=("b",), recent=("x",), reason="passive b, asked by root@a")
    assert told(Ledger(), first) == [("command", None, "passive b")]


def test_what_ends() -> None:
    command = {"recent": ("x", "y")}
    assert told(replace(BASE, manual=True), replace(BASE, **command)) == [("command", None, "elect")]
    assert told(replace(BASE, passive=("b",)), replace(BASE, **command)) == [("command", None, "active b")]
    assert told(replace(BASE, hold=MAINTENANCE), replace(BASE, hold=ENDING, **command)) == [("maintenance", MAINTENANCE, ENDING)]
    assert told(replace(BASE, hold=ENDING), BASE) == [("maintenance", ENDING, None)]
    assert told(replace(BASE, hold=STUCK), replace(BASE, fenced=Fenced("a", None, 3), **command)) == [("stuck", STUCK, None)]
    assert told(replace(BASE, target="b"), BASE) == [("target", "b", None)]


def test_the_key_is_the_same_on_an_elector_that_comes_late() -> None:
    named = replace(BASE, epoch=4, master="b", reason="b chosen")
    later = replace(named, reason="something else", recent=("x", "z"), passive=("c",))
    assert {e.key for e in changes(BASE, named)} <= {e.key for e in changes(BASE, later)}
