"""Messages inside a node that came with maintenance and with folders that change while koinode runs.

Frozen plain data, like all of messages.py, which has the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Freeze:
    """The runner's word to a worker: whether there is maintenance. A worker that waits for it has run nothing yet."""

    on: bool


@dataclass(frozen=True, slots=True)
class Restart:
    """To a worker: stop the service and start it again; it is promoted again if it was."""

    why: str


@dataclass(frozen=True, slots=True)
class Redefine:
    """To a worker: its folder has changed; to root: the same, for the worker's successor, or a new service."""

    definition: Any


@dataclass(frozen=True, slots=True)
class Retire:
    """To root: the folder of this service has vanished and the service is stopped; its worker ends and is not replaced."""

    service: str
