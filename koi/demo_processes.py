"""The processes of a demo node: all of them found, all of them ended, none of anybody else's touched.

The rule it keeps: a process counts as the node's only by descent from its root, by a session that such a one began, by
its output that goes into the node's folder or by its environment that names that folder. So a shell that stands in the
folder or reads a log there is left alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterable

from koi.client_line import now, pause
from koi.errors import KoiError

ROUNDS, ROUND_S = 100, 0.05
"""How often what is killed is looked for again, and the pause between."""


def of_node(folder: str, root: int | None) -> set[int]:
    """The processes of the node whose files are all in `folder`; `root` is its koinode's process id."""
    table = _table()
    found = {pid for pid in table if _belongs(pid, folder)}
    if root in table:
        found.add(root)
    while True:
        sessions = {pid for pid in found if table[pid][1] == pid}
        more = {pid for pid, (parent, session) in table.items() if parent in found or session in sessions} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def kill(folder: str, root: int | None) -> int:
    """SIGKILL to every process of the node, until none is left; how many there were. Raises KoiError if some do not end."""
    killed: set[int] = set()
    for _ in range(ROUNDS):
        pids = of_node(folder, root)
        if not pids:
            return len(killed)
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        killed |= pids
        root = None
        pause(ROUND_S)
    raise KoiError(f"processes {', '.join(map(str, sorted(pids)))} of {folder} do not end; end them by hand: kill -9 PID")


def wait_for_end(processes: Iterable[subprocess.Popen[bytes]], seconds: float) -> list[subprocess.Popen[bytes]]:
    """Waits until the processes have ended, at most so long; those that have not."""
    until, left = now() + seconds, [p for p in processes if p.poll() is None]
    while left and now() < until:
        descriptors = [os.pidfd_open(p.pid) for p in left]
        try:
            select.select(descriptors, [], [], max(0.0, until - now()))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        left = [p for p in left if p.poll() is None]
    return left


def _table() -> dict[int, tuple[int, int]]:
    """Every living process: its parent and its session."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            text = _read(f"/proc/{name}/stat").decode("ascii", "replace")
            fields = text.rpartition(")")[2].split()
            if len(fields) > 3 and fields[0] not in "ZX":
                found[int(name)] = int(fields[1]), int(fields[3])
    return found


def _belongs(pid: int, folder: str) -> bool:
    inside = os.path.join(folder, "")
    if f"={inside}".encode() in _read(f"/proc/{pid}/environ"):
        return True
    return any(_link(f"/proc/{pid}/fd/{number}").startswith(inside) for number in (1, 2))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # it has ended, or is another user's
        return b""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
