"""Who follows is nudged while the master lets go, so that all electors vouch for it at once (docs/protocol.md rule 5.4)."""

from __future__ import annotations

import random
from typing import Any

from koi.core import timing
from koi.core.effects import Persist, Send
from koi.core.elector import Elector
from koi.core.ledger import Record
from koi.core.messages import Report, State, Vouch
from koi.core.seat import Seat

T = timing.derive(3.0)
H = T.heartbeat


class Alone:
    """The only elector, its disk at once, the runners x and y and what it sends to them."""

    def __init__(self) -> None:
        self.elector = Elector(Seat("a", ("a",), "boot-a"), T, Record(), random.Random(1), 0.0)
        self.now, self.number = 0.0, 0
        self._carry_out(self.elector.start(0.0))

    def _carry_out(self, effects: list[Any]) -> list[tuple[Any, Any]]:
        sent = []
        while effects:
            effect = effects.pop(0)
            if isinstance(effect, Send):
                sent.append((effect.to, effect.message))
            elif isinstance(effect, Persist):
                effects += self.elector.persisted(effect.number, self.now)
        return sent

    def until(self, now: float) -> list[tuple[Any, Any]]:
        """Let its timers come; what it sent."""
        sent = []
        while self.elector.deadline() <= now:
            self.now = max(self.now, self.elector.deadline())
            sent += self._carry_out(self.elector.handle_timer(self.now))
        self.now = now
        return sent

    def report(self, name: str, **fields: Any) -> list[tuple[Any, Any]]:
        """A report of one that is fit, unless a field says otherwise; what is sent."""
        self.number += 1
        values = {"ready": True, "hears": 1, "state": "Backup", "uptime": 5.0, **fields}
        report = Report(name, f"boot-{name}", self.number, preference=int(name == "x"), **values)
        return self._carry_out(self.elector.report(name, report, self.now))


def nudged(sent: list[tuple[Any, Any]]) -> list[Any]:
    """Who was told to report at once."""
    return [to for to, message in sent if isinstance(message, State) and message.nudge]


def led() -> Alone:
    """x has just been made master, and holds its epoch; y could be, and reported more than an H ago."""
    one = Alone()
    one.until(10.0)
    one.report("y", ready=False)
    vouched = [message for _, message in one.report("x") if isinstance(message, Vouch)]
    assert [vouch.epoch for vouch in vouched] == [1]
    assert nudged(one.report("y")) == []
    one.until(one.now + 1.1 * H)
    assert nudged(one.report("x", holding=1, state="Master")) == []
    return one


def test_when_the_master_fails_the_next_is_nudged_each_heartbeat_until_it_reports() -> None:
    one = led()
    failing = {"holding": 1, "ready": False, "failed": True, "state": "Failed"}
    assert nudged(one.report("x", **failing)) == ["y"]
    assert nudged(one.report("x", **failing)) == [], "once an H"
    assert nudged(one.until(one.now + 2.05 * H)) == ["y", "y"]
    one.report("y")
    one.until(one.now + 0.4 * H)
    assert nudged(one.report("x", **failing)) == [], "its report is young"
    sent = one.report("x", ready=False, failed=True, renounced=1)
    assert [(to, message.epoch) for to, message in sent if isinstance(message, Vouch)] == [("y", 2)]
    assert nudged(sent) == [], "it is vouched for at once"


def test_a_master_that_is_well_or_a_next_that_is_not_calls_nobody_up() -> None:
    one = led()
    assert nudged(one.until(one.now + 3 * H)) == []
    one.report("y", ready=False)
    one.until(one.now + 1.1 * H)
    assert nudged(one.report("x", holding=1, ready=False, failed=True, state="Failed")) == []
