"""Majorities, by trying everything: all votes of up to five electors, all sets of voters, every way to win or not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from koi.core import timing
from koi.core.desk import Desk
from koi.core.effects import Persist, Send
from koi.core.election import CANDIDATE, FOLLOWER, LEADER, Roles
from koi.core.ledger import Acceptor, Record
from koi.core.messages import Ack, Answer, Election, Heartbeat, Hello, Known, Ledger, Nack, Vote
from koi.core.seat import Seat

TIMING = timing.derive(3.0)
EMPTY, NOTHING = Record(), Ledger()
NAMES = ("a", "b", "c", "d", "e")
LATER = 10.0
"""By then a follower that has heard nobody stands."""


class Half:
    """Chance, without chance."""

    def random(self) -> float:
        return 0.5


class Box:
    """One elector's roles with a disk that is written only when told."""

    def __init__(self, name: str = "c", n: int = 3, rank: int = 0, record: Record = EMPTY, **seat: Any) -> None:
        self.seat = Seat(name, NAMES[:n], f"boot-{name}", rank, **seat)
        self.desk = Desk(Acceptor(TIMING, record, 0.0))
        self.roles = Roles(self.seat, self.desk, TIMING, Half(), 0.0, blank=False)
        self.said: list[tuple[Any, Any]] = []

    def write(self, now: float) -> None:
        """All that is remembered comes on disk."""
        self._drain()
        while self.desk.durable < self.desk.number:
            self.desk.persisted(self.desk.number)
            self.roles.persisted(now)
            self._drain()

    def _drain(self) -> None:
        self.said += [(e.to, e.message) for e in self.desk.drain() if isinstance(e, Send)]

    def sent(self) -> list[tuple[Any, Any]]:
        """What was sent since the last look: to whom, what."""
        self._drain()
        said, self.said = self.said, []
        return said

    def stand(self, now: float = LATER) -> int:
        """Become candidate, the promise on disk; the term."""
        self.roles.handle_timer(now)
        assert self.roles.role == CANDIDATE and self.roles.candidacy is not None
        term = self.roles.candidacy.term
        self.write(now)
        return term


def vote(term: int, version: tuple[int, int] = (0, 0), ledger: Ledger = NOTHING, top: int = 0, candidate: str = "a") -> Vote:
    return Vote(term, candidate, version, ledger, top)


@pytest.mark.parametrize("n", range(1, 6))
def test_any_two_majorities_share_an_elector(n: int) -> None:
    majority = Seat("a", NAMES[:n], "boot").majority
    sets = list(itertools.combinations(range(n), majority))
    assert all(set(one) & set(other) for one in sets for other in sets)
    fewer = list(itertools.combinations(range(n), majority - 1))
    assert not all(set(one) & set(other) for one in fewer for other in fewer)


@pytest.mark.parametrize("n", range(1, 6))
def test_whatever_each_elector_votes_at_most_one_candidate_wins(n: int) -> None:
    """Every elector votes for one of the n or for nobody: all (n + 1) ** n ways."""
    majority = Seat("a", NAMES[:n], "boot").majority
    for votes in itertools.product(range(n + 1), repeat=n):
        assert sum(votes.count(candidate) >= majority for candidate in range(n)) <= 1


@pytest.mark.parametrize("n", range(1, 6))
def test_a_candidate_leads_exactly_with_a_majority(n: int) -> None:
    others = NAMES[1:n]
    for size in range(n):
        for voters in itertools.combinations(others, size):
            box = Box("a", n)
            term = box.stand()
            for name in voters:
                box.roles.receive(name, vote(term), LATER + 0.001)
            box.roles.handle_timer(LATER + TIMING.answer_wait)
            assert (box.roles.role == LEADER) is (size + 1 >= n // 2 + 1), (n, voters)


def test_votes_of_another_term_and_twice_of_one_elector_do_not_count() -> None:
    box = Box("a", 5)
    term = box.stand()
    for sender, message in (("b", vote(term - 1)), ("c", vote(term + 1)), ("b", vote(term)), ("b", vote(term))):
        box.roles.receive(sender, message, LATER + 0.001)
    box.roles.handle_timer(LATER + 0.1)
    assert box.roles.role == CANDIDATE


def test_a_vote_for_another_candidate_of_the_term_does_not_count() -> None:
    """Found: two may stand in one term, and somebody on the way could bring a vote for one of them to the other one too."""
    voter = Box("c", 3, rank=-1)
    voter.roles.receive("b", Election(1, 0), LATER)
    voter.write(LATER)
    said = [m for to, m in voter.sent() if isinstance(m, Vote)]
    for name in "ab":
        box = Box(name)
        assert box.stand() == 1
        box.roles.receive("c", said[0], LATER + 0.001)
        box.roles.handle_timer(LATER + TIMING.answer_wait)
        assert (box.roles.role == LEADER) is (name == "b")


def test_a_candidate_that_answers_one_of_its_own_term_calls_anew_in_a_higher_one() -> None:
    """Found: at a fresh start two stood in one term, the higher got neither's vote, and both waited for two seconds."""
    high, low = Box("c"), Box("b")
    assert high.stand() == 1 and low.stand() == 1
    high.sent()
    high.roles.receive("b", Election(1, 0), LATER + 0.1)
    high.write(LATER + 0.1)
    said = high.sent()
    assert ("b", Answer(1)) in said and ("b", Election(2, 0)) in said
    low.roles.receive("c", Answer(1), LATER + 0.1)
    low.roles.receive("c", Election(2, 0), LATER + 0.1)
    low.write(LATER + 0.1)
    for vote in (m for to, m in low.sent() if isinstance(m, Vote)):
        high.roles.receive("b", vote, LATER + 0.11)
    high.roles.handle_timer(LATER + 0.1 + TIMING.answer_wait)
    assert high.roles.role == LEADER


def test_a_candidate_that_calls_anew_is_blocked_no_later_for_it() -> None:
    """Rule 3.4: who cannot reach a majority holds nobody back, however often lower ones stand."""
    box = Box("c", 5)
    box.stand()
    half = LATER + TIMING.leader_timeout / 2
    for term, now in ((1, LATER + 0.1), (2, half - 0.01)):
        box.roles.receive("b", Election(term, 0), now)
        assert box.roles.candidacy is not None and box.roles.candidacy.term == term + 1
    box.sent()
    box.roles.receive("b", Election(3, 0), half)
    assert not [m for _, m in box.sent() if isinstance(m, Answer)]


def test_the_own_promise_comes_first() -> None:
    """Rule 3.1: neither Election nor the own vote before the promise is on disk."""
    box = Box("a")
    box.roles.handle_timer(LATER)
    assert [m for _, m in box.sent() if isinstance(m, Election)] == []
    box.roles.receive("b", vote(1), LATER + 0.01)
    box.roles.handle_timer(LATER + 0.1)
    assert box.roles.role == CANDIDATE
    box.desk.persisted(box.desk.number)
    box.roles.persisted(LATER + 0.2)
    said = [(to, m) for to, m in box.sent() if isinstance(m, (Election, Heartbeat))]
    assert box.roles.role == LEADER
    assert {to for to, m in said if isinstance(m, Election)} == {"b", "c"}


def test_a_leader_takes_the_ledger_of_the_highest_version_among_the_votes_and_its_own() -> None:
    mine, best = Ledger(3, "a"), Ledger(5, "b")
    for versions in itertools.permutations(((1, 1), (2, 9), (3, 1))):
        box = Box("a", 3, record=Record(version=versions[0], ledger=best if versions[0] == (3, 1) else mine, top=3))
        term = box.stand()
        for name, version in zip("bc", versions[1:], strict=True):
            box.roles.receive(name, vote(term, version, best if version == (3, 1) else mine, top=7), LATER + 0.001)
        box.roles.handle_timer(LATER + 0.1)
        assert box.roles.lead is not None
        assert box.roles.lead.ledger == best and box.roles.lead.version == (term, 1) and box.desk.acceptor.record.top == 7


def test_an_answer_ends_a_candidacy_but_only_of_its_term() -> None:
    box = Box("a")
    term = box.stand()
    box.roles.receive("b", Answer(term - 1), LATER + 0.01)
    assert box.roles.role == CANDIDATE
    box.roles.receive("b", Answer(term), LATER + 0.01)
    assert box.roles.role == FOLLOWER
    assert box.roles.deadline() >= LATER + TIMING.leader_timeout


CALLS = [
    # (rank of the elector, promised, heard a leader, term called) -> what "b" with rank 5 gets, and the role after
    ((0, 0, None, 1), Vote, FOLLOWER),
    ((0, 3, None, 3), Nack, FOLLOWER),
    ((0, 3, None, 2), Nack, FOLLOWER),
    ((0, 3, None, 4), Vote, FOLLOWER),
    ((9, 0, None, 1), Answer, CANDIDATE),
    ((9, 7, None, 1), Answer, CANDIDATE),
    ((0, 0, "a", 9), None, FOLLOWER),
    ((9, 0, "a", 9), None, FOLLOWER),
    ((0, 1, "b", 2), Vote, FOLLOWER),
]


@pytest.mark.parametrize("given, answer, role", CALLS)
def test_what_a_follower_answers_to_election(given: tuple[int, int, Any, int], answer: Any, role: str) -> None:
    rank, promised, leader, term = given
    box = Box("c", 3, rank, Record(promised=promised, promised_to="a" if promised else None))
    if leader is not None:
        box.roles.receive(leader, Heartbeat(promised, 1, 5, (promised, 1), Ledger(), 0), 1.0)
    box.write(1.0)
    box.sent()
    box.roles.receive("b", Election(term, 5), 1.1)
    box.write(1.1)
    said = [m for to, m in box.sent() if to == "b" and not isinstance(m, (Election, Heartbeat))]
    assert [type(m) for m in said] == ([] if answer is None else [answer])
    assert box.roles.role == role


def test_the_same_candidate_gets_its_vote_again() -> None:
    box = Box("a")
    for _ in range(2):
        box.roles.receive("b", Election(4, 0), 1.0)
        box.write(1.0)
        assert [type(m) for to, m in box.sent() if to == "b"] == [Vote]
    box.roles.receive("c", Election(4, 0), 1.0)
    box.write(1.0)
    assert [type(m) for to, m in box.sent() if to == "c"] == [Nack]


def test_a_vote_is_sent_only_when_its_promise_is_on_disk() -> None:
    box = Box("a")
    box.roles.receive("b", Election(4, 0), 1.0)
    effects = box.desk.drain()
    assert [type(e) for e in effects] and not any(isinstance(e, Send) for e in effects)
    number = next(e.number for e in effects if isinstance(e, Persist))
    box.desk.persisted(number)
    assert [type(m) for _, m in box.sent()] == [Vote]


def test_a_leader_answers_election_with_its_heartbeat_and_steps_down_for_no_one() -> None:
    box = Box("a", 1)
    box.stand()
    assert box.roles.role == LEADER
    box.roles.receive("b", Election(99, 99), LATER + 0.1)
    assert [type(m) for to, m in box.sent() if to == "b"] == [Heartbeat] and box.roles.role == LEADER


def test_a_nack_makes_a_leader_campaign_with_a_higher_term_and_a_candidate_follow() -> None:
    box = Box("a", 3)
    term = box.stand()
    box.roles.receive("b", vote(term), LATER + 0.01)
    box.roles.handle_timer(LATER + 0.1)
    assert box.roles.role == LEADER
    box.roles.receive("c", Nack(term + 5), LATER + 0.2)
    assert box.roles.role == CANDIDATE and box.roles.candidacy is not None and box.roles.candidacy.term == term + 6
    box.roles.receive("c", Nack(term + 9), LATER + 0.2)
    assert box.roles.role == FOLLOWER


def test_a_leader_without_a_majority_follows_after_the_leader_timeout() -> None:
    box = Box("a", 3)
    term = box.stand()
    box.roles.receive("b", vote(term), LATER + 0.01)
    now = LATER + 0.1
    box.roles.handle_timer(now)
    box.roles.receive("b", Ack(term, 1, 0, (term, 1), None), now + 0.5)
    box.roles.handle_timer(now + 0.5 + TIMING.leader_timeout - 0.01)
    assert box.roles.role == LEADER
    box.roles.handle_timer(now + 0.5 + TIMING.leader_timeout)
    assert box.roles.role == FOLLOWER


def test_a_blank_elector_neither_votes_nor_acks() -> None:
    seat = Seat("a", NAMES[:3], "boot-a")
    desk = Desk(Acceptor(TIMING, Record(), 0.0))
    roles = Roles(seat, desk, TIMING, Half(), 0.0, blank=True)
    for message in (Election(1, 0), Heartbeat(1, 1, 0, (1, 1), Ledger(), 0), Answer(1), Nack(4), vote(1)):
        roles.receive("b", message, 0.1)
    assert desk.drain() == []
    roles.receive("b", Hello("theirs", 0), 0.1)
    assert [type(e.message) for e in desk.drain() if isinstance(e, Send)] == [Known]


def test_an_outranking_follower_starts_its_rounds_with_the_heartbeat_it_hears() -> None:
    box = Box("c", 3, rank=9)
    box.roles.receive("b", Heartbeat(1, 1, 0, (1, 1), Ledger(), 0), 1.0)
    box.write(1.0)
    assert {to for to, m in box.sent() if isinstance(m, Hello)} == {"a", "b"}
    assert box.roles.deadline() <= 1.0 + TIMING.leader_timeout
