"""A run_dir or state_dir without room, at each moment of a node's life: it goes on, says what to do, demotes what was left.

The folder is a small file system in a mount namespace of its own, which outlives the koinode that runs in it.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koi.errors import Refused
from tests.cluster import Node, RealCluster, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, ("unshare", "nsenter", "mount")), reason="needs root, unshare, nsenter, mount"
)
SIZE = "96k"
BLOCK = 4096


class SmallDisk:
    """One of the node's folders, run or state, on a file system of its own."""

    def __init__(self, node: Node, folder: str) -> None:
        place = node.folder / folder
        place.mkdir()
        script = f"mount -t tmpfs -o size={SIZE} none {place} && echo mounted && exec sleep 3600"
        self.holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None and self.holder.stdout.readline() == "mounted\n"
        self.place = Path(f"/proc/{self.holder.pid}/root{place}")
        node.before = ["nsenter", f"--target={self.holder.pid}", "--mount", f"--wd={node.folder}"]

    def fill(self) -> None:
        """Until nothing more can be written."""
        with open(self.place / "fill", "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(BLOCK))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def names(self) -> set[str]:
        """What is in the folder."""
        return set(os.listdir(self.place))

    def close(self) -> None:
        """The mount ends with its last process."""
        self.holder.kill()
        self.holder.communicate()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    """One node with a service; not started."""
    with RealCluster(tmp_path, nodes="a", failover="3s") as one:
        for action in ("start", "promote", "demote", "stop"):
            one.script("10-vip", action)
        yield one


@pytest.fixture
def disk(cluster: RealCluster, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """Of run_dir, or of the folder that the test names."""
    made = SmallDisk(cluster["a"], getattr(request, "param", "run"))
    yield made
    made.close()


def test_a_node_whose_disk_is_full_goes_on_and_leaves_nothing(cluster: RealCluster, disk: SmallDisk) -> None:
    node = cluster["a"]
    node.start()
    cluster.wait_master()
    disk.fill()
    before = len(cluster.read_stamps())
    for process in ("runner", "elector", "service vip"):
        os.kill(node.processes()[process], signal.SIGKILL)
    cluster.wait_master()
    node.config.write_text(node.config.read_text().replace("status_interval: 1s", "status_interval: 2s"))
    os.kill(node.pid, signal.SIGHUP)
    until("it is read", lambda: "SIGHUP: applied time.status_interval" in node.log.read_text())
    until("the old copy is removed", lambda: "koi.conf.good" not in disk.names())
    assert len(cluster.read_stamps()) == before, "no script was run"
    assert node.stop() == 0 and disk.names() == {"fill"}
    said = node.log.read_text()
    assert "koi.conf.good cannot be written: No space left on device, and the older one there is removed; if koinode is" in said
    assert "tree.json cannot be written: [Errno 28] No space left on device" in said and "run has room and can be written" in said
    assert "CRITICAL" not in said


def test_killed_as_a_whole_on_a_full_disk_it_starts_again_and_demotes(cluster: RealCluster, disk: SmallDisk) -> None:
    node = cluster["a"]
    node.start()
    cluster.wait_master()
    disk.fill()
    killed = time.time()
    node.kill_koi()
    disk.fill()
    node.start()
    until("demote, or stop on a machine too busy for its grace", lambda: cluster.first("demote", "end", killed)
          or cluster.first("stop", "end", killed))
    until("promote", lambda: cluster.first("promote", "end", killed))
    assert node.stop() == 0 and disk.names() == {"fill"}


def test_it_does_not_begin_on_a_full_disk_and_says_what_to_do(cluster: RealCluster, disk: SmallDisk) -> None:
    node = cluster["a"]
    disk.fill()
    node.start()
    assert node.process is not None and node.process.wait(30) == 1
    said = node.log.read_text()
    assert "koinode.lock cannot be written: No space left on device; make room there, or set another node.run_dir" in said
    assert "CRITICAL" not in said and cluster.read_stamps() == []


@pytest.mark.parametrize("disk", ["state"], indirect=True)
def test_what_cannot_be_agreed_for_the_disk_of_the_electors_is_an_error_and_done_when_there_is_room(
    cluster: RealCluster, disk: SmallDisk,
) -> None:
    node = cluster["a"]
    node.start()
    cluster.wait_master()
    disk.fill()
    with pytest.raises(Refused, match="nothing can be agreed: the ledger is accepted by 0 of 1 electors so far; once"):
        node.client().demote()
    assert cluster.master() == "a", "nothing is done that is not agreed"
    warning = f"elector a cannot write {node.folder}/state/elector.json: No space left on device"
    assert warning in cluster.status()["cluster"]["warnings"] and disk.names() >= {"fill", "elector.json"}
    assert "elector.json.new" not in disk.names()
    (disk.place / "fill").unlink()
    until("what was asked is carried out", lambda: cluster.status()["cluster"]["manual"] and cluster.states()["a"] == "Backup")
    assert node.asker.elect()["done"] and cluster.wait_master() == "a"
