"""A changed configuration while three real nodes run: faulty ones change nothing, others are applied without touching a
service, and only what needs a new socket or new timings replaces elector or runner."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from koi.config import loads
from koi.errors import Refused
from koi.proc import reload
from tests.cluster import Node, RealCluster, free_ports, until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Two electors with runners and a third runner without an elector; each test leaves it as it found it."""
    with RealCluster(tmp_path_factory.mktemp("reload"), nodes="abcd", electors="abc", failover="6s") as cluster:
        for action in ("start", "stop", "promote", "demote", "status"):
            cluster.script("10-vip", action)
        cluster.start()
        assert all(node.asker for node in cluster.nodes.values())
        cluster.wait_whole()
        yield cluster


def edit(node: Node, *changes: tuple[str, str]) -> None:
    """Replace texts in the node's configuration."""
    text = node.config.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    node.config.write_text(text)


def reconfigure(node: Node) -> str:
    """`koi reconfigure` on the node, by a client that does not read the node's file; what it says."""
    return str(node.asker.reconfigure(node.name)["message"])


def differences(cluster: RealCluster) -> list[str]:
    """What `koi status` says of configurations that differ."""
    return [text for text in cluster.status()["cluster"]["warnings"] if "differs" in text]


def scripts(cluster: RealCluster) -> int:
    return len([s for s in cluster.read_stamps() if s.action != "status"])


@pytest.mark.parametrize("name", ["a", "d"])
def test_a_faulty_file_changes_nothing_and_the_client_hears_why(cluster: RealCluster, name: str) -> None:
    node = cluster[name]
    before, good, ran = node.processes(), node.config.read_text(), scripts(cluster)
    edit(node, ("failover: 6s", "failover: soon"))
    with pytest.raises(Refused, match="failover"):
        reconfigure(node)
    node.config.write_text(good.replace(f"{node.folder}/state", f"{node.folder}/elsewhere"))
    with pytest.raises(Refused, match="node.state_dir can only be changed by a restart of koinode"):
        reconfigure(node)
    if node.elector:  # it was applied, and the elector then ended again and again
        node.config.write_text(re.sub(r"electors: {.*}", f"electors: {{{node.name}: '127.0.0.1:{node.port}'}}", good))
        with pytest.raises(Refused, match="more than one name differs"):
            reconfigure(node)
    node.config.write_text(good)
    assert "nothing has changed in the configuration; new and changed services are taken up in a moment" in reconfigure(node)
    assert node.processes() == before and scripts(cluster) == ran


@pytest.mark.parametrize(("asked", "named"), [("a", "b"), ("b", "d"), ("d", "c")])
def test_any_node_sends_it_on_to_the_one_that_is_named(cluster: RealCluster, asked: str, named: str) -> None:
    """d is no elector; its runner answers clients."""
    node = cluster[named]
    before, good, ran = {n: cluster[n].processes() for n in "abcd"}, node.config.read_text(), scripts(cluster)
    logged = {n: len(cluster[n].log.read_text()) for n in "abcd"}
    edit(node, (f"name: {named}\n", f"name: {named}\n  preference: 7\n"))
    said = cluster[asked].asker.reconfigure(named)
    assert said["done"] and said["message"] == f"{named}: applied node.preference"
    node.config.write_text(good.replace("failover: 6s", "failover: soon"))
    with pytest.raises(Refused, match=f"{named}: the configuration is not changed: .*time.failover: is 'soon'"):
        cluster[asked].asker.reconfigure(named)
    node.config.write_text(good)
    assert cluster[asked].asker.reconfigure(named)["done"]
    assert {n: cluster[n].processes() for n in "abcd"} == before and scripts(cluster) == ran
    assert [n for n in "abcd" if "koi reconfigure: " in cluster[n].log.read_text()[logged[n] :]] == [named]


def test_a_node_that_nobody_knows_is_refused(cluster: RealCluster) -> None:
    with pytest.raises(Refused, match="nobody"):
        cluster["a"].asker.reconfigure("nobody")


def test_settings_of_node_and_services_are_applied_in_place(cluster: RealCluster) -> None:
    name = next(name for name in "abc" if name != cluster.wait_master())
    node = cluster[name]
    before, good, ran = node.processes(), node.config.read_text(), scripts(cluster)
    edit(node, (f"name: {name}\n", f"name: {name}\n  mode: passive\n  preference: 7\n  loglevel: debug\n"),
         ("service:\n", "service:\n  status_timeout: 100ms\n  auto_recover: 1\n"))
    said = reconfigure(node)
    for key in ("node.mode", "node.preference", "node.loglevel", "service.status_timeout", "service.auto_recover"):
        assert key in said
    assert "replaced" not in said
    until("the leader hears of it", lambda: [
        n for n in cluster.status()["nodes"]
        if n["name"] == name and (n["mode"], n["preference"], n["promotable"]) == ("passive", 7, False)])
    assert node.processes() == before and scripts(cluster) == ran
    cluster.script("10-vip", "status", "sleep 1", name)
    until("the new timeout counts", lambda: "status outlived its timeout of 0.1 s" in node.log.read_text())
    cluster.script("10-vip", "status", "", name)
    node.config.write_text(good)
    assert "applied" in reconfigure(node)
    until("it recovers", lambda: node.local()["state"] == "Backup")


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1], ids=["hup", "usr1"])
def test_new_timings_replace_elector_and_runner_and_nothing_else(cluster: RealCluster, signum: int) -> None:
    master = cluster.wait_master()
    node, epoch, ran = cluster[master], cluster.status()["cluster"]["epoch"], scripts(cluster)
    before, good = node.processes(), node.config.read_text()
    edit(node, ("failover: 6s", "failover: 6100ms"))
    os.kill(node.pid, signal.SIGUSR2)  # means nothing, and does not end root
    os.kill(node.pid, signum)
    until("it is told", lambda: "applied time.failover" in node.log.read_text())

    wanted = [name for name in ("elector", "runner") if name in before]

    def both() -> bool:
        now = node.processes()
        return all(now.get(name, before[name]) != before[name] for name in wanted)

    until("elector and runner are new", both)
    until("the others warn", lambda: differences(cluster))
    node.config.write_text(good)
    assert "time.failover" in reconfigure(node)
    until("no warning is left", lambda: differences(cluster) == [])
    after = node.processes()
    assert {n: p for n, p in after.items() if n.startswith(("root", "service"))} == {
        n: p for n, p in before.items() if n.startswith(("root", "service"))}
    assert (cluster.wait_master(), cluster.status()["cluster"]["epoch"]) == (master, epoch) and scripts(cluster) == ran
    node.log.write_text("")


def test_a_new_port_replaces_only_who_owns_it(cluster: RealCluster) -> None:
    node = cluster["d"]
    before, good, port = node.processes(), node.config.read_text(), free_ports(1)[0]
    edit(node, (f"port: {node.port}", f"port: {port}"))
    assert "cluster.port" in reconfigure(node)
    until("it answers at the new port", lambda: f"127.0.0.1:{port}" in str(cluster.status()))
    after = node.processes()
    assert [name for name in before if after.get(name) != before[name]] == ["runner"]
    node.config.write_text(good)
    os.kill(node.pid, signal.SIGHUP)
    until("it is back at the old one", lambda: node.local()["state"] in ("Backup", "Master"))


def test_what_is_told_and_what_is_replaced() -> None:
    base = b"node: {name: a}\ncluster: {electors: {a: 127.0.0.1, b: 127.0.0.2, c: 127.0.0.3}}\n"
    old = loads(base, "koi.conf", None, "a password for tests")

    def after(more: str) -> tuple[str, ...]:
        return reload.replaced(reload.changes(old, loads(base + more.encode(), "koi.conf", None, "a password for tests")), old)

    assert after("time: {status_interval: 3s}") == () == after("service: {start_timeout: 3s}")
    assert after("service: {promote_timeout: 3s}") == ("elector",)
    assert after("time: {failover: 4s}") == ("elector", "runner")
    assert reload.FIXED.isdisjoint(reload.TOLD | reload.OF_THE_LEADER)
