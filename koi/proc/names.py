"""Names of electors, looked up beside the loop: late ones, and ones that mean something new.

Rule kept: a lookup may take as long as it likes and blocks nothing; there is one thread at most, which ends with its
lookup, and between two lookups of the same name lie FIRST_RETRY_S up to MAX_RETRY_S. Only elector and runner use this:
they fork nothing, so a thread is safe there.
"""

from __future__ import annotations

import os
import threading
from typing import Callable, Optional

from koi.errors import KoiError
from koi.wire.udp import look_up

FIRST_RETRY_S, MAX_RETRY_S = 1.0, 60.0
NEVER = float("inf")
SILENCE_S = 5.0
"""A name whose elector was not heard for so long is looked up again: its host may have moved."""


class Name:
    """One host name: what it means, and when it is to be looked up next. The own one is not looked up again once found."""

    def __init__(self, host: str, now: float, own: bool = False) -> None:
        self.host, self.own = host, own
        self.addresses: tuple[str, ...] = ()
        self.trouble = ""
        """Why it means nothing, in words."""
        self.due = now
        self._retry = FIRST_RETRY_S

    def heard(self, now: float) -> None:
        """Its elector speaks from where the name points."""
        self.due = now + SILENCE_S
        self._retry = FIRST_RETRY_S

    def found(self, addresses: tuple[str, ...], trouble: str, now: float) -> bool:
        """A lookup has ended; True when it means something new. One that failed leaves what was known."""
        changed = bool(addresses) and addresses != self.addresses
        self.addresses, self.trouble = addresses or self.addresses, trouble
        self.due = NEVER if self.own and self.addresses else now + self._retry
        self._retry = min(2 * self._retry, MAX_RETRY_S)
        return changed


class Lookup:
    """At most one thread that asks the system's resolver; `on_done` is called from the loop."""

    def __init__(self, on_done: Callable[[str, tuple[str, ...], str], None]) -> None:
        self._on_done = on_done
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._results: list[tuple[str, tuple[str, ...], str]] = []
        self._thread: Optional[threading.Thread] = None

    def fileno(self) -> int:
        """Readable when a lookup has ended."""
        return self._read

    @property
    def busy(self) -> bool:
        """A lookup is under way."""
        return self._thread is not None

    def start(self, hosts: list[str]) -> None:
        """Look these names up, one after the other."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._work, args=(hosts,), name="lookup", daemon=True)
        self._thread.start()

    def done(self) -> None:
        """Hand out what was found."""
        try:
            os.read(self._read, 64)
        except BlockingIOError:
            return
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        results, self._results = self._results, []
        for result in results:
            self._on_done(*result)

    def _work(self, hosts: list[str]) -> None:
        for host in hosts:
            try:
                self._results.append((host, look_up(host), ""))
            except KoiError as error:
                self._results.append((host, (), str(error)))
        os.write(self._write, b".")

