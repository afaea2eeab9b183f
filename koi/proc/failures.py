"""The recent failures of a node's services, for `koi failures`: kept in failures.json, over restarts of koinode."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from koi import log
from koi.core.pipe import Failure
from koi.proc import files

NEVER = float("inf")
SAVE_S = 0.05
"""So long a failure may wait for the file: what is done about it comes first."""
MAX_KEPT = 50
MAX_LINE = 300
MAX_TEXT = 1000
MAX_NUMBER = 1e9
TEXTS = ("time", "node", "service", "action", "line", "what")
NUMBERS = ("exit", "seconds")


class Failures:
    """The last MAX_KEPT failures, newest last."""

    def __init__(self, path: str, node: str) -> None:
        self.path, self.node = path, node
        self.entries = self._load()
        self.due = NEVER
        """When the file is to be written (CLOCK_BOOTTIME, seconds)."""

    def add(self, failure: Failure, now: float) -> None:
        """Note one; the file is written SAVE_S later."""
        self.entries = [*self.entries, self._entry(failure)][-MAX_KEPT:]
        self.due = min(self.due, now + SAVE_S)

    def save(self) -> None:
        """Write what the file does not have yet."""
        if self.due == NEVER:
            return
        self.due = NEVER
        try:
            files.write_json(self.path, {"format": files.FORMAT, "failures": self.entries}, sync=False)
        except OSError as error:
            log.get().error(f"{self.path} cannot be written: {error.strerror}; 'koi failures' forgets at the next restart")

    def _entry(self, failure: Failure) -> dict[str, Any]:
        return {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "node": self.node, "service": failure.service,
            "action": failure.action, "exit": failure.exit, "seconds": round(failure.seconds, 3), "line": failure.line[:MAX_LINE],
            "what": failure.what,
        }

    def _load(self) -> list[dict[str, Any]]:
        try:
            content = files.read_json(self.path)
            entries = [] if content is None else content["failures"]
            return [entry for entry in entries if _is_entry(entry)][-MAX_KEPT:]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.get().warning(f"{self.path} cannot be read ({error}); 'koi failures' begins anew")
            return []


def _is_entry(entry: Any) -> bool:
    """Whether this is a failure as `add` writes it: what is read goes out to clients, which rely on its form."""
    if not isinstance(entry, dict) or entry.keys() != {*TEXTS, *NUMBERS}:
        return False
    return all(_is_text(entry[key]) for key in TEXTS) and _is_number(entry["seconds"]) and (
        entry["exit"] is None or (_is_number(entry["exit"]) and isinstance(entry["exit"], int))
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -MAX_NUMBER <= value <= MAX_NUMBER
