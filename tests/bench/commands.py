"""How long `koi status` and `koi promote NODE` take from the shell's start of the command, on a cluster of three."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.rows import Row, ms
from tests.bench.stamps import STAMP
from tests.cluster import REPOSITORY, RealCluster

STATUS_GOAL_MS, PROMOTE_GOAL_MS = 150, 180


def _koi(cluster: RealCluster, *words: str) -> float:
    """Run the command as a shell does; seconds."""
    command = [sys.executable, "-m", "koi.cli", "-f", str(cluster.any().config), *words]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    return time.perf_counter() - began


def rows(trials: int) -> list[Row]:
    """Both commands."""
    status, move, whole = [], [], []
    with tempfile.TemporaryDirectory() as folder, RealCluster(Path(folder), failover="3s") as cluster:
        cluster.template = STAMP
        for action in ("promote", "demote"):
            cluster.script("10-vip", action)
        cluster.start()
        master = cluster.wait_master()
        time.sleep(2)
        _koi(cluster, "status")
        status += [_koi(cluster, "status") for _ in range(trials)]
        for _ in range(trials):
            other = next(name for name in sorted(cluster.nodes) if name != master)
            began = time.time()
            whole.append(_koi(cluster, "promote", other))
            stamp = cluster.first("promote", "begin", began)
            assert stamp is not None, "the command has ended, and nothing was promoted"
            move.append(stamp.time - began)
            master = cluster.wait_master(master)
            time.sleep(1)
    return [
        ms("koi status, whole command", status, goal=STATUS_GOAL_MS),
        ms("start of koi promote NODE -> next promote", move, goal=PROMOTE_GOAL_MS),
        ms("koi promote NODE, whole command", whole),
    ]
