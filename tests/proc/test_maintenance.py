"""Maintenance, passive, active and restart on three real nodes: what is asked for, and that no script runs meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from koi.errors import Refused
from tests.cluster import RealCluster, until

ALL = ("start", "stop", "promote", "demote", "status", "failed")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    """Three nodes with a service of scripts and one that runs a program, and a master."""
    with RealCluster(tmp_path) as three:
        for action in ALL:
            three.script("10-vip", action)
        three.script("20-web", "run", body=f"echo $$ > {tmp_path}/program.$KOI_NODE; exec sleep 1000")
        three.start()
        three.wait_master()
        until("two backups", lambda: sorted(states(three).values()) == ["Backup", "Backup", "Master"])
        yield three


def states(cluster: RealCluster) -> dict[str, str]:
    return {n["name"]: n["state"] for n in cluster.status().get("nodes", ())}


def maintenance(cluster: RealCluster, on: bool) -> str:
    with cluster.any().client() as client:
        return str(client.maintenance(on)["message"])


def program(cluster: RealCluster, node: str) -> int:
    return int((cluster.folder / f"program.{node}").read_text().strip() or 0)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def quiet(cluster: RealCluster) -> int:
    """How many lines the scripts have written, once those that ran when maintenance began have ended."""

    def all_ended() -> bool:
        stamps = cluster.read_stamps()
        begun = [s for s in stamps if s.edge == "begin" and s.action != "run"]
        return len(begun) == len([s for s in stamps if s.edge == "end"])

    until("running scripts have ended", all_ended)
    return len(cluster.read_stamps())


def test_an_upgrade_node_by_node_runs_not_one_script(cluster: RealCluster) -> None:
    master, programs = cluster.master(), {n: program(cluster, n) for n in "abc"}
    assert "maintenance is on" in maintenance(cluster, True)
    before = quiet(cluster)
    for name in "abc":
        assert cluster[name].stop() == 0
        assert all(alive(pid) for pid in programs.values())
        cluster[name].start()
        until(f"{name} is back", lambda name=name: states(cluster).get(name) in ("Backup", "Master"))
    assert states(cluster)[str(master)] == "Master" and cluster.status()["cluster"]["maintenance"]
    for name in "abc":
        cluster[name].kill_koi()
    for name in "abc":
        cluster[name].start()
    until("all are back", lambda: sorted(map(str, states(cluster).values())) == ["Backup", "Backup", "Master"])
    assert len(cluster.read_stamps()) == before and cluster.master() == master
    assert "maintenance is off" in maintenance(cluster, False)
    until("status runs again", lambda: cluster.first("status", "end", cluster.read_stamps()[before - 1].time + 0.001))
    assert [s.action for s in cluster.read_stamps()[before:] if s.action != "status"] == []
    assert cluster.master() == master and {n: program(cluster, n) for n in "abc"} == programs
    assert cluster.overlaps() == []
    logs = [node.log.read_text() for node in cluster.nodes.values()]
    assert any("ended in maintenance" in text for text in logs) and not any("did not end in order" in text for text in logs)


def test_what_was_changed_by_hand_is_put_right(cluster: RealCluster) -> None:
    master = str(cluster.master())
    backup = next(n for n in "abc" if n != master)
    maintenance(cluster, True)
    quiet(cluster)
    body = "[ -e $KOI_SERVICE_DIR/moved ] || exit 0; rm $KOI_SERVICE_DIR/moved; exit 92"
    cluster.script("10-vip", "status", body=body, nodes=master)
    (cluster[master].services / "10-vip/moved").touch()
    old = program(cluster, backup)
    os.kill(old, signal.SIGKILL)
    maintenance(cluster, False)
    until("web runs again", lambda: program(cluster, backup) != old and alive(program(cluster, backup)))
    until("vip was put right", lambda: "it is put right" in cluster[master].log.read_text())
    until("it is master again", lambda: states(cluster).get(master) == "Master")
    with cluster[master].client() as client:
        shown = {(f["node"], f["service"], f["action"], f["what"]) for f in client.failures()["failures"]}
    assert shown == {
        (master, "vip", "status", "it was Promoted, but status found it stopped; it is put right"),
        (backup, "web", "run", "it was Started, but its program has ended in maintenance; it is put right")}


def test_commands_in_maintenance_are_refused(cluster: RealCluster) -> None:
    master = str(cluster.master())
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
    master = str(cluster.master())
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
    assert cluster.master() == master != new and cluster.overlaps() == []


def test_restart_of_a_service(cluster: RealCluster) -> None:
    master = str(cluster.master())
    before, old = len(cluster.read_stamps()), program(cluster, master)
    epoch = cluster.status()["cluster"]["epoch"]
    with cluster[master].client() as client:
        assert client.restart("vip", master)["message"] == f"vip of {master} was restarted and is Promoted"
        new = [s.action for s in cluster.read_stamps()[before:] if s.node == master and s.edge == "begin"]
        assert [action for action in new if action != "status"] == ["demote", "stop", "start", "promote"]
        client.restart("web")
        until("another program", lambda: program(cluster, master) != old and not alive(old))
        with pytest.raises(Refused, match="has no service nothing; services: vip, web"):
            client.restart("nothing", master)
    assert cluster.status()["cluster"]["epoch"] == epoch and cluster.master() == master


def test_passive_outlives_every_koinode(cluster: RealCluster) -> None:
    master = str(cluster.master())
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
        cluster.wait_master()
        until("two runners", lambda: sorted(filter(None, states(cluster).values())) == ["Backup", "Master"])
        maintenance(cluster, True)
        name = "a" if votes else "d"
        until("it has heard of it", lambda: '"maintenance": true' in (cluster[name].folder / "state/node.json").read_text())
        before = quiet(cluster)
        for node in cluster.nodes.values():
            node.kill_koi()
        cluster[name].start()
        until("it takes over", lambda: "takes vip over as it is" in cluster[name].log.read_text())
        until("it answers", lambda: cluster[name].local()["state"] in ("Backup", "Master", "Live"))
        assert len(cluster.read_stamps()) == before
