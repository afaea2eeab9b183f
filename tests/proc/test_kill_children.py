"""SIGKILL, SIGSTOP and a busy loop for each process of the master's node: it stays master, no script is run, no second
copy of a program ever lives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koi.proc.leasefile import LEASE_NAME
from koi.proc.loop import now
from tests.cluster import Node, RealCluster, beneath, until

LEASE_S = 0.52 * 6
SPIN = signal.SIGUSR2
"""See spinning_node.py."""
PROGRAM = """#!/bin/sh
echo "$$ begins" >> {folder}/program
trap 'sleep 0.2; echo "$$ ends" >> {folder}/program; exit 0' TERM
while :; do sleep 0.05; done
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Three nodes with a service of scripts and a program, up and with a master; shared, for nothing here may harm it."""
    with RealCluster(tmp_path_factory.mktemp("kill"), failover="6s", program="tests.proc.spinning_node") as cluster:
        for action in ("start", "stop", "promote", "demote", "status"):
            cluster.script("10-vip", action)
        for action in ("promote", "demote"):
            cluster.script("20-web", action)
        for node in cluster.nodes.values():
            run = node.services / "20-web" / "run"
            run.write_text(PROGRAM.format(folder=node.folder))
            run.chmod(0o755)
        cluster.start()
        cluster.wait_master()
        yield cluster


def scripts(cluster: RealCluster) -> list[tuple[str, str, str]]:
    """What ran so far on any node, except `status`."""
    return [(s.node, s.action, s.edge) for s in cluster.read_stamps() if s.action != "status"]


def settled(cluster: RealCluster) -> tuple[str, int]:
    """The master and the epoch once every node is well."""
    return cluster.wait_whole(), cluster.status()["cluster"]["epoch"]


def lease_end(node: Node) -> float:
    """When the lease ends that the node has, or had last."""
    return float((node.folder / "run" / LEASE_NAME).read_text().split()[1])


def hurt(cluster: RealCluster, node: str, process: str, signum: int) -> int:
    """Send the signal and wait for the successor, which is returned."""
    pid = cluster[node].processes()[process]
    os.kill(pid, signum)

    def successor() -> int:
        new = cluster[node].processes().get(process, pid)
        return new if new != pid else 0

    return until(f"another {process}", successor)


@pytest.mark.parametrize("process", ["elector", "runner"])
@pytest.mark.parametrize("signum", [SPIN, signal.SIGKILL, signal.SIGSTOP], ids=["busy-loop", "kill", "stop"])
def test_the_node_stays_master_without_its_elector_or_runner(cluster: RealCluster, process: str, signum: int) -> None:
    """The busy loop comes first: it is noticed last, and a process that ends again and again is started later and later."""
    before = settled(cluster)
    ran, master = scripts(cluster), before[0]
    began = now()
    new = hurt(cluster, master, process, signum)
    assert now() - began < LEASE_S, "replaced within a lease"
    until("the new one is at work", lambda: cluster[master].local()["pids"][process] == new)
    until("a lease that is none of the old one's", lambda: lease_end(cluster[master]) > began + 1.5 * LEASE_S)
    assert settled(cluster) == before
    assert scripts(cluster) == ran


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
def test_a_new_worker_of_scripts_asks_for_the_status_and_runs_nothing_else(cluster: RealCluster, signum: int) -> None:
    before = settled(cluster)
    ran, master, began = scripts(cluster), before[0], time.time()
    hurt(cluster, master, "service vip", signum)
    until("status", lambda: cluster.first("status", "end", began, master))
    assert settled(cluster) == before
    assert scripts(cluster) == ran


def lives(path: Path) -> list[tuple[str, str]]:
    """What the program wrote of itself: (pid, begins or ends)."""
    return [(pid, what) for pid, what in (line.split() for line in path.read_text().splitlines())]


def leads_session(pid: int) -> bool:
    """Whether it lives and leads a session."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def programs(folder: Path) -> list[str]:
    """The copies of the program that live. Each leads its session; a command that its shell is about to run does not."""
    return [str(pid) for pid, line in beneath(folder).items() if line.endswith("20-web/run") and leads_session(pid)]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
def test_a_program_is_started_once_more_and_never_beside_itself(cluster: RealCluster, signum: int) -> None:
    before = settled(cluster)
    ran, master = scripts(cluster), before[0]
    path = cluster[master].folder / "program"
    until("the program has written", lambda: path.exists() and lives(path)[-1][1] == "begins")
    seen = len(lives(path))
    old = lives(path)[-1][0]
    hurt(cluster, master, "service web", signum)
    until("another program", lambda: len(lives(path)) >= seen + 2)
    assert lives(path)[seen] == (old, "ends")
    assert lives(path)[seen + 1][1] == "begins"
    assert programs(cluster[master].folder) == [lives(path)[-1][0]]
    assert settled(cluster) == before
    assert cluster[master].local()["failcount"] == 0
    assert [one for one in scripts(cluster)[len(ran) :] if one[0] != master or one[1] != "promote"] == []
