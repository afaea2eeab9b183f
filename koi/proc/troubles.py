"""What an elector process has to warn of about its own machine: a slow or failing disk, a loop that comes too late.

Each stands in `koi status` (of the leader too: acks carry it) until it is over, a late loop for REMEMBERED_S.
"""

from __future__ import annotations

from typing import Optional

from koi import log

REMEMBERED_S = 60.0
"""How long a late loop is shown; in that time only a later one is logged again."""


class Troubles:
    """`heartbeat` is H in seconds; half of it is how late the loop may be."""

    def __init__(self, heartbeat: float) -> None:
        self.limit = heartbeat / 2
        self.disk = ""
        self._late = 0.0
        self._late_at: Optional[float] = None

    def note_disk(self, path: str, refused: str, longest: float, limit: float) -> None:
        """A write was refused, or the longest since the last look took so many seconds (0: there was none)."""
        if refused:
            text = f"cannot write {path}: {refused}"
            if text != self.disk:
                until = "this elector can neither vote nor accept a ledger until it can: make room, or mend the disk"
                log.get().critical(f"{text}; {until}")
            self.disk = text
        elif longest > limit:
            log.get().warning(f"a write to {path} took {longest:.2f} s, above {limit:.2f} s: the disk is slow for time.failover")
            self.disk = f"took {longest:.2f} s for a write: its disk is slow"
        elif longest:
            self.disk = ""

    def note_late(self, late: float, now: float) -> None:
        """The loop came this many seconds too late."""
        if late <= self.limit:
            return
        if self._late_at is not None and now < self._late_at + REMEMBERED_S and late <= self._late:
            return
        self._late, self._late_at = late, now
        log.get().warning(f"this elector {self._lateness()}")

    def texts(self, now: float) -> tuple[str, ...]:
        """What stands after "elector NAME ..."."""
        late = self._late_at is not None and now < self._late_at + REMEMBERED_S
        return (*((self.disk,) if self.disk else ()), *((self._lateness(),) if late else ()))

    def _lateness(self) -> str:
        why = "this machine is too busy for time.failover, or was stopped: false alarms are possible"
        return f"came {self._late:.2f} s too late to its work, more than half a heartbeat ({self.limit:.2f} s); {why}"
