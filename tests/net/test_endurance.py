"""The cases that take longer: a minute of loss, a flapping link, whole clusters killed, electors lost, an unsafe quorum.

Run them with `python -m pytest -m long tests/net -s`.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster import until
from tests.net.hosts import Hosts, needs_namespaces
from tests.net.netcluster import SLACK_S, NetCluster
from tests.net.test_partitions import watch_quiet

pytestmark = [needs_namespaces, pytest.mark.long, pytest.mark.timeout(300)]
MINUTE_S = 60.0


def watch(cluster: NetCluster, seconds: float) -> float:
    """The share of the time in which a service was promoted."""
    ends, seen, held = time.monotonic() + seconds, 0, 0
    while time.monotonic() < ends:
        seen += 1
        held += cluster.holder() is not None
        time.sleep(0.05)
    return held / seen


def test_thirty_percent_loss_for_a_minute(tmp_path: Path) -> None:
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="3s") as cluster:
        cluster.start()
        cluster.settled()
        before = cluster.promotions()
        hosts.lose(30)
        share = watch(cluster, MINUTE_S)
        print(f"30 % loss, 60 s: {cluster.promotions() - before} moves, a master for {100 * share:.1f} % of the time")
        assert share > 0.85
        hosts.heal()
        cluster.settled()
        watch_quiet(cluster, 3.0)
        cluster.check()


def test_a_link_that_flaps_every_two_seconds_for_a_minute(tmp_path: Path) -> None:
    """The flapping host loses the mastership once; from then on nothing moves."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="3s") as cluster:
        cluster.start()
        master, _ = cluster.settled()
        since = time.time()
        hosts.pull(master)
        new = cluster.expect_failover(master, since)
        before = cluster.promotions()
        for _ in range(15):
            hosts.plug(master)
            time.sleep(2)
            hosts.pull(master)
            time.sleep(2)
        hosts.plug(master)
        print(f"flapping {master}, 60 s: {cluster.promotions() - before} moves of {new}")
        assert cluster.promotions() == before and cluster.holder() == new
        cluster.settled(new)
        cluster.check()


def test_all_nodes_killed_and_started_at_once(tmp_path: Path) -> None:
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="3s") as cluster:
        cluster.start()
        cluster.settled()
        killed = tuple((node.name, node.kill_all()) for node in cluster.nodes.values())
        since = time.time()
        cluster.start()
        stamp = until("a master again", lambda: cluster.first("promote", "end", since), 3 * cluster.failover + SLACK_S)
        print(f"all killed and started: promoted again after {stamp.time - since:.2f} s")
        cluster.settled()
        assert cluster.overlaps(killed) == []


def test_two_of_three_electors_down_and_back(tmp_path: Path) -> None:
    """Without a majority nothing is promoted; with it there is a master again in time."""
    with Hosts("abcd") as hosts, NetCluster(hosts, tmp_path, electors="abc", runners="d") as cluster:
        cluster.start()
        cluster.settled()
        for name in "ab":
            cluster[name].kill_all()
        until("d is demoted", lambda: cluster.holder() is None, cluster.failover + SLACK_S)
        watch_quiet(cluster)
        since = time.time()
        for name in "ab":
            cluster[name].start()
        until("d is promoted again", lambda: cluster.first("promote", "end", since, "d"), 3 * cluster.failover + SLACK_S)
        cluster.check()


def test_an_unsafe_quorum_gives_two_masters_and_says_so(tmp_path: Path) -> None:
    """What `unsafe_quorum` allows, and why every status warns of it."""
    with Hosts("ab") as hosts, NetCluster(hosts, tmp_path, extra="  quorum: 1\n  unsafe_quorum: true\n") as cluster:
        cluster.start()
        master, _ = cluster.settled()
        hosts.cut(master)
        cluster.wait_holder(cluster.failover + SLACK_S, other_than=master)
        assert cluster.overlaps() != []
        for node in cluster.hosted.values():
            assert any("two masters" in warning for warning in node.ask()["cluster"]["warnings"])
