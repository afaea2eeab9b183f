"""Children that are started together: each keeps its own pipe alone, and one that cannot be started harms no other."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from koi.proc import family
from koi.proc.child import SERVICE, Context, worker_name
from koi.proc.family import Family
from koi.proc.link import loads
from koi.proc.loop import Loop, now
from koi.proc.supervise import Child
from tests.proc.waiting import descriptors, until

CONFIG = SimpleNamespace(node=SimpleNamespace(name="a"))
NAMES = [worker_name(name) for name in ("one", "two", "three")]


def sockets() -> int:
    """How many pipe ends this process has."""
    return sum("socket:" in target for target in descriptors(os.getpid()).values())


def tell_and_end(context: Context) -> None:
    """What each child does."""
    context.send("root", (context.name, sockets()))


class Parent:
    """A root that hears its children."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[str, int]] = {}
        self.lock = os.open(os.devnull, os.O_RDONLY)
        self.loop = Loop()
        self.family = Family(self.loop, {SERVICE: tell_and_end}, self.hear, self.lock)
        for name in NAMES:
            self.family.add(Child(name, SERVICE, due=now()))

    def hear(self, child: Child, to: str, body: bytes) -> None:
        self.said[child.name] = loads(body)

    def start(self) -> list[str]:
        """All that are due, and wait until they have ended; the names of those that were started."""
        due = [child for child in self.family.all() if child.due is not None]
        born = [child.name for child in self.family.fork(due, 1.0, lambda child: {"config": CONFIG})]
        until(lambda: self.family.reap() is not None and not self.family.alive(), what="all ended")
        return born


@pytest.fixture
def parent() -> Iterator[Parent]:
    one = Parent()
    yield one
    one.loop.close()
    os.close(one.lock)


def failing_second(real: Callable[[], Any]) -> Callable[[], Any]:
    """The same function, but the system refuses the second call."""
    calls = iter(range(1, 100))

    def call() -> Any:
        if next(calls) == 2:
            raise OSError(errno.EAGAIN, "there is none")
        return real()

    return call


def test_each_has_its_own_pipe_and_no_other(parent: Parent) -> None:
    before = sockets()
    assert parent.start() == NAMES
    assert parent.said == {name: (name, before + 1) for name in NAMES} and sockets() == before


@pytest.mark.parametrize("where", ["os.fork", "family.pair"])
def test_one_that_cannot_be_started_is_tried_again_and_harms_no_other(
    parent: Parent, monkeypatch: pytest.MonkeyPatch, where: str,
) -> None:
    before = sockets()
    with monkeypatch.context() as patch:
        owner, name = (os, "fork") if where == "os.fork" else (family, "pair")
        patch.setattr(owner, name, failing_second(getattr(owner, name)))
        assert parent.start() == [NAMES[0], NAMES[2]]
    assert parent.said == {name: (name, before + 1) for name in (NAMES[0], NAMES[2])} and sockets() == before
    assert parent.family[NAMES[1]].due is not None and parent.family[NAMES[1]].starts == 0
    assert parent.start() == [NAMES[1]] and parent.said[NAMES[1]] == (NAMES[1], before + 1)
