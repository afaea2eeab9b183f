"""node.watchdog on stand-ins, for a test machine must not be reset: a FIFO that records what is written, when, and how it is
closed; a pty, on which the kernel knows no ioctl of a watchdog either; and an ioctl that answers as such a driver does.
The real device is not tried here."""

from __future__ import annotations

import errno
import math
import os
import pty
import signal
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from koi import log
from koi.core.messages import ENDING, MAINTENANCE, STUCK, ServiceInfo, State, Vouch
from koi.core.pipe import Heritage, ServiceState
from koi.core.timing import usable
from koi.proc import watchdog
from koi.proc.runner import RunnerProcess, exposed
from koi.proc.watchdog import WDIOC_GETTIMEOUT, WDIOC_SETTIMEOUT, Watchdog
from tests.cluster import RealCluster, until
from tests.core.test_reporting import runner
from tests.proc.waiting import state


class Recorder:
    """The reading end of a FIFO that stands in for the device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> bytes:
        """What was written since the last call; empty when nothing was, or nobody has it open."""
        try:
            return os.read(self.fd, 65536)
        except BlockingIOError:
            return b""


@pytest.fixture
def device(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "watchdog")


def test_it_writes_only_as_long_as_the_lease_runs(device: Recorder) -> None:
    dog = Watchdog(str(device.path), 1.0, 1.0)
    dog.look(10.0, None)
    assert device.read() == b"\0" and dog.timeout is None
    dog.look(10.1, None)
    assert device.read() == b"" and dog.due == 10.5
    dog.look(10.5, 10.6)
    assert device.read() == b"\0"
    dog.look(11.0, 10.6)
    assert device.read() == b""
    dog.look(11.5, float("inf"))
    assert device.read() == b"\0"
    dog.close()
    assert device.read() == b"V"


def test_with_a_timeout_it_is_reset_before_another_node_may_be_promoted(device: Recorder) -> None:
    dog = Watchdog(str(device.path), 1.5, 1.0)
    dog.look(0.0, None)
    device.read()
    dog.timeout = 2.0
    for end, written in ((1.5, b"\0"), (1.0, b""), (0.6, b"")):
        dog.due = 0.0
        dog.look(0.5, end)
        assert device.read() == written, end
    dog.close()


def test_the_electors_grace_counts_when_it_is_shorter_than_ours(device: Recorder) -> None:
    dog = Watchdog(str(device.path), 1.5, 1.0)
    dog.look(0.0, None)
    device.read()
    dog.timeout = 2.0
    for grace, written in ((float("inf"), b"\0"), (2.0, b"\0"), (1.0, b"\0"), (0.9, b"")):
        dog.due = 0.0
        dog.look(0.5, 1.5, grace)
        assert device.read() == written, grace
    dog.close()


def test_a_device_that_breaks_or_is_missing_is_told_and_tried_again(device: Recorder) -> None:
    dog = Watchdog(str(device.path), 1.0, 1.0)
    os.close(device.fd)
    dog.look(1.0, None)
    assert "cannot be opened" in dog.trouble and str(device.path) in dog.trouble
    device.fd = os.open(device.path, os.O_RDONLY | os.O_NONBLOCK)
    dog.look(dog.due, None)
    assert dog.trouble == "" and device.read() == b"\0"
    os.close(device.fd)
    dog.look(dog.due, None)
    assert "cannot be written" in dog.trouble
    assert Watchdog("/nowhere/dog", 1.0, 1.0).trouble == ""


# --- the device's timeout ---------------------------------------------------------------------


def number(direction: int, command: int) -> int:
    """_IOC of linux/ioctl.h for linux/watchdog.h: direction 2 reads, 3 reads and writes; type W; an int."""
    return direction << 30 | struct.calcsize("i") << 16 | ord("W") << 8 | command


class Driver:
    """ioctl of a driver as Documentation/watchdog/watchdog-api.rst has it: SETTIMEOUT gives back what it really takes."""

    def __init__(self, takes: dict[int, int] | None, has: int | None) -> None:
        self.takes, self.has = takes, has
        self.asked: list[tuple[int, int]] = []

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        os.fstat(fd)
        wanted = struct.unpack("i", argument)[0]
        self.asked.append((request, wanted))
        if request == WDIOC_SETTIMEOUT and self.takes is not None and wanted in self.takes:
            return struct.pack("i", self.takes[wanted])
        if request == WDIOC_SETTIMEOUT and self.takes is not None:
            raise OSError(errno.EINVAL, "out of range")
        if request == WDIOC_GETTIMEOUT and self.has is not None:
            return struct.pack("i", self.has)
        raise OSError(errno.ENOTTY, "no such ioctl")


@pytest.mark.parametrize(("takes", "has", "timeout", "late"), [
    ({2: 2}, 60, 2.0, False), ({2: 10}, 10, 10.0, True), ({}, 60, 60.0, True), (None, 1, 1.0, False), (None, None, None, False),
])
def test_the_longest_timeout_below_the_guard_is_asked_for(
    device: Recorder, monkeypatch: pytest.MonkeyPatch, takes: dict[int, int] | None, has: int | None, timeout: float | None,
    late: bool,
) -> None:
    driver, said = Driver(takes, has), []
    monkeypatch.setattr(watchdog.fcntl, "ioctl", driver.ioctl)
    monkeypatch.setattr(log, "get", lambda: type("Said", (), {"warning": staticmethod(said.append)}))
    dog = Watchdog(str(device.path), 1.56, 1.14)
    dog.look(10.0, None)
    assert driver.asked[0] == (WDIOC_SETTIMEOUT, 2) and dog.timeout == timeout
    assert [("only 10 s" in text or "only 60 s" in text) for text in said] == [True] * late
    assert dog.due == 10.0 + (timeout or 2.7) / 4, "written four times within the timeout"
    dog.close()


def test_the_requests_are_those_of_the_kernel() -> None:
    assert (number(3, 6), number(2, 7)) == (WDIOC_SETTIMEOUT, WDIOC_GETTIMEOUT)


def test_on_a_terminal_it_writes_the_same() -> None:
    """Another kind of device, with the kernel's own refusal of the ioctl."""
    ours, theirs = pty.openpty()
    dog = Watchdog(os.ttyname(theirs), 1.0, 1.0)
    dog.look(1.0, None)
    dog.look(2.0, 3.0)
    dog.close()
    assert dog.trouble == "" and dog.timeout is None
    written = b""
    while len(written) < 3:  # a terminal hands on what was written in its own time, and in pieces
        written += os.read(ours, 100)
    assert written == b"\0\0V"
    os.close(ours)
    os.close(theirs)


def test_in_maintenance_a_machine_is_not_reset_for_what_a_dead_tree_left() -> None:
    """Nobody demotes it then, and no other node is promoted; it was fed only as long as a lease ran, and there is none."""
    one = runner(Heritage(("old",), None, 7, unclean=True))
    one.start(100.0)
    assert exposed(one), "it must be demoted in time"
    for hold, is_exposed in ((MAINTENANCE, False), (ENDING, True)):
        version = (1, 2 if hold == MAINTENANCE else 3)
        one.receive("a", State("boot-of-x", 1, version, leader="a", master="x", epoch=7, hold=hold), 100.1)
        assert one.left and exposed(one) is is_exposed


def looked(machine: Any, now: float) -> Any:
    """Until when the watchdog of this runner is fed; None: in any case."""
    looks: list[tuple[Any, ...]] = []
    shell = SimpleNamespace(
        machine=machine, context=SimpleNamespace(cell=SimpleNamespace(grace=0.5)),
        watchdog=SimpleNamespace(look=lambda *words: looks.append(words), trouble=""),
    )
    RunnerProcess._write_watchdog(shell, now)  # type: ignore[arg-type]
    [(_, until, _)] = looks
    return until


def test_it_is_fed_while_electors_vouch_for_what_was_left() -> None:
    one = runner(Heritage(("old",), None, 7, unclean=True))
    one.start(100.0)
    for name, until_s in (("a", 0.0), ("b", 100.0 + usable(1.0))):
        one.receive(name, Vouch(7, (1, 2), "boot-of-x", 1, 1.0, 0.5, hold=STUCK), 100.1)
        assert looked(one, 100.1) == until_s


def test_in_maintenance_a_master_is_not_reset_because_nobody_hears_it() -> None:
    """Found: the end of the last lease counted, although a hold kept all others away: network work in maintenance reset it."""
    one = runner(Heritage(("old",), 7, None, lease_end=101.0), maintenance=True)
    one.start(100.0)
    assert looked(one, 100.1) == 101.0
    for name in "ab":
        one.receive(name, Vouch(7, (1, 2), "boot-of-x", 1, 1.0, 0.5, hold=MAINTENANCE), 100.2)
    one.handle_timer(200.0)
    assert looked(one, 200.0) == math.inf


def test_a_machine_is_not_reset_for_a_stop_that_takes_its_time_once_all_is_demoted() -> None:
    """Found: a backup whose koinode had been killed was reset, although nothing on it was active, because `stop` was slow."""
    one = runner(Heritage(("old",), None, 7, unclean=True))
    one.start(100.0)
    for told, is_exposed in (
        (ServiceState(ServiceInfo("vip", 10, "Demoting"), promoted=True, clean=False), True),
        (ServiceState(ServiceInfo("vip", 10, "Stopping"), promoted=False, clean=False), False),
        (ServiceState(ServiceInfo("vip", 10, "Failed", failed=True), promoted=True, stuck=True, clean=False), True),
    ):
        one.service(told, 100.1)
        assert one.left and exposed(one) is is_exposed, told


# --- a real node ------------------------------------------------------------------------------


def cluster_with(path: Path, folder: Path, failover: str = "1s") -> RealCluster:
    cluster = RealCluster(folder, runners="a", failover=failover, node_extra={"a": f"  watchdog: {path}\n"})
    for action in ("start", "stop", "promote", "demote"):
        cluster.script("10-vip", action)
    return cluster


def test_a_master_feeds_it_until_it_cannot_be_master_any_more(device: Recorder, tmp_path: Path) -> None:
    with cluster_with(device.path, tmp_path, failover="3s") as cluster:  # a worker on a busy machine demotes within the grace
        cluster.start()
        until("opened before the first promote", device.read)
        assert cluster.first("promote", "begin", 0.0) is None
        cluster.wait_master()
        device.read()
        until("it is fed", device.read)
        runner = cluster["a"].processes()["runner"]
        os.kill(runner, signal.SIGKILL)
        until("a new runner", lambda: cluster["a"].processes().get("runner", runner) != runner)
        assert b"V" not in until("it is fed by the new one", device.read)
        processes = cluster["a"].processes()
        for name in ("root", "runner"):
            os.kill(processes[name], signal.SIGSTOP)
        until("both are stopped", lambda: all(state(processes[name]) == "T" for name in ("root", "runner")))
        device.read()
        frozen = time.time()
        until("the worker demotes", lambda: cluster.first("demote", "end", frozen))
        assert device.read() == b""
        for name in ("runner", "root"):
            os.kill(processes[name], signal.SIGCONT)
        until("fed again", device.read)
        assert cluster["a"].stop() == 0
        assert until("closed in order", device.read).endswith(b"V")


def test_without_the_device_a_node_is_not_promotable_and_says_why(tmp_path: Path) -> None:
    with cluster_with(tmp_path / "missing", tmp_path) as cluster:
        cluster.start()
        until("it says why", lambda: "missing cannot be opened: No such file" in str(cluster.status()["nodes"]))
        assert not [n for n in cluster.status()["nodes"] if n["promotable"]]
        assert "this node is not promotable without it" in cluster["a"].log.read_text()
        assert cluster.first("promote", "begin", 0.0) is None
