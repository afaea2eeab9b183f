"""What the processes of a node share without a message: the end of the runner's lease, and who was last at work when.

Rule: eight bytes of anonymous shared memory for each number, written by one process alone as one aligned store (section 7
of docs/protocol.md). Made by root before the first fork, so that every child, also a later one, has the same.
"""

from __future__ import annotations

import math
import mmap
from typing import Optional

CELL_BYTES = 8


class LeaseCell:
    """A point in time (CLOCK_BOOTTIME, seconds); None: no lease; math.inf: unlimited, under a hold. Beside it G, as vouched."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * CELL_BYTES)
        self._slot = memoryview(self._memory).cast("d")
        self.write(None, math.inf)

    def read(self) -> Optional[float]:
        """The end of the lease, inf, or None."""
        end = self._slot[0]
        return None if math.isnan(end) else end

    @property
    def grace(self) -> float:
        """G of the electors that vouched for it (rule 5.3); inf: none has since this koinode began."""
        return self._slot[1]

    def write(self, end: Optional[float], grace: Optional[float] = None) -> None:
        """Set the end of the lease, and G unless it is as it was; only the runner does."""
        if grace is not None:
            self._slot[1] = grace
        self._slot[0] = math.nan if end is None else end


class LifeSigns:
    """When root, elector and runner last came round their loop (CLOCK_BOOTTIME, seconds); each shows its own, 0.0: not yet.

    Beside them when the elector last sent or heard a heartbeat. So nobody is woken only to say that it lives: root pings a
    process whose sign is old, and a runner sees that root works.
    """

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._memory = mmap.mmap(-1, CELL_BYTES * len(kinds))
        self._slots = memoryview(self._memory).cast("d")
        self._index = {kind: index for index, kind in enumerate(kinds)}

    def has(self, kind: str) -> bool:
        """Whether processes of this kind show signs."""
        return kind in self._index

    def seen(self, kind: str) -> float:
        """When it last was at work."""
        return self._slots[self._index[kind]]

    def show(self, kind: str, at: float) -> None:
        """It is at work; only that process itself says so, and root, before it forks a new one."""
        self._slots[self._index[kind]] = at
