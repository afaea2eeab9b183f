"""Several addresses of one elector, IPv6, names that mean something late or something new, and hosts that move."""

from __future__ import annotations

import random
import string
import time
from functools import partial
from pathlib import Path
from typing import Callable

import pytest

from koi.core.reporting import LIGHT_LIST
from tests.cluster import until
from tests.net.hosts import NETWORKS, Hosts, needs_namespaces, run
from tests.net.netcluster import NetCluster
from tests.net.test_partitions import watch_quiet

pytestmark = needs_namespaces


def nothing_moves(hosts: Hosts, folder: Path, addresses: dict[str, str], breaks: list[Callable[[], None]]) -> None:
    """One fault after the other changes neither leader nor master."""
    with NetCluster(hosts, folder, failover="2s", addresses=addresses) as cluster:
        cluster.start()
        master, leader = cluster.settled()[0], "c"
        cluster.arrange(master, leader)
        for fault in breaks:
            fault()
            watch_quiet(cluster, 4.0)
            assert cluster.leader("a") == leader
            hosts.heal()
        assert cluster.settled()[0] == master
        cluster.check()


@pytest.mark.long
def test_one_of_two_networks_dies_and_nothing_moves(tmp_path: Path) -> None:
    with Hosts("abc", networks=2) as hosts:
        both = {n: f"[{hosts.address(n, 0)}, {hosts.address(n, 1)}]" for n in "abc"}
        nothing_moves(hosts, tmp_path, both, [partial(hosts.break_network, network) for network in (0, 1)])


@pytest.mark.long
def test_one_of_two_families_dies_and_nothing_moves(tmp_path: Path) -> None:
    with Hosts("abc") as hosts:
        both = {n: f'[{hosts.address(n)}, "{hosts.ipv6(n)}"]' for n in "abc"}
        nothing_moves(hosts, tmp_path, both, [partial(hosts.break_family, family) for family in ("ip", "ip6")])


def test_ipv6_alone(tmp_path: Path) -> None:
    with Hosts("abc") as hosts:
        with NetCluster(hosts, tmp_path, addresses={n: f'"{hosts.ipv6(n)}"' for n in "abc"}) as cluster:
            cluster.start()
            master, _ = cluster.settled()
            since = time.time()
            hosts.cut(master)
            new = cluster.expect_failover(master, since)
            hosts.heal()
            assert cluster.settled()[0] == new
            cluster.check()


TAKE = "ip -6 address replace fd77::100/64 dev eth0 nodad"
DROP = "ip -6 address del fd77::100/64 dev eth0 2>/dev/null || true"


def test_a_service_with_an_ipv6_address_mutes_no_elector(tmp_path: Path) -> None:
    """Found: the kernel prefers the youngest address of a network, and from a service's address no elector is heard."""
    with Hosts("abcd") as hosts:
        addresses = {n: f'"{hosts.ipv6(n)}"' for n in "abc"}
        shape = {"electors": "abc", "failover": "2s"}
        with NetCluster(hosts, tmp_path, **shape, addresses=addresses, preferences={"c": 10, "b": 5}) as cluster:
            cluster.script("web", "promote", TAKE)
            cluster.script("web", "demote", DROP)
            cluster.start()
            cluster.arrange("c", "c")
            watch_quiet(cluster)
            assert cluster.settled("a") == ("c", "c") and cluster.settled("d") == ("c", "c")
            status = cluster.hosted["c"].ask()["cluster"]
            assert status["quorum"]["have"] == 3 and "does not answer" not in str(status["warnings"])
            since = time.time()
            hosts.cut("c")
            assert cluster.expect_failover("c", since) == "b"
            hosts.heal()
            assert cluster.settled("a")[0] == "b"
            cluster.check()


@pytest.mark.long
def test_bound_to_one_address_of_the_host(tmp_path: Path) -> None:
    """Each node listens on its own address alone, of two that the host has."""
    with Hosts("abc", networks=2) as hosts, NetCluster(hosts, tmp_path) as cluster:
        for name, node in cluster.nodes.items():
            text = node.config.read_text()
            node.config.write_text(text.replace('bind: ["::"]', f"bind: [{hosts.address(name)}]"))
        cluster.start()
        master, _ = cluster.settled()
        since = time.time()
        hosts.cut(master)
        cluster.expect_failover(master, since)
        cluster.check()


def test_a_master_whose_address_changes_stays_master(tmp_path: Path) -> None:
    """A host without an elector stands in no configuration: it goes on from wherever it is."""
    shape = {"electors": "abc", "runners": "cd", "failover": "2s"}
    with Hosts("abcd") as hosts, NetCluster(hosts, tmp_path, **shape, preferences={"d": 10}) as cluster:
        cluster.start()
        cluster.arrange("d", "c")
        hosts.renumber("d", f"{NETWORKS[0]}.77")
        until("it is seen at its new address", lambda: f"{NETWORKS[0]}.77" in str(cluster.hosted["a"].ask()))
        watch_quiet(cluster)
        assert cluster.settled()[0] == "d"
        cluster.check()


LETTERS = string.ascii_letters + string.digits
FRAGMENTS = 1400
"""Bytes: no fragment of a larger datagram passes."""


def test_where_large_datagrams_are_lost_a_node_of_many_services_is_master(tmp_path: Path) -> None:
    """The list of its services takes more than one packet, and never arrives."""
    chance = random.Random(1)
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, runners="ab", failover="2s") as cluster:
        for name in "ab":
            for _ in range(LIGHT_LIST + 5):
                (cluster[name].services / "".join(chance.choices(LETTERS, k=63))).mkdir()
        hosts.swallow(FRAGMENTS)
        cluster.start()
        master = cluster.wait_holder(30.0)
        (cluster[master].services / "new").mkdir()
        watch_quiet(cluster)
        assert cluster.holder() == master
        cluster.check()


def test_names_that_resolve_late_and_to_something_new(tmp_path: Path) -> None:
    """The cluster starts while no name means anything, finds itself once they do, and again after a host has moved."""
    with Hosts("abc") as hosts:
        means = {f"host-{n}": hosts.address(n) for n in "abc"}
        with NetCluster(hosts, tmp_path, addresses={n: f"host-{n}" for n in "abc"}) as cluster:
            cluster.start()
            until("warnings", lambda: all("no address is known for" in n.log.read_text() for n in cluster.nodes.values()))
            assert cluster.holder() is None
            hosts.name(means)
            master, leader = cluster.settled()
            moved = next(n for n in "abc" if n not in (master, leader))
            new = f"{NETWORKS[0]}.77"
            hosts.renumber(moved, new)
            told = f"elector {moved} is not heard, and what it sends comes from {new}:42012, which is none of its addresses"
            until("the elector that moved is missed", lambda: told in warnings(cluster, leader))
            hosts.name({**means, f"host-{moved}": new})
            assert cluster.settled(leader)[0] == master
            assert cluster.promotions() == 1
            cluster.check()


def warnings(cluster: NetCluster, host: str) -> str:
    """What `koi status` warns of on this host."""
    return str(cluster.hosted[host].ask().get("cluster", {}).get("warnings"))


def test_an_elector_that_the_others_look_for_elsewhere_says_so(tmp_path: Path) -> None:
    """Found: a copy of another node's configuration waited for ever, and said that it runs no services."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, electors="ab") as cluster:
        text = cluster["c"].config.read_text()
        cluster["c"].config.write_text(text.replace("name: c", "name: b"))
        cluster["c"].start()
        told = f"cluster.electors has b at {hosts.address('b')}, and this machine has no such address: nobody hears this elector"
        until("the warning", lambda: told in warnings(cluster, "c") and told in cluster["c"].log.read_text())
        with cluster.hosted["c"].client() as client:
            own = client.local()
        assert (own["name"], own["runner"], own["state"], own["mode"]) == ("b", True, "Disconnected", "active")


def test_what_keeps_a_host_from_sending_is_told(tmp_path: Path) -> None:
    """Found: the error was counted, and nobody was told."""
    with Hosts("abc") as hosts, NetCluster(hosts, tmp_path, failover="2s") as cluster:
        cluster.start()
        cluster.arrange("a", "c")
        hosts.forbid("c")
        told = "elector a is not heard, and nothing can be sent to it from c: Operation not permitted; see links, routes and"
        until("c says so", lambda: told in warnings(cluster, "c"))
        until("b leads", lambda: cluster.leader("b") == "b")
        assert cluster.holder() == "a"
        hosts.permit("c")
        until("it is over", lambda: cluster.settled("b")[0] == "a" and "nothing can be sent" not in warnings(cluster, "c"))
        run("ip", "-n", hosts.namespace("a"), "link", "set", "eth0", "down")
        until("a says so", lambda: "can be sent to it from a: Network is unreachable" in warnings(cluster, "a"))
        run("ip", "-n", hosts.namespace("a"), "link", "set", "eth0", "up")
        cluster.settled("b")
        cluster.check()
