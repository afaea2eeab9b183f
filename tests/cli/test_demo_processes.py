"""Finding and ending the processes of a demo node: all of its own, none of anybody else's."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

import pytest

from koi.demo_cluster import electors_of
from koi.demo_processes import kill, of_node, wait_for_end

TREE = """
sleep 100 &                                            # a child
setsid sleep 100 &                                     # a session of its own
setsid sh -c 'sleep 100 & echo up; exec sleep 100' &   # and one with two in it
wait
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a node."""
    (tmp_path / "a").mkdir()
    return tmp_path / "a"


def begin(command: list[str], **more: object) -> subprocess.Popen[bytes]:
    """A process that has said that it is up."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, **more)  # type: ignore[call-overload]
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 10)[0]
    return process


def test_a_whole_tree_ends(folder: Path) -> None:
    root = begin(["sh", "-c", TREE], start_new_session=True)
    pids = of_node(str(folder), root.pid)
    assert len(pids) == 5
    assert kill(str(folder), root.pid) == 5
    assert root.wait(10) == -9
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)


def test_an_orphan_is_known_by_its_environment(folder: Path) -> None:
    environment = {**os.environ, "KOI_SERVICE_DIR": f"{folder}/services/10-address"}
    starter = begin(["sh", "-c", "setsid sleep 100 & echo up"], env=environment)
    starter.wait(10)
    assert len(of_node(str(folder), None)) == 1
    assert kill(str(folder), None) == 1
    assert of_node(str(folder), None) == set()


def test_an_orphan_is_known_by_its_log(folder: Path) -> None:
    with open(folder / "log", "wb") as log:
        orphan = subprocess.Popen(["sleep", "100"], stderr=log, start_new_session=True)
    assert of_node(str(folder), None) == {orphan.pid}
    assert kill(str(folder), None) == 1
    assert orphan.wait(10) == -9


def test_who_looks_on_is_left_alone(folder: Path) -> None:
    (folder / "log").write_text("up\n")
    reader = begin(["tail", "-f", "log"], cwd=folder, start_new_session=True)
    other = folder.parent / "ab"
    other.mkdir()
    neighbour = begin(["sh", "-c", "echo up; exec sleep 100"], env={**os.environ, "KOI_SERVICE_DIR": f"{other}/x"})
    try:
        assert of_node(str(folder), None) == set()
        assert kill(str(folder), None) == 0
        assert reader.poll() is None
        assert neighbour.poll() is None
    finally:
        reader.kill()
        neighbour.kill()
        reader.wait(10)
        neighbour.wait(10)


def test_waiting_for_an_end_has_a_bound() -> None:
    quick = begin(["sh", "-c", "echo up"])
    slow = begin(["sh", "-c", "echo up; exec sleep 100"])
    try:
        assert wait_for_end([quick, slow], 0.2) == [slow]
    finally:
        slow.kill()
    assert wait_for_end([quick, slow], 10) == []


@pytest.mark.parametrize(("nodes", "electors"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)])
def test_an_odd_number_of_nodes_votes(nodes: int, electors: int) -> None:
    assert electors_of(nodes) == electors
