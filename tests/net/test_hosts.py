"""The harness itself: nothing of it stays when a test fails or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.cluster import until
from tests.net.hosts import PREFIX, Hosts, needs_namespaces, run, sweep

pytestmark = needs_namespaces
HANG = "import time\nfrom tests.net.hosts import Hosts\nwith Hosts('ab'):\n    print('up', flush=True)\n    time.sleep(60)\n"


def test_a_failing_test_leaves_neither_namespaces_nor_processes() -> None:
    with pytest.raises(RuntimeError), Hosts("ab") as hosts:
        sleeper = subprocess.Popen(hosts.command("a", "sleep", "60"))
        until("it runs on the host", lambda: str(sleeper.pid) in run("ip", "netns", "pids", hosts.namespace("a")).split())
        raise RuntimeError
    assert sleeper.wait(10) == -signal.SIGKILL
    assert f"{PREFIX}{os.getpid()}" not in run("ip", "netns", "list")
    assert not [name for name in os.listdir("/etc/netns") if name.startswith(f"{PREFIX}{os.getpid()}")]


def test_what_a_killed_test_left_is_swept_by_the_next() -> None:
    with subprocess.Popen([sys.executable, "-c", HANG], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"up\n"
        killed.kill()
    assert f"{PREFIX}{killed.pid}a" in run("ip", "netns", "list")
    sweep()
    until("nothing is left", lambda: f"{PREFIX}{killed.pid}" not in run("ip", "netns", "list"))
