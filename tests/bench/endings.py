"""How soon an end is acted on: `run` to the next node's promote and to its new start, `watch` and a failing `status` to demote.

How it is taken: the program is killed, or `status` stamps its own end and fails, and the script that follows stamps its
begin (stamps.py).
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.rows import Row, ms
from tests.bench.stamps import STAMP
from tests.cluster import RealCluster, Stamp, until

PROGRAM = "echo $$ > {folder}/pid.$KOI_NODE; exec sleep 100000"
STATUS = 'if [ -e {folder}/failing.$KOI_NODE ]; then echo "$EPOCHREALTIME $KOI_NODE status end -" >> {stamps}; exit 1; fi'
LIVED_S = 1.5
"""A program has lived so long before it is killed; runit waits a second with one that died younger."""


def _kill(path: Path) -> float:
    """Kill the program whose pid stands there; the wall time just before."""
    pid = int(until("a pid", lambda: path.read_text().strip() if path.exists() else ""))
    path.unlink()
    began = time.time()
    os.kill(pid, signal.SIGKILL)
    return began


def _well(cluster: RealCluster) -> bool:
    """Whether all nodes can be promoted, or are."""
    nodes = cluster.status()["nodes"]
    return len(nodes) == len(cluster.nodes) and all(n["promotable"] or n["state"] == "Master" for n in nodes)


def _trial(cluster: RealCluster, found: Callable[[str, float], Stamp | None]) -> float:
    """Kill the master's program; seconds until the stamp."""
    until("all well", lambda: _well(cluster))
    master = cluster.wait_master()
    time.sleep(LIVED_S)
    began = _kill(cluster.folder / f"pid.{master}")
    stamp = until("the stamp", lambda: found(master, began))
    return stamp.time - began


def _measure(
    program: str, service: str, actions: tuple[str, ...], trials: int,
    found: Callable[[RealCluster, str, float], Stamp | None],
) -> list[float]:
    with tempfile.TemporaryDirectory() as name, RealCluster(Path(name), failover="3s", service=service) as cluster:
        cluster.template = STAMP
        for action in actions:
            cluster.script("10-vip", action)
        cluster.script("10-vip", program, PROGRAM.format(folder=cluster.folder))
        cluster.start()
        return [_trial(cluster, lambda node, at: found(cluster, node, at)) for _ in range(trials)]


def _failing_status(trials: int) -> list[float]:
    """From the end of a `status` that fails to the begin of demote."""
    with tempfile.TemporaryDirectory() as name, RealCluster(Path(name), failover="3s") as cluster:
        cluster.template = STAMP
        for action in ("promote", "demote"):
            cluster.script("10-vip", action)
        cluster.script("10-vip", "status", STATUS.format(folder=cluster.folder, stamps=cluster.stamps))
        cluster.start()
        return [_status_trial(cluster) for _ in range(trials)]


def _status_trial(cluster: RealCluster) -> float:
    until("all well", lambda: _well(cluster))
    master, began = cluster.wait_master(), time.time()
    flag = cluster.folder / f"failing.{master}"
    flag.touch()
    demoted = until("demote", lambda: cluster.first("demote", "begin", began, master))
    flag.unlink()
    ends = [s.time for s in cluster.read_stamps() if s.node == master and (s.action, s.edge) == ("status", "end")]
    return demoted.time - max(end for end in ends if end < demoted.time)


def rows(trials: int) -> list[Row]:
    """All of them."""
    both = ("promote", "demote")
    move = _measure("run", "", both, trials, lambda cluster, node, at: cluster.first("promote", "begin", at))
    again = _measure("run", "  restarts: 1000\n", (), trials, lambda cluster, node, at: cluster.first("run", "begin", at, node))
    watch = _measure("watch", "", both, trials, lambda cluster, node, at: cluster.first("demote", "begin", at, node))
    return [
        ms("exit of run -> next promote", move, goal=10),
        ms("exit of a program -> its new start", again, goal=5),
        ms("exit of watch -> begin of demote", watch, goal=5),
        ms("end of a failing status -> begin of demote", _failing_status(trials), goal=5),
    ]
