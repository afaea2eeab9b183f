"""systemd's side of koinode: the notify socket, the watchdog that a stopped root does not feed, and the unit file."""

from __future__ import annotations

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

from tests.cluster import REPOSITORY, Node, RealCluster, beneath, until

UNIT = REPOSITORY / "init" / "koinode.service"
WATCHDOG_S = 1.0


class Manager:
    """The socket that systemd listens on."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))

    def next(self, seconds: float = 10.0) -> str:
        """The next word; TimeoutError when none comes."""
        self.socket.settimeout(seconds)
        return self.socket.recv(4096).decode()

    def drain(self) -> None:
        """Forget what has come."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            return


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.socket.close()


@pytest.fixture
def node(tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """One real koinode as systemd starts it."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    with RealCluster(tmp_path, nodes="a") as cluster:
        cluster.script("10-vip", "start", 'echo "socket is ${NOTIFY_SOCKET:-hidden}"')
        cluster.start()
        yield cluster["a"]


def test_it_tells_ready_then_that_it_lives_and_that_it_stops(node: Node, manager: Manager) -> None:
    words = [manager.next()]
    while "READY=1" not in words:
        words.append(manager.next())
    assert {"root", "elector", "runner"} <= set(node.processes()), "ready only once the node is up"
    until("its script runs", lambda: "start: socket is hidden" in node.log.read_text())
    manager.drain()
    assert [manager.next(WATCHDOG_S) for _ in range(4)] == ["WATCHDOG=1"] * 4
    os.kill(node.pid, signal.SIGSTOP)
    until("it is stopped", lambda: not node.answers())
    manager.drain()
    with pytest.raises(TimeoutError):
        manager.next(WATCHDOG_S)
    os.kill(node.pid, signal.SIGCONT)
    assert manager.next(WATCHDOG_S) == "WATCHDOG=1"
    os.kill(node.pid, signal.SIGTERM)
    while manager.next() != "STOPPING=1":
        pass
    assert node.process is not None and node.process.wait(10) == 0 and beneath(node.folder) == {}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_understood_whole(tmp_path: Path) -> None:
    text = UNIT.read_text()
    unit = tmp_path / "koinode.service"
    unit.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", text))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    told = [line for line in done.stderr.splitlines() if "koinode" in line]
    assert (done.returncode, told) == (0, []), done.stderr
    assert "Type=notify" in text and "KillMode=process" in text and "WatchdogSec=" in text and "Restart=always" in text
