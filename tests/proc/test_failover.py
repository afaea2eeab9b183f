"""Three real koinodes on loopback: one master through the death of any node, and never two."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator, Optional

import pytest

from koi.errors import Refused
from tests.cluster import RealCluster, tree_of, until


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Three nodes with two services."""
    with RealCluster(tmp_path_factory.mktemp("failover")) as cluster:
        for service in ("10-vip", "20-db"):
            for action in ("start", "stop", "promote", "demote"):
                cluster.script(service, action)
        cluster.start()
        yield cluster


@pytest.fixture
def cluster(three: RealCluster) -> Iterator[RealCluster]:
    """The three, all well; whatever a test does, two are never promoted at once."""
    three.wait_whole()
    yield three
    for action in ("start", "promote"):
        three.script("20-db", action)
    for node in three.nodes.values():
        if node.process is None:
            node.start()
    assert three.overlaps(three.killed) == []


def _some_but(cluster: RealCluster, name: str) -> str:
    return next(n for n in cluster.nodes if n != name)


def test_each_node_dies_in_turn_and_there_is_always_one_master(cluster: RealCluster) -> None:
    for name in ("a", "b", "c"):
        cluster[name].kill_all()
        cluster.wait_master(name)
        cluster[name].start()
        cluster.wait_whole()


def _leader(cluster: RealCluster, other_than: Optional[str] = None) -> str:
    return until("a leader", lambda: (name := cluster.status()["cluster"]["leader"]) != other_than and name)


def test_the_death_of_the_leader_moves_no_master(cluster: RealCluster) -> None:
    master, lead = cluster.wait_master(), _leader(cluster)
    if lead == master:
        master = _some_but(cluster, lead)
        with cluster.any().client() as client:
            client.promote(master)
    epoch = cluster.status()["cluster"]["epoch"]
    cluster[lead].kill_all()
    _leader(cluster, other_than=lead)
    assert (cluster.wait_master(), cluster.status()["cluster"]["epoch"]) == (master, epoch)


def test_a_higher_elector_takes_the_lead_back_and_moves_no_master(tmp_path: Path) -> None:
    """The highest is a witness here, and away for a while."""
    with RealCluster(tmp_path, runners="ab", bully_delay="500ms") as cluster:
        for action in ("promote", "demote"):
            cluster.script("10-vip", action)
        cluster.start()
        before = cluster.wait_whole(), cluster.status()["cluster"]["epoch"]
        cluster["c"].stop()
        assert _leader(cluster, other_than="c") in "ab"
        cluster["c"].start()
        until("c leads", lambda: _leader(cluster) == "c")
        assert (cluster.wait_whole(), cluster.status()["cluster"]["epoch"]) == before
        assert len([s for s in cluster.read_stamps() if s.edge == "begin"]) == 1


def test_all_nodes_stopped_and_started_have_one_master_again(cluster: RealCluster) -> None:
    for node in cluster.nodes.values():
        assert node.stop() == 0
    assert cluster.overlaps(cluster.killed) == []
    cluster.start()
    cluster.wait_master()


def test_without_a_majority_nobody_is_master(cluster: RealCluster) -> None:
    survivor = _some_but(cluster, cluster.wait_master())
    for name in cluster.nodes:
        if name != survivor:
            cluster[name].kill_all()
    text = until("the reason", lambda: cluster.status()["cluster"]["nobody"])
    assert "no leader" in text and survivor in text
    assert cluster.status()["cluster"]["leader"] is None
    assert cluster.first("promote", "begin", min(at for _, at in cluster.killed[-2:])) is None


def test_the_processes_are_children_of_root_and_named(cluster: RealCluster) -> None:
    name = cluster.wait_master()
    node = cluster[name]
    local = node.local()
    pids = local["pids"]
    assert pids["root"] == node.pid

    def titles() -> dict[int, str]:
        return {pid: Path(f"/proc/{pid}/cmdline").read_text().strip("\0") for pid in tree_of(node.pid)}

    found = titles()
    assert found[pids["root"]] == f"koinode: root [{name}]"
    assert found[pids["elector"]].startswith(f"koinode: elector [{name}: ")
    assert found[pids["runner"]] == f"koinode: runner [{name}: Master]"
    assert found[pids["services"]["vip"]] == f"koinode: service vip [{name}: Promoted]"
    parents = {int(Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[1]) for p in found if p != node.pid}
    assert parents == {node.pid}


def test_services_are_promoted_and_demoted_by_priority(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    other = _some_but(cluster, master)
    with cluster.any().client() as client:
        client.promote(other)
    log = cluster[master].log.read_text()
    down = [line for line in log.splitlines() if "Promoted -> Demoting" in line]
    up = [line for line in cluster[other].log.read_text().splitlines() if "Started -> Promoting" in line]
    assert ["service db" in down[-2], "service vip" in down[-1]] == [True, True]
    assert ["service vip" in up[-2], "service db" in up[-1]] == [True, True]


def test_a_failing_promote_gives_the_post_to_another(cluster: RealCluster) -> None:
    chosen = _some_but(cluster, cluster.wait_master())
    cluster.script("20-db", "promote", "exit 7", chosen)
    words = f"{chosen} failed to become master .*promote exited 7"
    with cluster.any().client() as client, pytest.raises(Refused, match=words):
        client.promote(chosen)
    cluster.wait_master(chosen)


def _starts(cluster: RealCluster, name: str) -> int:
    return len([s for s in cluster.read_stamps() if (s.node, s.action, s.edge) == (name, "start", "begin")])


def test_an_endless_start_harms_only_its_own_node(cluster: RealCluster) -> None:
    master, epoch = cluster.wait_master(), cluster.status()["cluster"]["epoch"]
    victim = _some_but(cluster, master)
    cluster.script("20-db", "start", "sleep 1000", victim)
    before = _starts(cluster, victim)
    cluster[victim].stop()
    cluster[victim].start()
    until("it starts db", lambda: _starts(cluster, victim) == before + 2)
    assert (cluster.wait_master(), cluster.status()["cluster"]["epoch"]) == (master, epoch)
    assert cluster[victim].stop() == 0


def test_a_second_koinode_of_the_same_node_is_refused(cluster: RealCluster) -> None:
    node = cluster[cluster.wait_master()]
    first, logged = node.process, len(node.log.read_text())
    node.start()
    second = node.process
    node.process = first
    assert second is not None and second.wait(20) == 1
    assert f"koinode of node {node.name} runs already, pid {node.pid}" in node.log.read_text()[logged:]
    assert os.path.exists(f"/proc/{node.pid}")


def test_an_elector_that_lost_its_state_asks_the_others(cluster: RealCluster) -> None:
    victim = _some_but(cluster, cluster.wait_master())
    epoch = cluster.status()["cluster"]["epoch"]
    cluster[victim].stop()
    (cluster[victim].folder / "state" / "elector.json").write_text("{ not JSON")
    logged = len(cluster[victim].log.read_text())
    cluster[victim].start()
    cluster.wait_whole()
    assert "starts blank" in cluster[victim].log.read_text()[logged:]
    assert cluster.status()["cluster"]["epoch"] == epoch


def test_an_elector_that_waits_out_its_guard_after_a_start_says_so(tmp_path: Path) -> None:
    """Found: status said that all is well, though the loss of another elector would have cost the master its lease."""
    with RealCluster(tmp_path, failover="2s") as cluster:
        cluster.start()
        master = cluster.wait_whole()
        away, other = (name for name in "abc" if name != master)
        cluster[away].stop()
        with cluster[master].client() as client:
            client.promote(other)
        cluster[away].start()

        def warned() -> bool:
            warnings = cluster.status()["cluster"]["warnings"]
            return any(w.startswith(f"elector {away} stands for no master for ") for w in warnings)

        until("it stands aside", warned)
        until("it takes part", lambda: not warned())
        cluster.wait_whole()
        assert cluster.master() == other
