"""`koi demo` as people run it: a real cluster, and nothing of it left at the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koi import cli
from koi.demo_processes import of_node
from tests.cluster import until

FAST = "import sys, koi.cli, koi.demo, koi.demo_cluster as d; d.FAILOVER_S = koi.demo.RESTART_S = 1; sys.exit(koi.cli.main())"
"""`koi` with a demo whose time.failover is shorter, and that starts a killed koinode sooner."""
DEMO = [sys.executable, "-c", FAST, "demo"]


def environment(tmp_path: Path) -> dict[str, str]:
    """The demo's folder goes into the test's own."""
    return {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(cli.__file__).parent.parent), "TERM": "xterm"}


def left(tmp_path: Path) -> tuple[list[str], set[int]]:
    """Files and processes of the demo."""
    return [path.name for path in tmp_path.iterdir()], of_node(str(tmp_path), None)


def found(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a pattern that must be in the text."""
    match = re.search(pattern, text)
    assert match is not None, text
    return match.groups()


def test_once_tells_the_whole_story_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--once"], capture_output=True, text=True, timeout=100, env=environment(tmp_path), cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    killed, second, took = found(r"failover: .* of (\w) killed by SIGKILL; (\w) took over in ([\d.]+) s", done.stdout)
    third, from_ = found(r"switchover: (\w) took over from (\w) in [\d.]+ s", done.stdout)
    assert from_ == second
    assert {killed, second, third} == {"a", "b", "c"}
    assert 0 < float(took) < 30
    assert f"{third} is master (epoch 3)" in done.stdout
    assert left(tmp_path) == ([], set())


@contextmanager
def picture(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The demo of two nodes on a terminal, with a master; killed if the test fails."""
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    streams = {"stdin": inner, "stdout": inner, "stderr": inner}
    process = subprocess.Popen([*DEMO, "--nodes", "2"], **streams, env=environment(tmp_path), cwd=tmp_path)
    os.close(inner)
    try:
        wait_for(terminal, r" is master \(epoch 1\)")
        yield process, terminal
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def end(process: subprocess.Popen[bytes], terminal: int, number: signal.Signals) -> int:
    """Ends the demo by a signal; its exit code."""
    process.send_signal(number)
    while process.poll() is None:
        drain(terminal)
    return process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_picture_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with picture(tmp_path) as (process, terminal):
        assert len(left(tmp_path)[1]) >= 8
        assert end(process, terminal, number) == 0
    assert left(tmp_path) == ([], set())


def test_a_killed_koinode_is_started_again_and_ends_with_the_others(tmp_path: Path) -> None:
    with picture(tmp_path) as (process, terminal):
        pid_file = next(tmp_path.glob("koi-demo-*/a/run/koinode.pid"))
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        wait_for(terminal, "The koinode of a has ended")
        wait_for(terminal, r"2 of 2 electors agree; (all well|\d warnings? below)")  # of a machine that is too busy
        assert end(process, terminal, signal.SIGINT) == 0
    assert left(tmp_path) == ([], set())


def test_a_demo_that_is_killed_takes_its_nodes_along(tmp_path: Path) -> None:
    with picture(tmp_path):
        assert left(tmp_path)[1]
    until("no process is left", lambda: left(tmp_path)[1] == set(), 30)


def wait_for(terminal: int, pattern: str) -> None:
    """Reads what the terminal shows until the words come."""
    text = ""
    while not re.search(pattern, text):
        assert select.select([terminal], [], [], 60)[0], text
        text += os.read(terminal, 65536).decode(errors="replace")


def drain(terminal: int) -> None:
    """Reads what there is; the end of the last process at the other side is no error."""
    try:
        if select.select([terminal], [], [], 1)[0]:
            os.read(terminal, 65536)
    except OSError:
        return


@pytest.mark.parametrize("words", [["--nodes", "2", "--once"], ["--nodes", "2"], ["--nodes", "0"]])
def test_too_few_nodes_for_the_story(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, *words], capture_output=True, text=True, timeout=30, env=environment(tmp_path), check=False)
    assert done.returncode == 2
    assert "--nodes" in done.stderr
    assert left(tmp_path) == ([], set())
