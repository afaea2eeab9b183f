"""What processes cost, read from /proc: memory (PSS), CPU time to the nanosecond, voluntary switches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size of all of them together: a page that n processes share counts 1/n for each."""
    return sum(_field(pid, "smaps_rollup", "Pss:") for pid in pids) / 1024


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that they have used themselves, without what they have waited for (scripts)."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def switches(pids: Iterable[int]) -> int:
    """How often they have gone to sleep by themselves: once for each time they were woken."""
    return sum(_field(pid, "status", "voluntary_ctxt_switches:") for pid in pids)


def _field(pid: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
