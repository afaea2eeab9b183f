"""journal.jsonl in the state folder: each change of the ledger and of the leader with its time and reason.

One JSON object a line, appended; at MAX_BYTES the file is renamed and KEPT old ones stay. Not needed for safety, so a
failing write is told once and otherwise ignored.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Optional

from koi import log

MAX_BYTES = 10_000_000
KEPT = 2


class JournalFile:
    """Appends; rotates by size."""

    def __init__(self, path: str, node: str) -> None:
        self.path, self.node = path, node
        self.told = False

    def write(self, what: str, old: Optional[str], new: Optional[str], epoch: Optional[int], reason: str) -> None:
        """One entry."""
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = {"time": time, "node": self.node, "what": what, "from": old, "to": new, "epoch": epoch, "reason": reason}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                full = file.tell() >= MAX_BYTES
            if full:
                self._rotate()
        except OSError as error:
            if not self.told:
                self.told = True
                log.get().error(f"the journal {self.path} cannot be written: {error.strerror}")

    def _rotate(self) -> None:
        for number in range(KEPT - 1, 0, -1):
            if os.path.exists(f"{self.path}.{number}"):
                os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.rename(self.path, f"{self.path}.1")
