"""Names of electors: looked up beside the loop, again while they mean nothing or nobody speaks from there."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from koi.proc import names
from koi.proc.loop import Loop
from koi.proc.names import FIRST_RETRY_S, MAX_RETRY_S, NEVER, SILENCE_S, Lookup, Name
from koi.wire.udp import literal, look_up


def test_a_name_that_means_nothing_is_looked_up_again_ever_more_slowly() -> None:
    name, delays, now = Name("nowhere", 0.0), [], 0.0
    assert name.due == 0.0
    for _ in range(10):
        assert not name.found((), "no such host", now)
        delays.append(name.due - now)
        now = name.due
    assert delays[:3] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S] and delays[-1] == MAX_RETRY_S
    assert name.found(("10.0.0.1",), "", now) and name.addresses == ("10.0.0.1",) and not name.trouble


def test_a_silent_host_is_looked_up_and_a_failed_lookup_forgets_nothing() -> None:
    name = Name("b", 0.0)
    name.found(("10.0.0.1",), "", 0.0)
    name.heard(10.0)
    assert name.due == 10.0 + SILENCE_S
    assert not name.found((), "the resolver is away", 15.0) and name.addresses == ("10.0.0.1",)
    assert name.found(("10.0.0.2",), "", 16.0) and name.addresses == ("10.0.0.2",)


def test_the_own_name_is_looked_up_until_it_is_found() -> None:
    name = Name("a", 0.0, own=True)
    name.found((), "not yet", 0.0)
    assert name.due < NEVER
    name.found(("10.0.0.1",), "", 1.0)
    assert name.due == NEVER


def test_a_slow_resolver_does_not_stop_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop turns while the resolver hangs; what it says in the end arrives."""
    answer, turns, found = threading.Event(), [], []

    def slow(host: str) -> tuple[str, ...]:
        assert answer.wait(10)
        return ("10.0.0.9",)

    monkeypatch.setattr(names, "look_up", slow)
    loop = Loop()

    def done(*result: Any) -> None:
        found.append(result)
        loop.stop()

    lookup = Lookup(done)
    loop.add(lookup.fileno(), lookup.done)
    lookup.start(["late"])

    def turn(now: float) -> None:
        turns.append(now)
        if len(turns) == 5:
            answer.set()

    loop.run(lambda: (turns[-1] + 0.01 if turns else 0.0) if len(turns) < 5 else None, turn)
    assert found == [("late", ("10.0.0.9",), "")] and len(turns) == 5 and not lookup.busy


def test_the_systems_resolver_is_asked() -> None:
    assert set(look_up("localhost")) <= {"127.0.0.1", "::1"}
    assert literal("localhost", 5) is None and literal("127.0.0.1", 5) == ("127.0.0.1", 5)
    assert socket.gethostbyname("localhost") == "127.0.0.1"
