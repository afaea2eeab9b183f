"""Changes of leader as one elector sees them, as entries for the journal.

The winner knows why it stood and who voted, the others that it leads: all write, under one key for one term, so that an
entry is left wherever a journal is.
"""

from __future__ import annotations

from typing import Optional

from koi.core.effects import Become, Journal
from koi.core.election import CANDIDATE, LEADER, Roles


class Leaders:
    """Who led last, and why this elector stood for election."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._told: tuple[Optional[str], int] = (None, 0)
        self._stood = ""
        self._won = ""

    def become(self, effect: Become, roles: Roles) -> Optional[Journal]:
        """A change of this elector's role; the entry when it leads no more."""
        if effect.new == CANDIDATE:
            self._stood = effect.why
        elif effect.new == LEADER:
            self._won = effect.why
        elif effect.old == LEADER:
            term = self._told[1]
            return Journal("leader", self.name, None, roles.acceptor.record.ledger.epoch, effect.why, f"leader {term} ends")
        return None

    def look(self, roles: Roles) -> Optional[Journal]:
        """The entry when another one leads, or the same in another term."""
        leader, term = roles.leader, roles.leader_term
        if leader is None or (leader, term) == self._told:
            return None
        before, self._told = self._told[0], (leader, term)
        why = f"{self._stood}; {self._won}" if leader == self.name else f"{leader} leads in term {term}"
        return Journal("leader", before, leader, roles.acceptor.record.ledger.epoch, why, f"leader {term}")
