"""`run`, `watch` and `status` under a real worker: what they leave behind, what cannot be run, and a worker after another."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from koi.core.pipe import Freeze
from tests.proc.conftest import MakeLone
from tests.proc.lone_worker import Lone, promoted
from tests.proc.waiting import is_gone, pid_in, state, until


def program(lone: Lone, tmp_path: Path, text: str = "exec sleep 60") -> Lone:
    lone.script("run", f"echo $$ > {tmp_path}/program; {text}")
    return lone


def test_a_program_runs_and_is_stopped(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = promoted(program(make_lone("promote", "demote"), tmp_path))
    pid = pid_in(tmp_path / "program")
    assert os.getsid(pid) == pid
    lone.order("stopped")
    lone.until("Stopped")
    assert is_gone(pid) and sorted(lone.actions()) == ["demote", "promote", "run"] and lone.failures() == []


def test_a_program_that_ends_is_a_failure_at_once(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = promoted(program(make_lone(), tmp_path, "read x < /dev/null; exec sleep 60"))
    os.kill(pid_in(tmp_path / "program"), signal.SIGSEGV)
    lone.until("Failing")
    assert lone.failures()[0].what == "run was killed by signal 11"


def test_a_program_that_ignores_term_is_killed(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = program(make_lone(service=", stop_timeout: 300ms"), tmp_path, "trap '' TERM; echo ready; while :; do sleep 60; done")
    lone.fork()
    lone.order("started")
    until(lambda: "run: ready" in lone.log())
    lone.order("stopped")
    lone.until("Stopped")
    assert is_gone(pid_in(tmp_path / "program")) and lone.failures() == []


@pytest.mark.parametrize("renamed", [False, True])
def test_a_program_is_started_once_more_by_a_new_worker(make_lone: MakeLone, tmp_path: Path, renamed: bool) -> None:
    """Found: after its folder had been renamed for another priority the first program ran on beside the second."""
    lone = promoted(program(make_lone("promote", "demote"), tmp_path))
    first = pid_in(tmp_path / "program")
    (tmp_path / "program").unlink()
    if renamed:
        lone.service.rename(lone.services / "30-db")
    lone.respawn()
    lone.order("promoted")
    lone.until("Promoted")
    assert pid_in(tmp_path / "program") != first and is_gone(first) and lone.failures() == []
    lone.order("stopped")
    lone.until("Stopped")


@pytest.mark.parametrize("worker", ["its own", "the next", "the next in maintenance"])
def test_a_program_that_a_signal_has_stopped_goes_on_so_that_it_ends(make_lone: MakeLone, tmp_path: Path, worker: str) -> None:
    """Else it would hear of its end only by SIGKILL after stop_timeout, which is 6 minutes."""
    lone = promoted(program(make_lone("promote", "demote"), tmp_path))
    pid = pid_in(tmp_path / "program")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T")
    if worker == "the next":
        lone.respawn()
    elif worker == "the next in maintenance":
        lone.send(Freeze(True))
        last = lone.until("Promoted")
        assert lone.pid is not None
        os.kill(lone.pid, signal.SIGKILL)
        os.waitpid(lone.pid, 0)
        lone.said.clear()
        lone.fork(respawned=True, last=last, frozen=True)
        lone.send(Freeze(False))
    lone.order("stopped")
    lone.until("Stopped")
    assert is_gone(pid) and lone.failures() == []


# --- what is left behind --------------------------------------------------------------------------

OFFSPRING = """sleep 61 &
echo $! > {0}/child.group
setsid sh -c 'echo $$ > {0}/child.session; exec sleep 62' &
bash -c 'set -m; sleep 63 & echo $! > {0}/child.job'
exec sleep 60"""
WAYS = ("group", "session", "job")


def with_offspring(make_lone: MakeLone, tmp_path: Path) -> tuple[Lone, list[int]]:
    lone = promoted(program(make_lone("promote", "demote", "status"), tmp_path, OFFSPRING.format(tmp_path)))
    pids = [pid_in(tmp_path / f"child.{way}") for way in WAYS]
    assert not any(map(is_gone, pids))
    return lone, pids


def test_what_a_program_leaves_behind_is_ended_with_it(make_lone: MakeLone, tmp_path: Path) -> None:
    lone, pids = with_offspring(make_lone, tmp_path)
    lone.order("stopped")
    lone.until("Stopped")
    assert all(map(is_gone, pids)) and lone.failures() == []


def test_what_a_program_that_crashed_leaves_behind_is_ended_before_it_starts_again(make_lone: MakeLone, tmp_path: Path) -> None:
    lone, pids = with_offspring(make_lone, tmp_path)
    os.kill(pid_in(tmp_path / "program"), signal.SIGKILL)
    lone.until("Failing")
    assert not any(map(is_gone, pids)), "stop ends them, not the crash"
    lone.order("started", failed_service="db")
    lone.order("stopped", failed_service="db")
    lone.until("Failed")
    assert all(map(is_gone, pids)) and "left behind" in lone.log()


def test_what_was_left_behind_and_ignores_term_is_killed(make_lone: MakeLone, tmp_path: Path) -> None:
    text = f"setsid sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/child; while :; do sleep 60; done' & exec sleep 60"
    lone = promoted(program(make_lone(), tmp_path, text))
    pid = pid_in(tmp_path / "child")
    lone.order("stopped")
    lone.until("Stopped")
    assert is_gone(pid)


def test_what_start_left_lives_until_stop_ends_it(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("stop")
    lone.script("start", f"sleep 60 & echo $! > {tmp_path}/daemon")
    lone.fork()
    lone.order("started")
    lone.until("Started")
    daemon = pid_in(tmp_path / "daemon")
    lone.order("stopped")
    lone.until("Stopped")
    assert not is_gone(daemon), "a daemon of scripts is the business of its stop script"


@pytest.mark.parametrize("name", ["watch", "status"])
def test_what_a_dead_worker_was_running_is_ended(make_lone: MakeLone, tmp_path: Path, name: str) -> None:
    """Both replace themselves by another program, so that nothing but the environment tells whose they are."""
    lone = make_lone("start", status_interval="50ms")
    lone.script(name, f"[ -e {tmp_path}/first ] && exit 0; echo $$ > {tmp_path}/first; exec sleep 60")
    lone.fork()
    lone.order("started")
    first = pid_in(tmp_path / "first")
    lone.respawn()
    until(lambda: is_gone(first), what=f"the {name} of the dead worker to end")


def test_the_children_of_a_program_live_through_maintenance_and_another_worker(make_lone: MakeLone, tmp_path: Path) -> None:
    lone, pids = with_offspring(make_lone, tmp_path)
    main = pid_in(tmp_path / "program")
    lone.send(Freeze(True))
    last = lone.until("Promoted")
    assert lone.pid is not None
    os.kill(lone.pid, signal.SIGKILL)
    os.waitpid(lone.pid, 0)
    lone.said.clear()
    lone.fork(respawned=True, last=last, frozen=True)
    lone.order("promoted")
    lone.send(Freeze(False))
    until(lambda: "status" in lone.actions(), what="maintenance to be over")
    assert not is_gone(main) and not any(map(is_gone, pids))
    lone.order("stopped")
    lone.until("Stopped")
    assert is_gone(main) and all(map(is_gone, pids))


# --- what cannot be run ---------------------------------------------------------------------------


def test_a_program_that_is_missing_is_a_failure(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = program(make_lone(), tmp_path)
    lone.fork()
    (lone.service / "run").unlink()
    lone.order("started")
    lone.until("Failing")
    assert lone.failures()[0].exit == 127 and "run is not there" in lone.failures()[0].line


def test_a_watch_that_cannot_be_run_is_a_failure(make_lone: MakeLone) -> None:
    lone = make_lone("start")
    lone.script("watch").chmod(0o644)
    lone.fork()
    lone.order("started")
    lone.until("Failing")
    assert [(one.action, one.exit) for one in lone.failures()] == [("watch", 126)] and "chmod +x" in lone.failures()[0].line


def test_a_status_that_cannot_be_run_says_nothing_of_the_service(make_lone: MakeLone) -> None:
    """As while a script is being replaced: the service is not failed for it, and it is told once."""
    lone = promoted(make_lone("start", "status", status_interval="50ms"))
    for times in (1, 2):
        (lone.service / "status").chmod(0o644)
        until(lambda times=times: len(lone.failures()) == times)  # type: ignore[misc]
        woken = lone.wakeups()
        until(lambda woken=woken: lone.wakeups() > woken + 3, what="more rounds of status")  # type: ignore[misc]
        assert lone.log().count("is not executable; chmod +x") == times
        assert lone.until("Promoted").promoted and len(lone.failures()) == times
        failure = lone.failures()[-1]
        assert (failure.action, failure.exit) == ("status", 126) and "goes on as it was" in failure.what
        before = lone.actions().count("status")
        (lone.service / "status").chmod(0o755)
        until(lambda before=before: lone.actions().count("status") > before + 1)  # type: ignore[misc]
    assert "Failing" not in lone.log()


def test_a_demote_that_is_a_link_to_nothing_has_not_succeeded(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("start", "promote", "stop")
    (lone.service / "demote").symlink_to(tmp_path / "not there")
    promoted(lone)
    lone.order("started")
    lone.until("Failing")
    assert lone.failures()[0].exit == 127 and "link" in lone.failures()[0].line
    assert lone.actions() == ["start", "promote", "stop"]
