"""What a worker is given: where its scripts run, what its machine must know, and by what its processes are known."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Optional

import koi
from koi import log
from koi.config import ServiceDefaults
from koi.core.states import Settings
from koi.proc.child import Context
from koi.service import catalog, leftovers
from koi.service.script import NO_INTERPRETER, NotRun

MAX_MARKS = 5
"""Folders by which a service's processes are known: the present one, and those before it."""
SHARE = os.path.join(os.path.dirname(koi.__file__), "share")
"""Where koi-service.sh is."""
NOT_FOR_SCRIPTS = ("KOI_SECRET", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""Variables of koinode that are not its scripts' business."""
OWN_ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in NOT_FOR_SCRIPTS} | {"KOI_SHARE": SHARE}
"""Read once, in root: a copy of its own would cost each worker a quarter of a megabyte."""


class Home:
    """A service's folder or file, held open: one that was renamed still has the scripts that demote and stop the service."""

    def __init__(self, path: str, settings: Settings) -> None:
        self.marks: tuple[leftovers.Mark, ...] = ()
        """By which its processes are known, the present one first."""
        self._fd: Optional[int] = None
        self.settle(path, settings)

    def settle(self, path: str, settings: Settings) -> None:
        """It is here now."""
        present = leftovers.Mark(os.path.dirname(path), settings.name, settings.node, settings.cluster_id)
        self.marks = (present, *(one for one in self.marks if one != present))[:MAX_MARKS]
        self._path = path
        self._open()

    def refresh(self) -> None:
        """What stands there now is held: after it was copied anew that is another than the one before."""
        if os.path.lexists(self._path) and (self._fd is None or os.readlink(f"/proc/self/fd/{self._fd}") != self._path):
            self._open()

    def _open(self) -> None:
        try:
            fd = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # renamed just now, maybe: what is held open still leads to it
        if self._fd is not None:
            os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        """It is not held any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def moved(self, definition: catalog.Definition) -> Optional[catalog.Definition]:
        """The service where it is now; None when it is where it was, or gone."""
        self.refresh()
        if self._fd is None or os.path.lexists(self._path):
            return None
        path = os.readlink(f"/proc/self/fd/{self._fd}")
        if not os.path.exists(path):  # "... (deleted)"
            return None
        log.get().warning(f"{self._path} is now {path}: its scripts are run there")
        return replace(definition, path=path)

    def is_away(self) -> bool:
        """Whether nothing is where it was: it may be deleted, or be replaced in this moment."""
        return not os.path.lexists(self._path)

    def is_deleted(self) -> bool:
        """Whether it is gone for good: what is deleted comes back nowhere, and nothing else has taken its place."""
        return self.is_away() and self._fd is not None and os.readlink(f"/proc/self/fd/{self._fd}").endswith(" (deleted)")


class Awaited:
    """Stands in the place of a script whose folder or file is away, until it is looked for once more. Times as a Script's."""

    def __init__(self, due: float, on_due: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._due: Optional[float] = due
        self._on_due, self._on_end = on_due, on_end

    def deadline(self) -> Optional[float]:
        """When `handle_timer` is due."""
        return self._due

    def handle_timer(self, now: float) -> None:
        """It is looked for now."""
        if self._due is not None and now >= self._due:
            self._due = None
            self._on_due()

    def end(self) -> None:
        """It is not wanted any more."""
        if self._due is not None:
            self._due = None
            self._on_end()

    kill = end


def enter(directory: str, excused: bool) -> None:
    """Scripts run in their service's folder. NotRun: it is gone, which is not the same as a missing script, unless `excused`."""
    try:
        os.chdir(directory)
    except OSError as error:
        if excused:
            raise FileNotFoundError(directory) from None
        raise NotRun(NO_INTERPRETER, f"its folder {directory} cannot be entered: {error.strerror}") from None


def directory(context: Context, own: ServiceDefaults) -> str:
    """Where scripts run: the service's folder, unless its service.yaml names another; a single file: service.workingdir."""
    common = None if context.definition.kind == catalog.FILE else context.config.service.workingdir
    return own.workingdir if own.workingdir and own.workingdir != common else str(context.definition.directory)


def settings(context: Context, own: ServiceDefaults) -> Settings:
    """What the machine must know of this node and its service; `own` are the settings of the service."""
    config, definition = context.config, context.definition
    return Settings(
        name=definition.name, node=config.node.name, cluster_id=config.cluster.id, folder=definition.directory,
        priority=definition.priority, pid=os.getpid(), grace=config.timing.grace,
        status_interval=config.time.status_interval if "status" in definition.scripts else None,
        self_fence=config.node.self_fence is not None,
        start_timeout=own.start_timeout, stop_timeout=own.stop_timeout, status_timeout=own.status_timeout,
        promote_timeout=own.promote_timeout, demote_timeout=own.demote_timeout, failed_timeout=own.failed_timeout,
        restarts=own.restarts, restarts_reset=config.time.failcount_reset,
        environment=tuple(own.env),
    )
