"""Waiting for conditions on real processes, with a bound and never for a mere time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional, TypeVar

T = TypeVar("T")
PAUSE_S = 0.005


def until(condition: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
    """The first true value of the condition; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:g} s: {what or condition}"
        time.sleep(PAUSE_S)


def pid_in(path: Path) -> int:
    """The process id that a script writes there, once it has."""
    return int(until(lambda: path.exists() and path.read_text().strip(), what=str(path)))


def cmdline(pid: int) -> str:
    """The title of a process; empty when there is none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def state(pid: int) -> Optional[str]:
    """R, S, T, Z ... of /proc/PID/stat; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return None


def is_gone(pid: int) -> bool:
    """Whether the process has ended."""
    return state(pid) in (None, "Z", "X")


def descriptors(pid: int) -> dict[int, str]:
    """What the process has open: descriptor -> target."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:
            continue
    return found
