"""koinode from outside: exit codes, --check, --daemonize, its pid files, and the SysV script."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from koi import __version__
from tests.proc.waiting import cmdline, is_gone, state, until

REPOSITORY = Path(__file__).parents[2]
INIT = REPOSITORY / "init" / "koinode"
Run = subprocess.CompletedProcess[str]


class Node:
    """A folder with configuration and services, and koinode called on it."""

    before: list[str] = []
    """What calls it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "koi.conf"
        self.services = folder / "services"
        self.pid_file = folder / "daemon.pid"
        self.services.mkdir()
        for name in ("10-vip", "20-db"):
            (self.services / name).mkdir()
        self.options()
        self.configure()

    def options(self, **options: object) -> None:
        (self.folder / "options.json").write_text(json.dumps(options))

    def configure(self, more: str = "") -> None:
        self.config.write_text(
            f"node: {{name: a, run_dir: {self.folder}/run, state_dir: {self.folder}/state}}\n"
            f"cluster: {{password: a-long-enough-password-1234}}\n"
            f"service: {{folder: {self.services}}}\n{more}"
        )
        self.config.chmod(0o600)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), "KOI_TEST_FOLDER": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, *args: str) -> list[str]:
        return [*self.before, sys.executable, "-m", "tests.proc.fake_node", *args]

    def run(self, *args: str) -> Run:
        return subprocess.run(
            self.command(*args), cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, timeout=30
        )

    def daemonize(self) -> Run:
        return self.run("-f", str(self.config), "--daemonize", str(self.pid_file), "--log", f"file:{self.folder}/log")

    def root(self) -> int:
        return int(self.pid_file.read_text())

    def pids(self) -> dict[str, int]:
        lines = (self.folder / "events").read_text().splitlines() if (self.folder / "events").exists() else []
        found = [json.loads(line) for line in lines]
        return {event["who"]: event["pid"] for event in found if event["what"] == "starts"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path)
    yield one
    pids = list(one.pids().values())
    for path in (one.pid_file, one.folder / "run" / "koinode.pid"):
        if path.exists():
            pids.insert(0, int(path.read_text()))
    for pid in pids:
        if cmdline(pid).startswith("koinode: "):
            os.kill(pid, signal.SIGKILL)


def test_version_and_help(node: Node) -> None:
    version = node.run("--version")
    assert (version.returncode, version.stdout.strip()) == (0, f"koinode {__version__}")
    assert node.run("--help").returncode == 0 and "--daemonize" in node.run("--help").stdout


@pytest.mark.parametrize("args", [["--what"], ["start"], ["--check", "--daemonize", "x"], ["-f"]])
def test_usage(node: Node, args: list[str]) -> None:
    wrong = node.run(*args)
    assert wrong.returncode == 2 and "Usage:" in wrong.stderr and wrong.stdout == ""


def test_check_says_that_all_is_right(node: Node) -> None:
    right = node.run("--check", "-f", str(node.config))
    assert right.returncode == 0, right.stderr
    assert "Node a is elector and runner; services: db, vip." in right.stdout
    assert "password-1234" not in right.stdout + right.stderr


def test_check_names_every_fault_of_the_configuration(node: Node) -> None:
    node.configure("time: {failover: often, lease: 99y}\nwhat: 3\n")
    (node.services / "10-vip" / "watch").touch()
    wrong = node.run("--check", "-f", str(node.config))
    assert wrong.returncode == 2
    for key in ("failover", "lease", "what", "10-vip/watch: is not executable"):
        assert key in wrong.stderr, wrong.stderr


@pytest.mark.parametrize("more", ["", "what: 3\n"])
def test_a_folder_of_services_that_is_not_there_is_named_with_line_and_key(node: Node, more: str) -> None:
    node.configure(more)
    text = node.config.read_text()
    node.config.write_text(text.replace(str(node.services), "/nowhere"))
    line = next(number for number, line in enumerate(text.splitlines(), 1) if str(node.services) in line)
    wrong = node.run("--check", "-f", str(node.config))
    assert wrong.returncode == 2 and f"{node.config}:{line}: service.folder: " in wrong.stderr
    assert "/nowhere cannot be read: No such file or directory; create it or set" in wrong.stderr
    assert ("what: no such key" in wrong.stderr) is bool(more)


def test_check_and_start_name_every_fault_of_the_services(node: Node) -> None:
    (node.services / "10-vip" / "watch").touch()
    (node.services / "20-db" / "start").write_text("#!/bin/sh\n")
    for args in (["--check"], ["-n", "a"]):
        wrong = node.run(*args, "-f", str(node.config))
        assert wrong.returncode == 2
        assert "10-vip/watch" in wrong.stderr and "20-db/start" in wrong.stderr
    assert node.pids() == {}


def test_check_warns_of_commands_that_are_not_there(node: Node) -> None:
    plain = node.config.read_text()
    node.config.write_text(plain.replace("node: {", "node: {self_fence: /nowhere/off -f, "))
    right = node.run("--check", "-f", str(node.config))
    assert right.returncode == 0 and "node.self_fence: /nowhere/off is not there" in right.stderr
    node.config.write_text(plain.replace("node: {", "node: {self_fence: /bin/sh -c true, "))
    assert node.run("--check", "-f", str(node.config)).stderr == ""


def test_check_warns_of_what_is_ignored(node: Node) -> None:
    (node.services / "old.bak").mkdir()
    assert "old.bak is ignored" in node.run("--check", "-f", str(node.config)).stderr


def test_check_warns_of_what_is_named_and_not_there(node: Node) -> None:
    assert node.run("--check", "-f", str(node.config)).stderr == ""
    text = node.config.read_text()
    keys = {
        "node": "watchdog: /gone/dog, self_fence: /gone/self now", "cluster": "fence: /gone/fence",
        "service": "workingdir: /gone",
    }
    for section, more in keys.items():
        text = re.sub(rf"^{section}: {{", f"{section}: {{{more}, ", text, flags=re.MULTILINE)
    node.config.write_text(text)
    done = node.run("--check", "-f", str(node.config))
    assert done.returncode == 0
    for key, name in (("cluster.fence", "/gone/fence"), ("node.self_fence", "/gone/self"), ("service.workingdir", "/gone"),
                      ("node.watchdog", "/gone/dog")):
        assert f"warning: {key}: {name} is no" in done.stderr


def test_a_configuration_that_is_missing(node: Node) -> None:
    wrong = node.run("-f", str(node.folder / "none.conf"))
    assert wrong.returncode == 2 and "none.conf" in wrong.stderr


def test_a_log_target_that_is_not_known(node: Node) -> None:
    wrong = node.run("-f", str(node.config), "--log", "pigeon")
    assert wrong.returncode == 2 and "pigeon" in wrong.stderr


def test_in_the_foreground_until_sigterm(node: Node) -> None:
    process = subprocess.Popen(
        node.command("-f", str(node.config), "-n", "b", "-d"),
        cwd=REPOSITORY, env=node.environment, stderr=subprocess.PIPE, text=True,
    )
    until(lambda: {"elector", "runner", "service:vip", "service:db"} <= set(node.pids()))
    until(lambda: cmdline(process.pid) == "koinode: root [b]")
    assert int((node.folder / "run" / "koinode.pid").read_text()) == process.pid
    until(lambda: cmdline(node.pids()["service:vip"]) == "koinode: service vip [b: Promoted]")
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=10)
    assert process.returncode == 0
    assert " b root INFO: koinode " in output and " b root INFO: SIGTERM: demoting and stopping all services" in output
    assert not (node.folder / "run" / "koinode.pid").exists()
    assert "password-1234" not in output


def test_daemonize_returns_when_the_node_is_up(node: Node) -> None:
    done = node.daemonize()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    root = node.root()
    assert cmdline(root) == "koinode: root [a]"
    assert {"elector", "runner"} <= set(node.pids())
    assert os.getsid(root) == root
    assert int((node.folder / "run" / "koinode.pid").read_text()) == root
    os.kill(root, signal.SIGTERM)
    until(lambda: is_gone(root))
    until(lambda: all(is_gone(pid) for pid in node.pids().values()))
    assert not node.pid_file.exists()


def test_daemonize_says_when_no_syslog_takes_its_lines(node: Node) -> None:
    """It is the default there, and nobody sees what is lost."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        there = s.connect_ex("/dev/log") == 0
    done = node.run("-f", str(node.config), "--daemonize", str(node.pid_file))
    assert done.returncode == 0 and ("koinode: no syslog takes its lines (/dev/log: " in done.stderr) is not there
    assert there or "or log to a file with --log file:PATH" in done.stderr


def test_daemonize_tells_why_not(node: Node) -> None:
    node.options(refuses={"elector": "port 42012 is in use"})
    failed = node.daemonize()
    assert failed.returncode == 1
    assert failed.stderr.strip() == "koinode: port 42012 is in use"
    assert not node.pid_file.exists()
    until(lambda: all(is_gone(pid) for pid in node.pids().values()))


def test_daemonize_where_the_machine_has_too_little_to_give_says_what_to_raise(node: Node) -> None:
    """With less and less it is something else that fails first; it never waits for what does not come."""
    said = ""
    for files in range(14, 7, -1):
        node.before = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
        failed = node.daemonize()
        if failed.returncode == 0:  # still enough for elector and runner
            os.kill(node.root(), signal.SIGKILL)
            until(lambda: all(is_gone(pid) for pid in node.pids().values()))
            continue
        assert failed.returncode == 1 and "Too many open files" in failed.stderr and not node.pid_file.exists()
        said += failed.stderr
    assert "cannot be started: Too many open files; " in said and "raise its limit (ulimit -n" in said


def test_daemonize_beside_a_running_one_names_its_pid_and_keeps_its_pid_file(node: Node) -> None:
    assert node.daemonize().returncode == 0
    root = node.root()
    second = node.daemonize()
    assert second.returncode == 1
    assert f"koinode of node a runs already, pid {root}" in second.stderr
    assert node.root() == root and not is_gone(root)


def test_daemonize_with_a_pid_file_that_cannot_be_written(node: Node) -> None:
    node.pid_file = node.folder / "missing" / "pid"
    failed = node.daemonize()
    assert failed.returncode == 1 and "missing/pid cannot be written" in failed.stderr


def test_daemonize_notices_a_daemon_that_dies_while_it_starts(node: Node) -> None:
    node.options(silent="elector")
    process = subprocess.Popen(
        node.command("-f", str(node.config), "--daemonize", str(node.pid_file), "--log", f"file:{node.folder}/log"),
        cwd=REPOSITORY, env=node.environment, stderr=subprocess.PIPE, text=True,
    )
    until(lambda: {"elector", "runner"} <= set(node.pids()))
    os.kill(node.root(), signal.SIGKILL)
    _, output = process.communicate(timeout=10)
    assert process.returncode == 1 and "ended while it was starting" in output


needs_ssd = pytest.mark.skipif(shutil.which("start-stop-daemon") is None, reason="start-stop-daemon is not installed")


class Service:
    """The SysV script on a node, as init calls it."""

    def __init__(self, node: Node, daemon: str | None = None) -> None:
        self.node = node
        program = node.folder / "program"
        program.write_text(f'#!/bin/sh\ncd {REPOSITORY} && exec {sys.executable} -m tests.proc.fake_node "$@"\n')
        program.chmod(0o755)
        self.defaults = node.folder / "defaults"
        self.defaults.write_text(
            f"DAEMON={daemon or program}\nCONFIG={node.config}\nPIDFILE={node.pid_file}\n"
            f'DAEMON_ARGS="--log file:{node.folder}/log"\nSTOP_TIMEOUT=20\n'
        )

    def __call__(self, *args: str) -> int:
        environment = {**self.node.environment, "KOINODE_DEFAULTS": str(self.defaults)}
        done = subprocess.run(["/bin/sh", str(INIT), *args], env=environment, capture_output=True, text=True, timeout=40)
        self.output = done.stdout + done.stderr
        return done.returncode


@needs_ssd
def test_sysv_start_status_restart_stop(node: Node) -> None:
    service = Service(node)
    assert service("status") == 3
    assert service("stop") == 0, service.output
    assert service("start") == 0, service.output
    root = node.root()
    assert cmdline(root) == "koinode: root [a]"
    assert service("start") == 0 and node.root() == root
    assert service("status") == 0 and str(root) in service.output
    node.configure("time: {failover: soon}\n")
    for verb in ("reload", "restart", "try-restart", "force-reload"):
        assert service(verb) == 6 and "soon" in service.output and "left as it is" in service.output
    assert service("status") == 0 and node.root() == root
    node.configure("time: {status_interval: 7s}\n")
    assert service("reload") == 0, service.output
    until(lambda: "SIGHUP: applied time.status_interval" in (node.folder / "log").read_text())
    assert service("force-reload") == 0 and node.root() == root, "what can be reloaded is not restarted for it"
    assert service("restart") == 0, service.output
    assert is_gone(root) and node.root() != root
    assert service("stop") == 0 and is_gone(node.pids()["runner"])
    assert service("status") == 3


@needs_ssd
def test_sysv_after_a_crash(node: Node) -> None:
    service = Service(node)
    assert service("start") == 0, service.output
    os.kill(node.root(), signal.SIGKILL)
    until(lambda: all(is_gone(pid) for pid in node.pids().values()))
    until(lambda: state(node.root()) is None, 30.0, "init has reaped root")
    assert service("status") == 1
    assert service("start") == 0, service.output
    assert service("status") == 0
    assert service("stop") == 0


@needs_ssd
@pytest.mark.parametrize("content", ["pid", "", "no pid\n"], ids=["of another", "empty", "spoilt"])
def test_sysv_with_a_pid_file_that_names_another_process(node: Node, content: str) -> None:
    """After a crash the pid may soon be somebody else's, who must not be taken for koinode, and not be ended."""
    service = Service(node)
    other = subprocess.Popen(["sleep", "60"])

    def leave() -> None:
        node.pid_file.write_text(f"{other.pid}\n" if content == "pid" else content)

    try:
        for verb, code in (("status", 1), ("reload", 7), ("try-restart", 0), ("stop", 0)):
            leave()
            assert service(verb) == code, f"{verb}: {service.output}"
        assert service("status") == 3
        leave()
        assert service("start") == 0 and cmdline(node.root()) == "koinode: root [a]"
        assert service("stop") == 0 and other.poll() is None
    finally:
        other.kill()
        other.wait()


@needs_ssd
@pytest.mark.parametrize("verb", ["start", "restart"])
def test_sysv_after_a_crash_of_all_starts_also_with_a_faulty_configuration(node: Node, verb: str) -> None:
    service = Service(node)
    assert service("start") == 0, service.output
    pids = [node.root(), *node.pids().values()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(state(pid) is None for pid in pids), 30.0, "init has reaped them")
    node.configure("time: {failover: soon}\n")
    assert service(verb) == 0, service.output
    assert "koinode: mend" in service.output and "is 'soon'" in service.output
    assert service("restart") == 6 and "left as it is" in service.output
    assert service("stop") == 0 and list((node.folder / "run").iterdir()) == []
    assert service(verb) == 6 and "koinode: mend" not in service.output


@needs_ssd
def test_sysv_exit_codes_of_what_cannot_be_done(node: Node) -> None:
    service = Service(node)
    for verb in ("reload", "force-reload"):
        assert service(verb) == 7 and "not running" in service.output
    assert service() == 2 and "Usage" in service.output
    assert service("dance") == 2
    node.configure("what: 3\n")
    assert service("start") == 6 and "what" in service.output
    node.config.unlink()
    assert service("start") == 6
    node.configure()
    node.options(refuses={"runner": "no such address"})
    assert service("start") == 1 and "no such address" in service.output
    assert Service(node, daemon="/nowhere/koinode")("start") == 5
