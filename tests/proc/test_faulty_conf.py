"""A faulty koi.conf keeps koinode from starting, but not where a dead koinode has left something promoted.

Then the last good copy of it counts (koi/proc/lastgood.py), until the file is mended.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Optional

import pytest

from koi import config
from koi.core.ledger import Record
from koi.core.messages import Ledger
from koi.errors import ConfigError
from koi.proc import files, lastgood
from koi.proc.lastgood import COPY_NAME, Copy
from tests.cluster import PASSWORD, Node, RealCluster, until

GUARD_S = 0.9 * 3 - 0.3
"""Lease and grace, as parts of time.failover, count from the last report: up to a heartbeat before the kill."""
Break = Callable[[Node], None]


def wrong_value(node: Node) -> None:
    """As a slip of the hand."""
    node.config.write_text(node.config.read_text().replace("failover: 3s", "failover: soon\n  no_such_key: 1"))


def not_yaml(node: Node) -> None:
    """As a merge leaves it."""
    node.config.write_text("<<<<<<< ours\n" + node.config.read_text() + "=======\n")


def gone(node: Node) -> None:
    """As a package's removal leaves it; run_dir is then the default one."""
    node.config.unlink()


def without_password(node: Node) -> None:
    """The file is as it was, but what it names is gone."""
    (node.folder / "secret").unlink()


WAYS: dict[Break, str] = {
    wrong_value: "time.failover: is 'soon'", not_yaml: "is not YAML", gone: "cannot be read: No such file",
    without_password: "cluster.password_file: is",
}


def readable(folder: Path) -> list[str]:
    """Files with the password that others than their owner can read."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077
            and PASSWORD in path.read_text(errors="replace")]


def ended(cluster: RealCluster, node: Node, killed: float) -> float:
    """How many seconds after its koinode was killed the node has demoted; where its scripts take longer than the grace, on a
    machine that is far too busy, it is killed and stopped. Later than GUARD_S another node may be master already."""
    return until("demote, or stop", lambda: cluster.first("demote", "end", killed, node.name)
                 or cluster.first("stop", "end", killed, node.name)).time - killed


def warnings(cluster: RealCluster, node: Node) -> Optional[list[str]]:
    """What `koi status` warns of at this node; None while nobody answers."""
    status = cluster.status()
    return [text for text in status["cluster"]["warnings"] if text.startswith(f"{node.name}: mend ")] if status else None


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    with RealCluster(tmp_path, failover="3s", program="tests.proc.default_run_dir_node") as cluster:
        for node in cluster.nodes.values():
            (node.folder / "secret").write_text(PASSWORD)
            (node.folder / "secret").chmod(0o600)
            text = node.config.read_text().replace(f"password: {PASSWORD}", "password_file: secret")
            node.config.write_text(text)
        for action in ("promote", "demote", "stop"):
            cluster.script("10-vip", action)
        cluster.start()
        cluster.wait_master()
        assert all(node.asker for node in cluster.nodes.values()), "they read their files while these are good"
        yield cluster


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_was_left_is_demoted_although_koi_conf_is_faulty(cluster: RealCluster, way: Break) -> None:
    node = cluster[cluster.wait_master()]
    good = node.config.read_text()
    assert (node.folder / "run" / COPY_NAME).stat().st_mode & 0o777 == 0o600
    way(node)
    killed = time.time()
    node.kill_koi()
    node.start()
    in_time = ended(cluster, node, killed) < GUARD_S
    told = until("status warns of it", lambda: warnings(cluster, node))
    assert str(node.config) in told[0] and WAYS[way] in told[0] and "'koi reconfigure'" in told[0]
    until("it takes part", lambda: any(n["name"] == node.name and n["state"] in ("Backup", "Master")
                                       for n in cluster.status().get("nodes", ())))
    assert f"started all the same, to demote and stop what a dead koinode left: {node.config}" in node.log.read_text()
    assert readable(cluster.folder) == [] and (cluster.overlaps() == [] or not in_time)
    os.kill(node.pid, signal.SIGHUP)
    until("it is read again", lambda: "SIGHUP: the configuration is not changed: " in node.log.read_text())
    mend(node, good + "# mended\n")
    os.kill(node.pid, signal.SIGHUP)
    until("the warning is over", lambda: warnings(cluster, node) == [])
    assert (node.folder / "run" / COPY_NAME).read_text().endswith("\n# mended\n")
    assert node.stop() == 0 and list((node.folder / "run").iterdir()) == []
    way(node)
    node.start()
    assert node.process is not None and node.process.wait(30) == 2, "nothing is left, so it does not start"


def test_over_an_old_copy_with_other_electors_it_demotes_and_does_not_vote(cluster: RealCluster) -> None:
    node = cluster[cluster.wait_master()]
    good, copy = node.config.read_text(), node.folder / "run" / COPY_NAME
    node.kill_koi()
    wrong_value(node)
    copy.write_text(re.sub(r"electors: {.*}", f'electors: {{{node.name}: "127.0.0.1:{node.port}"}}', copy.read_text()))
    killed = time.time()
    node.start()
    in_time = ended(cluster, node, killed) < GUARD_S
    until("it is up", lambda: "is up with 1 service" in node.log.read_text()[-5000:])
    said = node.log.read_text()
    assert f"mend {node.config}, then restart koinode: the node runs with an old copy of it" in said
    assert "but this node last ran with a, b, c: more than one name differs" in said
    assert set(node.processes()) == {"root", "runner", "service vip"}
    cluster.wait_master(other_than=node.name)
    mend(node, good)
    os.kill(node.pid, signal.SIGHUP)
    refusal = "node.elector can only be changed by a restart of koinode"
    until("it is read again", lambda: "SIGHUP: the configuration is not changed: " in node.log.read_text())
    assert refusal in node.log.read_text()
    assert node.stop() == 0
    node.start()
    cluster.wait_whole()
    assert cluster.overlaps() == [] or not in_time


def mend(node: Node, good: str) -> None:
    """As it was, password and all."""
    node.config.write_text(good)
    (node.folder / "secret").write_text(PASSWORD)
    (node.folder / "secret").chmod(0o600)


def test_without_a_copy_that_can_be_used_it_does_not_start_and_says_why(cluster: RealCluster) -> None:
    node = cluster[cluster.wait_master()]
    copy = node.folder / "run" / COPY_NAME
    node.kill_koi()
    wrong_value(node)
    copy.chmod(0o644)
    assert f"{copy} is not used: others may have written it, or can read it" in refused(node)
    copy.chmod(0o600)
    copy.write_text("# {}\n")
    assert f"{copy} cannot be used: its first line is spoilt" in refused(node)
    copy.unlink()
    said = refused(node)
    assert f"{copy} cannot be read: No such file or directory" in said and "time.failover: is 'soon'" in said
    assert "mend the configuration at once and start koinode" in said


def refused(node: Node) -> str:
    """What koinode says, which does not start."""
    node.start()
    assert node.process is not None and node.process.wait(30) == 2
    node.process = None
    return node.log.read_text()


# --- the copy itself --------------------------------------------------------------------------


GOOD = "node:\n  name: a\n  run_dir: run\ncluster:\n  password_file: secret\n"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(PASSWORD)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "run").mkdir()
    (tmp_path / "koi.conf").write_text(GOOD)
    return tmp_path / "koi.conf"


def kept(conf: Path) -> Copy:
    """The copy, written into the folder `run` beside the file."""
    copy = lastgood.read(str(conf), None)[1]
    lastgood.keep(str(conf.parent / "run"), copy)
    return copy


@pytest.mark.parametrize("text, found", [
    ("nodes:\n", "/run/koi"), ("node: {run_dir: /x, colour: 1}\n", "/x"), ("node:\n  run_dir: 'y'  # here\n  : :\n- a", "y"),
    ("\0", "/run/koi"), ("node:\n  #run_dir: /x\n  - a: b: c", "/run/koi"), ("<<<\nnode:\n  run_dir: /a b\n", "/a b"),
    ("node:\n  run_dir: [1]\n", "/run/koi"),
])
def test_run_dir_is_found_in_a_faulty_file(conf: Path, text: str, found: str) -> None:
    conf.write_text(text)
    with pytest.raises(ConfigError):
        config.load(str(conf))
    assert lastgood.run_dir(str(conf)) == os.path.join(conf.parent, found)
    conf.unlink()
    assert lastgood.run_dir(str(conf)) == "/run/koi"


def test_the_copy_stands_in_for_its_own_file_only(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(conf)
    good = config.load(str(conf))
    conf.write_text("node: []\n")
    run = str(conf.parent / "run")
    found = lastgood.stand_in(run, str(conf), None, ["it is faulty"])
    assert (found.node, found.cluster, found.path) == (good.node, good.cluster, str(conf)) and "it is faulty" in found.stands_in
    assert lastgood.stand_in(run, str(conf), "b", []).node.name == "b"
    monkeypatch.chdir(conf.parent)
    assert lastgood.stand_in(run, None, None, []).path == str(conf)
    with pytest.raises(ConfigError, match="is a copy of another file"):
        lastgood.stand_in(run, str(conf) + ".other", None, [])


def test_the_copy_shows_the_file_below_its_first_line_and_the_password_nowhere_else(conf: Path) -> None:
    copy = kept(conf)
    place = conf.parent / "run" / COPY_NAME
    assert subprocess.run(["tail", "-n", "+2", place], capture_output=True, check=True).stdout.decode() == GOOD
    assert PASSWORD not in repr(copy) and PASSWORD in place.read_text()


def test_a_copy_of_the_last_version_of_a_program_may_be_faulty_for_this_one(conf: Path) -> None:
    copy = kept(conf)
    lastgood.keep(str(conf.parent / "run"), Copy(copy.path, copy.content + b"  colour: red\n", copy.password))
    with pytest.raises(ConfigError, match=rf"{COPY_NAME}, the copy of {conf}:6: cluster.colour: no such key"):
        lastgood.stand_in(str(conf.parent / "run"), str(conf), None, [])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as an error."""
    told: list[str] = []
    monkeypatch.setattr(lastgood.log, "get", lambda: SimpleNamespace(error=told.append))
    return told


def test_a_copy_that_cannot_be_replaced_is_removed_for_the_node_was_configured_anew(conf: Path, said: list[str]) -> None:
    copy = kept(conf)
    run = conf.parent / "run"
    (run / f"{COPY_NAME}.new").mkdir()
    lastgood.keep(str(run), copy)
    assert said == [] and (run / COPY_NAME).exists(), "it is the same, nothing has to be written"
    lastgood.keep(str(run), Copy(copy.path, copy.content + b"# changed\n", copy.password))
    assert len(said) == 1
    assert f"{COPY_NAME} cannot be written: Is a directory, and the older one there is removed; if koinode is killed" in said[0]
    assert "then run 'koi reconfigure'" in said[0] and not (run / COPY_NAME).exists()
    lastgood.keep(str(run), copy)
    assert f"{COPY_NAME} cannot be written: Is a directory; if koinode" in said[1]


def test_a_copy_that_can_be_neither_replaced_nor_removed_is_to_be_removed_by_hand(conf: Path, said: list[str]) -> None:
    copy = kept(conf)
    run = conf.parent / "run"
    (run / COPY_NAME).unlink()
    (run / COPY_NAME).mkdir()
    lastgood.keep(str(run), copy)
    assert len(said) == 1 and "and the older one there not removed (Is a directory): remove it; if koinode" in said[0]


def test_what_was_begun_of_a_copy_goes_with_it(conf: Path) -> None:
    kept(conf)
    run = conf.parent / "run"
    (run / f"{COPY_NAME}.new").write_text("half")
    lastgood.remove(str(run))
    assert list(run.iterdir()) == []


def recorded(state: Path, electors: tuple[str, ...]) -> None:
    """An elector has run with these."""
    state.mkdir()
    files.write_json(str(state / "elector.json"), files.dump_record(Record(1, "a", (1, 1), Ledger(), 1, 3.0, electors)))


def test_a_copy_with_electors_that_may_not_follow_on_the_last_neither_votes_nor_is_promoted(conf: Path) -> None:
    conf.write_text(GOOD.replace("run_dir: run\n", "run_dir: run\n  state_dir: state\n"))
    kept(conf)
    recorded(conf.parent / "state", ("a", "b"))
    found = lastgood.stand_in(str(conf.parent / "run"), str(conf), None, ["it is faulty"])
    assert found.node.elector and found.node.mode == "active" and "then run 'koi reconfigure'" in found.stands_in
    (conf.parent / "state/elector.json").unlink()
    (conf.parent / "state").rmdir()
    recorded(conf.parent / "state", ("a", "b", "c"))
    found = lastgood.stand_in(str(conf.parent / "run"), str(conf), None, ["it is faulty"])
    assert not found.node.elector and found.node.mode == "passive"
    assert "then restart koinode" in found.stands_in and "the file is faulty: it is faulty" in found.stands_in
    assert any("this node last ran with a, b, c" in text for text in found.warnings)
