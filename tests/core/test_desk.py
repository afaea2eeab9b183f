"""What waits for the disk, in order and bounded, whatever the disk does."""

from __future__ import annotations

from koi.core import timing
from koi.core.desk import MAX_IN_FLIGHT, MAX_WAITING, Desk
from koi.core.effects import Persist, Send
from koi.core.ledger import Acceptor, Record

TIMING = timing.derive(3.0)


def test_a_disk_that_hangs_costs_no_memory_and_when_it_goes_on_nothing_newer_is_forgotten() -> None:
    """Found: an elector alone stands again and again, and each promise was kept for as long as the disk did not write."""
    desk = Desk(Acceptor(TIMING, Record(), 0.0))
    handed: list[Persist] = []
    for term in range(1, 10 * MAX_WAITING):
        desk.acceptor.promise(term, "a")
        desk.say("b", term)
        handed += [effect for effect in desk.drain() if isinstance(effect, Persist)]
    assert len(handed) == len(desk.in_flight) == MAX_IN_FLIGHT and len(desk.waiting) == MAX_WAITING
    desk.persisted(handed[-1].number)
    said = desk.drain()
    assert [effect.message for effect in said if isinstance(effect, Send)] == list(range(1, MAX_IN_FLIGHT + 1))
    [last] = [effect for effect in said if isinstance(effect, Persist)]
    assert last.record.promised == term
    desk.persisted(last.number)
    assert desk.durable_record.promised == term and not desk.in_flight
    assert [effect.message for effect in desk.drain()][-1] == MAX_WAITING and not desk.waiting


def test_a_write_that_was_left_out_for_a_newer_one_is_done_with_it() -> None:
    """The shell writes only the newest of what waits."""
    desk = Desk(Acceptor(TIMING, Record(), 0.0))
    for term in (1, 2, 3):
        desk.acceptor.promise(term, "a")
        desk.say("b", term)
        desk.drain()
    desk.persisted(1)
    assert [effect.message for effect in desk.drain()] == [1]
    desk.persisted(3)
    assert [effect.message for effect in desk.drain()] == [2, 3]
    assert desk.durable_record.promised == 3
