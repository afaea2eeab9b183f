"""Five minutes with every core kept busy: no leader changes, no master moves; a starved elector says that it was late."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koi.proc.troubles import REMEMBERED_S, Troubles
from tests.cluster import RealCluster, until

BUSY_S = 300.0


def settle(cluster: RealCluster) -> tuple[str, str, int]:
    """Master, leader and term of a cluster that is whole."""
    cluster.start()
    cluster.wait_master()
    status = until("all electors", lambda: (s := cluster.status()) and s["cluster"]["quorum"]["have"] == 3 and s)
    return status["cluster"]["master"], status["cluster"]["leader"], status["cluster"]["term"]


@pytest.mark.long
@pytest.mark.timeout(BUSY_S + 120)
def test_busy_cores_alarm_nobody(tmp_path: Path) -> None:
    with RealCluster(tmp_path, failover="3s") as cluster:
        cluster.script("web", "promote")
        cluster.script("web", "demote")
        before = settle(cluster)
        spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
        try:
            time.sleep(BUSY_S)
        finally:
            for process in spin:
                process.kill()
                process.wait()
        status = cluster.status()["cluster"]
        print(f"{BUSY_S:g} s busy; warnings: {status['warnings']}")
        assert (status["master"], status["leader"], status["term"]) == before
        assert len([s for s in cluster.read_stamps() if s.action == "promote"]) == 2


STARVE = """
import os, time
os.sched_setaffinity(0, {0})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
ends = time.monotonic() + 0.4
while time.monotonic() < ends:
    pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="taking a core away from a process needs root")
def test_a_starved_elector_says_so_in_status(tmp_path: Path) -> None:
    """A leader that gets no CPU for twice H, too short to be missed, is warned of."""
    with RealCluster(tmp_path, failover="2s") as cluster:
        cluster.script("web", "promote")
        master, leader, _ = settle(cluster)
        os.sched_setaffinity(cluster[leader].local()["pids"]["elector"], {0})

        def warned() -> bool:
            warnings = cluster.status()["cluster"]["warnings"]
            return any(w.startswith(f"elector {leader} came") and "half a heartbeat" in w for w in warnings)

        subprocess.run([sys.executable, "-c", STARVE], check=True, timeout=10)
        until("the leader warns", warned)
        assert cluster.status()["cluster"]["master"] == master


def test_lateness_is_shown_for_a_minute() -> None:
    troubles = Troubles(0.3)
    troubles.note_late(0.14, 0.0)
    assert troubles.texts(0.0) == ()
    troubles.note_late(0.16, 1.0)
    assert "0.16 s too late" in troubles.texts(1.0 + REMEMBERED_S - 0.1)[0]
    troubles.note_late(0.15, 2.0)
    assert troubles.texts(1.0 + REMEMBERED_S) == ()
    troubles.disk = "took 1.00 s for a write: its disk is slow"
    assert troubles.texts(100.0) == (troubles.disk,)
