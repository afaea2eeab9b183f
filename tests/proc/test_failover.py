"""Three real koinodes on loopback: one master through the death of any node, and never two."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

from koi.errors import Refused
from tests.cluster import RealCluster, tree_of, until


@pytest.fixture()
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    """Three nodes with two services, up and with a master."""
    with RealCluster(tmp_path) as cluster:
        for service in ("10-vip", "20-db"):
            for action in ("start", "stop", "promote", "demote"):
                cluster.script(service, action)
        cluster.start()
        cluster.wait_master()
        yield cluster


def leader(cluster: RealCluster) -> str:
    return until("a leader", lambda: cluster.status().get("cluster", {}).get("leader"))


def back_up(cluster: RealCluster, name: str) -> None:
    """Start the node again and wait until it could be promoted."""
    cluster[name].start()
    until(f"{name} is back", lambda: _could_be_promoted(cluster, name))


def _could_be_promoted(cluster: RealCluster, name: str) -> bool:
    nodes = {n["name"]: n for n in cluster.status().get("nodes", ())}
    return name in nodes and nodes[name]["state"] == "Backup" and nodes[name]["elector"] in ("follower", "leader")


def test_each_node_dies_in_turn_and_there_is_always_one_master(cluster: RealCluster) -> None:
    killed = []
    for name in ("a", "b", "c"):
        killed.append((name, cluster[name].kill_all()))
        cluster.wait_master(name)
        back_up(cluster, name)
    assert cluster.overlaps(tuple(killed)) == []


def test_the_death_of_the_leader_moves_no_master(cluster: RealCluster) -> None:
    master, lead = cluster.wait_master(), leader(cluster)
    if lead == master:
        other = next(n for n in cluster.nodes if n != lead)
        with cluster.any().client() as client:
            client.promote(other)
        master = other
    epoch = cluster.status()["cluster"]["epoch"]
    cluster[lead].kill_all()
    until("another leader", lambda: cluster.status().get("cluster", {}).get("leader") not in (None, lead))
    status = cluster.status()["cluster"]
    assert (status["master"], status["epoch"]) == (master, epoch)


def test_all_nodes_stopped_and_started_have_one_master_again(cluster: RealCluster) -> None:
    for node in cluster.nodes.values():
        assert node.stop() == 0
    assert cluster.overlaps() == []
    cluster.start()
    cluster.wait_master()
    assert cluster.overlaps() == []


def test_without_a_majority_nobody_is_master(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    survivor = next(n for n in cluster.nodes if n != master)
    killed = [(n, cluster[n].kill_all()) for n in cluster.nodes if n != survivor]
    text = until("the reason", lambda: cluster.status().get("cluster", {}).get("nobody"))
    assert "no leader" in text and survivor in text
    assert cluster.status()["cluster"]["leader"] is None
    assert cluster.first("promote", "begin", min(at for _, at in killed)) is None


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
    with cluster.any().client() as client:
        master = cluster.wait_master()
        other = next(n for n in cluster.nodes if n != master)
        client.promote(other)
    log = cluster[master].log.read_text()
    down = [line for line in log.splitlines() if "Promoted -> Demoting" in line]
    up = [line for line in cluster[other].log.read_text().splitlines() if "Started -> Promoting" in line]
    assert ["service db" in down[-2], "service vip" in down[-1]] == [True, True]
    assert ["service vip" in up[0], "service db" in up[1]] == [True, True]
    assert cluster.overlaps() == []


def test_a_failing_promote_gives_the_post_to_another(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    others = [n for n in cluster.nodes if n != master]
    cluster.script("20-db", "promote", "exit 7", others[0])
    words = f"{others[0]} failed to become master .*promote exited 7"
    with cluster.any().client() as client, pytest.raises(Refused, match=words):
        client.promote(others[0])
    cluster.wait_master(others[0])
    assert cluster.overlaps() == []


def _starts(cluster: RealCluster, name: str) -> int:
    return len([s for s in cluster.read_stamps() if (s.node, s.action, s.edge) == (name, "start", "begin")])


def test_an_endless_start_harms_only_its_own_node(cluster: RealCluster) -> None:
    master, epoch = cluster.wait_master(), cluster.status()["cluster"]["epoch"]
    victim = next(n for n in cluster.nodes if n != master)
    cluster.script("20-db", "start", "sleep 1000", victim)
    before = _starts(cluster, victim)
    cluster[victim].stop()
    cluster[victim].start()
    until("it starts db", lambda: _starts(cluster, victim) == before + 2)
    assert cluster.wait_master() == master and cluster.status()["cluster"]["epoch"] == epoch
    assert cluster[victim].stop() == 0


def test_a_second_koinode_of_the_same_node_is_refused(cluster: RealCluster) -> None:
    node = cluster[cluster.wait_master()]
    first = node.process
    node.start()
    second = node.process
    node.process = first
    assert second is not None and second.wait(20) == 1
    assert str(node.pid) in node.log.read_text().splitlines()[-1]
    assert os.path.exists(f"/proc/{node.pid}")


def test_an_elector_that_lost_its_state_asks_the_others(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    victim = next(n for n in cluster.nodes if n != master)
    epoch = cluster.status()["cluster"]["epoch"]
    cluster[victim].stop()
    (cluster[victim].folder / "state" / "elector.json").write_text("{ not JSON")
    back_up(cluster, victim)
    assert "starts blank" in cluster[victim].log.read_text()
    assert cluster.status()["cluster"]["epoch"] == epoch
