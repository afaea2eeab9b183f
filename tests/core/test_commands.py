"""An administrator's commands: what each changes in the ledger, or why it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest

from koi.core.arbiter import View
from koi.core.commands import MAX_RECENT, VERBS, AlreadySo, Command, Refused, apply
from koi.core.messages import ENDING, MAINTENANCE, STUCK, Fenced, Ledger
from tests.core.views import view

HELD = Ledger(5, "a", reason="before")
GONE: dict[str, Any] = {"free_by": 2, "ages": {"a": 5.0}}


def command(verb: str, node: Optional[str] = None, **fields: Any) -> Command:
    return Command("id", verb, node, origin="me", **fields)


def done(verb: str, node: Optional[str], known: View, **fields: Any) -> Ledger:
    """The ledger that carries it out, its reason and id apart."""
    outcome = apply(known, command(verb, node, **fields))
    assert isinstance(outcome, Ledger), outcome
    assert outcome.recent == ("id",) and "asked by me" in outcome.reason
    return replace(outcome, recent=(), reason="before")


def refusal(verb: str, node: Optional[str], known: View, **fields: Any) -> str:
    outcome = apply(known, command(verb, node, **fields))
    assert isinstance(outcome, Refused), outcome
    return outcome.message


def already(verb: str, node: Optional[str], known: View, **fields: Any) -> str:
    outcome = apply(known, command(verb, node, **fields))
    assert isinstance(outcome, AlreadySo), outcome
    return outcome.message


def test_there_are_no_other_verbs() -> None:
    assert VERBS == {"promote", "demote", "elect", "passive", "active", "maintenance", "release"}


def test_the_reason_says_who_asked_and_why() -> None:
    outcome = apply(view(), command("demote", reason="upgrade"))
    assert isinstance(outcome, Ledger) and outcome.reason == "demote, asked by me: upgrade"
    outcome = apply(view(), Command("id", "demote"))
    assert isinstance(outcome, Ledger) and outcome.reason == "demote, asked by an administrator"


def test_the_ledger_remembers_so_many_ids() -> None:
    many = tuple(str(n) for n in range(MAX_RECENT))
    outcome = apply(view(replace(HELD, recent=many)), command("demote"))
    assert isinstance(outcome, Ledger) and outcome.recent == (*many[1:], "id")


# --- promote, demote, elect ---


def test_promote_sets_the_target_and_ends_manual_mode() -> None:
    assert done("promote", "b", view(replace(HELD, manual=True))) == replace(HELD, target="b")
    assert done("promote", "b", view(**GONE)) == replace(HELD, target="b")
    assert done("promote", "b", view(replace(HELD, target="c"))) == replace(HELD, target="b")


def test_promote_of_the_master() -> None:
    assert already("promote", "a", view()) == "a is the master already"
    assert done("promote", "a", view(replace(HELD, target="c"))) == HELD
    assert done("promote", "a", view(replace(HELD, manual=True))) == HELD
    assert done("promote", "a", view(replace(HELD, yielding=True, manual=True))) == replace(HELD, yielding=True, target="a")


PROMOTE_REFUSED: list[tuple[str, View, str]] = [
    ("x", view(), "there is no runner named x; runners: a, b, c"),
    ("x", view(a=None, b=None, c=None), "there is no runner named x; runners: none has reported yet"),
    ("b", view(b={"hears": 1}), "b cannot be promoted: b hears 1 of 3 electors; see 'koi status b'"),
    ("b", view(replace(HELD, passive=("b",))), "b cannot be promoted: b is passive; 'koi active b' includes it again"),
    ("b", view(b={"failed": True, "failed_ago": 1.0, "recovers_in": 5.0}),
     "b cannot be promoted: b failed 1.1 s ago, recovers in 5 s; 'koi recover b' starts it at once"),
    ("b", view(replace(HELD, hold=MAINTENANCE)), "the cluster is in maintenance; end it with 'koi maintenance off' first"),
    ("b", view(replace(HELD, hold=ENDING)), "the cluster is in maintenance; end it with 'koi maintenance off' first"),
]


@pytest.mark.parametrize("node, known, words", PROMOTE_REFUSED)
def test_promote_is_refused_with_what_to_do(node: str, known: View, words: str) -> None:
    assert refusal("promote", node, known) == words


@pytest.mark.parametrize("verb", ["promote", "demote", "maintenance"])
def test_a_stuck_node_stands_before_everything(verb: str) -> None:
    words = refusal(verb, "b", view(replace(HELD, hold=STUCK)))
    assert words.startswith("a may still be active") and "koi recover a --force" in words


def test_demote_makes_the_cluster_manual_and_the_master_yield() -> None:
    assert done("demote", None, view(replace(HELD, target="b"))) == replace(HELD, manual=True, yielding=True)
    assert done("demote", None, view(**GONE)) == replace(HELD, manual=True)
    assert done("demote", None, view(replace(HELD, manual=True))) == replace(HELD, manual=True, yielding=True)
    assert "already" in already("demote", None, view(replace(HELD, manual=True), **GONE))
    assert "already" in already("demote", None, view(replace(HELD, manual=True, yielding=True)))
    assert "maintenance" in refusal("demote", None, view(replace(HELD, hold=MAINTENANCE)))


def test_elect_ends_manual_mode() -> None:
    assert done("elect", None, view(replace(HELD, manual=True))) == HELD
    assert "elects by itself" in already("elect", None, view())


# --- passive, active ---


def test_passive_takes_a_node_out_and_a_master_yields() -> None:
    assert done("passive", "c", view(replace(HELD, passive=("b",)))) == replace(HELD, passive=("b", "c"))
    assert done("passive", "a", view()) == replace(HELD, passive=("a",), yielding=True)
    assert done("passive", "a", view(**GONE)) == replace(HELD, passive=("a",))
    assert done("passive", "a", view(replace(HELD, hold=MAINTENANCE))) == replace(HELD, passive=("a",), hold=MAINTENANCE)
    assert already("passive", "b", view(replace(HELD, passive=("b",)))) == "b is passive already"
    assert refusal("passive", "x", view()).startswith("there is no runner named x")


def test_the_only_node_that_can_be_promoted_becomes_passive_only_by_force() -> None:
    alone = view(b={"ready": False}, c=None)
    assert refusal("passive", "a", alone) == "a is the only node that can be promoted; --force makes it passive all the same"
    assert done("passive", "a", alone, force=True).passive == ("a",)
    assert done("passive", "b", alone).passive == ("b",)


def test_active_takes_it_back() -> None:
    assert done("active", "b", view(replace(HELD, passive=("b", "c")))) == replace(HELD, passive=("c",))
    assert done("active", "x", view(replace(HELD, passive=("x",)))) == HELD
    assert already("active", "b", view()) == "b is active already"
    assert refusal("active", "x", view()).startswith("there is no runner named x")


# --- maintenance, release ---


def test_maintenance_on_and_off() -> None:
    frozen = replace(HELD, hold=MAINTENANCE)
    assert done("maintenance", None, view(), on=True) == frozen
    assert done("maintenance", None, view(replace(HELD, hold=ENDING)), on=True) == frozen
    assert already("maintenance", None, view(frozen), on=True) == "the cluster is in maintenance already"
    assert done("maintenance", None, view(frozen)) == replace(HELD, hold=ENDING)
    assert done("maintenance", None, view(frozen), force=True) == HELD
    assert already("maintenance", None, view()) == "the cluster is not in maintenance"


def test_maintenance_does_not_end_while_the_master_is_not_heard_unless_by_force() -> None:
    frozen = replace(HELD, hold=MAINTENANCE)
    for lost in (view(frozen, ages={"a": 5.0}), view(frozen, a=None)):
        assert refusal("maintenance", None, lost).startswith("a is the master and is not heard")
        assert done("maintenance", None, lost, force=True) == HELD
    assert done("maintenance", None, view(frozen, **GONE)) == replace(HELD, hold=ENDING)


def test_release_says_that_the_stuck_node_is_off() -> None:
    stuck = replace(HELD, hold=STUCK)
    assert done("release", "a", view(stuck)) == replace(HELD, fenced=Fenced("a", None, 5))
    for node, ledger in (("b", stuck), ("a", HELD), ("a", replace(HELD, hold=MAINTENANCE))):
        assert already("release", node, view(ledger)) == f"{node} is not stuck"
