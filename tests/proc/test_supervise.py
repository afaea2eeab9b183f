"""When a child is started again and when it counts as hanging: arithmetic on given times."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from koi.core.timing import Timing
from koi.proc import family
from koi.proc.child import BEAT
from koi.proc.family import Family
from koi.proc.heart import Heart
from koi.proc.loop import Loop
from koi.proc.supervise import Child, Pulse, delay
from koi.proc.system import Notifier

TIMING = Timing(heartbeat=0.2, lease=1.0, grace=0.8, leader_timeout=0.6)


def test_delays_grow_and_are_forgiven() -> None:
    assert [delay(n) for n in range(10)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    child = Child("elector", "elector")
    at = 100.0
    for expected in (0, 0.1, 0.2):
        child.started = at
        assert child.gone(at + 59.9, again=True) == expected
        assert child.due == at + 59.9 + expected
    child.started = at
    assert child.gone(at + 60.0, again=True) == 0
    assert child.gone(at + 60.0, again=False) == 0 and child.due is None


def test_an_unanswered_ping_counts_anew_when_root_itself_was_held_up() -> None:
    family = Family(Loop(), {}, lambda child, to, body: None, -1)
    child = Child("elector", "elector", pulse=Pulse(0.5, answered=True))
    assert child.pulse is not None
    family.add(child)
    heart = Heart(family, Notifier(), TIMING, 100.0, lambda: True)
    heart.beat(100.0)
    assert child.pulse.silent == 99.7
    heart.beat(107.0)
    assert child.pulse.due() == 107.5
    for at in (107.15, 107.3, 107.45):
        heart.beat(at)
        assert child.pulse.silent == 107.0
    heart.beat(107.5)
    assert child.pulse.silent is None, "it counts as hanging and is killed"


def test_who_was_at_work_lately_is_not_asked() -> None:
    family = Family(Loop(), {}, lambda child, to, body: None, -1)
    children = {kind: Child(kind, kind, pulse=Pulse(0.5, answered=True)) for kind in ("elector", "runner")}
    for child in children.values():
        family.add(child)
    holds = True
    heart = Heart(family, Notifier(), TIMING, 100.0, lambda: holds)

    def asked(at: float) -> list[str]:
        heart.beat(at)
        found = [kind for kind, child in children.items() if child.pulse is not None and child.pulse.silent is not None]
        for child in children.values():
            assert child.pulse is not None
            child.pulse.silent = None
        return found

    family.signs.show("elector", 99.9)
    family.signs.show("runner", 99.9)
    assert asked(100.0) == []
    family.signs.show("elector", 100.1)
    assert asked(100.2) == ["runner"], "a runner that may be master is asked after one beat"
    holds = False
    assert asked(100.4) == ["elector"], "one that holds nothing may rest longer"
    assert asked(100.7) == ["elector", "runner"]


def test_root_looks_just_after_a_heartbeat_when_it_knows_the_beat() -> None:
    family = Family(Loop(), {}, lambda child, to, body: None, -1)
    family.add(Child("elector", "elector", pulse=Pulse(0.5, answered=True)))
    heart = Heart(family, Notifier(), TIMING, 100.0, lambda: True)
    family.signs.show("elector", 100.0)
    heart.beat(100.0)
    assert heart.due() == pytest.approx(100.15), "no beat is known"
    family.signs.show(BEAT, 100.1)
    family.signs.show("elector", 100.11)
    heart.beat(100.15)
    assert heart.due() == pytest.approx(100.1 + 0.2 + 0.2 / 16), "the first beat after 100.3 s minus its share"
    family.signs.show(BEAT, 100.3)
    family.signs.show("elector", 100.3)
    at = heart.due()
    assert at is not None
    heart.beat(at)
    assert heart.due() == pytest.approx(100.5 + 0.2 / 16)


def test_silence_counts_from_the_last_sign_of_life_and_of_a_resting_runner_from_the_ping() -> None:
    family = Family(Loop(), {}, lambda child, to, body: None, -1)
    elector, runner = (Child(kind, kind, pulse=Pulse(0.5, answered=True)) for kind in ("elector", "runner"))
    family.add(elector)
    family.add(runner)
    heart = Heart(family, Notifier(), TIMING, 100.0, lambda: False)
    for kind in ("elector", "runner"):
        family.signs.show(kind, 99.0)
    heart.beat(100.0)
    assert elector.pulse is not None and runner.pulse is not None
    assert (elector.pulse.due(), runner.pulse.due()) == (100.2, 100.5)


def test_who_was_at_work_since_it_was_asked_is_not_killed_because_root_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found: root's deadlines come before what it has to read, so a living runner was killed while its pong was in the pipe."""
    killed: list[str] = []
    monkeypatch.setattr(Family, "kill", lambda self, name, why: killed.append(name))
    family = Family(Loop(), {}, lambda child, to, body: None, -1)
    child = Child("runner", "runner", pulse=Pulse(0.5, answered=True))
    family.add(child)
    heart = Heart(family, Notifier(), TIMING, 100.0, lambda: True)
    family.signs.show("runner", 99.8)
    heart.beat(100.0)
    assert child.pulse is not None and child.pulse.due() == pytest.approx(100.3)
    family.signs.show("runner", 100.01)
    heart.beat(100.35)
    assert killed == [] and child.pulse.due() == pytest.approx(100.51), "it counts from then"
    heart.beat(100.52)
    assert killed == ["runner"], "silent since"


def test_pulse() -> None:
    pulse = Pulse(hang_s=0.5)
    assert pulse.due() is None
    pulse.ask(100.0, 1)
    assert pulse.due() == 105.0  # the process still sets itself up
    pulse.answer(1)
    assert pulse.answered and pulse.due() is None
    pulse.ask(101.0, 2)
    pulse.answer(1)
    assert pulse.due() == 101.5
    pulse.forgive(110.0)
    assert pulse.due() == 110.5
    assert not pulse.worked(110.0, 110.6) and pulse.worked(110.2, 110.6) and pulse.due() == 110.7
    assert pulse.worked(110.3, 111.0) and pulse.due() is None, "asked anew: root is too late to tell"


def test_a_child_that_is_replaced_as_planned_is_not_blamed() -> None:
    child = Child("elector", "elector", planned=True, failures=3, started=99.0)
    assert child.gone(100.0, again=True) == 0.0
    assert (child.failures, child.planned, child.due) == (3, False, 100.0)


def test_what_the_machine_cannot_give_is_told_once_and_again_when_it_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(family.log, "get", lambda: SimpleNamespace(error=told.append))
    loop = Loop()
    children, one = Family(loop, {}, lambda child, to, body: None, -1), Child("runner", "runner")
    for number in (errno.EMFILE, errno.EMFILE, errno.EAGAIN, errno.EIO):
        def pair(number: int = number) -> None:
            raise OSError(number, os.strerror(number))
        monkeypatch.setattr(family, "pair", pair)
        assert children.fork([one], 1.0, lambda child: {}) == []
        assert one.not_born.startswith(f"runner cannot be started: {os.strerror(number)}; ")
    loop.close()
    assert len(told) == 3 and "ulimit -n" in told[0] and "ulimit -u" in told[1] and "kernel" in told[2]
    assert one.due is not None and one.failures == 4
