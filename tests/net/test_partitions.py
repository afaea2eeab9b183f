"""Cuts, one-way loss and blocked pairs between real nodes: never two promoted, one again in time, none moved without cause."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from koi.errors import KoiError
from tests.cluster import until
from tests.net.hosts import Hosts, needs_namespaces
from tests.net.netcluster import NetCluster

pytestmark = needs_namespaces
QUIET_S = 2.5
"""How long a master that must not move is watched: more than time.failover."""


def watch_quiet(cluster: NetCluster, seconds: float = QUIET_S) -> None:
    """No promote begins meanwhile."""
    before, ends = cluster.promotions(), time.monotonic() + seconds
    while time.monotonic() < ends:
        assert cluster.promotions() == before, cluster.read_stamps()[-4:]
        time.sleep(0.1)


def other(cluster: NetCluster, *names: str) -> str:
    """A host that is none of these."""
    return next(n for n in cluster.hosts.names if n not in names)


def test_the_leaders_host_the_masters_and_that_of_both_are_cut_off(tmp_path: Path) -> None:
    """A lost leader moves no master; a lost master is replaced in time, whoever leads; back again it stays a backup."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="2s", preferences={"b": 10, "a": 5}) as cluster:
        cluster.start()
        cluster.arrange("b", "c")
        hosts.cut("c")
        until("b leads", lambda: cluster.leader("b") == "b")
        assert cluster.holder() == "b"
        until("c tells", lambda: "hears no leader;" in cluster.hosted["c"].ask().get("cluster", {}).get("nobody", ""))
        hosts.heal()
        assert cluster.settled("b") == ("b", "b")
        since = time.time()
        hosts.cut("b")
        assert cluster.expect_failover("b", since) == "a"
        hosts.heal()
        cluster.arrange("a", "c")
        since = time.time()
        hosts.cut("a")
        assert cluster.expect_failover("a", since) == "b"
        hosts.heal()
        assert cluster.settled("b")[0] == "b"
        watch_quiet(cluster, 1.0)
        cluster.check()


def test_loss_in_one_direction(tmp_path: Path) -> None:
    """A master that is not heard, or does not hear, loses its lease; another takes over; back again it stays a backup."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path) as cluster:
        cluster.start()
        for fault in (hosts.drop, hosts.deafen):
            master, _ = cluster.settled()
            since = time.time()
            fault(master)
            new = cluster.expect_failover(master, since)
            hosts.heal()
            assert cluster.settled(new)[0] == new
        cluster.check()


def test_one_way_between_master_and_leader_moves_nothing(tmp_path: Path) -> None:
    """What one of them sends to the other is lost, and then the other way: the rest hear both."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="2s", preferences={"a": 10}) as cluster:
        cluster.start()
        cluster.arrange("a", "c")
        for source, target in (("a", "c"), ("c", "a")):
            hosts.drop(source, target)
            watch_quiet(cluster)
            hosts.heal()
            assert cluster.settled()[0] == "a"
        cluster.check()


def test_maintenance_asked_of_a_leader_that_is_cut_off_keeps_nothing_promoted(tmp_path: Path) -> None:
    """Found: the last that the master had of one elector was of an earlier maintenance; with its own elector's word for this
    one, of which nobody else had heard, that made a majority, and it stayed promoted beside the next master."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="2s", preferences={"c": 10}) as cluster:
        cluster.start()
        cluster.arrange("c", "c")
        ask_maintenance(cluster, "c", True)
        until("all have heard of it", lambda: all(held(cluster, name) for name in "abc"))
        watch_quiet(cluster, 0.5)
        hosts.block("a", "c")
        ask_maintenance(cluster, "c", False)
        with cluster.hosted["c"].client(timeout=1.0) as client:
            since = time.time()
            hosts.cut("c")
            with pytest.raises(KoiError):
                client.maintenance(True)
        log = cluster.hosted["c"].log
        until("c's elector has accepted it", lambda: "maintenance on" in log.read_text().split("maintenance is over")[1])
        assert cluster.expect_failover("c", since) in ("a", "b")
        cluster.check()


def ask_maintenance(cluster: NetCluster, name: str, on: bool) -> None:
    """`koi maintenance on|off` on this host."""
    with cluster.hosted[name].client() as client:
        client.maintenance(on)


def held(cluster: NetCluster, name: str) -> bool:
    """Whether this host's elector says that there is maintenance."""
    return bool(cluster.hosted[name].ask().get("cluster", {}).get("maintenance"))


@pytest.mark.long
def test_a_blocked_pair_moves_nothing(tmp_path: Path) -> None:
    """a and c cannot talk while b sees both: whoever is master stays it."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="2s") as cluster:
        cluster.start()
        master, _ = cluster.settled()
        hosts.block("a", "c")
        watch_quiet(cluster, 4.0)
        assert cluster.holder() == master
        hosts.heal()
        assert cluster.settled()[0] == master
        watch_quiet(cluster, 1.0)
        cluster.check()


def test_three_electors_and_two_runners_on_five_hosts(tmp_path: Path) -> None:
    with Hosts("abcde") as hosts, NetCluster(hosts, tmp_path, electors="abc", runners="de") as cluster:
        cluster.start()
        master, leader = cluster.settled()
        since = time.time()
        hosts.cut(leader)
        until("a new leader", lambda: cluster.leader(other(cluster, leader)) not in (None, leader))
        assert cluster.holder() == master
        hosts.heal()
        cluster.settled()
        since = time.time()
        hosts.cut(master)
        new = cluster.expect_failover(master, since)
        hosts.heal()
        assert cluster.settled()[0] == new
        cluster.check()
