"""One elector's roles: Bully with a majority (docs/protocol.md section 3).

blank -> follower -> candidate -> leader. A leader is only who proposes ledgers; losing or changing it moves no master.
The shell feeds datagrams and the time; what is to be sent stands on the desk.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from koi.core import effects
from koi.core.blank import Blank
from koi.core.candidacy import Candidacy
from koi.core.challenge import Challenger
from koi.core.desk import Desk
from koi.core.leadership import Leadership
from koi.core.ledger import Acceptor
from koi.core.messages import Ack, Answer, Challenge, Heartbeat, Hello, Known, Nack, Resign, Vote
from koi.core.messages import (
    Election as Call,
)
from koi.core.seat import Random, Seat
from koi.core.timing import Timing

BLANK, FOLLOWER, CANDIDATE, LEADER = "blank", "follower", "candidate", "leader"


class Roles:
    """The role of one elector and all that makes it change."""

    def __init__(self, seat: Seat, desk: Desk, timing: Timing, random: Random, now: float, blank: bool) -> None:
        self.seat, self.desk, self.timing, self.random = seat, desk, timing, random
        self.started_at = now
        self.role = BLANK if blank else FOLLOWER
        self.blank = Blank(seat.boot, len(seat.others), seat.majority, timing, now) if blank else None
        self.challenger = Challenger(seat.boot, seat.majority, timing)
        self.candidacy: Optional[Candidacy] = None
        self.lead: Optional[Leadership] = None
        self.leader: Optional[str] = None
        self.leader_rank = 0
        self.leader_term = 0
        self.heard: Optional[Heartbeat] = None
        self.heard_at = now
        self.beat_at: Optional[float] = None  # when the last heartbeat came, or was sent
        self.wait_until = now
        self.seen_term = 0
        self.ranks: dict[str, int] = {}
        self.order_delay = self._order_delay()
        self.blank_warning = ""
        self.shell_warnings: tuple[str, ...] = ()
        """What the shell has to warn of; it travels in acks."""
        self.news = False
        """Whether the last event told something that may change a decision."""
        self._handlers: dict[type, Callable[[str, Any, float], None]] = {
            Call: self._on_call, Answer: self._on_answer, Vote: self._on_vote, Nack: self._on_nack,
            Heartbeat: self._on_heartbeat, Ack: self._on_ack, Challenge: self._on_challenge,
            Resign: self._on_resign, Hello: self._on_hello, Known: self._on_known,
        }

    @property
    def acceptor(self) -> Acceptor:
        """The elector's record and guard."""
        return self.desk.acceptor

    # --- events ---

    def receive(self, sender: str, message: Any, now: float) -> None:
        """A datagram of another elector."""
        self.news = False
        rank = getattr(message, "rank", None)
        if rank is not None and rank != self.ranks.get(sender):
            self.ranks[sender] = rank
            self.order_delay = self._order_delay()
        if self.role == BLANK and not isinstance(message, (Hello, Known)):
            if isinstance(message, Heartbeat):
                self.heard_at = now  # a blank elector only listens
            return
        self._handlers[type(message)](sender, message, now)

    def persisted(self, now: float) -> None:
        """A write is done: the own promise or the own acceptance may count now."""
        if self.lead is not None:
            self.lead.own_version = self.desk.durable_record.version
        self._count_own_vote(now)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self.role == BLANK:
            self._blank_turn(now)
        elif self.role == FOLLOWER:
            self._follower_turn(now)
        elif self.role == CANDIDATE:
            self._candidate_turn(now)
        else:
            self._leader_turn(now)

    def deadline(self) -> float:
        """When handle_timer wants to be called, in seconds."""
        if self.blank is not None:
            return self.blank.deadline()
        if self.candidacy is not None:
            return self._candidate_deadline(self.candidacy)
        if self.lead is not None:
            return min(self.lead.next_beat, self.lead.majority_at(self.heard_at) + self.timing.leader_timeout)
        round_at = self.challenger.next_round
        return self._campaign_at() if round_at is None else min(self._campaign_at(), round_at)

    def resign(self, why: str, now: float) -> None:
        """Lead no more: the others may vote at once (rule 3.6)."""
        if self.lead is not None:
            term = self.lead.term
            self._follow(None, why, now, self.timing.leader_timeout / 2)
            self._to_all(Resign(term))

    # --- changes of role ---

    def _become(self, role: str, why: str) -> None:
        if role != self.role:
            self.desk.become("elector", self.role, role, why)
            self.role = role
            self.news = True

    def _follow(self, leader: Optional[str], why: str, now: float, wait: float = 0.0) -> None:
        self.candidacy = self.lead = self.blank = None
        self.leader = leader
        self.heard_at = now
        self.wait_until = max(self.wait_until, now + wait) if leader is None else now
        self._become(FOLLOWER, why)

    def _campaign(self, why: str, now: float) -> None:
        term = self.next_term()
        self.acceptor.promise(term, self.seat.name)
        self.lead = None
        self.leader = None
        self.challenger.reset()
        stood = now if self.candidacy is None else self.candidacy.stood
        self.candidacy = Candidacy(term, stood, now, now + self.timing.heartbeat, self.promise_write())
        self._become(CANDIDATE, why)
        self._call(self.candidacy)
        self._count_own_vote(now)

    def promise_write(self) -> int:
        """The write that must be done before the own vote counts (rule 3.1)."""
        return self.desk.due()

    def next_term(self) -> int:
        """Above everything promised or seen."""
        return max(self.acceptor.record.promised, self.seen_term) + 1

    def _lead(self, candidacy: Candidacy, now: float) -> None:
        record = self.acceptor.record
        best = max(candidacy.votes.values(), key=lambda vote: vote.version)
        ledger = best.ledger if best.version > record.version else record.ledger
        for vote in candidacy.votes.values():
            self.acceptor.see_top(vote.top)
        self.lead = Leadership(candidacy.term, ledger, self.seat.majority, self.timing, now)
        self.candidacy = None
        self.leader, self.leader_rank, self.leader_term = self.seat.name, self.seat.rank, candidacy.term
        self._become(LEADER, f"votes of {len(candidacy.votes)} of {len(self.seat.electors)} electors in term {candidacy.term}")
        self.beat(now)

    def beat(self, now: float) -> None:
        """Send the heartbeat to all electors, and take it oneself (rule 4.1)."""
        assert self.lead is not None
        self.heard_at = self.beat_at = now
        self.acceptor.offer(self.lead.version, self.lead.ledger, now)
        self.lead.own_version = self.desk.durable_record.version
        message = self.lead.beat(self.seat.rank, self.acceptor.record.top, self.seat.config, now)
        self._to_all(message)

    # --- turns of the clock ---

    def _blank_turn(self, now: float) -> None:
        blank = self.blank
        assert blank is not None
        if blank.over(now):
            if not blank.complete():
                self.blank_warning = (
                    f"started without its state file and could ask only {len(blank.known)} of the {blank.need} electors it needs"
                )
                self.desk.log(effects.WARNING, f"elector {self.seat.name} {self.blank_warning}; it takes part now")
            self.acceptor.take_over(blank.learned(), self.seat.electors, now)
            heard_at = self.heard_at
            self._follow(None, "knows what the other electors hold" if blank.complete() else "blank_wait is over", now)
            self.heard_at = heard_at
        elif now >= blank.next_hello:
            self._to_all(blank.hello(self.seat.rank, now))

    def _follower_turn(self, now: float) -> None:
        if now >= self._campaign_at():
            self._campaign(self._lost_leader(now), now)
        else:
            self._challenge_turn(now)

    def _lost_leader(self, now: float) -> str:
        if self.leader is None:
            return "no leader"
        return f"leader {self.leader} not heard for {now - self.heard_at:.1f} s"

    def _challenge_turn(self, now: float) -> None:
        challenger = self.challenger
        if not self._outranks_leader():
            challenger.reset()
        elif challenger.next_round is None or now >= challenger.next_round:
            self._to_all(challenger.turn(self.seat.rank, now))
            if challenger.strong(now) and self.leader is not None and self.heard is not None:
                self.desk.say_now(self.leader, Challenge(self.heard.term, self.heard.number, self.seat.rank))

    def _candidate_turn(self, now: float) -> None:
        candidacy = self.candidacy
        assert candidacy is not None
        if now >= candidacy.stood + self.timing.leader_timeout * 2.5:
            wait = self.random.random() * self.timing.leader_timeout / 2
            self._follow(None, f"no majority: votes of {len(candidacy.votes)} of {len(self.seat.electors)} electors", now, wait)
            return
        if now >= candidacy.next_send:
            candidacy.next_send = now + self.timing.heartbeat
            self._call(candidacy)
        self._try_win(now)

    def _call(self, candidacy: Candidacy) -> None:
        for name in self.seat.others:
            self.desk.say_after(candidacy.write, name, Call(candidacy.term, self.seat.rank))

    def _candidate_deadline(self, candidacy: Candidacy) -> float:
        ends = candidacy.stood + self.timing.leader_timeout * 2.5
        if self._has_majority(candidacy):
            return min(candidacy.next_send, ends, candidacy.since + self._answer_wait())
        return min(candidacy.next_send, ends)

    def _leader_turn(self, now: float) -> None:
        lead = self.lead
        assert lead is not None
        if now >= lead.majority_at(self.heard_at) + self.timing.leader_timeout:
            self._follow(None, f"no majority of electors answered for {self.timing.leader_timeout:g} s", now)
        elif now >= lead.next_beat:
            self.beat(now)

    # --- electing ---

    def _on_call(self, sender: str, call: Call, now: float) -> None:
        if self.lead is not None:
            self.desk.say_now(sender, self.lead.beat(self.seat.rank, self.acceptor.record.top, self.seat.config, now))
        elif self._hears_another(sender, now):
            return
        elif self._outranks(call.rank, sender) and not self._is_blocked(now):
            self.desk.say_now(sender, Answer(call.term))
            if self.role == FOLLOWER or self._is_outbid(call):
                self.seen_term = max(self.seen_term, call.term)
                self._campaign(f"outranks candidate {sender}", now)
        else:
            self._vote_or_nack(sender, call, now)

    def _is_outbid(self, call: Call) -> bool:
        """Whether its own call is in vain: who calls has promised as high a term to itself, and cannot vote in this one."""
        candidacy = self.candidacy
        return candidacy is not None and call.term >= candidacy.term and not self._has_majority(candidacy)

    def _vote_or_nack(self, sender: str, call: Call, now: float) -> None:
        record = self.acceptor.record
        if call.term < record.promised or (call.term == record.promised and record.promised_to != sender):
            self.desk.say(sender, Nack(record.promised))
            return
        self.acceptor.promise(call.term, sender)
        self._follow(None, f"voted for {sender} in term {call.term}", now, self.timing.leader_timeout / 2)
        record = self.acceptor.record
        self.desk.say(sender, Vote(call.term, sender, record.version, record.ledger, record.top))

    def _on_answer(self, sender: str, answer: Answer, now: float) -> None:
        if self.candidacy is not None and answer.term == self.candidacy.term:
            self._follow(None, f"{sender} outranks", now, self.timing.leader_timeout)

    def _on_vote(self, sender: str, vote: Vote, now: float) -> None:
        candidacy = self.candidacy
        if candidacy is None or (vote.term, vote.candidate) != (candidacy.term, self.seat.name):
            return  # a vote for another one of this term may have been brought here (section 10)
        if now - candidacy.since > 2 * self.timing.leader_timeout:
            return
        candidacy.votes[sender] = vote
        self._try_win(now)

    def _count_own_vote(self, now: float) -> None:
        candidacy = self.candidacy
        if candidacy is not None and self.seat.name not in candidacy.votes and self.desk.durable >= candidacy.write:
            record = self.acceptor.record
            candidacy.votes[self.seat.name] = Vote(candidacy.term, self.seat.name, record.version, record.ledger, record.top)
            self._try_win(now)

    def _try_win(self, now: float) -> None:
        candidacy = self.candidacy
        if candidacy is not None and self._has_majority(candidacy) and now >= candidacy.since + self._answer_wait():
            self._lead(candidacy, now)

    def _has_majority(self, candidacy: Candidacy) -> bool:
        return len(candidacy.votes) >= self.seat.majority

    def _answer_wait(self) -> float:
        return self.timing.answer_wait if self.seat.others else 0.0

    def _on_nack(self, sender: str, nack: Nack, now: float) -> None:
        self.seen_term = max(self.seen_term, nack.promised)
        if self.lead is not None and nack.promised > self.lead.term:
            self._campaign(f"{sender} promised a higher term", now)
        elif self.candidacy is not None and nack.promised > self.candidacy.term:
            self._follow(None, f"{sender} promised a higher term", now, self.random.random() * self.timing.heartbeat)

    # --- leading and following ---

    def _on_heartbeat(self, sender: str, beat: Heartbeat, now: float) -> None:
        if beat.term < self.acceptor.record.promised:
            self.desk.say(sender, Nack(self.acceptor.record.promised))
            return
        if self.lead is not None and beat.term <= self.lead.term:
            return
        self.acceptor.promise(beat.term, sender)
        self._follow(sender, f"{sender} leads in term {beat.term}", now)
        self.leader_rank, self.leader_term = beat.rank, beat.term
        self.beat_at = now
        if self.heard is None or (beat.term, beat.number) > (self.heard.term, self.heard.number):
            self.heard = beat
        self.acceptor.see_top(beat.top)
        self.acceptor.offer(beat.version, beat.ledger, now)
        self.acknowledge(now, beat.number)
        if self.challenger.next_round is None:
            self._challenge_turn(now)

    def acknowledge(self, now: float, number: Optional[int] = None) -> None:
        """Ack to the leader what is accepted, and the epoch for which the guard is down (rules 4.2, 4.4)."""
        if self.heard is None or self.leader is None or self.lead is not None:
            return
        version, free = self.acceptor.record.version, self.acceptor.free(now)
        warnings = ((self.blank_warning,) if self.blank_warning else ()) + self.shell_warnings
        ack = Ack(
            self.heard.term, self.heard.number if number is None else number, self.seat.rank, version, free,
            self.seat.config, warnings, self.acceptor.lost(now) if self.seat.fence else None,
            self.seat.witness_after(now - self.started_at),
        )
        self.desk.say(self.leader, ack)

    def _on_ack(self, sender: str, ack: Ack, now: float) -> None:
        if self.lead is not None and ack.term == self.lead.term:
            self.news = self.lead.heard(sender, ack, now)

    def _on_challenge(self, sender: str, challenge: Challenge, now: float) -> None:
        lead = self.lead
        if lead is None or challenge.term != lead.term or not lead.spoke(challenge.number, now):
            return
        if (challenge.rank, sender) > (self.seat.rank, self.seat.name):
            self.resign(f"{sender} outranks and takes the lead", now)

    def _on_resign(self, sender: str, resign: Resign, now: float) -> None:
        if sender == self.leader and resign.term >= self.leader_term:
            self.leader = None
            self.heard_at = now - self.timing.leader_timeout
            self.wait_until = now

    def _on_hello(self, sender: str, hello: Hello, now: float) -> None:
        record = self.acceptor.record
        known = Known(
            hello.nonce, self.seat.rank, self.role == BLANK, record.promised, record.version, record.ledger, record.top,
        )
        self.desk.say(sender, known)

    def _on_known(self, sender: str, known: Known, now: float) -> None:
        if self.blank is not None:
            self.blank.answer(sender, known)
        else:
            self.challenger.answer(sender, known)

    # --- order ---

    def _outranks(self, rank: int, name: str) -> bool:
        return (self.seat.rank, self.seat.name) > (rank, name)

    def _outranks_leader(self) -> bool:
        return self.seat.preempt and self.leader is not None and self._outranks(self.leader_rank, self.leader)

    def _hears_another(self, candidate: str, now: float) -> bool:
        """Rule 3.2b: whoever still hears a leader stays silent to other candidates."""
        fresh = now - self.heard_at < self.timing.leader_timeout
        return self.leader is not None and self.leader != candidate and fresh

    def _is_blocked(self, now: float) -> bool:
        """Rule 3.4: a candidate without a majority within E/2 holds nobody back."""
        candidacy = self.candidacy
        if candidacy is None or self._has_majority(candidacy):
            return False
        return now >= candidacy.stood + self.timing.leader_timeout / 2

    def _campaign_at(self) -> float:
        return max(self.heard_at + self.timing.leader_timeout, self.wait_until) + self.order_delay

    def _order_delay(self) -> float:
        """The highest elector stands first (rule 3.1)."""
        above = sum(1 for name in self.seat.others if not self._outranks(self.ranks.get(name, 0), name))
        return above * self.timing.heartbeat / 4

    def _to_all(self, message: Any) -> None:
        for name in self.seat.others:
            self.desk.say_now(name, message)
