"""The commands that look, on a real cluster: what they print, for people and for programs, and their exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from koi import __version__
from koi.core.messages import ServiceInfo
from koi.proc.snapshot import services
from tests.cli.conftest import Koi
from tests.cluster import REPOSITORY, until

WELL = r"is master \(epoch \d+\) for .*; 3 of 3 electors agree; (all well|\d warnings? below)\."
"""How a status reads when all is well; the warnings are those of a machine that has too much to do for these tests."""
NUMBER, NULL = (int, float), type(None)
CLUSTER = {
    "id": int, "leader": (str, NULL), "term": int, "epoch": int, "master": (str, NULL), "target": (str, NULL), "manual": bool,
    "maintenance": bool, "passive": list, "reason": str, "quorum": dict, "timing": dict, "warnings": list,
}
TIMING = dict.fromkeys(("heartbeat", "lease", "demote_grace", "leader_timeout", "failover"), float)
NODE = {
    "name": str, "address": str, "elector": (str, NULL), "runner": bool, "state": (str, NULL), "mode": str, "promotable": bool,
    "preference": int, "seen": NUMBER, "uptime": NUMBER, "failcount": int, "last_failure": (str, NULL), "version": str,
    "services": list,
}
SERVICE = {
    "name": str, "priority": (int, NULL), "state": str, "action": (str, NULL), "failed": bool, "pid": (int, NULL),
    "last": (dict, NULL),
}
LAST = {"action": str, "exit": int, "seconds": NUMBER}


def assert_fits(content: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Every field is there, of its type; true and false are no numbers."""
    for name, kind in kinds.items():
        value = content[name]
        assert isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), f"{name}: {value!r}"


def test_status_answers_the_question_first(koi: Koi, master: str) -> None:
    assert koi("status") == 0
    assert re.fullmatch(rf"{master} {WELL}", koi.out.splitlines()[0])


def test_status_as_json_has_every_field_in_its_type(koi: Koi) -> None:
    status = koi.json("status")
    assert_fits(status["cluster"], CLUSTER)
    assert_fits(status["cluster"]["timing"], TIMING)
    failover = status["cluster"]["timing"]["failover"]
    wanted = {"heartbeat": 0.1, "lease": 0.52, "demote_grace": 0.38, "leader_timeout": 0.3, "failover": 1.0}
    assert status["cluster"]["timing"] == {name: round(share * failover, 6) for name, share in wanted.items()}
    assert status["cluster"]["quorum"] == {"need": 2, "have": 3, "electors": 3}
    assert [node["name"] for node in status["nodes"]] == ["a", "b", "c", "d"]
    for node in status["nodes"]:
        assert_fits(node, NODE)
        for service in node["services"]:
            assert_fits(service, SERVICE)
            assert_fits(service["last"], LAST)
    witness, lone = status["nodes"][2], status["nodes"][3]
    assert witness["state"] is None and witness["elector"] in ("leader", "follower")
    assert lone["elector"] is None and [s["priority"] for s in lone["services"]] == [10, 20]
    assert lone["state"] in ("Master", "Backup")


def test_the_witness_tells_its_version_and_age_whoever_leads(koi: Koi) -> None:
    """The leader's end makes c lead, which has the highest name; its own end makes another lead, for bully_delay at least."""
    for role in ("leader", "follower"):
        while koi.node("c")["elector"] != role:
            leader = koi.json("status")["cluster"]["leader"]
            koi.cluster[leader].kill_all()
            koi.cluster[leader].start()
            until("a leader hears c", lambda: koi.node("c")["elector"] in ("leader", "follower"))
        witness = koi.node("c")
        assert witness["version"] == __version__ and 0 < witness["uptime"] < 3600
        assert (witness["mode"], witness["preference"]) == ("active", 0)


def test_nodes_of_another_version_are_named(koi: Koi) -> None:
    program = koi.cluster.program
    koi.cluster.program = "tests.cli.older_node"
    try:
        for name in "cd":
            koi.cluster[name].stop()
            koi.cluster[name].start()
        words = "c runs version 0.9.0, d runs version 0.9.0, "
        until("both are named", lambda: any(words in w for w in koi.json("status")["cluster"]["warnings"]))
        assert koi("status") == 0 and "end the upgrade" in koi.out
    finally:
        koi.cluster.program = program
        for name in "cd":
            koi.cluster[name].stop()
            koi.cluster[name].start()


def test_without_a_majority_everything_says_so(koi: Koi) -> None:
    for name in "bc":
        koi.cluster[name].kill_all()
    until("a has no leader", lambda: koi.cluster.status()["cluster"]["leader"] is None)
    assert koi("status") == 0
    assert koi.out.startswith("No leader: a is ")
    assert "hears no leader; to elect one, 2 of the 3 electors must hear each other" in koi.out.splitlines()[0]
    assert koi("status", "--check") == 2 and koi.out.startswith("KOI CRITICAL - No leader: a is ")
    assert koi("wait", "quorum", "--timeout", "0.3") == 3 and "not true within 0.3 s: quorum" in koi.err
    assert koi("promote", "a") == 1 and "nothing can be agreed: there is no leader: a is" in koi.err
    koi.cluster["a"].kill_all()
    koi.cluster["a"].start()
    until("a answers", lambda: koi("-t", "0.3", "status") == 0)
    assert re.match("No leader: a is [a-z]+ and has not heard a leader since it started; to elect one, 2 of the 3 ", koi.out)


def test_an_elector_without_its_state_says_what_it_waits_for(koi: Koi) -> None:
    for name in "abc":
        koi.cluster[name].kill_all()
    (koi.cluster["a"].folder / "state/elector.json").unlink()
    koi.cluster["a"].start()
    until("a answers", lambda: koi("-t", "0.3", "status") == 0)
    assert "a has no state file and asks the other electors first (0 of the 2 that it needs have answered)" in koi.out
    assert "it takes part in" in koi.out and "at the latest" in koi.out


def test_every_node_tells_the_same(koi: Koi, master: str) -> None:
    for node in "abcd":
        assert koi.json("status", node=node)["cluster"]["master"] == master


def test_status_of_one_node(koi: Koi, master: str) -> None:
    assert koi("status", master) == 0
    assert "db" in koi.out and "Promoted" in koi.out
    assert koi("status", "x") == 1
    assert "there is no node named x" in koi.err and "a, b, c, d" in koi.err


def test_the_check_for_monitors(koi: Koi, master: str) -> None:
    code = koi("status", "--check")
    assert re.fullmatch(rf"KOI {('OK', 'WARNING')[code]} - {master} {WELL}\n", koi.out)
    assert koi("status", "c", "--check") == 0 and koi.out.startswith("KOI OK - c is ")
    code = koi("--json", "status", "--check")
    assert json.loads(koi.out)["code"] == code


def test_local_is_the_node_asked_with_its_processes(koi: Koi) -> None:
    for name in "abd":
        node = koi.json("local", node=name)
        assert node["name"] == name
        assert_fits(node, NODE)
        assert set(node) == {*koi.node(name), "pids", "leader", "master"}
        assert node["address"] == koi.node(name)["address"]
        pids = node["pids"]
        assert set(pids["services"]) == {"db", "web"}
        for pid in (pids["root"], pids["runner"], *pids["services"].values()):
            assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"koinode: ")
    assert koi("local") == 0
    path = next(line for line in koi.out.splitlines() if "koi-service.sh" in line).split()[-1]
    assert os.path.isfile(path)


def test_services_stand_in_the_order_of_their_promotion() -> None:
    infos = [ServiceInfo(name, priority, "Started") for name, priority in (("b", None), ("z", 2), ("a", 10), ("c", 2))]
    assert [one["name"] for one in services(infos)] == ["c", "z", "a", "b"]


def test_tree(koi: Koi, master: str) -> None:
    assert koi("tree") == 0
    assert f"── {master} " in koi.out and "└── web" in koi.out
    assert koi.json("tree")["cluster"]["master"] == master


def test_columns_are_aligned(koi: Koi) -> None:
    koi("status")
    table = koi.out.split("\n\n")[1].splitlines()
    column = table[0].index("SERVICE")
    assert all(line[column - 1] == " " and line[column] != " " for line in table[1:])


def test_a_node_that_lags_is_named_and_not_promoted(koi: Koi, backup: str) -> None:
    koi.flag("lag", backup)
    until(f"{backup} is Live", lambda: koi.node(backup)["state"] == "Live")
    assert koi("status") == 0
    assert f"{backup} is Live (db says: running, but not ready to be promoted)" in koi.out.splitlines()[0]
    assert koi("status", "--check") == 1
    assert koi("promote", backup) == 1
    assert f"{backup} cannot be promoted" in koi.err and "not ready" in koi.err


@pytest.mark.parametrize("words", ["master", "leader", "quorum"])
def test_wait(koi: Koi, words: str) -> None:
    assert koi("wait", words, "--timeout", "5") == 0 and koi.out


@pytest.mark.parametrize("words", ["state c x", "state c", "state c master", "master=x y", "master=", "nonsense", "Master"])
def test_what_is_no_condition_is_a_wrong_call(koi: Koi, words: str) -> None:
    assert koi("wait", *words.split(), "--timeout", "5") == 2
    assert "master=NODE" in koi.err or "Stopped, Live, Backup" in koi.err


def test_wait_says_what_is_so_instead(koi: Koi, backup: str) -> None:
    unknown, witness = (("zz", "Backup"), "no node named zz is known yet"), (("c", "Master"), "c runs no services")
    for words, instead in (((backup, "Failed"), f"{backup} is Backup"), unknown, witness):
        assert koi("wait", "state", *words, "--timeout", "2") == 3
        assert f"not true within 2 s: state {' '.join(words)} ({instead})" in koi.err


def test_wait_for_what_is_and_what_is_not(koi: Koi, master: str, backup: str) -> None:
    assert koi("wait", "state", backup, "Backup") == 0
    assert koi("wait", f"master={master}") == 0
    assert koi("wait", f"master={master}", "--timeout", "0") == 0, "whether it is so now"
    assert koi("wait", f"master={backup}", "--timeout", "0") == 3 and f"({master} is master)" in koi.err
    assert koi("wait", f"master={backup}", "--timeout", "0.3") == 3
    assert f"not true within 0.3 s: master={backup}" in koi.err
    assert koi("wait", f"master={backup}", "--timeout", "0.3", node="d") == 3


def test_nobody_there_says_how_to_start_it(koi: Koi, root: Path) -> None:
    config = root / "nobody.conf"
    config.write_text("node: {name: z}\ncluster: {password: nobody is there, port: 9}\n")
    config.chmod(0o600)
    assert koi("-t", "0.2", "-f", str(config), "local") == 3
    assert "no koinode answers at 127.0.0.1:9; start it with: koinode -f" in koi.err


def test_another_password_gets_no_answer(koi: Koi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOI_SECRET", "not the password")
    assert koi("-t", "0.3", "status") == 3


def test_a_host_without_a_configuration(koi: Koi, master: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, _, port = koi.json("status")["nodes"][1]["address"].partition(":")
    config = str(koi.cluster["a"].config)
    assert koi("-H", address, "-p", port, "local") == 0 and "b" in koi.out.split()
    assert koi("-H", "b", "wait", "master") == 0 and config


def test_watch_outlives_the_node_that_it_asks(koi: Koi, master: str) -> None:
    asked = "a" if master != "a" else "b"
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "koi.cli", "-f", str(koi.cluster[asked].config), "watch"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment)
    os.close(inner)
    try:
        see(terminal, f"{master} is master")
        koi.cluster[asked].kill_all()
        see(terminal, f"{asked} is not heard for")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        os.close(terminal)
        koi.cluster[asked].start()


def see(terminal: int, words: str) -> None:
    """Reads what the terminal shows until the words come."""
    text = ""
    while words not in text:
        assert select.select([terminal], [], [], 20)[0], text
        text += os.read(terminal, 65536).decode(errors="replace")
