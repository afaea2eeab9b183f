"""When a failed node starts its services again by itself, and when it gives up.

Rule: the n-th failure in a row waits base * factor^(n - 1) seconds; after `auto_recover` of them the node waits for an
administrator. A node that was well for `reset_s` begins to count anew. All times are seconds on one clock.
"""

from __future__ import annotations

from typing import Optional

from koi.core.data import dataclass

MAX_DELAY_S = 86_400.0
"""No node waits longer than a day, whatever the factor."""

FLAPPING_FAILURES = 3
FLAPPING_S = 3600.0
"""From the third failure within an hour on a node is flapping."""


@dataclass(slots=True)
class Recovery:
    """Counts the failures of one node."""

    auto_recover: int
    """How many times a failed node recovers by itself."""
    factor: float
    base_s: float
    reset_s: float
    count: int = 0
    """Failures in a row: the node's failcount."""
    recent: tuple[float, ...] = ()
    """When the last failures were, FLAPPING_FAILURES of them at most."""

    def failed(self, now: float) -> Optional[float]:
        """Count a failure; the seconds to wait before the services start again, or None: it has given up."""
        if self.recent and now - self.recent[-1] >= self.reset_s:
            self.count = 0
        self.count += 1
        self.recent = (*self.recent, now)[-FLAPPING_FAILURES:]
        return None if self.count > self.auto_recover else self._delay()

    def flapping(self, now: float) -> bool:
        """Whether the node failed FLAPPING_FAILURES times within FLAPPING_S."""
        return len(self.recent) == FLAPPING_FAILURES and now - self.recent[0] < FLAPPING_S

    def forget(self) -> None:
        """An administrator recovered the node: it counts from nothing again; flapping is still told."""
        self.count = 0

    def _delay(self) -> float:
        try:
            return min(MAX_DELAY_S, self.base_s * self.factor ** (self.count - 1))
        except OverflowError:
            return MAX_DELAY_S
