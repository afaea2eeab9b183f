"""The machine's watchdog (node.watchdog): it resets a machine whose koinode does not write to it any more.

Rule: opened when the runner starts, so before any promote, and then written always while this node cannot be master; while it may
be, only as long as its lease runs, and where the device tells its timeout, only while the reset would come before another
node may be promoted (end of lease + grace). Closed with the magic "V" only after everything was demoted: a runner that
dies leaves the timer running, and its successor writes on.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
from typing import Optional

from koi import log

MAGIC_CLOSE = b"V"
WDIOC_SETTIMEOUT = 0xC0045706
WDIOC_GETTIMEOUT = 0x80045707
WRITES_PER_TIMEOUT = 4
RETRY_S = 5.0
"""A device that cannot be opened is tried again so often."""


class Watchdog:
    """One device. `trouble` says why it does not work; empty while it does."""

    def __init__(self, path: str, lease: float, grace: float) -> None:
        self.path, self._grace = path, grace
        self._fd: Optional[int] = None
        self.trouble = ""
        self.timeout: Optional[float] = None
        """Seconds after which the device resets the machine; None: it does not say."""
        self._span = lease + grace
        self.due = 0.0
        """When `look` wants to be called next (CLOCK_BOOTTIME, seconds)."""

    def look(self, now: float, lease_end: Optional[float], grace: float = math.inf) -> None:
        """Open it if need be and write if that is allowed; `lease_end` is None while this node cannot be master.

        `grace`: the electors' G, which counts when it is shorter than ours (rule 5.3).
        """
        if now < self.due:
            return
        if self._fd is None and not self._open():
            self.due = now + RETRY_S
            return
        self.due = now + (self.timeout or self._span) / WRITES_PER_TIMEOUT
        if self._may_write(now, lease_end, min(grace, self._grace)):
            self._write(b"\0")

    def close(self) -> None:
        """Everything is demoted: disarm the device."""
        if self._fd is not None:
            self._write(MAGIC_CLOSE)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self.due = float("inf")

    def _may_write(self, now: float, lease_end: Optional[float], grace: float) -> bool:
        if lease_end is None:
            return True
        reset_in_time = self.timeout is None or self.timeout > self._span or now + self.timeout <= lease_end + grace
        return now < lease_end and reset_in_time

    def _open(self) -> bool:
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.trouble = f"node.watchdog {self.path} cannot be opened: {error.strerror}"
            return False
        self.trouble = ""
        self.timeout = self._set_timeout(self._fd)
        if self.timeout is not None and self.timeout > self._span:
            log.get().warning(f"node.watchdog {self.path} resets this machine only {self.timeout:g} s after the last sign of "
                              f"life; another node may be promoted {self._span:.1f} s after it (lease + demote_grace)")
        return True

    def _set_timeout(self, fd: int) -> Optional[float]:
        """Ask for the longest timeout that is shorter than lease + grace; what the device then has."""
        wanted = struct.pack("i", max(1, int(self._span)))
        for request in (WDIOC_SETTIMEOUT, WDIOC_GETTIMEOUT):
            try:
                return float(struct.unpack("i", fcntl.ioctl(fd, request, wanted))[0])
            except OSError:
                continue
        return None

    def _write(self, what: bytes) -> None:
        assert self._fd is not None
        try:
            os.write(self._fd, what)
        except BlockingIOError:
            return
        except OSError as error:
            os.close(self._fd)
            self._fd = None
            self.trouble = f"node.watchdog {self.path} cannot be written: {error.strerror}"
