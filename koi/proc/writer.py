"""Writes the elector's record to disk in a thread of its own, so that reports are answered meanwhile (protocol section 2).

Only the newest record that waits is written; the loop hears through a pipe which number is done. The elector forks
nothing, so a thread is safe here.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Optional

from koi.core.ledger import Record
from koi.errors import KoiError
from koi.proc import files
from koi.proc.system import TOO_MANY

MAX_RETRY_S = 5.0
FINISH_S = 1.0
"""How long an orderly end waits for a write."""


class Writer:
    """One file, one thread, one slot."""

    def __init__(self, path: str) -> None:
        """KoiError when the machine gives no thread."""
        self.path = path
        self.longest = 0.0
        """Seconds of the longest write since it was last taken."""
        self.trouble = ""
        """Why the last write failed; empty when it did not."""
        self._slot: Optional[tuple[int, Record]] = None
        self._done = 0
        self._busy = False
        self._condition = threading.Condition()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        try:
            threading.Thread(target=self._work, name="writer", daemon=True).start()
        except RuntimeError as error:
            raise KoiError(f"the elector cannot write {path}: {error}; {TOO_MANY}") from None

    def fileno(self) -> int:
        """Readable when a write is done."""
        return self._read

    def submit(self, number: int, record: Record) -> None:
        """Write this record; one that waits still is not written any more."""
        with self._condition:
            self._slot = (number, record)
            self._condition.notify()

    def done(self) -> int:
        """The number of the last record on disk."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            return self._done
        return self._done

    def take_longest(self) -> float:
        """The duration of the longest write since the last call, in seconds."""
        longest, self.longest = self.longest, 0.0
        return longest

    def finish(self) -> None:
        """At the end of the process: wait for what is being written, so that no half of it is left."""
        with self._condition:
            self._condition.wait_for(lambda: self._slot is None and not self._busy, timeout=FINISH_S)

    def _work(self) -> None:
        retry = 0.1
        while True:
            with self._condition:
                while self._slot is None:
                    self._condition.wait()
                number, record = self._slot
                self._slot, self._busy = None, True
            if self._put(record):
                retry = 0.1
                self._done = number
                self._notify()
            else:
                self._keep(number, record, retry)
                retry = min(2 * retry, MAX_RETRY_S)
            with self._condition:
                self._busy = False
                self._condition.notify_all()

    def _put(self, record: Record) -> bool:
        began = time.monotonic()
        try:
            files.write_json(self.path, files.dump_record(record))
        except OSError as error:
            self.trouble = error.strerror or str(error)
            self._notify()
            return False
        self.trouble = ""
        self.longest = max(self.longest, time.monotonic() - began)
        return True

    def _keep(self, number: int, record: Record, retry: float) -> None:
        """Try again later, unless a newer record has come."""
        with self._condition:
            self._condition.wait_for(lambda: self._slot is not None, timeout=retry)
            if self._slot is None:
                self._slot = (number, record)

    def _notify(self) -> None:
        try:
            os.write(self._write, b".")
        except BlockingIOError:
            return
