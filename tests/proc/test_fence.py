"""Stuck and lost masters on real clusters: nobody is promoted until it is sure, and the ways out."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from koi.errors import Refused
from tests.cluster import RealCluster, until

ALL = ("start", "stop", "promote", "demote")


def make(folder: Path, fence: str = "", service: str = "", failover: str = "1s") -> RealCluster:
    extra = f"  fence: {fence}\n" if fence else ""
    cluster = RealCluster(folder, extra=extra, service=service, failover=failover)
    for action in ALL:
        cluster.script("10-vip", action)
    return cluster


def ready(cluster: RealCluster) -> str:
    """Start it and wait until all are up; the master."""
    cluster.start()
    return cluster.wait_whole()


def spoil(cluster: RealCluster, node: str) -> None:
    """From now on its demote and its stop fail."""
    for action in ("demote", "stop"):
        cluster.script("10-vip", action, body="exit 1", nodes=node)


def stick(cluster: RealCluster) -> str:
    """Make the master stuck: its demote and its stop fail."""
    master = ready(cluster)
    spoil(cluster, master)
    with cluster.any().client() as client, suppress(Refused):  # where a lease was lost on a busy machine it is stuck already
        client.demote(no_wait=True)
    until("hold: stuck", lambda: cluster.status()["cluster"]["hold"] == "stuck")
    return master


def warnings(cluster: RealCluster) -> list[str]:
    return list(cluster.status()["cluster"]["warnings"])


def promotions(cluster: RealCluster) -> int:
    return sum(1 for s in cluster.read_stamps() if (s.action, s.edge) == ("promote", "begin"))


def test_nobody_is_promoted_beside_a_stuck_master_also_after_all_electors_restarted(tmp_path: Path) -> None:
    with make(tmp_path) as cluster:
        master = stick(cluster)
        others = [n for n in "abc" if n != master]
        with cluster.any().client() as client:
            with pytest.raises(Refused, match=f"koi recover {master} --force"):
                client.promote(others[0])
            status = client.status()["cluster"]
            assert status["hold"] == "stuck" and f"{master} may still be active" in status["nobody"]
            assert any(f"hold: stuck: {master} may still be active" in text for text in status["warnings"])
            assert any("may still be active" in entry["reason"] for entry in client.why())
        assert any(f"elector CRITICAL: {master} may still be active" in node.log.read_text() for node in cluster.nodes.values())
        cluster[master].kill_all()
        for name in others:
            cluster[name].kill_all()
            cluster[name].start()
        until("they agree again", lambda: cluster.status()["cluster"]["leader"])
        until("the others are backups", lambda: list(cluster.states().values()).count("Backup") == 2)
        assert cluster.status()["cluster"]["hold"] == "stuck"
        assert promotions(cluster) == 1
        with cluster[others[0]].client() as client:
            assert f"{master} counts as off" in client.recover(master, force=True)["message"]
            client.elect()
        assert cluster.wait_master() in others and cluster.overlaps() == [f for f in cluster.overlaps() if master in f]


@pytest.mark.parametrize("command", ["promote", "stop", "passive", "demote"])
def test_a_command_that_makes_the_master_stuck_is_answered(tmp_path: Path, command: str) -> None:
    """None of them was ever: the client waited until somebody had mended the node."""
    with make(tmp_path) as cluster:
        master = ready(cluster)
        spoil(cluster, master)
        node = next(n for n in "abc" if n != master) if command == "promote" else master
        with cluster.any().client() as client, pytest.raises(Refused, match="mend what keeps it from stopping"):
            getattr(client, command)(*([] if command == "demote" else [node]))


def test_a_stuck_node_that_reports_itself_clean_ends_the_hold(tmp_path: Path) -> None:
    with make(tmp_path) as cluster:
        master = stick(cluster)
        for action in ("demote", "stop"):
            cluster.script("10-vip", action, nodes=master)
        with cluster[master].client() as client:
            client.recover(master, no_wait=True)
        until("the hold is over", lambda: cluster.status()["cluster"]["hold"] is None)
        with cluster.any().client() as client:
            client.elect()
        cluster.wait_master()
        assert cluster.overlaps() == []


def test_a_stuck_node_whose_koinode_starts_again_is_stuck_still(tmp_path: Path) -> None:
    """While it demotes what was left it holds nothing and is not known to be stuck: that is not clean."""
    with make(tmp_path, failover="3s") as cluster:
        master = stick(cluster)
        cluster[master].kill_all()
        cluster.script("10-vip", "demote", body="sleep 5; exit 1", nodes=master)
        cluster.script("10-vip", "stop", body=f"echo > {tmp_path}/stops; [ -e {tmp_path}/mended ] || exit 1", nodes=master)
        with cluster.any().client() as client:
            client.elect()
        cluster[master].start()
        until("what was left is demoted and then stopped", (tmp_path / "stops").exists)
        assert cluster.status()["cluster"]["hold"] == "stuck" and promotions(cluster) == 1
        (tmp_path / "mended").touch()
        cluster.wait_master()
        assert cluster.overlaps() == [] and cluster.status()["cluster"]["hold"] is None


def test_with_takeover_the_lease_alone_decides(tmp_path: Path) -> None:
    with make(tmp_path, service="  stuck: takeover\n") as cluster:
        cluster.start()
        master = cluster.wait_master()
        for action in ("demote", "stop"):
            cluster.script("10-vip", action, body="exit 1", nodes=master)
        cluster.script("10-vip", "status", body="exit 1", nodes=master)
        assert cluster.wait_master(other_than=master) != master
        assert cluster.status()["cluster"]["hold"] is None
        warning = f"{master}: vip may still be active, for demote and stop failed, and service.stuck is takeover"
        until("it is told", lambda: [text for text in cluster.status()["cluster"]["warnings"] if text.startswith(warning)])


def test_the_fence_command_is_removed_while_it_fails(tmp_path: Path) -> None:
    with make(tmp_path, fence="/bin/false") as cluster:
        master = stick(cluster)
        until("the fence fails", lambda: any("fence of" in text and "failed" in text for text in warnings(cluster)))
        for node in cluster.nodes.values():
            node.config.write_text(node.config.read_text().replace("  fence: /bin/false\n", ""))
            with node.client() as client:
                assert "cluster.fence" in client.reconfigure()["message"]
        until("a leader without a fence", lambda: (s := cluster.status().get("cluster", {})).get("leader") and not any(
            "fence of" in text for text in s["warnings"]))
        with cluster.any().client() as client:
            assert "counts as off" in client.recover(master, force=True)["message"]
        assert not any("AssertionError" in node.log.read_text() for node in cluster.nodes.values())


def test_a_stuck_master_is_fenced_and_replaced(tmp_path: Path) -> None:
    fence = tmp_path / "fence"
    fence.write_text(f'#!/bin/sh\necho "$1 $2" >> {tmp_path}/fenced\necho the switch says off\n')
    fence.chmod(0o755)
    with make(tmp_path, fence=str(fence)) as cluster:
        cluster.start()
        master = cluster.wait_whole()
        epoch = cluster.status()["cluster"]["epoch"]
        for action in ("demote", "stop", "status"):
            cluster.script("10-vip", action, body="exit 1", nodes=master)
        cluster.wait_master(other_than=master)
        assert (tmp_path / "fenced").read_text() == f"{master} {epoch}\n"
        logs = "".join(node.log.read_text() for node in cluster.nodes.values())
        assert "fence: the switch says off" in logs and f"{master} is fenced" in logs


def test_a_switchover_waits_for_the_fence_of_a_stuck_master(tmp_path: Path) -> None:
    with make(tmp_path, fence="sleep 0.5; true") as cluster:
        master = ready(cluster)
        spoil(cluster, master)
        other = next(n for n in "abc" if n != master)
        with cluster[other].client() as client:
            assert f"{other} is master" in client.promote(other)["message"]


@pytest.mark.parametrize("works", [True, False])
def test_a_lost_master_is_fenced(tmp_path: Path, works: bool) -> None:
    """With a grace of 3 s the guard alone would take longer; a fence that fails changes nothing."""
    fence = tmp_path / "fence"
    fence.write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/fenced\nexit {0 if works else 1}\n")
    fence.chmod(0o755)
    with make(tmp_path, fence=str(fence), failover="1s\n  demote_grace: 3s") as cluster:
        cluster.start()
        master = cluster.wait_whole()
        killed = cluster[master].kill_all()
        if not works:
            told = until("a warning", lambda: [w for w in warnings(cluster) if "fence" in w])
            assert "the command exited 1" in told[0] and "tried again" in told[0]
        cluster.wait_master(other_than=master)
        begun = cluster.first("promote", "begin", killed)
        assert begun is not None and (begun.time - killed < 3) == works, begun.time - killed
        fenced = (tmp_path / "fenced").read_text().split()
        assert set(fenced) == {master} and (len(fenced) == 1 if works else len(fenced) > 1)
        assert time.time() > begun.time and cluster.overlaps(cluster.killed) == []


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_next_leader_goes_on_with_a_fence(tmp_path: Path, how: str) -> None:
    """The order stands in the ledger: who leads next runs the command anew, and the one of the old leader is ended."""
    fence = tmp_path / "fence"
    waits = f"echo $$ >> {tmp_path}/runs\nuntil [ -e {tmp_path}/go ]; do sleep 0.05; done\n"
    fence.write_text(f"#!/bin/sh\n{waits}echo done >> {tmp_path}/ended\n")
    fence.chmod(0o755)

    def runs() -> list[int]:
        return [int(pid) for pid in (tmp_path / "runs").read_text().split()] if (tmp_path / "runs").exists() else []

    extra = f"  fence: {fence}\n"
    with RealCluster(tmp_path, nodes="abcde", electors="abc", runners="de", failover="3s", extra=extra) as cluster:
        for action in ALL:
            cluster.script("10-vip", action)
        cluster.start()
        master = cluster.wait_master()
        cluster.wait_whole()
        for action in ("demote", "stop"):
            cluster.script("10-vip", action, body="exit 1", nodes=master)
        with cluster.any().client() as client:
            client.demote(no_wait=True)
        until("the fence is run", lambda: len(runs()) == 1)
        leader = str(cluster.status()["cluster"]["leader"])
        if how == "killed":
            cluster[leader].kill_all()
        else:
            assert cluster[leader].stop() == 0
        until("the next leader runs it", lambda: len(runs()) == 2)
        until("the old one has ended", lambda: not Path(f"/proc/{runs()[0]}").exists())
        assert promotions(cluster) == 1 and not (tmp_path / "ended").exists()
        (tmp_path / "go").touch()
        until("the hold is over", lambda: cluster.status()["cluster"]["hold"] is None)
        with cluster.any().client() as client:
            client.elect()
        assert cluster.wait_master() != master and (tmp_path / "ended").read_text() == "done\n" and len(runs()) == 2
