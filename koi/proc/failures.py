"""The recent failures of a node's services, for `koi failures`: kept in failures.json, over restarts of koinode."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from koi import log
from koi.core.pipe import Failure
from koi.proc import files

MAX_KEPT = 50
MAX_LINE = 300


class Failures:
    """The last MAX_KEPT failures, newest last."""

    def __init__(self, path: str, node: str) -> None:
        self.path, self.node = path, node
        self.entries = self._load()

    def add(self, failure: Failure) -> None:
        """Note one and write the file."""
        self.entries = [*self.entries, self._entry(failure)][-MAX_KEPT:]
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
            return [entry for entry in entries if isinstance(entry, dict)][-MAX_KEPT:]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.get().warning(f"{self.path} cannot be read ({error}); 'koi failures' begins anew")
            return []
