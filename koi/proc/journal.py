"""journal.jsonl in the state folder: changes of master, leader and maintenance and administrators' commands, for `koi why`.

One JSON object a line, appended; at MAX_BYTES the file is renamed and KEPT old ones stay. Not needed for safety, so a
failing write is told once and otherwise ignored. Each elector writes its own; `key` is equal in all of them for one and
the same change.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Any, Optional

from koi import log
from koi.core.effects import Journal

MAX_BYTES = 10_000_000
KEPT = 2
MAX_TAIL_BYTES = 256_000
"""Of each file that is read for one answer."""
MAX_ENTRIES = 200
"""In one answer."""
MAX_REASON = 600
FIELDS = ("time", "node", "what", "from", "to", "epoch", "reason", "key")

Entry = dict[str, Any]


class JournalFile:
    """Appends; rotates by size; reads the newest entries."""

    def __init__(self, path: str, node: str) -> None:
        self.path, self.node = path, node
        self.told = False

    def write(self, entry: Journal) -> None:
        """One entry, with the time of day and this node's name."""
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        content = {
            "time": time, "node": self.node, "what": entry.what, "from": entry.old, "to": entry.new, "epoch": entry.epoch,
            "reason": entry.reason[:MAX_REASON], "key": entry.key,
        }
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
                full = file.tell() >= MAX_BYTES
            if full:
                self._rotate()
        except OSError as error:
            if not self.told:
                self.told = True
                log.get().error(f"the journal {self.path} cannot be written: {error.strerror}; 'koi why' lacks what happens now")

    def newest(self, limit: int = MAX_ENTRIES) -> list[Entry]:
        """The last entries, oldest first; a line that cannot be read is left out."""
        found: list[Entry] = []
        for path in (self.path, *(f"{self.path}.{number}" for number in range(1, KEPT + 1))):
            if len(found) < limit:
                found = [*_tail(path), *found]
        return found[-limit:]

    def _rotate(self) -> None:
        for number in range(KEPT - 1, 0, -1):
            if os.path.exists(f"{self.path}.{number}"):
                os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.rename(self.path, f"{self.path}.1")


def _tail(path: str) -> list[Entry]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_TAIL_BYTES))
            lines = file.read(MAX_TAIL_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        log.get().warning(f"the journal {path} cannot be read: {error.strerror}")
        return []
    return [entry for line in lines if (entry := _parsed(line)) is not None]


def _parsed(line: bytes) -> Optional[Entry]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not _is_entry(entry):
        return None
    return {name: entry.get(name) for name in FIELDS}


def _is_entry(entry: Entry) -> bool:
    """What goes out to others has the form that `write` gives it."""
    texts = all(isinstance(entry.get(name), str) for name in ("time", "node", "what", "reason"))
    names = all(isinstance(entry.get(name), (str, type(None))) for name in ("from", "to", "key"))
    return texts and names and isinstance(entry.get("epoch"), (int, type(None)))
