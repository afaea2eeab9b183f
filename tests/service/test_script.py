"""Scripts as real processes: output, timeouts, groups, what cannot be run, nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from koi.service.script import NotRun, Script
from tests.proc.waiting import is_gone, pid_in, until
from tests.service.scripts import Runner

TIMEOUT_S = 0.7
"""In which a shell begins, on a busy machine too."""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Runs scripts in a folder of their own."""
    made = Runner(tmp_path)
    yield made
    made.close()


def is_inheritable(fd: int) -> bool:
    """Whether the test itself was started with this descriptor open for its children."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def test_output_and_exit(runner: Runner) -> None:
    script = runner.run("echo one; echo two >&2; printf three; exit 7")
    assert runner.lines == ["one", "two", "three"] and script.exit == 7 and script.output.last == "three"
    assert 0 < script.seconds < 10


def test_environment_session_and_input(runner: Runner) -> None:
    script = runner.run('echo "$KOI_X"; cat; ps -o sid= -p $$ | tr -d " "', KOI_X="seen")
    assert runner.lines == ["seen", str(script.pid)]


def test_signals_that_python_ignores_are_as_usual(runner: Runner) -> None:
    runner.run("grep SigIgn /proc/self/status; grep SigBlk /proc/self/status")
    ordinary = (1 << 31) - 1  # without glibc's own, 32 and 33
    assert [int(line.split()[1], 16) & ordinary for line in runner.lines] == [0, 0]


def test_no_descriptor_of_ours_is_inherited(runner: Runner) -> None:
    runner.run('for fd in /proc/$$/fd/*; do readlink "$fd"; done')
    inherited = {os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, os.listdir("/proc/self/fd")) if is_inheritable(fd)}
    others = [line for line in runner.lines if line not in inherited | {"/dev/null", str(runner.folder / "script")}]
    assert len(others) == 2 and len(set(others)) == 1 and others[0].startswith("pipe:")


def test_exit_by_a_signal(runner: Runner) -> None:
    assert runner.run("kill -9 $$").exit == -9


def test_timeout(runner: Runner) -> None:
    script = runner.run("echo begins; exec sleep 60", timeout=TIMEOUT_S)
    assert script.timed_out and script.exit is None and runner.lines == ["begins"] and script.seconds < 5


def test_timeout_of_a_script_that_ignores_term(runner: Runner) -> None:
    script = runner.run("trap '' TERM; while :; do sleep 60; done", timeout=TIMEOUT_S)
    assert script.exit is None and script.seconds >= TIMEOUT_S + 1.0


def test_the_whole_group_is_ended(runner: Runner, tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = runner.start(f"(trap '' TERM; sh -c 'echo $$ > {child}; exec sleep 60') & sleep 60", timeout=None)
    pid = pid_in(child)
    script.end()
    runner.until(lambda: script.ended, script)
    until(lambda: is_gone(pid), what="the child that ignores TERM")


def test_killed_at_once(runner: Runner) -> None:
    script = runner.start("trap '' TERM; echo ready; sleep 60")
    runner.until(lambda: runner.lines == ["ready"])
    script.end()
    script.kill()
    runner.until(lambda: script.ended, script)
    assert script.exit == -9


def test_a_stopped_script_is_killed_too(runner: Runner) -> None:
    script = runner.run("kill -STOP $$", timeout=0.1)
    assert script.timed_out


def test_a_missing_script(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runner.start_path(str(tmp_path / "missing"))


@pytest.mark.parametrize(("first", "mode", "exit", "word"), [
    ("#!/bin/sh", 0o644, 126, "chmod"), ("#!/no/such/interpreter", 0o755, 127, "interpreter"),
    ("#! /bin/sh\r", 0o755, 127, r"'/bin/sh\\r', is not there"), ("echo x", 0o755, 126, "first line"),
    ("", 0o755, 126, "first line"),
])
def test_what_cannot_be_run(runner: Runner, tmp_path: Path, first: str, mode: int, exit: int, word: str) -> None:
    (tmp_path / "bad").write_text(first + "\n")
    (tmp_path / "bad").chmod(mode)
    gc.collect()  # what earlier tests have left open is closed now, not in between
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotRun, match=word) as caught:
        runner.start_path(str(tmp_path / "bad"))
    assert caught.value.exit == exit and len(os.listdir("/proc/self/fd")) == before


def test_what_is_just_being_written(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "busy").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "busy").chmod(0o755)
    with open(tmp_path / "busy", "r+b"), pytest.raises(NotRun, match="it is just being written: write it under another name"):
        runner.start_path(str(tmp_path / "busy"))


def test_a_child_that_keeps_the_pipe_does_not_delay_the_end(runner: Runner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = runner.run(f"(read x < {go}; echo later) & echo $! > {tmp_path}/daemon; echo now")
    assert script.exit == 0 and runner.lines == ["now"] and script.tail.open
    pid = pid_in(tmp_path / "daemon")
    assert not is_gone(pid), "what a script leaves lives on"
    go.write_text("x\n")
    runner.until(lambda: not script.tail.open)
    assert runner.lines == ["now", "later"] and runner.closed == 1


def test_a_daemon_survives_its_reader(runner: Runner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = runner.run(f"(read x < {go}; echo into the void; echo done > {tmp_path}/done) & :")
    script.tail.close()
    go.write_text("x\n")
    until((tmp_path / "done").exists, what="the daemon to write although nobody reads")


def test_a_flood_neither_fills_the_log_nor_hides_the_end(runner: Runner) -> None:
    script = runner.run("yes flood | head -c 3000000; echo; echo the end")
    assert script.exit == 0 and len(runner.lines) < 2000 and script.output.last == "the end"
    assert any("lines dropped" in line for line in runner.lines)


def test_a_thousand_scripts_leave_nothing(runner: Runner) -> None:
    runner.run(":")
    before, ended = len(os.listdir("/proc/self/fd")), set(zombies())
    for number in range(1000):
        script: Script = runner.start_path(runner.write(f"exit {number % 3}", f"s{number % 3}"))
        runner.until(lambda script=script: script.ended and not script.tail.open, script)  # type: ignore[misc]
        assert script.exit == number % 3
    assert len(os.listdir("/proc/self/fd")) <= before
    assert set(zombies()) <= ended, "what other tests have left is not of these scripts"


def zombies() -> list[int]:
    """Children of this process that have ended and that nobody has waited for."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        children = [int(pid) for pid in file.read().split()]
    found = []
    for pid in children:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                found.append(pid)
    return found


def test_a_signal_from_outside_is_told_as_such(runner: Runner) -> None:
    script = runner.start("exec sleep 60")
    os.kill(script.pid, signal.SIGTERM)
    runner.until(lambda: script.ended, script)
    assert script.exit == -15 and not script.timed_out


def test_a_program_that_is_no_script(runner: Runner) -> None:
    script = Script(
        runner.loop, [sys.executable, "-c", "print('hello')"], dict(os.environ), 30.0, runner.lines.append, runner.ended.append,
        lambda tail: None,
    )
    runner.until(lambda: script.ended, script)
    assert runner.lines == ["hello"] and runner.ended == [script]
