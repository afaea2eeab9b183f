"""After a failure, on real nodes: recovery by itself or by hand, flapping, and what `koi failures` keeps."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from koi.core.pipe import Failure
from koi.proc.failures import MAX_KEPT, SAVE_S, Failures
from tests.cluster import RealCluster, until


def make(folder: Path, service: str = "") -> RealCluster:
    """One node whose only service is a program that says something before it ends."""
    one = RealCluster(folder, nodes="a", service=service)
    one.script("web", "run", body=f"echo ready; echo $$ > {folder}/pid; exec sleep 1000")
    return one


def end_program(cluster: RealCluster) -> None:
    """The program dies; returns once it is known."""
    before = node(cluster)["failcount"]
    path = cluster.folder / "pid"
    pid = int(until("a program", lambda: path.exists() and path.read_text().strip()))
    path.unlink()
    os.kill(pid, signal.SIGKILL)
    until("the failure is known", lambda: node(cluster).get("failcount", 0) == before + 1)


def node(cluster: RealCluster) -> dict[str, Any]:
    return dict(cluster.status()["nodes"][0])


def test_failures_survive_a_restart_of_koinode(tmp_path: Path) -> None:
    with make(tmp_path) as cluster:
        cluster.start()
        cluster.wait_master()
        end_program(cluster)
        before = cluster["a"].asker.failures()["failures"]
        assert cluster["a"].stop() == 0
        cluster["a"].start()
        cluster.wait_master()
        assert cluster["a"].asker.failures()["failures"] == before
        (failure,) = before
        assert {key: failure[key] for key in ("node", "service", "action", "exit", "line", "what")} == {
            "node": "a", "service": "web", "action": "run", "exit": -9, "line": "ready", "what": "run was killed by signal 9"}
        assert failure["seconds"] > 0 and failure["time"].startswith("20")


def test_the_last_fifty_failures_are_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "failures.json")
    for number in range(MAX_KEPT + 10):
        kept = Failures(path, "a")
        kept.add(Failure("web", "run", number, 0.1, "", "it ended"), 7.0)
        assert kept.due == 7.0 + SAVE_S
        kept.save()
    assert MAX_KEPT == 50 and [entry["exit"] for entry in Failures(path, "a").entries] == list(range(10, 60))


def test_a_node_that_does_not_recover_by_itself_waits_for_an_administrator(tmp_path: Path) -> None:
    with make(tmp_path, service="  auto_recover: 0\n") as cluster:
        cluster.start()
        cluster.wait_master()
        end_program(cluster)
        nobody = until("the reason", lambda: cluster.status()["cluster"]["nobody"])
        assert "does not recover by itself: use 'koi recover'" in str(nobody) and "run was killed by signal 9" in str(nobody)
        assert node(cluster)["state"] == "Failed" and "a does not recover by itself any more" in cluster["a"].log.read_text()
        with cluster["a"].client() as client:
            client.recover("a")
        cluster.wait_master()
        assert node(cluster)["failcount"] == 0


def test_the_third_failure_within_an_hour_is_flapping(tmp_path: Path) -> None:
    with make(tmp_path) as cluster:
        cluster.start()
        for times in range(3):
            cluster.wait_master()
            assert "flapping" not in str(cluster.status()["cluster"]["warnings"]), times
            end_program(cluster)
        until("a warning", lambda: "a: the node is flapping" in str(cluster.status()["cluster"]["warnings"]))
        assert cluster["a"].log.read_text().count("the node is flapping: it failed three times within an hour") == 1


@pytest.mark.parametrize("factor", [1, 3])
def test_each_recovery_waits_longer_by_the_factor(tmp_path: Path, factor: int) -> None:
    with make(tmp_path, service=f"  auto_recover_wait_factor: {factor}\n") as cluster:
        cluster.start()
        for times in range(2):
            cluster.wait_master()
            end_program(cluster)
            wait = f"recovers in {factor ** times} s"
            until(wait, lambda wait=wait: wait in str(cluster.status()["cluster"]["nobody"]))  # type: ignore[misc]
