"""Whether a short failover time holds on a busy machine: three nodes, failover 0.5 s, and a program that never rests.

How it is taken: the busy program is bound to one core, the nodes may use all; the stamps of promote are counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.rows import Row
from tests.cluster import RealCluster

FAILOVER_S = 0.5
SECONDS = 600.0
BUSY = "import os\nos.sched_setaffinity(0, {0})\nwhile True: pass\n"


def rows(trials: int) -> list[Row]:
    """Needless changes of the master in SECONDS, and the moments with two."""
    moved, doubled = [], []
    for _ in range(trials):
        changes, overlaps = measure(SECONDS)
        moved.append(float(changes))
        doubled.append(float(overlaps))
    what = f"failover {FAILOVER_S:g} s, one core busy for {SECONDS:g} s"
    return [Row(f"{what}: changes of the master", "koi", "", tuple(moved), worst_goal=0),
            Row(f"{what}: moments with two masters", "koi", "", tuple(doubled), worst_goal=0)]


def measure(seconds: float) -> tuple[int, int]:
    """(changes of the master, moments with two) in so many seconds."""
    with tempfile.TemporaryDirectory() as folder, RealCluster(
            Path(folder), failover=f"{FAILOVER_S:g}s", bully_delay="10s") as cluster:
        for action in ("promote", "demote"):
            cluster.script("10-vip", action)
        cluster.start()
        cluster.wait_master()
        busy = subprocess.Popen([sys.executable, "-c", BUSY])
        try:
            before = _promotions(cluster)
            time.sleep(seconds)
            return _promotions(cluster) - before, len(cluster.overlaps())
        finally:
            busy.kill()
            busy.wait()


def _promotions(cluster: RealCluster) -> int:
    assert os.cpu_count() != 1, "with one core there is none left for the nodes"
    return sum(1 for s in cluster.read_stamps() if (s.action, s.edge) == ("promote", "begin"))
