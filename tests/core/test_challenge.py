"""A higher elector takes the lead back only after it has heard a majority for bully_delay (docs/protocol.md rule 3.6)."""

from __future__ import annotations

import pytest

from koi.core import timing
from koi.core.challenge import Challenger
from koi.core.leadership import REMEMBERED_BEATS, Leadership
from koi.core.messages import Ack, Known, Ledger

T = timing.derive(3.0, bully_delay=5.0)
E = T.leader_timeout


def answer(challenger: Challenger, sender: str, nonce: str | None = None) -> None:
    challenger.answer(sender, Known(challenger.nonce() if nonce is None else nonce, 0, False, 0, (0, 0), Ledger(), 0))


def rounds(challenger: Challenger, begin: float, end: float, senders: str) -> float:
    """Rounds every E, all answered by these; returns when the next is due."""
    now = begin
    while now <= end:
        challenger.turn(0, now)
        for sender in senders:
            answer(challenger, sender)
        now += E
    return now


@pytest.mark.parametrize("senders, strong", [("", False), ("b", True), ("bc", True)])
def test_a_majority_counts_itself(senders: str, strong: bool) -> None:
    challenger = Challenger("boot", 2, T)
    end = rounds(challenger, 100.0, 110.0, senders)
    assert challenger.strong(end) is strong


def test_strong_only_after_the_whole_delay() -> None:
    challenger = Challenger("boot", 2, T)
    now = rounds(challenger, 100.0, 100.0 + T.bully_delay - 1.5 * E, "b")
    assert not challenger.strong(now - E)
    now = rounds(challenger, now, now + 2 * E, "b")
    assert challenger.strong(now)


def test_one_round_without_a_majority_begins_the_count_anew() -> None:
    challenger = Challenger("boot", 2, T)
    now = rounds(challenger, 100.0, 108.0, "b")
    now = rounds(challenger, now, now, "")
    challenger.turn(0, now)
    assert challenger.healthy_since is None and not challenger.strong(now)


def test_answers_to_an_older_round_do_not_count() -> None:
    challenger = Challenger("boot", 2, T)
    challenger.turn(0, 100.0)
    old = challenger.nonce()
    challenger.turn(0, 100.0 + E)
    answer(challenger, "b", old)
    answer(challenger, "c", "another boot.2")
    assert challenger.answers == set()


def test_reset_forgets_everything() -> None:
    challenger = Challenger("boot", 2, T)
    now = rounds(challenger, 100.0, 108.0, "b")
    challenger.reset()
    assert not challenger.strong(now) and challenger.next_round is None


# --- what a leader knows of itself ---


def lead(majority: int = 2) -> Leadership:
    return Leadership(3, Ledger(), majority, T, 100.0)


def test_a_challenge_must_name_a_heartbeat_younger_than_the_leader_timeout() -> None:
    one = lead()
    one.beat(0, 0, "", 100.0)
    assert one.spoke(1, 100.0 + E - 0.001) and not one.spoke(1, 100.0 + E + 0.001) and not one.spoke(2, 100.0)
    for _ in range(REMEMBERED_BEATS):
        one.beat(0, 0, "", 100.1)
    assert not one.spoke(1, 100.1) and one.spoke(2, 100.1)


def test_committed_by_any_majority_that_accepted_exactly_this_version() -> None:
    one = lead()
    assert not one.committed()
    one.heard("b", Ack(3, 1, 0, (2, 9), None), 100.1)
    one.heard("c", Ack(3, 1, 0, (3, 1), None), 100.1)
    assert not one.committed()
    one.own_version = (3, 1)
    assert one.committed()
    one.propose(Ledger(1, "x"), 100.2)
    assert one.version == (3, 2) and not one.committed()
    for name in "bc":
        one.heard(name, Ack(3, 2, 0, (3, 2), None), 100.3)
    assert one.committed()  # the leader need not be among them


def test_an_older_ack_does_not_displace_a_newer_one() -> None:
    one = lead()
    assert one.heard("b", Ack(3, 5, 0, (3, 1), None), 100.1)
    assert not one.heard("b", Ack(3, 4, 0, (2, 1), 7), 100.2)
    assert one.acks["b"].ack.version == (3, 1)


def test_free_counts_only_acks_younger_than_the_leader_timeout() -> None:
    one = lead()
    one.heard("b", Ack(3, 1, 0, (3, 1), 7), 100.0)
    assert one.free_by(7, None, 100.0 + E) == 1 and one.free_by(7, None, 100.0 + E + 0.001) == 0
    assert one.free_by(7, 7, 100.0) == 2 and one.free_by(6, None, 100.0) == 0


@pytest.mark.parametrize("majority, heard, expected", [(1, {}, 105.0), (2, {}, 100.0), (2, {"b": 103.0}, 103.0),
                                                       (3, {"b": 103.0}, 100.0), (3, {"b": 103.0, "c": 101.0}, 101.0)])
def test_when_a_majority_was_last_heard(majority: int, heard: dict[str, float], expected: float) -> None:
    one = lead(majority)
    for name, at in heard.items():
        one.heard(name, Ack(3, 1, 0, (3, 1), None), at)
    assert one.majority_at(105.0) == expected
