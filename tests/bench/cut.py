"""A master's node that is cut off without a word: three nodes in network namespaces, every packet of the master's host dropped.

How it is taken: wall time of the cut -> stamp of the next promote; then the cut is healed and all nodes must be settled
again. From the stamps of all trials: how often two nodes were promoted at once.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.bench.failover import BESIDE_PEERS_S, quick_rows
from tests.bench.rows import Row, ms
from tests.cluster import until
from tests.net.hosts import Hosts, why_not
from tests.net.netcluster import NetCluster

WHAT = "silent cut of the master's node -> next promote"
SETTLED = 2.0
"""So many times time.failover after healing no elector waits for anything of the past any more."""


def rows(failover_s: float, trials: int) -> list[Row]:
    """The time, and the moments with two masters."""
    what = f"{WHAT}, failover {failover_s:g} s"
    missing = why_not()
    if missing:
        return [Row(what, "koi", "ms", missing=missing)]
    with Hosts("abc") as hosts, tempfile.TemporaryDirectory() as folder:
        cluster = NetCluster(hosts, Path(folder), failover=f"{failover_s:g}s")
        with cluster:
            cluster.start()
            cluster.settled()
            took = [_trial(hosts, cluster, failover_s) for _ in range(trials)]
            found = quick_rows(what, took, failover_s, cluster.overlaps())
    return [*found, ms(WHAT, took)] if failover_s == BESIDE_PEERS_S else found


def _trial(hosts: Hosts, cluster: NetCluster, failover_s: float) -> float:
    """Cut the master's host; seconds to the next promote."""
    time.sleep(SETTLED * failover_s)
    master, _ = cluster.settled()
    began = time.time()
    hosts.cut(master)
    stamp = until("a promote elsewhere", lambda: cluster.first("promote", "begin", began))
    until("the old one is demoted", lambda: cluster.first("demote", "end", began, master))
    hosts.heal()
    cluster.settled()
    return stamp.time - began
