"""The commands that change something, on a real cluster: the effect is there when they return, and refusals say why."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from koi.client import Client
from koi.errors import Refused
from tests.cli.conftest import Koi
from tests.cluster import REPOSITORY, until


def state(koi: Koi, node: str) -> str:
    """A node's state."""
    return str(koi.node(node)["state"])


def test_promote_returns_when_it_is_so(koi: Koi, master: str, backup: str) -> None:
    epoch = koi.json("status")["cluster"]["epoch"]
    done = koi.json("promote", backup, "--reason", "new memory")
    assert done["done"] is True and done["epoch"] == epoch + 1
    assert done["message"].startswith(f"{backup} is master (epoch {epoch + 1}); done in ")
    assert state(koi, backup) == "Master" and state(koi, master) == "Backup"
    assert koi("promote", backup) == 0 and koi.out == f"{backup} is the master already\n"
    assert koi.cluster.overlaps(koi.cluster.killed) == []


def test_promote_tells_its_progress(koi: Koi, master: str, backup: str) -> None:
    said: list[str] = []
    koi.cluster.script("10-db", "demote", "sleep 0.3", nodes=master)
    koi.cluster.script("20-web", "promote", "sleep 0.3", nodes=backup)
    try:
        with Client(str(koi.cluster["a"].config), progress=said.append) as client:
            client.promote(backup)
    finally:
        koi.cluster.script("10-db", "demote")
        koi.cluster.script("20-web", "promote")
    assert said == [f"demoting {master}", f"promoting {backup}"]


@pytest.mark.parametrize(("first", "second", "words"), [
    ("promote B", "promote C", "B was not made master; C is master \\(.*\\); see 'koi why'"),
    ("promote B", "demote", "B was not made master: demote, asked by .*"),
    ("promote B", "maintenance on", "maintenance was turned on meanwhile, so no master is changed; .*"),
    ("demote", "promote B", "manual mode was ended meanwhile: promote B, asked by .*"),
    ("demote", "maintenance on", "maintenance was turned on meanwhile, so no master is changed; .*"),
])
def test_an_order_that_another_one_overtakes_says_so(
    koi: Koi, master: str, backup: str, tmp_path: Path, first: str, second: str, words: str
) -> None:
    """Found: they waited on, or a promote said that the node had failed, and where to see its failures."""
    names = {"B": backup, "C": next(name for name in "abd" if name not in (master, backup))}

    def named(text: str) -> str:
        return re.sub(r"\b[BC]\b", lambda found: names[found[0]], text)

    go = tmp_path / "go"
    waits = f"i=0; until [ -e {go} ] || [ $i = 400 ]; do sleep 0.05; i=$((i + 1)); done"
    koi.cluster.script("10-db", "demote", waits, nodes=master)
    command = [sys.executable, "-m", "koi.cli", "-f", str(koi.cluster["a"].config), *named(first).split()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    try:
        until("it yields", lambda: koi.json("status")["cluster"]["yielding"])
        assert koi(*named(second).split(), "--no-wait") == 0, koi.err
        go.touch()
        _, said = process.communicate(timeout=20)
    finally:
        go.touch()
        process.kill()
        koi.cluster.script("10-db", "demote")
    assert re.fullmatch(f"koi: {named(words)}\n", said), said


def test_a_promotion_that_fails_says_what_happened_instead(koi: Koi, master: str, backup: str) -> None:
    koi.flag("fail", backup)
    assert koi("promote", backup) == 1
    assert koi.err.startswith(f"koi: {backup} failed to become master (db: promote exited 1)")
    assert "see 'koi failures'" in koi.err
    assert koi("failures") == 0
    assert "promote exited 1" in koi.out and "disk is full" in koi.out
    assert koi.json("failures")["failures"][-1]["node"] == backup


@pytest.mark.parametrize(("node", "words"), [
    ("dd", "there is no node named dd; did you mean d? Nodes: a, b, c, d"), ("c", "there is no runner named c; runners: a, b, d"),
    ("no such", "is not the name of a node"),
])
def test_nodes_that_cannot_be_promoted(koi: Koi, node: str, words: str) -> None:
    for dry in ([], ["--dry-run"]):
        assert koi("promote", node, *dry) == 1
        assert words in koi.err


def test_a_failed_node_is_not_promoted(koi: Koi, master: str, backup: str) -> None:
    koi.cluster.script("10-db", "start", "echo no room; exit 1", nodes=backup)
    try:
        assert koi("restart", "db", backup) == 1
        until(f"{backup} has failed", lambda: koi.node(backup)["failed"])
        for dry in ([], ["--dry-run"]):
            assert koi("promote", backup, *dry) == 1
            words = f"{backup} cannot be promoted: {backup} .*; .*'koi (recover|status) {backup}'"
            assert re.search(words, koi.err), "failed, or trying again"
        assert koi.json("status")["cluster"]["master"] == master
        assert koi("status", backup, "--check") == 2 and "db: start exited 1" in koi.out
    finally:
        koi.cluster.script("10-db", "start")
    assert koi("recover", backup) == 0


def test_a_dry_run_changes_nothing(koi: Koi, master: str, backup: str) -> None:
    before, stamps = koi.json("status")["cluster"], koi.cluster.read_stamps()
    said = koi.json("promote", backup, "--dry-run")
    assert (said["done"], said["dry_run"], said["epoch"]) == (False, True, before["epoch"])
    words = f"{master} would be demoted (web, db); {backup} would be promoted (db, web) as epoch {before['epoch'] + 1}"
    assert said["message"].startswith(words)
    assert koi("promote", master, "--dry-run") == 0
    assert koi.out == f"nothing would change: {master} is the master already\n"
    after = koi.json("status")["cluster"]
    assert [after[key] for key in ("epoch", "master", "reason")] == [before[key] for key in ("epoch", "master", "reason")]
    assert [s for s in koi.cluster.read_stamps() if s.action != "status"] == [s for s in stamps if s.action != "status"]


def test_demote_until_elect(koi: Koi, master: str) -> None:
    assert koi("demote", "--reason", "a look at the disk") == 0
    assert koi("status") == 0
    assert koi.out.startswith("No master: manual mode")
    assert koi("status", "--check") == 2
    assert koi("wait", "master", "--timeout", "0.3") == 3 and "(manual mode: nobody is promoted" in koi.err
    assert "already" in koi.json("demote")["message"]
    assert koi("elect") == 0
    assert " is master (epoch " in koi.out
    assert koi("elect") == 0 and "not in manual mode" in koi.out


def test_stop_and_start(koi: Koi, backup: str) -> None:
    assert koi("stop", backup) == 0 and koi.out == f"{backup} is stopped\n"
    assert state(koi, backup) == "Stopped"
    assert koi("promote", backup) == 1 and f"stopped by hand; 'koi start {backup}' starts it" in koi.err
    assert koi("recover", backup) == 0 and "stopped by hand" in koi.out
    assert koi("start", backup) == 0 and koi.out == f"{backup} is Backup\n"
    assert koi("stop", "bb") == 1 and "did you mean b?" in koi.err


def test_stop_of_this_node_moves_the_master(koi: Koi, master: str) -> None:
    assert koi("stop", node=master) == 0
    assert koi("wait", "master", "--timeout", "10") == 0
    assert koi.json("status")["cluster"]["master"] != master
    assert koi("start", node=master) == 0


def test_stop_of_a_master_without_another_needs_force(koi: Koi, master: str, backup: str, another: str) -> None:
    assert koi("stop", backup) == 0 and koi("stop", another) == 0
    for node in (master, "c"):
        assert koi("stop", master, node=node) == 1
        assert f"{master} is the master and nobody can take over" in koi.err and "--force" in koi.err
    assert koi("stop", node=master) == 1
    assert koi("stop", master, "--force") == 0
    assert koi("status") == 0 and koi.out.startswith("No master")


def test_passive_and_active(koi: Koi, master: str, backup: str, another: str) -> None:
    assert koi("passive", master, "--reason", "slow disk") == 0
    until("the master moves", lambda: koi.json("status")["cluster"]["master"] not in (None, master))
    assert koi.node(master)["mode"] == "passive"
    assert koi("promote", master) == 1 and f"{master} is passive" in koi.err
    new = koi.json("status")["cluster"]["master"]
    left = next(name for name in (backup, another) if name != new)
    assert koi("passive", left) == 0
    assert koi("passive", new) == 1 and "only node that can be promoted; --force" in koi.err
    assert koi("active", left) == 0 and koi("active", master) == 0
    assert koi("active", "x") == 1 and "no node named x" in koi.err


def test_restart_of_a_service(koi: Koi, master: str) -> None:
    before = len([s for s in koi.cluster.read_stamps() if (s.node, s.action) == (master, "start")])
    assert koi("restart", "db", master) == 0
    after = len([s for s in koi.cluster.read_stamps() if (s.node, s.action) == (master, "start")])
    assert after == before + 2  # one begin, one end
    assert koi("restart", "nosuch", master) == 1 and "nosuch" in koi.err


def test_recover_all(koi: Koi, backup: str) -> None:
    assert koi("recover") == 0 and koi.out == "no node has failed\n"
    koi.flag("fail", backup)
    assert koi("promote", backup) == 1
    koi.flag("fail", backup, False)
    assert koi("recover", backup) == 0
    assert state(koi, backup) in ("Backup", "Master")


def test_maintenance(koi: Koi, master: str, backup: str) -> None:
    assert koi("maintenance", "on", "--reason", "new switch") == 0
    assert koi.json("status")["cluster"]["maintenance"] is True
    assert koi("promote", backup) == 1 and "in maintenance; end it with 'koi maintenance off'" in koi.err
    assert koi("maintenance", "off") == 0
    until("it is over", lambda: not koi.json("status")["cluster"]["maintenance"])
    assert koi.json("status")["cluster"]["master"] == master


def test_leaving_maintenance_without_the_master_needs_force(koi: Koi, master: str) -> None:
    asked = "b" if master == "a" else "a"
    assert koi("maintenance", "on", node=asked) == 0
    koi.cluster[master].kill_all()
    until("it is not heard", lambda: koi.json("status", node=asked)["nodes"]["abcd".index(master)]["state"] == "Disconnected")
    assert koi("maintenance", "off", node=asked) == 1
    assert f"{master} is the master and is not heard" in koi.err and "--force" in koi.err
    assert koi("maintenance", "off", "--force", node=asked) == 0
    koi.cluster[master].start()


def test_reconfigure(koi: Koi) -> None:
    for node in "ad":
        assert koi("reconfigure", node=node) == 0, koi.err
    assert koi("reconfigure", "b") == 0


def test_why(koi: Koi, backup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert koi("promote", backup, "--reason", "to see why") == 0
    assert koi("why") == 0
    newest = koi.out.splitlines()[-1]
    assert "master" in newest and f"-> {backup}" in newest
    assert "asked by alice@" in koi.out and ": to see why" in koi.out
    entries = koi.json("why")
    assert all(set(entry) == {"time", "node", "what", "from", "to", "epoch", "reason"} for entry in entries)
    masters = [entry["epoch"] for entry in entries if entry["what"] == "master"]
    assert masters == sorted(set(masters)), "each change once, in order"
    until("every node tells the same", lambda: all(koi.json("why", node=node) == koi.json("why") for node in "bcd"))


def test_why_tells_of_commands_to_nodes_too(koi: Koi) -> None:
    for node in "ad":
        assert koi("stop", node, "--force", "--reason", f"dust in {node}") == 0
        assert koi("start", node) == 0
    found = [e["reason"].partition(": ")[2] for e in koi.json("why") if e["what"] == "command" and e["to"].startswith("stop")]
    assert found[-2:] == ["dust in a", "dust in d"]


def test_why_is_readable_after_all_nodes_were_restarted(koi: Koi, backup: str) -> None:
    assert koi("promote", backup, "--reason", "before the restart") == 0
    before = [e for e in koi.json("why") if e["what"] == "command"][-5:]
    assert before[-1]["reason"].endswith(": before the restart")
    for node in koi.cluster.nodes.values():
        node.kill_all()
    for node in koi.cluster.nodes.values():
        node.start()
    koi.put_right()
    after = koi.json("why")
    assert [e for e in after if e in before] == before


def test_no_wait(koi: Koi, backup: str) -> None:
    assert koi.json("promote", backup, "--no-wait")["done"] is True
    assert koi("wait", f"master={backup}", "--timeout", "10") == 0


@pytest.mark.parametrize("node", ["a", "d"])
@pytest.mark.parametrize("option", [[], ["--no-wait"]])
def test_a_refused_command_to_a_node_is_refused_and_no_change(koi: Koi, node: str, option: list[str]) -> None:
    """Node d has no elector."""
    reason = f"refused {node} {option}"
    assert koi("restart", "vap", node, "--reason", reason, *option) == 1 and "has no service vap" in koi.err
    assert koi("restart", "db", node, "--reason", reason, *option) == 0
    assert [e["to"] for e in koi.json("why") if e["reason"].endswith(reason)] == [f"restart db of {node}"]


def test_config_set_in_the_file_of_a_node(koi: Koi, root: Path) -> None:
    file = root / "own.conf"
    file.write_text("# mine\nnode:\n  name: z  # not a host name\ncluster: {password: a password for tests}\n")
    file.chmod(0o600)
    assert koi("-f", str(file), "config", "set", "time.failover", "5s") == 0
    assert koi.out.startswith("time.failover: 3s -> 5s in ") and "koi reconfigure" in koi.out
    assert koi("-f", str(file), "config", "get", "time.failover") == 0 and koi.out == "5s\n"
    assert "z  # not a host name" in file.read_text() and (file.stat().st_mode & 0o777) == 0o600
    before = file.read_text()
    wrong = (("time.failover", "soon", 2), ("time.lease", "1ms", 2), ("time.fail", "1s", 1), ("cluster.password", "x", 1))
    for key, value, code in wrong:
        assert koi("-f", str(file), "config", "set", key, value) == code, koi.err
        assert file.read_text() == before


def test_the_python_api_is_the_same(koi: Koi, master: str) -> None:
    with Client(str(koi.cluster["d"].config)) as client:
        assert client.status()["cluster"]["master"] == master
        assert client.wait("master")["done"] is True
        with pytest.raises(Refused, match="no node named x"):
            client.promote("x")
