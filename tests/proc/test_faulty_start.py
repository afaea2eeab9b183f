"""A faulty service keeps koinode from starting, but not where a dead koinode has left something promoted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster import RealCluster, until


@pytest.mark.parametrize("file, content", [("status", "#!/bin/sh\n"), ("service.yaml", "demote_timeout: soon\n")])
def test_what_was_left_is_demoted_although_a_service_is_faulty(tmp_path: Path, file: str, content: str) -> None:
    with RealCluster(tmp_path, failover="6s") as cluster:
        for action in ("promote", "demote", "stop"):
            cluster.script("10-vip", action)
        cluster.start()
        node = cluster[cluster.wait_master()]
        (node.services / "10-vip" / file).write_text(content)
        killed = time.time()
        node.kill_koi()
        node.start()
        words = f"started all the same, to demote and stop what a dead koinode left: {node.services}/10-vip/{file}"
        until("it starts", lambda: words in node.log.read_text())
        until("demote", lambda: cluster.first("demote", "end", killed, node.name))
        until("it is back", lambda: any(n["name"] == node.name and n["services"] for n in cluster.status().get("nodes", ())))
        until("it is up", lambda: (node.folder / "run" / "koinode.pid").exists() and "runner" in node.processes())
        assert cluster.overlaps() == []
        assert node.stop() == 0
        node.start()
        assert node.process is not None and node.process.wait(30) == 2, "nothing is left, so it does not start"
