"""The program `koi`: what each command asks, prints and exits with, against a node that answers as the test says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from koi import __version__, cli
from koi.client_history import origin
from koi.core.messages import Request, Response
from tests.cli.fakes import ID, SECRET, FakeNode, answer, progress, refused
from tests.cli.samples import failed_node, node, status

FAILURE = {
    "time": "2026-11-22T14:00:00+00:00", "node": "a", "service": "vip", "action": "start", "exit": 1, "seconds": 0.5,
    "line": "boom", "what": "start exited 1",
}


class Shell:
    """Runs `koi` in this process against a fake node, and keeps what it printed."""

    def __init__(self, port: int, capsys: pytest.CaptureFixture[str]) -> None:
        self._options = {"-H": "127.0.0.1", "-p": str(port), "--id": str(ID), "-t": "5"}
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        options = [part for name, value in self._options.items() if name not in words for part in (name, value)]
        code = cli.main([*options, *words])
        self.out, self.err = self._capsys.readouterr()
        return code


def cluster(request: Request) -> Iterable[Response]:
    """A healthy cluster."""
    if request.command in ("status", "tree"):
        return answer(request, status())
    if request.command == "local":
        pids = {"root": 1, "elector": 2, "runner": 3, "services": {"vip": 4, "db": 5}}
        return answer(request, node("a", "Backup") | {"pids": pids})
    if request.command == "failures":
        return answer(request, {"failures": [FAILURE] if dict(request.arguments)["node"] == "a" else []})
    return answer(request, {"done": True, "message": f"{request.command} done", "epoch": 8})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No koi.conf lies around, the password is in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOI_SECRET", SECRET)


@pytest.fixture
def fake() -> Iterable[FakeNode]:
    """A node; a test may replace its handler."""
    with FakeNode(cluster) as node_:
        yield node_


@pytest.fixture
def koi(fake: FakeNode, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The program, pointed at the fake node."""
    return Shell(fake.port, capsys)


@pytest.mark.parametrize(("words", "asked", "arguments"), [
    ("promote b", "promote", {"node": "b", "force": False}), ("promote b --force", "promote", {"node": "b", "force": True}),
    ("demote", "demote", {"force": False}), ("elect", "elect", {}),
    ("start", "start", {"node": None, "force": False}), ("start b", "start", {"node": "b", "force": False}),
    ("stop", "stop", {"node": None, "force": False}), ("stop b --force", "stop", {"node": "b", "force": True}),
    ("recover b", "recover", {"node": "b", "force": False}), ("passive b", "passive", {"node": "b", "force": False}),
    ("passive b --force", "passive", {"node": "b", "force": True}), ("active b", "active", {"node": "b"}),
    ("restart vip", "restart", {"service": "vip", "node": None, "force": False}),
    ("restart vip b", "restart", {"service": "vip", "node": "b", "force": False}),
    ("maintenance on", "maintenance", {"on": True, "force": False}),
    ("maintenance off --force", "maintenance", {"on": False, "force": True}),
    ("reconfigure", "reconfigure", {"node": None}), ("reconfigure b", "reconfigure", {"node": "b"}),
])
def test_changing_commands(koi: Shell, fake: FakeNode, words: str, asked: str, arguments: dict[str, object]) -> None:
    assert koi(*words.split(), "--reason", "the disk is full") == 0
    assert koi.out == f"{asked} done\n"
    request = fake.asked[-1]
    assert request.command == asked
    said = dict(request.arguments)
    assert said.pop("origin") == origin()
    assert said == {**arguments, "reason": "the disk is full", "no_wait": False}


def test_json_of_a_changing_command(koi: Shell, fake: FakeNode) -> None:
    assert koi("--json", "promote", "b", "--no-wait") == 0
    assert json.loads(koi.out) == {"done": True, "message": "promote done", "epoch": 8}
    assert dict(fake.asked[-1].arguments)["no_wait"] is True


def test_looking(koi: Shell) -> None:
    for words, expected in (
        ("status", "all well"), ("tree", "└── c"), ("local", "koi-service.sh"), ("status b", "Promoted"),
        ("failures", "start exited 1"),
    ):
        assert koi(*words.split()) == 0
        assert expected in koi.out
        assert koi.err == ""


def test_json_of_looking(koi: Shell) -> None:
    for words, expected in (("status", status()), ("tree", status()), ("failures", {"failures": [FAILURE], "missing": []})):
        assert koi("--json", words) == 0
        assert json.loads(koi.out) == expected
    assert koi("--json", "local") == 0
    assert json.loads(koi.out)["pids"]["services"] == {"vip": 4, "db": 5}


def test_the_path_that_local_prints_is_there(koi: Shell) -> None:
    koi("local")
    line = next(line for line in koi.out.splitlines() if "koi-service.sh" in line)
    assert os.path.isfile(line.split()[-1])


def test_colour_only_when_asked_for_or_on_a_terminal(koi: Shell) -> None:
    koi("status")
    assert "\x1b" not in koi.out
    koi("-c", "status")
    assert "\x1b[32;1mMaster\x1b[0m" in koi.out


def test_status_without_a_master_is_no_error_but_its_check_is(koi: Shell, fake: FakeNode) -> None:
    fake.handler = lambda r: answer(r, status(failed_node("a"), master=None))
    assert koi("status") == 0
    assert koi.out.startswith("No master: a failed")
    assert koi("status", "--check") == 2
    assert koi.out.startswith("KOI CRITICAL - No master: a failed")
    assert koi("status", "a", "--check") == 2


def test_the_check_of_a_healthy_cluster(koi: Shell) -> None:
    assert koi("status", "--check") == 0
    assert koi.out == "KOI OK - b is master (epoch 7) for 3 h; 3 of 3 electors agree; all well.\n"


def test_the_check_says_unknown_on_stdout(koi: Shell, fake: FakeNode) -> None:
    fake.handler = lambda r: refused(r, "no leader")
    assert koi("status", "--check") == 3
    assert koi.out == "KOI UNKNOWN - no leader\n"


def test_a_refusal_is_exit_code_1(koi: Shell, fake: FakeNode) -> None:
    fake.handler = lambda r: refused(r, "a cannot be promoted: db is Starting")
    assert koi("promote", "a") == 1
    assert (koi.out, koi.err) == ("", "koi: a cannot be promoted: db is Starting\n")


def test_silence_is_exit_code_3(koi: Shell, fake: FakeNode) -> None:
    fake.handler = lambda r: []
    assert koi("-t", "0.3", "status") == 3
    assert f"no koinode answers at 127.0.0.1:{fake.port}" in koi.err


def test_wait(koi: Shell, fake: FakeNode) -> None:
    assert koi("wait", "state", "b", "Master") == 0
    assert dict(fake.asked[-1].arguments)["condition"] == "state b Master"
    fake.handler = lambda r: progress(r, "c is master")
    assert koi("wait", "master=b", "--timeout", "0.3") == 3
    assert koi.err == "koi: not true within 0.3 s: master=b (c is master)\n"


def test_debug_shows_datagrams_but_not_the_password(koi: Shell) -> None:
    assert koi("-d", "elect") == 0
    assert re.search(r"^debug: \d+\.\d{3} s: to 127.0.0.1", koi.err, re.MULTILINE)
    assert "cluster id 77; configuration none; the password is the one given" in koi.err
    assert SECRET not in koi.err


def test_the_secret_file_wins_over_the_environment(koi: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOI_SECRET", "another")
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "secret").chmod(0o600)
    assert koi("--secret-file", "secret", "elect") == 0
    assert koi("--secret-file", "nowhere", "elect") == 2
    assert "nowhere: cannot be read" in koi.err


@pytest.mark.parametrize(("words", "expected"), [
    ("switchover", "koi promote NODE"), ("failover b", "koi promote NODE"), ("list", "koi status"), ("history", "koi why"),
    ("pause", "koi maintenance on"), ("standby a", "koi passive NODE"), ("stauts", "did you mean: koi status"),
    ("stat", "did you mean: koi status"),
    ("promote", "koi [options] promote NODE [--dry-run]"), ("", "no command"), ("status --nonsense", "koi [options] status"),
    ("xyzzy", "no command `xyzzy`"),
])
def test_usage_errors_help(koi: Shell, words: str, expected: str) -> None:
    assert koi(*words.split()) == 2
    assert expected in koi.err
    assert koi.out == ""


@pytest.mark.parametrize("words", [
    "-H 127.0.0.1:5 status", "-H [::1] status", "-H [::1]:5 status",
    "-p x status", "-p 70000 status", "-t nan status", "-t 0 status", "--id 70000 status", "demo --nodes x", "demo --nodes 99",
])
def test_wrong_values_are_usage_errors_that_name_the_option(koi: Shell, words: str) -> None:
    assert koi(*words.split()) == 2
    option = next(word for word in words.split() if word.startswith("-"))
    assert option in koi.err


def test_config_shows_what_is_in_use_but_never_the_password(koi: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOI_SECRET")
    (tmp_path / "koi.conf").write_text(f"node: {{name: a}}\ncluster: {{password: '{SECRET}'}}\ntime: {{failover: 6s}}\n")
    assert koi("config", "get", "time.lease") == 0
    assert koi.out == "3.12s\n"
    assert koi("config", "list") == 0
    assert "time.failover: 6s\n" in koi.out and "cluster.quorum: majority\n" in koi.out
    assert SECRET not in koi.out
    assert koi("--json", "config", "list") == 0
    assert json.loads(koi.out)["node.name"] == "a"
    assert SECRET not in koi.out
    assert koi("config", "get", "time.leas") == 1
    assert "did you mean time.lease?" in koi.err


@pytest.mark.parametrize(("key", "value", "then"), [
    ("cluster.quorum", "1", "`koi reconfigure` or a restart of koinode makes it count; it must be the same on every node"),
    ("cluster.quorum", "majority", "it must be the same on every node"), ("time.failover", "2s", "on every node"),
    ("node.preference", "-5", "makes it count"), ("node.mode", "passive", "makes it count"),
    ("cluster.bind", '["127.0.0.1"]', "makes it count"), ("time.status_interval", "90s", "makes it count"),
    ("service.auto_recover_wait_factor", "1.5", "makes it count"),
    ("node.runner", "true", "; a restart of koinode makes it count"),
    ("cluster.password_file", "/elsewhere", "makes it count"),
])
def test_what_was_set_is_what_is_got(koi: Shell, tmp_path: Path, key: str, value: str, then: str) -> None:
    """Found: durations and `majority` were got in another form, and a negative number could not be set."""
    (tmp_path / "koi.conf").write_text("node: {name: a}\n")
    assert koi("config", "set", key, value) == 0, koi.err
    assert koi.out.endswith(f"{then}\n") and f" -> {value} in " in koi.out
    assert koi("config", "get", key) == 0 and koi.out == f"{value}\n"
    assert koi("config", "list") == 0 and f"{key}: {value}\n" in koi.out


def test_a_broken_configuration_is_exit_code_2(koi: Shell, tmp_path: Path) -> None:
    (tmp_path / "koi.conf").write_text("cluster: {colour: red}\n")
    assert koi("status") == 2
    assert "koi.conf:1" in koi.err


def test_keygen_makes_a_new_password_each_time(koi: Shell) -> None:
    found = set()
    for _ in range(3):
        assert koi("keygen") == 0
        found.add(koi.out.strip())
    assert len(found) == 3
    assert all(len(password) >= 32 for password in found)


def program(*words: str) -> subprocess.CompletedProcess[str]:
    """`koi` as a process of its own."""
    root = Path(cli.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-m", "koi.cli", *words], capture_output=True, text=True, timeout=30,
        env={**os.environ, "PYTHONPATH": str(root)}, check=False,
    )


def test_the_program() -> None:
    assert program("--version").stdout == f"koi {__version__}\n"
    shown = program("--help")
    assert shown.returncode == 0
    assert "koi [options] promote NODE [--dry-run]" in shown.stdout
    assert program("frobnicate").returncode == 2


def test_every_command_of_the_grammar_is_in_the_table_and_the_help() -> None:
    grammar = [line.split()[2] for line in cli.__doc__.splitlines() if line.startswith("  koi [options]")]
    assert sorted(grammar) == sorted(cli.COMMANDS)
    for name in grammar:
        assert f"\n  {name} " in cli.__doc__


def test_looking_needs_no_heavy_imports() -> None:
    code = (
        "import sys, koi.cli; koi.cli.parse(['status'])\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('yaml', 'cryptography')])"
    )
    root = Path(cli.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=root, check=True)
    assert done.stdout == "[]\n"


def koi_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`koi` as a shell runs it, with redirections; $KOI is the program."""
    environment = {**os.environ, "KOI": f"{sys.executable} -m koi.cli", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(["sh", "-c", command], env=environment, cwd=folder, capture_output=True, text=True, timeout=30)


def test_output_that_nobody_takes_is_no_traceback(tmp_path: Path) -> None:
    full = koi_in_shell("$KOI keygen > /dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (1, "koi: the output cannot be written: No space left on device\n")
    closed = koi_in_shell("$KOI keygen >&-", tmp_path)
    assert (closed.returncode, closed.stderr) == (0, "")
    for command, code in (("nonsense", 2), ("-t 0.1 --secret-file pw status", 3), ("keygen", 0)):
        (tmp_path / "pw").write_text("a password of the tests")
        (tmp_path / "pw").chmod(0o600)
        assert koi_in_shell(f"$KOI {command} 2>&-", tmp_path).returncode == code


def test_a_tree_on_a_terminal_without_utf_8(tmp_path: Path) -> None:
    with FakeNode(lambda r: answer(r, status())) as fake:
        posix = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
        asked = f"KOI_SECRET={shlex.quote(SECRET)} $KOI -H 127.0.0.1 -p {fake.port} --id {ID} tree"
        done = koi_in_shell(f"{posix} {asked}", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "|-- a " in done.stdout and "|   `-- db" in done.stdout and done.stdout.isascii()
        assert "├── a " in koi_in_shell(f"LC_ALL=C.UTF-8 {asked}", tmp_path).stdout


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a password")
    (tmp_path / "secret").chmod(0o644)
    refused = koi_in_shell("$KOI --secret-file secret -p 1 -t 1 status", tmp_path)
    assert refused.returncode == 2 and "chmod 600 secret" in refused.stderr
