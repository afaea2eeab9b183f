"""The leader's decisions, each branch with its words (docs/protocol.md section 9)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Optional

import pytest

from koi.core.arbiter import Decision, View, ago, decide, heard, vacancy, why_not
from koi.core.messages import ENDING, HOLDS, MAINTENANCE, STUCK, Fenced, Ledger
from tests.core.views import HEARD_S, NOW, T, view

HELD = Ledger(5, "a", reason="before")
GONE: dict[str, Any] = {"free_by": 2, "ages": {"a": 5.0}}


@pytest.mark.parametrize("seconds, words", [(0.04, "0.0 s"), (99.9, "99.9 s"), (100, "2 min"), (5399, "90 min"), (5400, "2 h")])
def test_an_age_in_words(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_a_report_counts_as_heard_for_three_heartbeats_and_a_lease() -> None:
    assert heard(view(ages={"b": HEARD_S - 0.001}), "b") is not None
    assert heard(view(ages={"b": HEARD_S + 0.001}), "b") is None
    assert heard(view(b=None), "b") is None


WHY_NOT: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"b": None}, "b is not heard"),
    ({"ages": {"b": 5.0}}, "b is not heard for 5.0 s"),
    ({"ledger": replace(HELD, fenced=Fenced("b", "b1", 4))}, "b was fenced"),
    ({"ledger": replace(HELD, fenced=Fenced("b", "b0", 4))}, ""),
    ({"ledger": replace(HELD, passive=("b",))}, "b is passive"),
    ({"b": {"stuck": True, "failed": True}}, "b is stuck: demote and stop failed, it may still be active"),
    ({"b": {"failed": True}}, "b failed, does not recover by itself: use 'koi recover'"),
    ({"b": {"failed": True, "failed_ago": 20.0, "last_failure": "db: promote exited 1", "recovers_in": 40.0}},
     "b failed 20.1 s ago (db: promote exited 1), recovers in 40 s"),
    ({"b": {"hears": 1}}, "b hears 1 of 3 electors"),
    ({"b": {"ready": False, "state": "Live", "why": "db is Starting"}}, "b is Live (db is Starting)"),
    ({"b": {"ready": False, "state": "Stopped", "why": "stopped by hand"}}, "b is Stopped (stopped by hand)"),
]


@pytest.mark.parametrize("known, words", WHY_NOT)
def test_why_a_runner_cannot_be_promoted(known: dict[str, Any], words: str) -> None:
    assert why_not(view(known.pop("ledger", None) if "ledger" in (known := dict(known)) else None, **known), "b") == words


VACANCIES: list[tuple[View, str]] = [
    (view(), ""),
    (view(Ledger()), "no master was chosen yet"),
    (view(a={"renounced": 4}), ""),
    (view(a={"renounced": 5, "holding": None}), "a gave up epoch 5"),
    (view(a={"renounced": 6, "holding": None}), "a gave up epoch 5"),
    (view(replace(HELD, fenced=Fenced("a", None, 5))), "a is fenced"),
    (view(replace(HELD, fenced=Fenced("a", None, 4))), ""),
    (view(free_by=1, ages={"a": 5.0}), ""),
    (view(**GONE), "a lost by 2 of 3 electors (last heard 5.0 s ago)"),
    (view(free_by=3, a=None), "a lost by 3 of 3 electors (never heard)"),
    (view(free_by=2, ages={"a": 0.1}), "a no longer holds epoch 5, as 2 of 3 electors know"),
]


@pytest.mark.parametrize("known, words", VACANCIES)
def test_when_the_post_is_vacant(known: View, words: str) -> None:
    assert vacancy(known) == words


# --- vacant: who is chosen ---


def chosen(known: View) -> Optional[str]:
    ledger = decide(known).ledger
    return None if ledger is None else ledger.master


def test_a_lost_master_is_replaced_with_the_next_epoch_and_the_reason() -> None:
    ledger = decide(view(replace(HELD, yielding=True, target="c"), b={"preference": 10}, top=8, **GONE)).ledger
    assert ledger == Ledger(
        9, "c", reason="a lost by 2 of 3 electors (last heard 5.0 s ago); c chosen: asked for, ready, preference 0, up 2 min",
    )


ORDER: list[tuple[dict[str, Any], Ledger, str]] = [
    ({"b": {}, "c": {"preference": 10, "holding": 4}}, replace(HELD, target="b"), "b"),
    ({"b": {"holding": 4}, "c": {"preference": 10}}, HELD, "b"),
    ({"b": {"failed_ago": 10.0, "preference": 10}, "c": {}}, HELD, "c"),
    ({"b": {"failed_ago": 59.8, "preference": 10}, "c": {}}, HELD, "c"),
    ({"b": {"failed_ago": 59.95, "preference": 10}, "c": {}}, HELD, "b"),
    ({"b": {"failed_ago": 10.0}, "c": None}, HELD, "b"),
    ({"b": {"preference": 1}, "c": {"preference": 2, "uptime": 1.0}}, HELD, "c"),
    ({"b": {"uptime": 50.0}, "c": {"uptime": 51.0}}, HELD, "c"),
    ({"b": {}, "c": {}}, HELD, "b"),
    ({"b": {}, "c": {}}, replace(HELD, target="x"), "b"),
]


@pytest.mark.parametrize("known, ledger, name", ORDER)
def test_the_order_of_candidates(known: dict[str, Any], ledger: Ledger, name: str) -> None:
    assert chosen(view(ledger, **known, **GONE)) == name


def test_nobody_that_is_not_fit_is_ever_chosen() -> None:
    """All combinations of what may be wrong with three runners."""
    renounced = {"renounced": 5, "holding": None}
    wrong: list[Any] = [{}, None, {"ready": False}, {"hears": 1}, {"failed": True}, {"stuck": True}, renounced]
    for a, b, c in itertools.product(wrong, repeat=3):
        known = view(a=a, b=b, c=c, free_by=3)
        name = chosen(known)
        fit = [n for n in "abc" if not why_not(known, n)]
        stuck = a is not None and a.get("stuck", False)
        assert name in fit if fit and not stuck else name in (None, "a")


def test_a_new_leader_waits_two_heartbeats_for_reports() -> None:
    early = view(since=2 * T.heartbeat - 0.01, **GONE)
    assert decide(early).ledger is None and decide(early).wake == pytest.approx(NOW + 0.01)
    assert decide(early).nobody == "the leader has just been elected and waits for the runners' reports"
    assert chosen(view(since=2 * T.heartbeat + 0.001, **GONE)) == "b"


def test_when_nobody_can_be_promoted_each_says_why() -> None:
    known = view(b={"ready": False, "state": "Live", "why": "db is Starting"}, c={"hears": 0}, **GONE)
    assert decide(known).nobody == "a is not heard for 5.0 s; b is Live (db is Starting); c hears 0 of 3 electors"
    assert decide(view(Ledger(), a=None, b=None, c=None)).nobody == "no runner has reported yet"


def test_in_manual_mode_nobody_is_promoted_unless_asked_for() -> None:
    manual = replace(HELD, manual=True)
    assert decide(view(manual, **GONE)).nobody == (
        "manual mode: nobody is promoted until 'koi elect' or 'koi promote NODE'"
        " (a lost by 2 of 3 electors (last heard 5.0 s ago))"
    )
    assert chosen(view(replace(manual, target="c"), **GONE)) == "c"


# --- not vacant: yield or not ---


def test_a_good_master_is_left_alone() -> None:
    for target in (None, "a"):
        assert decide(view(replace(HELD, target=target), b={"preference": 99, "uptime": 1e9})).ledger is None


def test_a_master_yields_to_a_target_that_can_be_promoted() -> None:
    ledger = decide(view(replace(HELD, target="c", reason="promote c, asked by me"))).ledger
    assert ledger is not None and ledger.yielding and ledger.reason == "a yields to c: promote c, asked by me"
    assert decide(view(replace(HELD, target="c"), c={"ready": False})).ledger is None


UNFIT: list[tuple[Ledger, dict[str, Any], str]] = [
    (replace(HELD, passive=("a",)), {}, "a is passive; b can take over"),
    (HELD, {"mode": "passive"}, "a is passive; b can take over"),
    (HELD, {"holding": None, "ready": False, "state": "Live", "why": "starting"},
     "a holds nothing and is Live (starting); b can take over"),
    (HELD, {"holding": None, "ready": False, "state": "Failed", "why": "service vip failed", "failed": True},
     "a holds nothing and is Failed (service vip failed); b can take over"),
]


@pytest.mark.parametrize("ledger, a, words", UNFIT)
def test_a_master_that_is_not_fit_yields_when_somebody_else_is(ledger: Ledger, a: dict[str, Any], words: str) -> None:
    found = decide(view(ledger, a=a)).ledger
    assert found is not None and found.yielding and found.reason == words
    assert decide(view(ledger, a=a, b={"ready": False}, c=None)).ledger is None
    assert decide(view(replace(ledger, yielding=True), a=a)).ledger is None, "asked once is enough"


def test_a_master_that_fails_lets_go_by_itself_and_the_next_ledger_says_why() -> None:
    failed = {"failed": True, "ready": False, "last_failure": "vip: run exited 1", "failed_ago": 0.0, "recovers_in": 3.0}
    assert decide(view(a=failed)) == Decision(next="b"), "no ledger, and who will be chosen"
    ledger = decide(view(a={**failed, "holding": None, "renounced": HELD.epoch})).ledger
    assert ledger is not None and ledger.master == "b" and ledger.reason.startswith(
        f"a gave up epoch {HELD.epoch}, for it failed 0.1 s ago (vip: run exited 1), recovers in 3 s; b chosen: "
    ), ledger and ledger.reason


def test_who_will_be_chosen_is_said_while_the_master_lets_go() -> None:
    assert decide(view()).next is None
    assert decide(view(replace(HELD, yielding=True, target="c"))).next == "c"
    assert decide(view(replace(HELD, yielding=True), b={"ready": False})).next == "c"
    assert decide(view(replace(HELD, yielding=True), b={"ready": False}, c=None)).next is None
    assert decide(view(replace(HELD, yielding=True, manual=True))).next is None


def test_a_master_that_holds_nothing_but_is_ready_may_still_begin() -> None:
    assert decide(view(a={"holding": None})).ledger is None


def test_a_target_that_is_not_reached_in_time_is_dropped_with_a_reason() -> None:
    limit = T.promote_timeout + T.demote_timeout
    waiting = view(replace(HELD, target="c"), c={"ready": False, "state": "Live", "why": "slow"}, target_since=NOW - limit + 1)
    assert decide(waiting).ledger is None and decide(waiting).wake == NOW + 1
    late = view(replace(HELD, target="c"), c={"ready": False, "state": "Live", "why": "slow"}, target_since=NOW - limit)
    ledger = decide(late).ledger
    assert ledger is not None and ledger.target is None
    assert ledger.reason == "c could not be made master in time (c is Live (slow)); dropped"


@pytest.mark.parametrize("why", [{"stopped": True}, {"failed": True}, {"mode": "passive"}, {}])
def test_a_target_that_is_given_up_meanwhile_is_dropped_at_once(why: dict[str, Any]) -> None:
    """Found: `promote c` beside `stop c` waited for 60 s, as long as a target may take."""
    ledger = replace(HELD, target="c", passive=() if why else ("c",))
    found = decide(view(ledger, c={"ready": False, "state": "Stopped", "why": "words", **why})).ledger
    assert found == replace(ledger, target=None, reason=found.reason if found else "")
    assert found.reason.startswith("c could not be made master (c ") and found.reason.endswith("; dropped")
    itself = decide(view(replace(ledger, target="a"), a=why)).ledger
    assert itself is None or itself.target == "a", "the master is not waited for"


# --- holds ---


@pytest.mark.parametrize("hold", HOLDS)
def test_under_a_hold_no_master_is_changed(hold: str) -> None:
    wrong: list[dict[str, Any]] = [{}, {"failed": True, "stuck": True}, {"ready": False}]
    for a, free_by, target in itertools.product(wrong, (0, 3) if hold != ENDING else (0,), (None, "b")):
        ledger = decide(view(replace(HELD, hold=hold, target=target), a=a, free_by=free_by)).ledger
        assert ledger is None or (ledger.epoch, ledger.master) == (5, "a")


def test_a_stuck_master_stops_everything() -> None:
    decision = decide(view(a={"stuck": True, "failed": True}))
    assert decision.ledger is not None and decision.ledger.hold == STUCK
    assert decision.ledger.reason == "a may still be active: its demote and stop failed; nobody is promoted"
    assert decide(view(b={"stuck": True})).ledger is None
    assert decide(view(replace(HELD, hold=STUCK), a={"stuck": True})).nobody == (
        "a may still be active: its demote and stop failed, so nobody is promoted; mend what keeps it from stopping,"
        " then 'koi recover a', or make sure that it is off, then 'koi recover a --force'"
    )


CLEAN: list[tuple[dict[str, Any], bool]] = [
    ({"holding": None, "renounced": 5}, True), ({"holding": None, "renounced": 4}, False), ({"holding": None}, False),
    ({}, False), ({"holding": None, "stuck": True}, False), ({"holding": None, "renounced": 5, "stuck": True}, False),
]


@pytest.mark.parametrize("a, ends", CLEAN)
def test_stuck_ends_when_the_node_reports_that_it_is_clean(a: dict[str, Any], ends: bool) -> None:
    known = replace(HELD, hold=STUCK)
    ledger = decide(view(known, a=a)).ledger
    assert (ledger is not None and ledger.hold is None) is ends
    assert decide(view(known, a=a, ages={"a": 1.0}, since=0.5)).ledger is None, "said to an earlier leader"


ENDINGS: list[tuple[Ledger, dict[str, Any], bool]] = [
    (HELD, {"a": {"acknowledged": (2, 7)}}, True),
    (HELD, {"a": {"acknowledged": (2, 6)}}, False),
    (HELD, {"a": {}}, False),
    (HELD, {"a": {"renounced": 5, "holding": None}}, True),
    (HELD, {"a": {"renounced": 4}}, False),
    (HELD, {"a": None}, False),
    (HELD, {"a": None, "free_by": 2}, True),
    (Ledger(), {"a": None}, True),
]


@pytest.mark.parametrize("ledger, known, ends", ENDINGS)
def test_maintenance_ends_when_the_master_has_its_lease_again_or_there_is_none(
    ledger: Ledger, known: dict[str, Any], ends: bool,
) -> None:
    found = decide(view(replace(ledger, hold=ENDING), **known)).ledger
    assert (found == replace(ledger, hold=None, reason="maintenance is over")) is ends
    assert decide(view(replace(ledger, hold=MAINTENANCE), **known)).ledger is None
