"""Delay, reordering and repeats on the way: nothing moves by itself, and what must move does so in time."""

from __future__ import annotations

import time
from pathlib import Path

from tests.net.disturbed import Disturbed
from tests.net.hosts import Hosts, needs_namespaces
from tests.net.netcluster import NetCluster
from tests.net.test_partitions import watch_quiet

pytestmark = needs_namespaces
DELAY_S, JITTER_S = 0.02, 0.1
"""Of failover 2 s: H is 0.2 s, so a datagram may overtake the half of a heartbeat."""


def test_delayed_reordered_and_repeated_datagrams_move_nothing_and_stop_nothing(tmp_path: Path) -> None:
    with Hosts("abcde") as hosts, NetCluster(hosts, tmp_path, electors="abc", runners="de", failover="2s") as cluster:
        cluster.start()
        master, leader = cluster.settled()
        with Disturbed(hosts, DELAY_S, JITTER_S, repeated=0.5) as network:
            watch_quiet(cluster)
            assert cluster.settled()[0] == master and network.passed > 100
            other = "e" if master == "d" else "d"
            with cluster.hosted["a"].client() as client:
                client.promote(other)
            assert cluster.holder() == other
            since = time.time()
            network.silenced.add(other)
            assert cluster.expect_failover(other, since) == master
        cluster.check()
