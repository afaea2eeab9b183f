"""Signs of life: those of elector and runner, root's pings where they are missing, and root's own to systemd.

Rule: who has come round its loop lately is not asked. A process that has not for half a lease, and does not answer a ping,
is killed while its successor can still keep the lease; but when root itself was held up (stopped, or the machine slept) it
blames nobody and counts anew, and who was at work since it was asked does not hang: its pong is still in the pipe. A runner
that holds nothing has no lease to lose: it is asked late, and counts from then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from koi.core.pipe import Ping
from koi.core.timing import Timing
from koi.proc.child import BEAT, NANO, RUNNER
from koi.proc.family import Family
from koi.proc.supervise import Child, Pulse
from koi.proc.system import Notifier

PING_SHARE = 0.15
"""Root looks for signs of life again after this share of the lease, on the beat; an older sign is asked for by a ping."""
AFTER_BEATS = 1 / 16
"""It looks so many H after the next heartbeat, when elector and runner have just been at work: their signs are fresh."""
RESTING_SHARE = 0.75
"""A runner that holds nothing comes round its loop less often; its sign may be so old."""
HANG_SHARE = 0.5
"""No sign of life for this share of the lease, and no answer to a ping, means that the process hangs."""
SILENT_BEATS = 2
"""However old its sign is, a process that is asked has the time that remains after so many beats."""
HANG_FLOOR_S = 0.24
"""However short the lease is, a process may give no sign of life this long. It counts from the last sign, so less of it is left
to answer a ping: a successor needs the rest of the lease more than a slow process its time."""
HELD_UP_SHARE = 0.25
"""A beat later than this share of the lease: root itself was held up."""
HELD_UP_FLOOR_S = 0.1


class Heart:
    """Looks after the children that have a pulse, and tells systemd that root lives."""

    def __init__(self, family: Family, notifier: Notifier, timing: Timing, now: float, holds: Callable[[], bool]) -> None:
        """`holds()`: whether the runner holds an epoch, by its own last word."""
        self._family, self._holds = family, holds
        self._notifier = notifier
        self._next = self._next_notice = now
        self.retime(timing)

    def retime(self, timing: Timing) -> None:
        """Count with these intervals from now on."""
        self._beat_s, lease = timing.heartbeat, timing.lease
        self._ping_s, self._resting_s = PING_SHARE * lease, RESTING_SHARE * lease
        self.hang_s = max(HANG_SHARE * lease, HANG_FLOOR_S)
        self._held_up_s = max(HELD_UP_SHARE * lease, HELD_UP_FLOOR_S)

    def due(self) -> Optional[float]:
        """When the next beat is due, or the next child counts as hanging (CLOCK_BOOTTIME, seconds)."""
        pulses = [child.pulse for child in self._family.all() if child.pulse is not None]
        dues = [due for pulse in pulses if (due := pulse.due()) is not None]
        if pulses:
            dues.append(self._next)
        if self._notifier.interval is not None:
            dues.append(self._next_notice)
        return min(dues, default=None)

    def beat(self, now: float) -> None:
        """Send what is due and kill the children that hang."""
        if self._notifier.interval is not None and now >= self._next_notice:
            self._next_notice = now + self._notifier.interval
            self._notifier.tell("WATCHDOG=1")
        if now >= self._next:
            self._ping_silent(now)
        for child in self._family.all():
            if child.pulse is not None:
                self._kill_hanging(child, child.pulse, now)

    def ping(self, child: Child, now: float, since: Optional[float] = None) -> None:
        """Send one ping to a child that has been silent `since` then, or from now on; its number is its time, so that the
        child knows when root was last alive."""
        if child.pulse is not None:
            number = int(now * NANO)
            child.pulse.ask(now if since is None else since, number)
            self._family.tell(child.name, Ping(number))

    def _ping_silent(self, now: float) -> None:
        held_up = now - self._next > self._held_up_s
        self._next = self._look_at(now + self._ping_s)
        for child in self._family.all():
            if child.pulse is None:
                continue
            if child.pulse.silent is not None:
                if held_up:
                    child.pulse.forgive(now)
                continue
            seen, rests = self._family.signs.seen(child.kind), child.kind == RUNNER and not self._holds()
            if now - seen > (self._resting_s if rests else self._ping_s):
                self.ping(child, now, None if rests or held_up else max(seen, now - SILENT_BEATS * self._ping_s))

    def _look_at(self, at: float) -> float:
        """Then, or up to one H later, when the next heartbeat is over."""
        beat = self._family.signs.seen(BEAT)
        return at + (beat + AFTER_BEATS * self._beat_s - at) % self._beat_s if beat else at

    def _kill_hanging(self, child: Child, pulse: Pulse, now: float) -> None:
        due = pulse.due()
        if due is None or pulse.silent is None or due > now:
            return
        if pulse.worked(self._family.signs.seen(child.kind), now):
            return
        self._family.kill(child.name, f"it has not answered for {now - pulse.silent:.2f} s")
        pulse.silent = None
