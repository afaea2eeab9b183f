"""Priorities: which service may act now.

Start and promote go up the priorities, the next only when all lower ones are done; stop and demote go down. Services
of equal priority act together, one without a priority is independent of all others.
"""

from __future__ import annotations

from typing import Mapping, Optional

from koi.core.pipe import ServiceState

STOPPED, STARTED, PROMOTED = "stopped", "started", "promoted"
"""The levels that a node, and each of its services, is driven to."""

RUNNING = frozenset({"Started", "Promoting", "Promoted", "Demoting"})
ENDED = frozenset({"Stopped", "Failed"})


def reached(state: Optional[ServiceState], level: str) -> bool:
    """Whether a service has done all that the level asks of it."""
    if state is None or not (state.clean or (level == STOPPED and state.stuck)):
        return False
    if level == PROMOTED:
        return state.info.state == "Promoted" and not state.info.failed
    if level == STARTED:
        return state.info.state in RUNNING and not state.info.failed
    return state.info.state in ENDED and (not state.promoted or state.stuck)


def demoted(state: Optional[ServiceState]) -> bool:
    """Whether a service certainly is not active, or nothing more can be done about it."""
    return state is not None and (not state.promoted or state.stuck)


def upward(priorities: Mapping[str, Optional[int]], states: Mapping[str, ServiceState], level: str) -> list[str]:
    """The services that may go up to the level now, lowest priority first."""
    waiting = [p for name, p in priorities.items() if p is not None and not reached(states.get(name), level)]
    turn = min(waiting, default=None)
    return [name for name, p in priorities.items() if p is None or turn is None or p <= turn]


def downward(priorities: Mapping[str, Optional[int]], states: Mapping[str, ServiceState], level: str) -> list[str]:
    """The services that may go down to the level now: STARTED demotes, STOPPED stops; highest priority first."""
    done = demoted if level == STARTED else (lambda state: reached(state, STOPPED))
    waiting = [p for name, p in priorities.items() if p is not None and not done(states.get(name))]
    turn = max(waiting, default=None)
    return [name for name, p in priorities.items() if p is None or turn is None or p >= turn]
