"""The lease cell: the end of the runner's lease, shared by runner and workers without a message.

Rule: eight bytes of anonymous shared memory, written by the runner alone as one aligned store (section 7 of
docs/protocol.md). Made by root before the first fork, so that every child, also a later one, has the same.
"""

from __future__ import annotations

import math
import mmap
from typing import Optional

CELL_BYTES = 8


class LeaseCell:
    """A point in time (CLOCK_BOOTTIME, seconds); None: no lease; math.inf: unlimited, under a hold."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, CELL_BYTES)
        self._slot = memoryview(self._memory).cast("d")
        self.write(None)

    def read(self) -> Optional[float]:
        """The end of the lease, inf, or None."""
        end = self._slot[0]
        return None if math.isnan(end) else end

    def write(self, end: Optional[float]) -> None:
        """Set the end of the lease; only the runner does."""
        self._slot[0] = math.nan if end is None else end
