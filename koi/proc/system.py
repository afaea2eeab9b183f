"""What root asks of Linux beyond Python's library: prctl, a timer, descendants, systemd's notifications.

Rule: nothing here decides anything, and what the machine does not have is told by the return value, never by a crash.
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import Optional

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_STATE, _PPID = 0, 1
"""Fields of /proc/PID/stat, counted from the one after the name."""

TOO_MANY = "end what runs too often, or raise the limit of processes (ulimit -u, TasksMax of systemd, kernel.pid_max)"
"""What to do when the machine gives no process or thread."""
STAT_BYTES = 4096
"""More than /proc/PID/stat ever has."""

_libc = ctypes.CDLL(None, use_errno=True)

CLOCK_BOOTTIME = 7
TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = os.O_NONBLOCK, os.O_CLOEXEC, 1


class _Times(ctypes.Structure):
    """struct itimerspec: interval and first expiry, each seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class BootTimer:
    """A descriptor that becomes readable at a point of CLOCK_BOOTTIME, also when the machine slept over it."""

    def __init__(self) -> None:
        self.fd = int(_libc.timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC))
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create(CLOCK_BOOTTIME) failed")
        self._armed: Optional[float] = None

    def arm(self, at: Optional[float]) -> None:
        """Expire at `at` seconds, or never; whatever expired before is forgotten."""
        if at == self._armed:
            return
        self._armed = at
        seconds = 0 if at is None else int(at)
        times = _Times(0, 0, seconds, 0 if at is None else max(1, int((at - seconds) * 1e9)))
        if _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, ctypes.byref(times), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def become_subreaper() -> bool:
    """Orphans below this process become its children, so that it sees them and can end them."""
    return bool(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def die_with_parent(signum: int) -> bool:
    """Have the kernel send `signum` to this process when its parent dies, whatever this process does then."""
    return bool(_libc.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0) == 0)


def _stat(pid: int) -> Optional[list[str]]:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, STAT_BYTES).decode("ascii", "replace").rpartition(")")[2].split()
    except OSError:  # it has ended meanwhile
        return None
    finally:
        os.close(fd)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process."""
    fields = _stat(pid)
    return fields is not None and fields[_STATE] == "T"


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, parents first."""
    below: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        fields = _stat(int(entry)) if entry.isdigit() else None
        if fields:
            below.setdefault(int(fields[_PPID]), []).append(int(entry))
    found: list[int] = []
    todo = list(below.get(pid, ()))
    while todo:
        one = todo.pop(0)
        found.append(one)
        todo.extend(below.get(one, ()))
    return found


class Notifier:
    """Tells systemd that the node is up, alive and stopping (sd_notify); silent where no systemd asked for it."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        limit = os.environ.pop("WATCHDOG_USEC", "")
        for_pid = os.environ.pop("WATCHDOG_PID", "")
        self._socket: Optional[socket.socket] = None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = for_pid in ("", str(os.getpid()))
        self.interval = int(limit) / 4e6 if address and limit.isdigit() and mine else None
        """Seconds between two signs of life, a quarter of what systemd allows; None: it wants none."""
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def tell(self, text: str) -> bool:
        """Send READY=1, STOPPING=1, WATCHDOG=1 or STATUS=...; False when nobody took it."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket; in a child only its copy."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
