"""Two boots of one name: the younger of two that live is refused, one that follows an orderly end is known at once."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Optional

import pytest

from koi.core import timing
from koi.core.effects import Send
from koi.core.elector import Elector
from koi.core.ledger import BLIND, Record
from koi.core.messages import ENDS, Ledger, Report, Vouch
from koi.core.seat import Seat
from tests.core.test_reporting import reports, runner, service

T = timing.derive(3.0)
HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 1)
LAST = Report("x", "old", 9, renounced=5, state="Stopped", why=ENDS, uptime=70.0)
"""The last word of a boot whose koinode has ended in order."""
NEW = Report("x", "new", 1, state="Live", why="workers have not reported yet", uptime=0.1)


def elector(epoch: int = 5) -> Elector:
    """One that has accepted x as the master of this epoch a moment ago, and knows for whom it vouched."""
    record = Record(version=(1, 1), ledger=Ledger(epoch, "x"), electors=("a", "b", "c"), span=T.span)
    one = Elector(Seat("a", ("a", "b", "c"), "boot-a"), T, record, random.Random(1), 0.0)
    one.acceptor.guards.pop(BLIND)
    one.acceptor.accepted_at = 0.0
    return one


def known(one: Elector) -> str:
    return one.reports["x"].report.boot


def vouched(effects: list[Any]) -> bool:
    return any(isinstance(e, Send) and isinstance(e.message, Vouch) for e in effects)


def test_a_node_that_ended_in_order_is_known_again_with_its_first_report() -> None:
    """Found: for M + 3 H status went on to show the end of the boot before."""
    one = elector()
    one.report(HERE, LAST, 0.1)
    one.report(HERE, NEW, 0.4)
    assert known(one) == "new" and all(seen.warned_at is None for seen in one.rivals.values())


@pytest.mark.parametrize("changed", [
    {"state": "Live"}, {"why": "stopped by hand"}, {"holding": 5, "renounced": None}, {"stuck": True},
])
def test_one_that_may_go_on_is_not_followed(changed: dict[str, Any]) -> None:
    one = elector()
    one.report(HERE, replace(LAST, **changed), 0.1)
    one.report(THERE, NEW, 0.4)
    assert known(one) == "old"
    one.report(THERE, replace(NEW, number=2), 0.1 + T.lease + 3 * T.heartbeat + 0.01)
    assert known(one) == "new"


@pytest.mark.parametrize("renounced, epoch", [(None, 5), (3, 5), (5, 5), (5, 6)])
def test_what_it_gave_up_stays_given_up(renounced: Optional[int], epoch: int) -> None:
    """Rule 6.3: a restarted master that is ready within M is vouched for in a later epoch only."""
    one, ready = elector(epoch), replace(NEW, ready=True, state="Backup", why="")
    one.report(HERE, replace(LAST, renounced=renounced), 0.1)
    for number in (1, 2):
        assert vouched(one.report(HERE, replace(ready, number=number), 0.3)) is (renounced != epoch)
        assert one.reports["x"].report.renounced == renounced


def test_a_late_word_of_the_old_boot_displaces_the_new_one_only_until_that_speaks() -> None:
    one = elector()
    one.report(HERE, NEW, 0.3)
    one.report(HERE, LAST, 0.4)
    one.report(HERE, replace(NEW, number=2), 0.5)
    assert known(one) == "new" and one.reports["x"].report.renounced == 5


@pytest.mark.parametrize("stopped", [False, True])
def test_a_runner_says_its_last_word_before_koinode_ends(stopped: bool) -> None:
    """Also one that was stopped by hand already, of which nothing else changes."""
    one = runner(stopped=stopped)
    one.hold_wait_until = 100.0
    one.start(100.0)
    one.service(service("Stopped" if stopped else "Started"), 100.1)
    effects = one.stop(101.0) + one.service(service("Stopped"), 101.1)
    last = reports(effects)[-1]
    assert (last.state, last.why, last.holding) == ("Stopped", ENDS, None)
