"""One real node whose services change while it runs: new, changed, vanished, disabled; watch and restarts."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import RealCluster, until
from tests.proc.waiting import is_gone

ALL = ("start", "stop", "promote", "demote", "status")
PACE = "300ms"
"""How often the folder is looked at, and how soon a failed node recovers."""
CALM = "3s"
"""Leases that a busy machine keeps: what is looked at is not a lost lease."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    with RealCluster(tmp_path, nodes="a", failover=CALM, pace=PACE) as one:
        for action in ALL:
            one.script("20-vip", action)
        one.start()
        one.wait_master()
        yield one


def node(cluster: RealCluster) -> dict[str, Any]:
    return dict(cluster.status()["nodes"][0])


def services(cluster: RealCluster) -> dict[str, str]:
    return {s["name"]: s["state"] for s in node(cluster)["services"]}


def actions(cluster: RealCluster, since: int = 0) -> list[str]:
    return [s.action for s in cluster.read_stamps()[since:] if s.edge == "begin" and s.action not in ("status", "run", "watch")]


def program(cluster: RealCluster, name: str) -> int:
    """The pid that it wrote; 0 before that."""
    path = cluster.folder / name
    return int((path.exists() and path.read_text().strip()) or 0)


def test_a_new_service_is_started_and_promoted_and_a_vanished_one_stopped(cluster: RealCluster) -> None:
    before = len(cluster.read_stamps())
    shutil.copytree(cluster["a"].services / "20-vip", cluster["a"].services / "10-disk")
    until("disk is promoted", lambda: services(cluster).get("disk") == "Promoted" and node(cluster)["state"] == "Master")
    assert actions(cluster, before) == ["start", "promote"]
    before = len(cluster.read_stamps())
    away = cluster.folder / "away"
    (cluster["a"].services / "10-disk").rename(away)
    until("disk is gone", lambda: services(cluster) == {"vip": "Promoted"})
    until("its worker is gone", lambda: cluster["a"].local()["pids"]["services"].keys() == {"vip"})
    assert actions(cluster, before) == ["demote", "stop"], "by the scripts where they are now"
    assert node(cluster)["state"] == "Master" and "its scripts are run there" in cluster["a"].log.read_text()
    away.rename(cluster["a"].services / "10-disk")
    until("disk is back", lambda: services(cluster).get("disk") == "Promoted")


def test_a_service_whose_folder_is_deleted_counts_as_stopped(cluster: RealCluster) -> None:
    shutil.copytree(cluster["a"].services / "20-vip", cluster["a"].services / "10-disk")
    until("disk is promoted", lambda: services(cluster).get("disk") == "Promoted" and node(cluster)["state"] == "Master")
    before = len(cluster.read_stamps())
    shutil.rmtree(cluster["a"].services / "10-disk")
    until("disk is gone", lambda: services(cluster) == {"vip": "Promoted"})
    until("its worker is gone", lambda: cluster["a"].local()["pids"]["services"].keys() == {"vip"})
    assert actions(cluster, before) == [] and node(cluster)["state"] == "Master"


def test_a_single_file_that_is_renamed_before_a_reload_is_demoted_and_stopped(cluster: RealCluster) -> None:
    """Found: the reload looked for it at its old place, and forgot it: neither demote nor stop was run."""
    told, file = cluster.folder / "told", cluster["a"].services / "10-disk"
    cluster.script(".", ".disk", body=f"echo $KOI_ACTION >> {told}")
    (cluster["a"].services / ".disk").rename(file)
    until("disk is promoted", lambda: services(cluster).get("disk") == "Promoted" and node(cluster)["state"] == "Master")
    cluster["a"].config.write_text(cluster["a"].config.read_text().replace("status_interval: 1s", "status_interval: 1m"))
    file.rename(cluster["a"].services / ".10-disk")
    with cluster["a"].client() as client:
        client.reconfigure()
    until("disk is gone, as the status says", lambda: services(cluster) == {"vip": "Promoted"})
    assert told.read_text().split()[-2:] == ["demote", "stop"]  # it is shown until it is stopped


def test_a_program_whose_folder_vanishes_is_stopped(cluster: RealCluster) -> None:
    cluster.script("web", "run", body=f"echo $$ > {cluster.folder}/pid; exec sleep 1000")
    until("web runs", lambda: services(cluster).get("web") == "Promoted" and program(cluster, "pid"))
    shutil.rmtree(cluster["a"].services / "web")
    until("web is gone", lambda: services(cluster) == {"vip": "Promoted"})
    until("its program has ended", lambda: is_gone(program(cluster, "pid")))
    assert node(cluster)["state"] == "Master"


def test_a_new_priority_and_a_new_status_need_no_restart(cluster: RealCluster) -> None:
    before = actions(cluster)
    (cluster["a"].services / "20-vip").rename(cluster["a"].services / "30-vip")
    until("the new priority", lambda: node(cluster)["services"] and node(cluster)["services"][0]["priority"] == 30)
    cluster.script("30-vip", "status", body=f"pwd > {cluster.folder}/where")
    until("status runs there", lambda: (w := cluster.folder / "where").exists() and w.read_text().strip().endswith("/30-vip"))
    assert actions(cluster)[: len(before)] == before and "stop" not in actions(cluster)


def test_disabled_stops_the_service_and_fails_the_node_until_it_vanishes(cluster: RealCluster) -> None:
    disabled = cluster["a"].services / "20-vip/disabled"
    (cluster["a"].services / "other").mkdir()
    until("other is up", lambda: services(cluster).get("other") == "Promoted")
    before = len(cluster.read_stamps())
    disabled.touch()
    until("vip is stopped", lambda: services(cluster).get("vip") == "Stopped" and node(cluster)["state"] == "Live")
    assert actions(cluster, before) == ["demote", "stop"]
    assert "vip is disabled" in node(cluster)["why"] and "disabled" in node(cluster)["last_failure"]
    with cluster["a"].client() as client:
        assert [f["action"] for f in client.failures()["failures"]] == ["disabled"]
    disabled.unlink()
    cluster.wait_master()
    cluster["a"].stop()
    disabled.touch()
    cluster["a"].start()
    until("it is not started", lambda: node(cluster)["state"] == "Live" and "vip is disabled" in node(cluster)["why"])
    assert actions(cluster)[-1] == "stop"


def test_an_ignored_name_is_warned_of_once(cluster: RealCluster) -> None:
    (cluster["a"].services / "vip.bak").mkdir()
    until("a warning", lambda: "vip.bak is ignored: its name has a period" in cluster["a"].log.read_text())
    (cluster["a"].services / "next").mkdir()
    until("the next scan", lambda: "next" in services(cluster))
    assert cluster["a"].log.read_text().count("vip.bak is ignored") == 1


def test_a_fault_of_the_folder_stands_in_the_status_until_it_is_mended(cluster: RealCluster) -> None:
    """Found: the status said that all was well, and the next start of koinode was refused."""
    settings = cluster["a"].services / "20-vip/service.yaml"
    settings.write_text("colour: red\n")
    warning = f"a: {settings}:1: colour: no such key"

    def told() -> bool:
        return any(text.startswith(warning) for text in cluster.status()["cluster"]["warnings"])

    until("it is told", told)
    settings.unlink()
    until("it is told no more", lambda: not told())
    assert node(cluster)["failcount"] == 0


def test_the_end_of_watch_is_a_failure_at_once(cluster: RealCluster) -> None:
    cluster.script("web", "watch", body=f"echo $$ > {cluster.folder}/watch; exec sleep 1000")
    watch = until("watch runs", lambda: program(cluster, "watch"))
    os.kill(watch, signal.SIGKILL)
    until("the node has failed", lambda: node(cluster)["failcount"] == 1)
    assert "watch was killed by signal 9" in node(cluster)["last_failure"]
    until("watch runs again", lambda: program(cluster, "watch") not in (0, watch))
    cluster.wait_master()
    again = program(cluster, "watch")
    cluster["a"].stop()
    assert is_gone(again)


def test_restarts_come_before_the_failure_of_the_node(tmp_path: Path) -> None:
    with RealCluster(tmp_path, nodes="a", service="  restarts: 1\n", pace=PACE) as cluster:
        cluster.script("web", "run", body=f"echo $$ > {tmp_path}/pid; exec sleep 1000")
        cluster.start()
        cluster.wait_master()
        first = until("web runs", lambda: program(cluster, "pid"))
        os.kill(first, signal.SIGKILL)
        second = until("web runs again", lambda: (p := program(cluster, "pid")) not in (0, first) and p)
        cluster.wait_master()
        assert node(cluster)["failcount"] == 0
        os.kill(int(second), signal.SIGKILL)
        until("now the node fails", lambda: node(cluster).get("failcount") == 1)
        with cluster["a"].client() as client:
            whats = [f["what"] for f in client.failures()["failures"]]
        what = "run was killed by signal 9"
        assert whats == [f"{what}; it is stopped and started again (1 of 1 times)", what]


@pytest.mark.parametrize("how", ["faulty", "gone"])
def test_a_worker_is_replaced_although_service_yaml_is_no_more_what_it_was(tmp_path: Path, how: str) -> None:
    """The new one read the file, ended by its fault, again and again: nobody stood behind a promoted service any more."""
    with RealCluster(tmp_path, nodes="a", pace=PACE) as one:
        one.script("20-vip", "promote")
        one.script("20-vip", "demote", body=f"echo $COLOUR > {tmp_path}/colour")
        settings = one["a"].services / "20-vip/service.yaml"
        settings.write_text("env: {COLOUR: red}\n")
        one.start()
        one.wait_master()
        old = one["a"].local()["pids"]["services"]["vip"]
        if how == "faulty":
            settings.write_text("no such key: 1\n")
            until("it is told", lambda: "no such key" in one["a"].log.read_text())
        else:
            settings.unlink()
        os.kill(old, signal.SIGKILL)
        until("another worker", lambda: one["a"].local()["pids"]["services"].get("vip") not in (None, old))
        assert one["a"].stop() == 0
        assert (tmp_path / "colour").read_text() in (("red\n",) if how == "faulty" else ("red\n", "\n"))


def test_a_service_becomes_a_program_and_no_program_again(cluster: RealCluster) -> None:
    """Found: it was stopped, and started as what it had been: its program never ran, and the node said Master."""
    vip, old = cluster["a"].services / "20-vip", cluster.folder / "old"
    before = len(cluster.read_stamps())
    cluster.script(".vip", "run", body=f"echo $$ > {cluster.folder}/pid; exec sleep 1000")
    cluster.script(".vip", "promote")
    (cluster["a"].services / ".vip/service.yaml").write_text("env: {COLOUR: red}\n")
    vip.rename(old)
    (cluster["a"].services / ".vip").rename(vip)
    pid = until("its program runs", lambda: program(cluster, "pid"))
    assert b"COLOUR=red" in Path(f"/proc/{pid}/environ").read_bytes(), "as service.yaml is now"
    cluster.wait_master()
    assert actions(cluster, before) == ["promote"], "nothing else is left in its folder"
    before = len(cluster.read_stamps())
    vip.rename(cluster.folder / "program")
    old.rename(vip)
    until("it is promoted by its scripts", lambda: actions(cluster, before) == ["demote", "start", "promote"])
    cluster.wait_master()
    assert is_gone(pid) and node(cluster)["failcount"] == 0


def test_what_becomes_a_program_in_maintenance_is_started_as_one_afterwards(cluster: RealCluster) -> None:
    with cluster["a"].client() as client:
        client.maintenance(True)
        for script in ("start", "stop"):
            (cluster["a"].services / "20-vip" / script).unlink()
        cluster.script("20-vip", "run", body=f"echo $$ > {cluster.folder}/pid; exec sleep 1000")
        before = len(cluster.read_stamps())
        until("it is seen", lambda: "20-vip is changed" in cluster["a"].log.read_text())
        assert actions(cluster, before) == [] and not program(cluster, "pid")
        client.maintenance(False)
    until("its program runs", lambda: program(cluster, "pid"))
    cluster.wait_master()
    assert actions(cluster, before) == ["demote", "promote"]


def test_a_service_is_deleted_and_another_node_promoted_at_once(tmp_path: Path) -> None:
    """Found: what could not be run any more had failed, and both nodes were stuck until they looked at their folders."""
    with RealCluster(tmp_path, nodes="abc", runners="ab", failover=CALM, pace="1m") as pair:
        for service in ("10-vip", "20-web"):
            for action in ("start", "stop", "promote", "demote"):
                pair.script(service, action)
        pair.start()
        old = pair.wait_whole()
        new = "b" if old == "a" else "a"
        for name in "ab":
            shutil.rmtree(pair[name].services / "20-web")
        with pair["c"].client() as client:
            assert client.promote(new)["done"]
            assert not client.failures()["failures"]
        assert pair.status()["cluster"]["hold"] is None and pair.overlaps() == []
