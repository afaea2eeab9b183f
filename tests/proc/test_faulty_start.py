"""A faulty service keeps koinode from starting, but not where a dead koinode has left something promoted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster import RealCluster, until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Three nodes with a master."""
    with RealCluster(tmp_path_factory.mktemp("faulty"), failover="6s") as three:
        for action in ("promote", "demote", "stop"):
            three.script("10-vip", action)
        three.start()
        yield three


@pytest.mark.parametrize("file, content", [("status", "#!/bin/sh\n"), ("service.yaml", "demote_timeout: soon\n")])
def test_what_was_left_is_demoted_although_a_service_is_faulty(cluster: RealCluster, file: str, content: str) -> None:
    node = cluster[cluster.wait_master()]
    fault = node.services / "10-vip" / file
    fault.write_text(content)
    killed, logged = time.time(), len(node.log.read_text())
    node.kill_koi()
    node.start()
    words = f"started all the same, to demote and stop what a dead koinode left: {fault}"
    until("it starts", lambda: words in node.log.read_text()[logged:])
    until("demote", lambda: cluster.first("demote", "end", killed, node.name))
    until("it is back", lambda: any(n["name"] == node.name and n["services"] for n in cluster.status()["nodes"]))
    until("it is up", lambda: (node.folder / "run" / "koinode.pid").exists() and "runner" in node.processes())
    assert cluster.overlaps() == []
    assert node.stop() == 0
    node.start()
    assert node.process is not None and node.process.wait(30) == 2, "nothing is left, so it does not start"
    fault.unlink()
    node.start()
