"""Signs of life: root's pings to elector and runner, and root's own to systemd.

Rule: a process that does not answer within half a lease is killed while its successor can still keep the lease; but
when root itself was held up (stopped, or the machine slept) it blames nobody and counts anew.
"""

from __future__ import annotations

from typing import Optional

from koi.core.pipe import Ping
from koi.proc.child import NANO
from koi.proc.family import Family
from koi.proc.supervise import Child, Pulse
from koi.proc.system import Notifier

PING_SHARE = 0.15
"""Interval of root's pings as a share of the lease."""
HANG_SHARE = 0.5
"""A ping unanswered for this share of the lease means that the process hangs."""
HANG_FLOOR_S = 0.2
"""However short the lease is, a process may be kept waiting this long by a busy machine."""
HELD_UP_SHARE = 0.25
"""A beat later than this share of the lease: root itself was held up."""
HELD_UP_FLOOR_S = 0.1


class Heart:
    """Pings the children that have a pulse, and tells systemd that root lives."""

    def __init__(self, family: Family, notifier: Notifier, lease: float, now: float) -> None:
        self._family = family
        self._notifier = notifier
        self._next = self._next_notice = now
        self.retime(lease)

    def retime(self, lease: float) -> None:
        """Count with this lease (seconds) from now on."""
        self._ping_s = PING_SHARE * lease
        self.hang_s = max(HANG_SHARE * lease, HANG_FLOOR_S)
        self._held_up_s = max(HELD_UP_SHARE * lease, HELD_UP_FLOOR_S)

    def due(self) -> Optional[float]:
        """When the next beat is due, or the next child counts as hanging (CLOCK_BOOTTIME, seconds)."""
        pulses = [child.pulse for child in self._family.all() if child.pulse is not None]
        dues = [pulse.due() for pulse in pulses]
        dues.append(self._next if pulses else None)
        dues.append(self._next_notice if self._notifier.interval is not None else None)
        return min((due for due in dues if due is not None), default=None)

    def beat(self, now: float) -> None:
        """Send what is due and kill the children that hang."""
        if self._notifier.interval is not None and now >= self._next_notice:
            self._next_notice = now + self._notifier.interval
            self._notifier.tell("WATCHDOG=1")
        if now >= self._next:
            self._ping_all(now)
        for child in self._family.all():
            if child.pulse is not None:
                self._kill_hanging(child, child.pulse, now)

    def ping(self, child: Child, now: float) -> None:
        """Send one ping; its number is its time, so that the child knows when root was last alive."""
        if child.pulse is not None:
            number = int(now * NANO)
            child.pulse.ask(now, number)
            self._family.tell(child.name, Ping(number))

    def _ping_all(self, now: float) -> None:
        held_up = now - self._next > self._held_up_s
        self._next = now + self._ping_s
        for child in self._family.all():
            if child.pulse is None:
                continue
            if child.pulse.sent is None:
                self.ping(child, now)
            elif held_up:
                child.pulse.forgive(now)

    def _kill_hanging(self, child: Child, pulse: Pulse, now: float) -> None:
        due = pulse.due()
        if due is None or pulse.sent is None or due > now:
            return
        self._family.kill(child.name, f"it has not answered for {now - pulse.sent:.2f} s")
        pulse.sent = None
