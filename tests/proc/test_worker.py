"""The worker on real processes: scripts, the lease, orders, its own death and root's, what earlier workers left."""

from __future__ import annotations

import errno
import math
import os
import select
import shutil
import signal
from pathlib import Path

import pytest

from koi.core.pipe import Announce, Stop
from koi.proc.loop import now
from koi.service import leftovers
from tests.proc.conftest import MakeLone
from tests.proc.lone_worker import ends, promoted
from tests.proc.waiting import cmdline, descriptors, is_gone, pid_in, until

ALL = ("start", "stop", "promote", "demote", "status", "failed")

# --- the ordinary life ----------------------------------------------------------------------------


def test_up_and_down(make_lone: MakeLone) -> None:
    lone = promoted(make_lone(*ALL))
    assert lone.noted() == ["start 1 7", "promote 1 7"]
    state = lone.last()
    assert state is not None and state.promoted and state.info.pid == lone.pid and state.info.priority == 10
    assert cmdline(lone.pid or 0) == "koinode: service db [a: Promoted]"
    lone.order("started")
    lone.until("Started")
    lone.order("stopped")
    lone.until("Stopped")
    assert lone.actions() == ["start", "promote", "demote", "stop"] and lone.failures() == []
    assert "Promoting -> Promoted: promote succeeded" in lone.log()


def test_a_service_without_scripts(make_lone: MakeLone) -> None:
    lone = promoted(make_lone())
    lone.order("stopped")
    lone.until("Stopped")


def test_output_is_in_the_log_and_scripts_run_in_their_folder(make_lone: MakeLone) -> None:
    lone = make_lone()
    lone.script("start", 'pwd; echo "$KOI_SERVICE_DIR $KOI_CLUSTER_ID $KOI_NODE"')
    lone.fork()
    lone.order("started")
    lone.until("Started")
    assert f"start: {lone.service}" in lone.log() and f"start: {lone.service} 13 a" in lone.log()


def test_a_single_file(make_lone: MakeLone) -> None:
    lone = make_lone()
    lone.service.rmdir()
    lone.service.write_text(f'#!/bin/sh\necho "$1" >> {lone.notes}\necho "in $KOI_SERVICE_DIR"\n')
    lone.service.chmod(0o755)
    promoted(lone)
    lone.order("stopped")
    lone.until("Stopped")
    assert lone.actions() == ["start", "promote", "demote", "stop"] and f"start: in {lone.services}\n" in lone.log()


def test_a_failure_is_told(make_lone: MakeLone) -> None:
    lone = make_lone("failed", "stop")
    lone.script("start", "echo no disk; exit 3")
    lone.fork()
    lone.order("started")
    lone.until("Failing")
    failure = lone.failures()[0]
    assert (failure.action, failure.exit, failure.line, failure.what) == ("start", 3, "no disk", "start exited 3")
    lone.order("stopped", failed_service="db")
    lone.until("Failed")
    assert lone.actions() == ["start", "failed", "stop"]


def test_a_script_that_cannot_be_run_is_a_failure(make_lone: MakeLone) -> None:
    lone = make_lone()
    lone.script("start").chmod(0o644)
    lone.fork()
    lone.order("started")
    lone.until("Failing")
    assert lone.failures()[0].exit == 126 and "chmod +x" in lone.failures()[0].line


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_service_that_is_renamed_is_demoted_and_stopped_where_it_is(make_lone: MakeLone, kind: str) -> None:
    lone = make_lone(*ALL)
    if kind == "file":
        shutil.rmtree(lone.service)
        lone.service.write_text(f'#!/bin/sh\necho "$1" >> {lone.notes}\necho "in $KOI_SERVICE_DIR"\n')
        lone.service.chmod(0o755)
    promoted(lone)
    lone.service.rename(lone.folder / "10-db.off")
    lone.order("stopped")
    lone.until("Stopped")
    assert lone.actions() == ["start", "promote", "demote", "stop"] and lone.failures() == []
    if kind == "file":
        assert f"demote: in {lone.folder}\n" in lone.log()


def test_a_timeout(make_lone: MakeLone) -> None:
    lone = make_lone("stop", service=", start_timeout: 200ms")
    lone.script("start", "exec sleep 60")
    lone.fork()
    lone.order("started")
    lone.until("Failing")
    assert lone.failures()[0].what == "start outlived its timeout of 0.2 s" and lone.failures()[0].exit is None


def test_settings_of_its_own(make_lone: MakeLone) -> None:
    lone = make_lone()
    (lone.service / "service.yaml").write_text("start_timeout: 1s\nworkingdir: /usr\nenv: {COLOUR: red}\n")
    lone.script("start", 'echo "colour $COLOUR"; pwd; exec sleep 60')
    lone.fork()
    lone.order("started")
    lone.until("Failing")
    assert "start: colour red" in lone.log() and "start: /usr" in lone.log() and "timeout of 1 s" in lone.failures()[0].what


def test_status_is_asked_and_believed(make_lone: MakeLone) -> None:
    lone = make_lone("start", "stop", status_interval="50ms")
    lone.script("status", "exit 93")
    lone.fork()
    lone.order("started")
    until(lambda: (lone.last() or lone.until("Started")).live)
    lone.script("status", "exit 0")
    until(lambda: not lone.until("Started").live)


def test_a_new_runner_is_answered(make_lone: MakeLone) -> None:
    lone = promoted(make_lone(*ALL))
    lone.said.clear()
    lone.send(Announce())
    assert lone.until("Promoted").promoted


# --- the lease --------------------------------------------------------------------------------


def test_without_a_lease_nothing_is_promoted(make_lone: MakeLone) -> None:
    lone = make_lone(*ALL)
    lone.fork()
    lone.order("promoted")
    assert not lone.until("Started").promoted
    lone.lease(math.inf)
    lone.until("Promoted")


def test_it_demotes_by_itself_when_the_lease_ends(make_lone: MakeLone) -> None:
    lone = promoted(make_lone(*ALL))
    ends(lone)
    assert not lone.until("Started").promoted
    assert lone.actions() == ["start", "promote", "demote"] and lone.noted()[-1].startswith("demote 0")


def test_a_running_promote_is_killed_with_the_lease(make_lone: MakeLone) -> None:
    lone = make_lone("start", "demote")
    lone.script("promote", f"trap '' TERM; echo $$ > {lone.folder}/promote; sleep 60")
    lone.fork()
    lone.lease(math.inf)
    lone.order("promoted")
    pid_in(lone.folder / "promote")
    ends(lone)
    lone.until("Started")
    assert lone.actions() == ["start", "promote", "demote"] and lone.failures() == []


def test_what_cannot_be_demoted_is_killed_and_fenced(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("stop", node=f", self_fence: 'echo fenced $KOI_SERVICE >> {tmp_path}/fence'")
    lone.script("start", f"setsid sh -c 'echo $$ > {tmp_path}/daemon; exec sleep 60' & :")
    lone.script("demote", "trap '' TERM; sleep 60")
    promoted(lone)
    ends(lone)
    daemon = pid_in(tmp_path / "daemon")
    lone.until("Failed")
    until(lambda: is_gone(daemon), what="the daemon to be killed")
    assert until(lambda: (tmp_path / "fence").exists() and (tmp_path / "fence").read_text()) == "fenced db\n"
    until(lambda: "stop" in lone.actions() and not lone.until("Failed").promoted)
    assert "CRITICAL" in lone.log() and lone.failures()[0].action == "demote"


def test_it_is_fenced_also_where_nothing_can_be_looked_for(
    make_lone: MakeLone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind(mark: object) -> list[int]:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    lone = make_lone("start", "stop", node=f", self_fence: 'echo fenced $KOI_SERVICE >> {tmp_path}/fence'")
    lone.script("demote", "trap '' TERM; sleep 60")
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "kill", blind)
        promoted(lone)
    ends(lone)
    assert until(lambda: (tmp_path / "fence").exists() and (tmp_path / "fence").read_text()) == "fenced db\n"
    lone.until("Failed")
    assert "what else db has started cannot be looked for: Too many open files in system" in lone.log() and len(lone.pids) == 1


# --- its end ------------------------------------------------------------------------------------


def test_stop_ends_it(make_lone: MakeLone) -> None:
    lone = make_lone(*ALL)
    lone.fork()
    lone.order("started")
    lone.until("Started")
    lone.send(Stop())
    assert lone.exit() == 0 and lone.actions() == ["start", "stop"]


def test_it_ends_at_once_when_its_service_is_stopped(make_lone: MakeLone) -> None:
    lone = make_lone(*ALL)
    lone.fork()
    lone.until("Stopped")
    lone.send(Stop())
    assert lone.exit() == 0 and lone.actions() == []


def test_root_dies(make_lone: MakeLone) -> None:
    lone = promoted(make_lone(*ALL))
    assert lone.link is not None
    lone.link.close()
    assert lone.exit() == 0 and lone.actions() == ["start", "promote", "demote", "stop"]


def test_root_dies_while_promote_runs(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("start", "demote", "stop")
    lone.script("promote", f"echo $$ > {tmp_path}/promote; exec sleep 60")
    lone.fork()
    lone.lease(math.inf)
    lone.order("promoted")
    pid_in(tmp_path / "promote")
    assert lone.link is not None
    lone.link.close()
    assert lone.exit() == 0 and lone.actions() == ["start", "promote", "demote", "stop"]


# --- a worker that is replaced -------------------------------------------------------------------


def test_a_new_worker_takes_a_promoted_service_over(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("promote", "demote", "stop", "status")
    lone.script("start", f"sh -c 'echo $$ > {tmp_path}/daemon; exec sleep 60' & :")
    promoted(lone)
    daemon = pid_in(tmp_path / "daemon")
    lone.respawn()
    lone.order("promoted")
    until(lambda: lone.actions()[-1] == "status")
    assert lone.until("Promoted").promoted and lone.actions() == ["start", "promote", "status"] and not is_gone(daemon)
    lone.order("stopped")
    lone.until("Stopped")


def test_a_daemon_prints_on_under_the_new_worker(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("stop")
    go = tmp_path / "go"
    os.mkfifo(go)
    lone.script("start", f"(read x < {go}; echo still here; sleep 60) & :")
    promoted(lone)
    lone.respawn()
    lone.order("promoted")
    lone.until("Promoted")
    go.write_text("x\n")
    until(lambda: "still here" in lone.log())


def test_a_script_of_a_dead_worker_is_ended_and_undone(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("start", "demote", "stop")
    lone.script("promote", f"echo $$ > {tmp_path}/promote; [ -e {tmp_path}/again ] || sleep 60")
    lone.fork()
    lone.lease(math.inf)
    lone.order("promoted")
    promote = pid_in(tmp_path / "promote")
    (tmp_path / "again").touch()
    lone.respawn()
    lone.order("promoted")
    lone.until("Promoted")
    assert lone.actions() == ["start", "promote", "demote", "promote"] and is_gone(promote)


def test_an_unclean_service_is_demoted_and_stopped_first(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("demote", "stop", "promote")
    lone.script("start", f"setsid sh -c 'echo $$ > {tmp_path}/daemon; exec sleep 60' & :")
    promoted(lone)
    daemon = pid_in(tmp_path / "daemon")
    assert lone.pid is not None
    os.kill(lone.pid, signal.SIGKILL)
    os.waitpid(lone.pid, 0)
    lone.said.clear()
    lone.cell.write(None)
    lone.fork(unclean=True)
    state = lone.until("Stopped")
    assert state.clean and not state.promoted and lone.actions() == ["start", "promote", "demote", "stop"]
    until(lambda: is_gone(daemon))
    assert any(not one.clean and one.promoted for one in lone.hear() if hasattr(one, "clean"))


def test_the_electors_grace_counts_when_it_is_shorter_than_its_own(make_lone: MakeLone) -> None:
    """Found: it was killed only after its own G, when the electors' guards had run out."""
    lone = make_lone("stop", "promote")
    lone.script("demote", "sleep 60")
    promoted(lone)
    lone.cell.write(now(), 0.3)
    lone.send(Announce())
    until(lambda: "not demoted within 0.3 s after the lease had ended" in lone.log())


# --- what it costs --------------------------------------------------------------------------------


def test_no_zombies_and_no_descriptors_are_left(make_lone: MakeLone) -> None:
    lone = make_lone("status", status_interval="50ms")
    lone.fork()
    assert lone.pid is not None
    lone.order("started")
    until(lambda: lone.actions().count("status") >= 10)
    before = len(descriptors(lone.pid))
    until(lambda: lone.actions().count("status") >= 50, 30)
    assert len(descriptors(lone.pid)) <= before + 3
    with open(f"/proc/{lone.pid}/task/{lone.pid}/children", encoding="ascii") as file:
        assert len(file.read().split()) <= 1


def test_a_worker_that_waits_for_its_next_status_does_not_wake(make_lone: MakeLone) -> None:
    """Not once in five seconds, by /proc; the wait is that of its pipe, on which nothing comes either."""
    lone = make_lone("start", "status")
    lone.fork()
    lone.order("started")
    lone.until("Started")

    def wakes_within(seconds: float) -> bool:
        assert lone.link is not None
        before = switches()
        return bool(select.select([lone.link.fileno()], [], [], seconds)[0]) or switches() != before

    def switches() -> list[str]:
        lines = Path(f"/proc/{lone.pid}/status").read_text().splitlines()
        return [line for line in lines if line.startswith("voluntary")]

    until(lambda: not wakes_within(0.2), what="the end of what starting takes")
    assert not wakes_within(5.0)
