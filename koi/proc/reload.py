"""A changed configuration while the node runs: what can be applied, to whom, and what needs a restart of koinode.

Rule: a faulty file, or one that changes what cannot be changed, changes nothing and says why. Workers are never
restarted: what concerns them is told to them. The elector and the runner are told what they can take over as they are;
for the rest (sockets, electors, timings) root replaces them, and their successors take over what neighbours hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Optional

from koi.config import Config
from koi.core.data import dataclass
from koi.errors import KoiError
from koi.proc.lastgood import Copy

ELECTOR, RUNNER = "elector", "runner"

FIXED = frozenset({
    "node.name", "node.elector", "node.runner", "node.state_dir", "node.run_dir", "node.watchdog", "service.folder",
})
"""Keys that only a restart of koinode changes."""
TOLD = frozenset({
    "node.mode", "node.preference", "node.loglevel", "node.self_fence", "time.status_interval", "time.auto_recover_time",
    "time.failcount_reset",
})
"""Keys outside `service` that are applied by who is told of them; `service` is, but for what the leader counts with."""
OF_THE_LEADER = frozenset({"node.rank", "service.promote_timeout", "service.demote_timeout", "time.failure_promotion_timeout"})
"""Keys that replace the elector alone."""

Reread = Callable[[], tuple[Config, float, Copy]]
"""Reads the file again: the configuration, the seconds that an orderly end may take, and what is kept. Raises KoiError."""


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """A client asks, by the process that heard it: read the configuration again. Root answers with NodeResult."""

    id: str
    asker: str


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """Root tells every child: this is the configuration now."""

    config: Config


@dataclass(frozen=True)
class Outcome:
    """What became of a reload."""

    message: str
    config: Optional[Config] = None
    """None: nothing is changed."""
    end_s: float = 0.0
    restarts: tuple[str, ...] = ()
    """The kinds of processes that root replaces."""
    ok: bool = True
    copy: Optional[Copy] = None
    """What was read, for a koinode that finds it faulty."""


def read(reread: Reread, old: Config) -> Outcome:
    """Read the file and say what follows from it."""
    try:
        new, end_s, copy = reread()
    except KoiError as fault:
        return Outcome(f"the configuration is not changed: {fault}", ok=False)
    changed = changes(old, new)
    fixed = [key for key in changed if key in FIXED]
    if fixed:
        text = f"{', '.join(fixed)} can only be changed by a restart of koinode"
        return Outcome(f"the configuration is not changed: {text}", ok=False)
    if not changed:
        looked = "; new and changed services are taken up in a moment" if new.node.runner else ""
        return Outcome(f"nothing has changed in the configuration{looked}", new, end_s, copy=copy)
    restarts = replaced(changed, old)
    text = f"applied {', '.join(changed)}" + (f"; {' and '.join(restarts)} replaced for it" if restarts else "")
    return Outcome(text, new, end_s, restarts, copy=copy)


def changes(old: Config, new: Config) -> list[str]:
    """The keys whose values differ, as they stand in the file."""
    found = []
    for section in ("node", "cluster", "service", "time"):
        before, after = getattr(old, section), getattr(new, section)
        found += [f"{section}.{one.name}" for one in fields(before) if _differ(before, after, one.name)]
    return found


def _differ(before: Any, after: Any, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def replaced(changed: list[str], config: Config) -> tuple[str, ...]:
    """Which of elector and runner cannot take these changes over as they are."""
    leads = [key for key in changed if key in OF_THE_LEADER]
    hard = [key for key in changed if key not in TOLD | OF_THE_LEADER and not key.startswith("service.")]
    has = {ELECTOR: config.node.elector and bool(hard or leads), RUNNER: config.node.runner and bool(hard)}
    return tuple(kind for kind, wanted in has.items() if wanted)
