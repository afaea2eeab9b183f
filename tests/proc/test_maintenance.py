"""Maintenance, passive, active and restart on three real nodes: what is asked for, and that no script runs meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koi.errors import KoiError, Refused
from tests.cluster import Node, RealCluster, beneath, send, tree_of, until
from tests.proc.waiting import is_gone

ALL = ("start", "stop", "promote", "demote", "status", "failed")
PROGRAM = "sleep 1000"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Three nodes with a service of scripts and one that runs a program."""
    folder = tmp_path_factory.mktemp("maintenance")
    with RealCluster(folder) as cluster:
        for action in ALL:
            cluster.script("10-vip", action)
        cluster.script("20-web", "run", body=f"echo $$ > {folder}/program.$KOI_NODE; exec {PROGRAM}")
        cluster.start()
        yield cluster


@pytest.fixture
def cluster(three: RealCluster) -> Iterator[RealCluster]:
    """The three, all well; whatever a test does, two are never promoted at once."""
    three.wait_whole()
    yield three
    three.script("10-vip", "status")
    for node in three.nodes.values():
        if node.process is None:
            node.start()
    three.wait_master()
    with three.any().client() as client:
        if three.status()["cluster"]["maintenance"]:
            client.maintenance(False)
        for name in three.status()["cluster"]["passive"]:
            client.active(name)
    assert three.overlaps(three.killed) == []


def maintenance(cluster: RealCluster, on: bool) -> str:
    with cluster.any().client() as client:
        return str(client.maintenance(on)["message"])


def program(cluster: RealCluster, node: str) -> int:
    """The pid of the node's program, which is started once it is spawned and may write this later."""
    path = cluster.folder / f"program.{node}"
    return until(f"the program of {node}", lambda: path.exists() and int(path.read_text().strip() or 0))


def failures(cluster: RealCluster) -> list[tuple[str, str, str, str]]:
    with cluster.any().client() as client:
        return [(f["node"], f["service"], f["action"], f["what"]) for f in client.failures()["failures"]]


def quiet(cluster: RealCluster) -> int:
    """How many lines the scripts have written, once those that ran when maintenance began have ended: also one that is not
    yet the shell that writes its first line."""

    def all_ended(node: Node) -> bool:
        koi = node.processes().values()
        return all(pid in koi or line == PROGRAM for pid, line in beneath(node.folder).items())

    until("running scripts have ended", lambda: all(map(all_ended, cluster.nodes.values())))
    return len(cluster.read_stamps())


def test_an_upgrade_node_by_node_runs_not_one_script(cluster: RealCluster) -> None:
    master, programs = cluster.wait_master(), {n: program(cluster, n) for n in "abc"}
    said = {name: len(cluster[name].log.read_text()) for name in "abc"}
    assert "maintenance is on" in maintenance(cluster, True)
    before = quiet(cluster)
    for name in "abc":
        assert cluster[name].stop() == 0
        assert not any(map(is_gone, programs.values()))
        cluster[name].start()
        cluster.wait_state(name, "Master" if name == master else "Backup")
    assert cluster.wait_master() == master and cluster.status()["cluster"]["maintenance"]
    for name in "abc":
        cluster[name].kill_koi()
    for name in "abc":
        cluster[name].start()
    assert cluster.wait_whole() == master and len(cluster.read_stamps()) == before
    assert "maintenance is off" in maintenance(cluster, False)
    until("status runs again", lambda: cluster.first("status", "end", cluster.read_stamps()[before - 1].time + 0.001))
    assert [s.action for s in cluster.read_stamps()[before:] if s.action != "status"] == []
    assert cluster.wait_master() == master and {n: program(cluster, n) for n in "abc"} == programs
    logs = [cluster[name].log.read_text()[begun:] for name, begun in said.items()]
    assert any("ended in maintenance" in text for text in logs) and not any("did not end in order" in text for text in logs)


def test_what_was_changed_by_hand_is_put_right(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    backup = next(n for n in "abc" if n != master)
    known = failures(cluster)
    maintenance(cluster, True)
    quiet(cluster)
    body = "[ -e $KOI_SERVICE_DIR/moved ] || exit 0; rm $KOI_SERVICE_DIR/moved; exit 92"
    cluster.script("10-vip", "status", body=body, nodes=master)
    (cluster[master].services / "10-vip/moved").touch()
    old = program(cluster, backup)
    os.kill(old, signal.SIGKILL)
    maintenance(cluster, False)
    until("web runs again", lambda: (pid := program(cluster, backup)) != old and not is_gone(pid))
    until("vip was put right", lambda: "it is put right" in cluster[master].log.read_text())
    cluster.wait_state(master, "Master")
    assert set(failures(cluster)[len(known) :]) == {
        (master, "vip", "status", "it was Promoted, but status found it stopped; it is put right"),
        (backup, "web", "run", "it was Started, but its program has ended in maintenance; it is put right")}


def test_commands_in_maintenance_are_refused(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    other = next(n for n in "abc" if n != master)
    maintenance(cluster, True)
    with cluster.any().client() as client:
        commands = (
            lambda: client.promote(other), client.demote, lambda: client.stop(other), lambda: client.restart("vip", other),
        )
        for refused in commands:
            with pytest.raises(Refused, match="maintenance"):
                refused()


def test_passive_and_active(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    with cluster.any().client() as client:
        assert f"{master} is passive" in client.passive(master, reason="its disk is being replaced")["message"]
        new = cluster.wait_master(other_than=master)
        assert cluster.status()["cluster"]["passive"] == [master]
        with pytest.raises(Refused, match="is passive"):
            client.promote(master)
        with pytest.raises(Refused, match="no node named x"):
            client.passive("x")
        client.active(master)
        client.promote(master)
    assert cluster.wait_master() == master != new


def test_restart_of_a_service(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    before, old = len(cluster.read_stamps()), program(cluster, master)
    epoch = cluster.status()["cluster"]["epoch"]
    with cluster[master].client() as client:
        assert client.restart("vip", master)["message"] == f"vip of {master} was restarted and is Promoted"
        new = [s.action for s in cluster.read_stamps()[before:] if s.node == master and s.edge == "begin"]
        assert [action for action in new if action != "status"] == ["demote", "stop", "start", "promote"]
        client.restart("web")
        until("another program", lambda: program(cluster, master) != old and is_gone(old))
        with pytest.raises(Refused, match="has no service nothing; services: vip, web"):
            client.restart("nothing", master)
    assert cluster.status()["cluster"]["epoch"] == epoch and cluster.wait_master() == master


def test_passive_outlives_every_koinode(cluster: RealCluster) -> None:
    master = cluster.wait_master()
    passive = next(n for n in "abc" if n != master)
    with cluster.any().client() as client:
        client.passive(passive)
    for name in "abc":
        assert cluster[name].stop() == 0
    cluster.start()
    new = cluster.wait_master()
    assert new != passive and cluster.status()["cluster"]["passive"] == [passive]
    cluster[new].kill_all()
    assert cluster.wait_master(other_than=new) not in (new, passive)


@pytest.mark.parametrize("votes", [True, False], ids=["its own elector", "its state folder"])
def test_a_node_that_hears_nobody_runs_no_script_in_maintenance(tmp_path: Path, votes: bool) -> None:
    """Its koinode was killed in maintenance and starts while all others are down."""
    with RealCluster(tmp_path, nodes="abcd", electors="abc", runners="ad") as cluster:
        for action in ALL:
            cluster.script("10-vip", action)
        cluster.start()
        cluster.wait_whole()
        maintenance(cluster, True)
        name = "a" if votes else "d"
        heard = cluster[name].folder / "state/node.json"
        until("it has heard of it", lambda: heard.exists() and '"maintenance": true' in heard.read_text())
        before = quiet(cluster)
        for node in cluster.nodes.values():
            node.kill_koi()
        cluster[name].start()
        until("it takes over", lambda: "takes vip over as it is" in cluster[name].log.read_text())
        until("it answers", lambda: cluster[name].local()["state"] in ("Backup", "Master", "Live"))
        assert len(cluster.read_stamps()) == before


def test_a_master_that_was_away_when_its_maintenance_was_ended_by_force_gives_way(tmp_path: Path) -> None:
    """Found: it stayed promoted beside the next one for good, though every elector told it of that one."""
    with RealCluster(tmp_path, failover="2s") as cluster:
        for action in ALL:
            cluster.script("10-vip", action)
        cluster.start()
        name = cluster.wait_master()
        maintenance(cluster, True)
        pids = tree_of(cluster[name].pid)
        send(pids, signal.SIGSTOP)

        def forced() -> bool:
            try:
                with cluster.any().client() as client:
                    return "maintenance is off" in client.maintenance(False, force=True)["message"]
            except KoiError:  # the leader was away too
                return False

        until("it is ended", forced)
        cluster.wait_master(other_than=name)
        back = time.time()
        send(pids, signal.SIGCONT)
        until("it is demoted", lambda: cluster.first("demote", "end", back, name))
        cluster.wait_state(name, "Backup")
        assert "another node may be master" not in cluster[name].log.read_text(), "it was not killed"
