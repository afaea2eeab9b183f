"""A worker whose scripts are away: copied anew, deleted, or behind what cannot be entered."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from koi.proc import changing
from koi.proc.loop import now
from tests.proc.conftest import MakeLone
from tests.proc.lone_worker import Lone, ends, promoted
from tests.proc.waiting import is_gone, pid_in, state, until

ALL = ("start", "stop", "promote", "demote", "status", "failed")
LONG = "10m"
"""failover: a machine that is far too busy has time enough to copy a folder."""


def with_kind(lone: Lone, kind: str) -> Lone:
    """The same, of one single file if need be."""
    if kind == "file":
        shutil.rmtree(lone.service)
        lone.service.write_text(f"#!/bin/sh\necho $1 >> {lone.notes}\n")
        lone.service.chmod(0o755)
    return lone


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_copied_anew_is_demoted_and_stopped_by_what_comes(
    make_lone: MakeLone, monkeypatch: pytest.MonkeyPatch, kind: str,
) -> None:
    """Deleted and copied again, as many do it: a demote in between would otherwise not be run at all."""
    monkeypatch.setattr(changing, "AWAY_S", 4.0)
    lone = promoted(with_kind(make_lone(*ALL, failover=LONG), kind))
    new = lone.folder / "new"
    (shutil.copytree if kind == "folder" else shutil.copy2)(lone.service, new)
    remove(lone.service)
    lone.order("stopped")
    until(lambda: (last := lone.last()) is not None and last.info.action == "demote")
    new.rename(lone.service)
    lone.until("Stopped")
    assert lone.actions()[-2:] == ["demote", "stop"] and "deleted" not in lone.log()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_was_copied_anew_and_then_renamed_is_demoted_and_stopped_where_it_is(make_lone: MakeLone, kind: str) -> None:
    """Found: what had been there before was held open, so the new one was lost with its name, and its demote never run."""
    lone = with_kind(make_lone("start", "promote", "demote", "stop"), kind)
    lone.fork()
    lone.lease(5.0)  # a promoted worker wakes at its end, status or not
    lone.order("promoted")
    lone.until("Promoted")
    lone.lease(1000)
    until(lambda: "-> Promoted" in lone.log() and lone.pid is not None and state(lone.pid) == "S", what="it waits")
    new, woken = lone.folder / "new", lone.wakeups()
    (shutil.copytree if kind == "folder" else shutil.copy2)(lone.service, new)
    remove(lone.service)
    new.rename(lone.service)
    until(lambda: lone.wakeups() > woken, what="the end of the first lease")
    lone.service.rename(lone.services / ".db")
    lone.order("stopped")
    lone.until("Stopped")
    assert [action for action in lone.actions() if action != "status"] == ["start", "promote", "demote", "stop"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_was_deleted_counts_as_demoted_and_stopped(make_lone: MakeLone, kind: str) -> None:
    """Found: demote and stop had failed, so the node was stuck, until the folder was looked at: nobody could be promoted."""
    lone = promoted(with_kind(make_lone(*ALL), kind))
    before = lone.actions()
    remove(lone.service)
    lone.order("stopped")
    last = lone.until("Stopped")
    assert not last.promoted and lone.actions() == before and not lone.failures()
    assert f"demote: {lone.service} is deleted, so nothing can be run; it counts as done" in lone.log()


def test_what_was_deleted_may_be_promoted_and_its_program_is_ended(make_lone: MakeLone, tmp_path: Path) -> None:
    lone = make_lone("promote")
    lone.script("run", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    lone.fork()
    lone.order("started")
    lone.until("Started")
    program = pid_in(tmp_path / "pid")
    remove(lone.service)
    lone.lease(1000)
    lone.order("promoted")
    lone.until("Promoted")
    lone.order("stopped")
    lone.until("Stopped")
    assert is_gone(program)
    lone.order("started")
    lone.until("Started")
    assert not lone.failures()


def test_a_demote_that_waits_for_its_folder_is_in_time(make_lone: MakeLone, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins a quarter of the grace after the end of the lease and waits for half of it."""
    monkeypatch.setattr(changing, "AWAY_S", 3600.0)
    lone = promoted(make_lone(*ALL, failover="30s"))  # a quarter of its grace, 2.9 s, is left for a busy machine
    remove(lone.service)
    ends(lone)
    assert not lone.until("Started", 30.0).promoted and "is killed" not in lone.log()


def test_a_promote_that_waits_for_its_folder_ends_with_the_lease(make_lone: MakeLone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "AWAY_S", 3600.0)
    lone = make_lone(*ALL, failover=LONG)
    lone.fork()
    lone.order("started")
    lone.until("Started")
    away = lone.folder / "away"
    shutil.copytree(lone.service, away)
    remove(lone.service)
    lone.lease(1000)
    lone.order("promoted")
    until(lambda: (last := lone.last()) is not None and last.info.action == "promote")
    lone.cell.write(now())
    lone.order("started")
    until(lambda: (last := lone.last()) is not None and last.info.action == "demote")
    away.rename(lone.service)
    assert "promote" not in lone.actions()


def test_what_cannot_be_entered_is_not_a_missing_script(make_lone: MakeLone) -> None:
    lone = promoted(make_lone(*ALL))
    remove(lone.service)
    lone.service.write_text("not executable, and so no service either")
    lone.order("stopped")
    assert lone.until("Failed").stuck and "cannot be entered" in lone.log()


def test_a_watch_that_is_deleted_is_not_run_and_comes_back(make_lone: MakeLone, tmp_path: Path) -> None:
    """Found: it was tried again and again without end, and nothing else was done: no demote, also when the lease ended."""
    lone = make_lone("start", "promote", "demote", "stop")
    watch = lone.script("watch", f"echo $$ > {tmp_path}/watch; exec sleep 1000")
    lone.fork()
    away = watch.rename(lone.folder / "away")
    lone.lease(1000)
    lone.order("promoted")
    lone.until("Promoted")
    away.rename(watch)
    ends(lone)
    lone.until("Started")
    assert [one for one in lone.actions() if one != "watch"] == ["start", "promote", "demote"] and not lone.failures()
    os.kill(pid_in(tmp_path / "watch"), signal.SIGKILL)
    lone.until("Failing")
