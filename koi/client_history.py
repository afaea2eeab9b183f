"""`koi why` and who asks: the journals of all nodes as one list, and the origin that a command carries.

The rule it keeps: one change is told once, however many journals have it; the earliest entry counts, and of a leader its own.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from typing import Any

JSON = dict[str, Any]

FIELDS = ("time", "node", "what", "from", "to", "epoch", "reason")
STATES = ("maintenance", "stuck")
"""What is on or off: an entry that says what was so already is a late one of an elector that had been away."""
MAX_ORIGIN = 80


def merged(entries: Iterable[JSON], limit: int) -> list[JSON]:
    """The newest entries of all journals, each change once, newest last."""
    chosen: dict[str, JSON] = {}
    for entry in sorted(entries, key=lambda e: str(e.get("time"))):
        key = str(entry.get("key") or f"{entry.get('time')} {entry.get('node')}")
        if key not in chosen or _leader_s_own(entry) and not _leader_s_own(chosen[key]):
            chosen[key] = entry
    ordered = sorted(chosen.values(), key=lambda e: str(e.get("time")))
    return [{name: entry.get(name) for name in FIELDS} for entry in _without_repeats(ordered)][-limit:]


def _leader_s_own(entry: JSON) -> bool:
    return entry.get("what") == "leader" and entry.get("node") == entry.get("to")


def _without_repeats(entries: Iterable[JSON]) -> list[JSON]:
    state: dict[str, Any] = {}
    found = []
    for entry in entries:
        what = str(entry.get("what"))
        if what in STATES and state.get(what, "unknown") == entry.get("to"):
            continue
        state[what] = entry.get("to")
        found.append(entry)
    return found


def origin() -> str:
    """Who gives a command: user@host, the user behind sudo if there is one."""
    user = os.environ.get("SUDO_USER") or _user()
    return f"{user}@{os.uname().nodename}"[:MAX_ORIGIN]


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
