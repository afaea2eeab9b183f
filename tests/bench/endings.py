"""How soon the end of a program is acted on: `run` to the next node's promote and to its new start, `watch` to demote.

How it is taken: the program is killed; scripts stamp the wall clock with `date`, which with /bin/sh costs 2 to 4 ms of
every figure.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.rows import Row, ms
from tests.cluster import RealCluster, Stamp, until

PROGRAM = "echo $$ > {folder}/pid.$KOI_NODE; exec sleep 100000"
LIVED_S = 1.5
"""A program has lived so long before it is killed; runit waits a second with one that died younger."""


def _kill(path: Path) -> float:
    """Kill the program whose pid stands there; the wall time just before."""
    pid = int(until("a pid", lambda: path.exists() and path.read_text().strip()))
    path.unlink()
    began = time.time()
    os.kill(pid, signal.SIGKILL)
    return began


def _well(cluster: RealCluster) -> bool:
    """Whether all nodes can be promoted, or are."""
    nodes = cluster.status().get("nodes", ())
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
        for action in actions:
            cluster.script("10-vip", action)
        cluster.script("10-vip", program, PROGRAM.format(folder=cluster.folder))
        cluster.start()
        return [_trial(cluster, lambda node, at: found(cluster, node, at)) for _ in range(trials)]


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
    ]
