"""Root lets a worker live some times before it forks the first one: what Python writes meanwhile, all workers share.

Python adapts code while it runs: in its first calls a function writes into its own code, and looks up names in a way that
writes to them; later it does neither. A page that a process writes to becomes its own, so a worker that is born with
adapted code takes half a megabyte less.

Rule: nothing outside of this process is touched. The service of a rehearsal has nothing to run but a program that does
nothing; it never fences, logs to nowhere, and all ends within LIMIT_S. A rehearsal that fails costs memory and nothing else.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Callable, Optional

from koi import log
from koi.config import Config
from koi.core.pipe import Announce, Freeze, Order, Stop
from koi.core.states import GOAL_PROMOTED, GOAL_STARTED, GOAL_STOPPED, STOP
from koi.proc.cell import LeaseCell
from koi.proc.child import Context, worker_name
from koi.proc.link import pair
from koi.proc.loop import Loop, now
from koi.service.catalog import FOLDER, Definition

LIVES = 8
"""One alone saves a third less, twelve save no more; each takes some 3 ms."""
LIMIT_S = 0.5
"""For all lives together: a busy machine may not hold up the start."""
PROGRAM = "/bin/true"


class Nowhere(Definition):
    """A service whose folder is none: it is there, and has no script."""

    @property
    def directory(self) -> str:
        """Where root is anyway."""
        return "."

    def command(self, action: str) -> list[str]:
        """A script that is not there has succeeded at once, so that only the last one makes the worker wait."""
        return [PROGRAM if action == STOP else ""]


SERVICE = Nowhere(".rehearsal", None, os.devnull, FOLDER, frozenset())
"""Called as no real service can be, so that no process is taken for its own."""


class Rehearsed(Context):
    """What the worker of a rehearsal has in its hands."""

    ends = 0.0
    """When its life is over, in any case."""

    def title(self, state: Optional[str] = None) -> None:
        """Root keeps its own title."""

    def run(self, deadline: Callable[[], Optional[float]], on_deadline: Callable[[float], None]) -> None:
        """The loop, until `ends`."""

        def due() -> float:
            at = deadline()
            return self.ends if at is None else min(at, self.ends)

        def on_due(time: float) -> None:
            self.loop.stop() if time >= self.ends else on_deadline(time)

        self.loop.run(due, on_due)


def play(config: Config, main: Callable[[Context], None]) -> None:
    """Let a worker with this main function live LIVES times."""
    harmless = replace(config, node=replace(config.node, self_fence=None))
    ends = now() + LIMIT_S
    try:
        with log.silent():
            for _ in range(LIVES):
                _live(harmless, main, ends)
    except Exception as fault:  # the node has to start all the same
        log.get().warning(f"a worker could not be rehearsed, so each takes more memory: {fault!r}")


def _live(config: Config, main: Callable[[Context], None], ends: float) -> None:
    """A worker with all that it is told from its start to its end."""
    ours, theirs = pair()
    context = Rehearsed(config, worker_name(SERVICE.name), theirs, Loop(), LeaseCell(), definition=SERVICE)
    context.ends = ends
    context.cell.write(ends)
    goals = (GOAL_STARTED, GOAL_PROMOTED, GOAL_STARTED, GOAL_STOPPED)
    orders = [Order(SERVICE.name, goal, 1, config.node.name, "Master") for goal in goals]
    for message in (Freeze(False), *orders[:2], Announce(), *orders[2:], Stop()):
        ours.send(context.name, message)
    try:
        main(context)
    finally:
        context.loop.close()
        theirs.close_copy()
        ours.close()
