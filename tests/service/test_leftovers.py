"""Finding and ending what scripts started, also what left their group and session."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from koi.service import leftovers
from koi.service.leftovers import Ending, Leftover, Mark
from tests.proc.waiting import is_gone, pid_in, until
from tests.service.scripts import Runner


@pytest.fixture
def mark(tmp_path: Path) -> Mark:
    """A mark that no other process has."""
    return Mark(str(tmp_path), "db", "a", 13)


@pytest.fixture
def runner(tmp_path: Path, mark: Mark) -> Iterator[Runner]:
    """Runs scripts and ends what they left."""
    made = Runner(tmp_path)
    yield made
    leftovers.kill(mark)
    made.close()


def environment(mark: Mark, action: str = "start") -> dict[str, str]:
    node = {"KOI_NODE": mark.node, "KOI_CLUSTER_ID": str(mark.cluster_id)}
    return {"KOI_SERVICE_DIR": mark.folder, "KOI_SERVICE": mark.service, "KOI_ACTION": action, **node}


def daemon(runner: Runner, mark: Mark, action: str = "start") -> int:
    """A daemon that left the session of its script; its pid."""
    path = runner.folder / f"daemon.{action}"
    runner.run(f"setsid sh -c 'echo $$ > {path}; exec sleep 60' & :", **environment(mark, action))
    return pid_in(path)


def test_found_by_its_environment(runner: Runner, mark: Mark) -> None:
    pid = daemon(runner, mark)
    found = until(lambda: [one for one in leftovers.find(mark) if one.command == ("sleep", "60")])
    assert [(one.pid, one.action) for one in found] == [(pid, "start")]
    for other in ({"node": "b"}, {"cluster_id": 14}, {"service": "web"}, {"folder": mark.folder[:-1]}):
        assert leftovers.find(replace(mark, **other)) == []  # type: ignore[arg-type]


def test_found_after_its_folder_was_renamed_for_another_priority(runner: Runner, mark: Mark) -> None:
    """Found: the worker that was told knew both names, its successor only the new one: a second program beside the first."""
    pid = daemon(runner, replace(mark, folder=f"{mark.folder}/10-db"))
    assert pid in [one.pid for one in leftovers.find(mark)]
    for other in (f"{mark.folder}/10-db", os.path.dirname(mark.folder)):
        assert (pid in [one.pid for one in leftovers.find(replace(mark, folder=other))]) is other.endswith("10-db")
    leftovers.kill(mark)
    until(lambda: is_gone(pid))


def test_killed_wherever_they_went(runner: Runner, mark: Mark) -> None:
    pids = [daemon(runner, mark, action) for action in ("start", "promote", "run")]
    assert set(leftovers.kill(mark)) >= set(pids)
    until(lambda: all(map(is_gone, pids)))
    assert leftovers.kill(mark) == []


def test_a_search_reads_of_other_processes_only_what_is_new(
    runner: Runner, mark: Mark, monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {str(os.getpid()), str(os.getppid())}
    read: list[str] = []
    environ = leftovers._environ
    monkeypatch.setattr(leftovers, "_environ", lambda name: read.append(name) or environ(name))
    search = leftovers.Search()
    assert search.of_action((mark,), "run") == []
    assert others <= set(read)
    pid = daemon(runner, mark, "run")
    read.clear()
    assert pid in until(lambda: search.of_action((mark,), "run"))
    assert str(pid) in read and not others & set(read)
    read.clear()
    assert pid in search.of_action((mark,), "run"), "what belongs to the service is looked at each time"
    assert search.of_action((mark,), "start") == []
    renamed = (replace(mark, folder=f"{mark.folder}/elsewhere"), mark)
    read.clear()
    assert pid in search.of_action(renamed, "run")
    assert others <= set(read), "known by another folder now, anybody may be the service's"


def test_a_process_that_has_no_environment_yet_is_looked_at_again(
    runner: Runner, mark: Mark, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a program is being executed the environment of its process reads empty."""
    pid = daemon(runner, mark, "run")
    until(lambda: pid in [one.pid for one in leftovers.find(mark) if one.command == ("sleep", "60")])
    search, environ = leftovers.Search(), leftovers._environ
    monkeypatch.setattr(leftovers, "_environ", lambda name: b"" if name == str(pid) else environ(name))
    assert pid not in search.of_action((mark,), "run")
    monkeypatch.setattr(leftovers, "_environ", environ)
    assert pid in search.of_action((mark,), "run")


def test_what_has_ended_has_no_program_any_more() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not leftovers._has_program(str(pid)) and leftovers._has_program(str(os.getpid()))
    os.waitpid(pid, 0)


def test_never_itself_or_its_ancestors() -> None:
    assert {os.getpid(), os.getppid(), 1} <= leftovers._ancestors()


def test_what_nobody_waits_for_any_more() -> None:
    daemon, script = Leftover(1, "start", ("mysqld",), True), Leftover(2, "promote", ("/bin/sh", "/s/promote"), True, True)
    program, child = Leftover(3, "run", ("web",), True), Leftover(4, "promote", ("sleep", "9"), False)
    background = Leftover(5, "start", ("/bin/sh", "/s/start"), False, True)
    found = [daemon, script, program, child, background]
    assert leftovers.unfinished(found, None) == [script, program]
    assert leftovers.unfinished(found, "promote") == [script, program, child]


@pytest.mark.parametrize("place, action, command, is_script", [
    ("/s/10-db", "promote", ("/bin/sh", "/s/10-db/promote"), True),
    ("/s/10-db", "promote", ("/s/10-db/promote",), True),
    ("/s/10-db", "start", ("/s/10-db/promote",), False),
    ("/s/10-db", "start", ("/s/10-db/db", "--start"), False),
    ("/s", "promote", ("/bin/sh", "/s/20-db", "promote"), True),
    ("/s", "promote", ("/bin/sh", "/s/db", "promote"), True),
    ("/s", "promote", ("/bin/sh", "/s/10-web", "promote"), False),
    ("/s", "promote", ("/usr/bin/db",), False),
])
def test_a_script_is_known_by_where_it_lay(place: str, action: str, command: tuple[str, ...], is_script: bool) -> None:
    """Found: only where it lies now was known; after a renaming a `promote` that still ran was not ended before `demote`."""
    assert Mark("/s", "db", "a", 13).is_script(place, action, command) is is_script


@pytest.mark.parametrize("renamed", [False, True])
def test_a_script_that_runs_is_found_as_such_also_after_a_renaming(runner: Runner, mark: Mark, renamed: bool) -> None:
    folder = runner.folder / "10-db"
    folder.mkdir()
    path = runner.write(f"echo $$ > {runner.folder}/begun; sleep 60 & wait", "10-db/promote")
    runner.start_path(path, **environment(replace(mark, folder=str(folder)), "promote"))
    pid_in(runner.folder / "begun")
    if renamed:
        folder.rename(runner.folder / "30-db")
    found = until(lambda: [one for one in leftovers.find(mark) if path in one.command and one.leads])
    assert leftovers.unfinished(found, None) == found


def test_the_next_worker_reads_what_a_daemon_prints(runner: Runner, mark: Mark, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = runner.run(f"(read x < {go}; echo still here; sleep 60) & sleep 60 | sleep 60 & :", **environment(mark))
    found = leftovers.find(mark)
    script.tail.close()
    pipes = leftovers.pipes(found)
    assert len(pipes) == 1, "only the pipe to the worker, not what programs say to one another"
    os.set_blocking(pipes[0], True)
    go.write_text("x\n")
    assert os.read(pipes[0], 100) == b"still here\n"
    os.close(pipes[0])


@pytest.mark.parametrize("stubborn", [False, True])
def test_ended_by_term_and_then_killed(runner: Runner, mark: Mark, tmp_path: Path, stubborn: bool) -> None:
    trap = "trap '' TERM" if stubborn else ":"
    path = tmp_path / "pid"
    runner.run(f"setsid sh -c \"{trap}; echo \\$\\$ > {path}; while :; do sleep 60; done\" & :", **environment(mark))
    pid = pid_in(path)
    done: list[bool] = []
    ending = Ending(runner.loop, [pid], 0.2 if stubborn else 60.0, lambda: done.append(True))

    class Timer:
        """Gives the timers of the ending to the loop of the tests."""

        ended = False
        deadline = staticmethod(lambda: ending.deadline)
        handle_timer = staticmethod(ending.handle_timer)

    runner.until(lambda: bool(done), Timer())  # type: ignore[arg-type]
    assert is_gone(pid) and ending.deadline is None


def test_nothing_to_end_is_done_at_once(runner: Runner) -> None:
    done: list[bool] = []
    assert Ending(runner.loop, [], 60.0, lambda: done.append(True)).deadline is None and done == [True]


def test_a_signal_to_one_that_is_gone() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    leftovers.send(pid, signal.SIGTERM)


def test_without_a_descriptor_to_look_with_it_is_not_taken_for_nothing_left(
    runner: Runner, mark: Mark, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found: a worker whose machine had no descriptor left saw no program of its predecessor and started one beside it."""
    runner.run("sleep 60 & :", **environment(mark))
    pid = until(lambda: [one.pid for one in leftovers.find(mark)], what="the program is found once it has begun")[0]

    def refuse(*args: object) -> int:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", refuse)
        with pytest.raises(OSError, match="Too many open files in system"):
            Ending(runner.loop, [pid], 1.0, lambda: None)
        patch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Too many open files in system"):
            leftovers.find(mark)
    assert not is_gone(pid)
