"""The elector's disk: full, failing, filling up in the middle of a file; what is said to be written is there whole."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from koi.core.ledger import Record
from koi.core.timing import derive
from koi.errors import KoiError
from koi.proc import files
from koi.proc.snapshot import Snapshot
from koi.proc.troubles import Troubles
from koi.proc.writer import Writer
from tests.cluster import RealCluster, until

WAIT_S = 10.0
SMALL_KB = 64


def wait_for(writer: Writer, number: int) -> None:
    """Until this record is said to be on disk."""
    until(f"write {number}", lambda: (select.select([writer], [], [], 0.1), writer.done() >= number)[1])


def test_a_disk_that_takes_a_part_only_is_written_to_until_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found: what was cut short by a disk filling up was taken for written, and its elector was blank after a restart."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    files.write_json(str(tmp_path / "file"), {"key": "x" * 100})
    assert files.read_json(str(tmp_path / "file")) == {"key": "x" * 100}


def test_a_machine_that_gives_no_thread_is_told_as_what_an_administrator_can_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(KoiError, match=r"elector.json: can't start new thread; end what runs too often, or raise the limit"):
        Writer(str(tmp_path / "elector.json"))


def test_a_disk_that_refuses_is_told_and_tried_again_with_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is anything said to be written meanwhile, nor is the old file touched."""
    path = tmp_path / "elector.json"
    writer = Writer(str(path))
    writer.submit(1, replace(Record(), promised=1))
    wait_for(writer, 1)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        writer.submit(2, replace(Record(), promised=2))
        until("the trouble", lambda: "No space left on device" in writer.trouble)
        writer.submit(3, replace(Record(), promised=3))
        assert writer.done() == 1
        assert files.parse_record(files.read_json(str(path))).promised == 1
    wait_for(writer, 3)
    assert files.parse_record(files.read_json(str(path))).promised == 3 and writer.trouble == ""


def test_a_trouble_of_the_disk_is_told_until_a_write_was_well() -> None:
    """Found: 'No space left on device' stood in the status for as long as the elector lived."""
    troubles, slow = Troubles(0.3), "took 0.50 s for a write: its disk is slow"
    for refused, took, words in (
        ("No space left on device", 0.0, "cannot write /x: No space left on device"), ("", 0.01, ""),
        ("", 0.5, slow), ("", 0.0, slow), ("", 0.01, ""),
    ):
        troubles.note_disk("/x", refused, took, 0.15)
        assert troubles.texts(1.0) == ((words,) if words else ())


def test_an_elector_that_is_silent_beside_its_runner_may_have_a_full_disk() -> None:
    """One whose machine died fell silent with it, and its last report says nothing of its disk."""
    machine = SimpleNamespace(reports={"b": SimpleNamespace(at=10.0)}, timing=derive(3.0))
    one: Any = SimpleNamespace(machine=machine, _address=lambda name: "10.0.0.2:42012", _why_silent=lambda name: "")
    assert "though its runner is heard" in Snapshot._silent(one, "b", 8.0)
    for name, since in (("b", 9.5), ("c", 8.0)):
        assert Snapshot._silent(one, name, since).endswith("see that koinode runs there and that UDP reaches 10.0.0.2:42012")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which is soon full."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_KB}k", "koi-test", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here: not root, or a container without the right")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_of_one_elector_moves_nothing_and_hinders_no_failover(tmp_path: Path, small_disk: Path) -> None:
    """Its elector can neither vote nor accept meanwhile, says so, and takes part again when there is room."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with RealCluster(folder, nodes="abcd", electors="abc", runners="abd", failover="2s") as cluster:
        for action in ("promote", "demote"):
            cluster.script("web", action)
        config = cluster["c"].config
        config.write_text(config.read_text().replace(f"state_dir: {cluster['c'].folder}/state", f"state_dir: {small_disk}/state"))
        cluster.start()
        master = cluster.wait_master()
        until("all electors", lambda: cluster.status()["cluster"]["quorum"]["have"] == 3)
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(512))
        other = next(n for n in "ab" if n != master)
        with cluster["a"].client() as client:
            client.promote(other)
        assert cluster.wait_master(other_than=master) == other
        until("it is told", lambda: "No space left on device; this elector can neither" in cluster["c"].log.read_text())
        told = ("elector c cannot write", "elector c does not answer")
        until("the status says it", lambda: any(text.startswith(told) for text in _warnings(cluster)))
        filler.unlink()
        until("it takes part again", lambda: "target" in cluster.status()["cluster"] and _whole(small_disk, cluster))
        until("it is over", lambda: cluster.status() and not any(text.startswith(told) for text in _warnings(cluster)))
        assert cluster.master() == other and cluster.overlaps() == []


def _warnings(cluster: RealCluster) -> list[str]:
    return list(cluster.status().get("cluster", {}).get("warnings", ()))


def _whole(place: Path, cluster: RealCluster) -> bool:
    """The record on the small disk names the master, and its elector answers."""
    status = cluster.status()["cluster"]
    record = files.parse_record(files.read_json(str(place / "state/elector.json")))
    return record.ledger.master == status["master"] and status["quorum"]["have"] == 3
