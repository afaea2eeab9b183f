"""Samples for copying: clean for shellcheck, whole as services, and run for real; and scripts as the first Koi had them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from koi.config import load, override
from koi.service.catalog import check, scan
from tests.proc.lone_worker import Lone
from tests.proc.waiting import until


@pytest.fixture
def share(repository: Path) -> Path:
    return repository / "koi" / "share"


def run(script: Path, **environment: str) -> int:
    koi = {"KOI_SHARE": str(script.parents[2]), "KOI_SERVICE_DIR": str(script.parent), "KOI_IS_PROMOTED": "0"}
    given = {**os.environ, **koi, **environment}
    return subprocess.run([str(script)], env=given, capture_output=True, check=False).returncode


def is_shell(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".sh" or path.read_bytes().startswith(b"#!/bin/sh"))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_every_shell_script_is_clean_for_shellcheck(share: Path) -> None:
    paths = [str(path) for path in share.rglob("*") if is_shell(path)]
    assert len(paths) > 15
    done = subprocess.run(["shellcheck", "-s", "sh", *paths], capture_output=True, text=True, check=False)
    assert done.stdout == "" and done.returncode == 0


def test_the_samples_are_services(share: Path, repository: Path) -> None:
    found = scan(str(share / "samples"))
    defaults = load(str(repository / "conf/koi.conf"), "a", "password1234").service
    assert check(found, defaults, override) == [] and found.ignored == ()
    assert [(one.name, one.priority) for one in found.definitions] == [("address", 10), ("daemon", 20), ("unit", 30), ("web", 40)]


def test_a_daemon_with_a_pid_file(share: Path, tmp_path: Path) -> None:
    daemon, pidfile = tmp_path / "daemon", tmp_path / "pid"
    daemon.write_text(f"#!/bin/sh\nsetsid sh -c 'echo $$ > {pidfile}; trap \"\" HUP; exec sleep 100' >/dev/null 2>&1 &\n")
    daemon.chmod(0o755)
    folder, names = share / "samples/20-daemon", {"DAEMON": str(daemon), "PIDFILE": str(pidfile)}
    assert run(folder / "status", **names) == 92 and run(folder / "stop", **names) == 0
    assert run(folder / "start", **names) == 0 and run(folder / "status", **names) == 0
    pid = pidfile.read_text()
    assert run(folder / "start", **names) == 0 and pidfile.read_text() == pid
    assert run(folder / "stop", **names) == 0 and run(folder / "status", **names) == 92
    until(lambda: not os.path.exists(f"/proc/{int(pid)}"))
    pidfile.write_text("no number\n")
    assert run(folder / "status", **names) == 92


@pytest.mark.parametrize(("shows", "fails", "exit"), [
    ("", 0, 0), ("2: eth1    inet 192.0.2.10/24 scope global eth1", 0, 0),
    ("2: eth0    inet 192.0.2.10/24 scope global eth0", 0, 1), ("", 127, 1),
])
@pytest.mark.parametrize("action", ["demote", "stop"])
def test_an_address_is_given_up_only_when_it_is_known_to_be_gone(
    share: Path, tmp_path: Path, action: str, shows: str, fails: int, exit: int,
) -> None:
    """An `ip` that does not work says nothing about the address."""
    tool = tmp_path / "ip"
    tool.write_text(f'#!/bin/sh\n[ "$2" = del ] && exit 2\necho "{shows}"\nexit {fails}\n')
    tool.chmod(0o755)
    names = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ADDRESS": "192.0.2.10/24", "DEVICE": "eth0"}
    assert run(share / "samples/10-address" / action, **names) == exit


@pytest.mark.parametrize(("says", "promoted", "exit"), [
    ("active", "1", 90), ("active", "0", 90), ("inactive", "1", 91), ("failed", "1", 1), ("failed", "0", 91),
    ("activating", "1", 90),
])
def test_a_unit_of_systemd(share: Path, tmp_path: Path, says: str, promoted: str, exit: int) -> None:
    """systemctl itself needs a running systemd: here stands one that notes how it was called."""
    tool = tmp_path / "systemctl"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\necho {says}\n')
    tool.chmod(0o755)
    names = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "UNIT": "db.service", "KOI_IS_PROMOTED": promoted}
    folder = share / "samples/30-unit"
    assert run(folder / "status", **names) == exit
    assert [run(folder / action, **names) for action in ("promote", "demote", "stop")] == [0, 0, 0]
    assert (tmp_path / "called").read_text().splitlines() == [
        "is-active db.service", "start db.service", "stop db.service", "stop db.service"]


@pytest.mark.parametrize(("says", "exit"), [
    ("inactive", 0), ("unknown", 0), ("active", 1), ("deactivating", 1), ("failed", 1), ("", 1),
])
@pytest.mark.parametrize("action", ["demote", "stop"])
def test_a_unit_that_systemd_does_not_know_is_not_active(share: Path, tmp_path: Path, action: str, says: str, exit: int) -> None:
    """Found: a misspelt UNIT made the first node that was promoted stuck, and with it the cluster."""
    tool = tmp_path / "systemctl"
    tool.write_text(f'#!/bin/sh\n[ "$1" = is-active ] && echo {says}\nexit 5\n')
    tool.chmod(0o755)
    assert run(share / "samples/30-unit" / action, PATH=f"{tmp_path}:{os.environ['PATH']}", UNIT="db.service") == exit


ORIGINAL = """#!/bin/bash
# A service of the first Koi: one file, a case statement, and the helper with the exit codes.
. {helper}
STATE={folder}/state
case "$1" in
    start) echo started > $STATE ;;
    stop) rm -f $STATE ;;
    promote) [ "$KOI_IS_PROMOTED" = 1 ] && echo promoted > $STATE ;;
    demote) echo started > $STATE ;;
    status)
        [ -f $STATE ] || exit $KOI_STOPPED
        [ "$(cat $STATE)" = promoted ] && exit $KOI_MASTER
        exit $KOI_SLAVE
        ;;
    failed) echo "$KOI_SERVICE failed" ;;
    *) echo "usage: $0 start|stop|promote|demote|status|failed"; exit 1 ;;
esac
"""
HELPER = "KOI_MASTER=90\nKOI_SLAVE=91\nKOI_STOPPED=92\nKOI_LIVE=93\n"


@pytest.mark.parametrize("own_helper", [True, False])
def test_a_script_of_the_first_koi_runs_unchanged(tmp_path: Path, share: Path, own_helper: bool) -> None:
    helper = tmp_path / "functions"
    helper.write_text(HELPER)
    lone = Lone(tmp_path, status_interval="0.1s")
    try:
        lone.service.rmdir()
        lone.service.write_text(ORIGINAL.format(folder=tmp_path, helper=helper if own_helper else share / "koi-service.sh"))
        lone.service.chmod(0o755)
        state = tmp_path / "state"
        lone.fork()
        lone.lease(1000)
        lone.order("promoted")
        lone.until("Promoted")
        assert state.read_text() == "promoted\n"
        state.unlink()
        until(lambda: state.exists() and state.read_text() == "promoted\n", what=lone.log())
        lone.until("Promoted")
        lone.order("started")
        lone.until("Started")
        state.write_text("promoted\n")
        until(lambda: state.read_text() == "started\n", what="found promoted on a backup: demoted")
        lone.order("stopped", failed_service="db")
        lone.until("Stopped")
        assert not state.exists() and "failed: db failed" in lone.log()
    finally:
        lone.close()
