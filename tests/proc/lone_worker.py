"""A real worker under a test that plays root and runner: forked, with a real pipe, lease cell, configuration and folder."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any, Optional

from koi import config as configuration
from koi import log
from koi.core.pipe import Announce, Failure, Order, ServiceState
from koi.proc import worker
from koi.proc.cell import LeaseCell
from koi.proc.child import Context, live, reset_signals, worker_name
from koi.proc.link import Link, loads, pair
from koi.proc.loop import Loop, now
from koi.service import catalog, leftovers
from tests.proc.waiting import state as proc_state
from tests.proc.waiting import until


class Lone:
    """One service's folder, and the workers that this test gives it one after the other."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.services = folder / "services"
        self.service = self.services / "10-db"
        self.service.mkdir(parents=True)
        self.notes = folder / "notes"
        self.text = f"node: {{name: a, state_dir: {folder}/s, run_dir: {folder}/r{more.pop('node', '')}}}\n"
        self.text += "cluster: {password: 0123456789abcdefghijklmnop}\n"
        self.text += f"service: {{folder: {self.services}{more.pop('service', '')}}}\n"
        self.text += f"time: {{failover: {more.pop('failover', '3s')}, status_interval: {more.pop('status_interval', '1h')}}}\n"
        self.cell = LeaseCell()
        self.link: Optional[Link] = None
        self.pid: Optional[int] = None
        self.said: list[Any] = []
        self.pids: list[int] = []

    def script(self, name: str, text: str = "") -> Path:
        """Write a script; each notes its action, the promoted flag and the epoch before its own text."""
        path = self.service / name
        path.write_text(f'#!/bin/sh\necho "$KOI_ACTION $KOI_IS_PROMOTED $KOI_EPOCH" >> {self.notes}\n{text}\n')
        path.chmod(0o755)
        return path

    def scripts(self, *names: str) -> None:
        """Write several that only note."""
        for name in names:
            self.script(name)

    def fork(self, **more: Any) -> int:
        """Start a worker as root does, by default one whose runner has said that there is no maintenance; its pid."""
        more.setdefault("frozen", False)
        if self.link is not None:
            self.link.close()
        config = configuration.loads(self.text.encode(), str(self.folder / "koi.conf"))
        definition = catalog.scan(str(self.services)).definitions[0]
        ours, theirs = pair()
        pid = os.fork()
        if pid == 0:
            ours.close_copy()
            log.setup(f"file:{self.folder}/log", "worker", "a", "debug", False)
            reset_signals()
            context = Context(config, worker_name("db"), theirs, Loop(), self.cell, **more)
            context.definitions, context.definition = (definition,), definition
            live(context, worker.main)
        theirs.close_copy()
        self.link, self.pid = ours, pid
        self.pids.append(pid)
        self.definition = definition
        return pid

    def respawn(self) -> int:
        """SIGKILL to the worker, and a new one that gets what the old one said last, as root does."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        last = self.last()
        self.said.clear()
        return self.fork(respawned=True, last=last)

    def hear(self) -> list[Any]:
        """Everything that was said to the runner."""
        if self.link is not None:
            self.said += [loads(body) for to, body in self.link.receive() if to == "runner"]
        return self.said

    def last(self) -> Optional[ServiceState]:
        """The last state that was told."""
        return next((one for one in reversed(self.hear()) if isinstance(one, ServiceState)), None)

    def failures(self) -> list[Failure]:
        """The failures that were told."""
        return [one for one in self.hear() if isinstance(one, Failure)]

    def order(self, goal: str, **more: Any) -> None:
        """The runner's order."""
        self.send(Order("db", goal, 7, "a", "Backup", **more))

    def send(self, message: Any) -> None:
        """A message to the worker."""
        assert self.link is not None
        self.link.send("service:db", message)

    def lease(self, seconds: float) -> None:
        """The lease ends so many seconds from now."""
        self.cell.write(now() + seconds)

    def until(self, state: str, seconds: float = 15.0) -> ServiceState:
        """Wait until the service is in the state and no script runs."""

        def reached() -> Optional[ServiceState]:
            last = self.last()
            return last if last is not None and last.info.state == state and last.info.action is None else None

        try:
            found = until(reached, seconds, state)
        except AssertionError as error:
            lives = None if self.pid is None else proc_state(self.pid)
            raise AssertionError(f"{error}; last: {self.last()}; its process is {lives}; log: {self.log()[-2000:]}") from None
        assert found is not None
        return found

    def exit(self, seconds: float = 15.0) -> int:
        """Wait for the end of the worker; its exit code."""
        pid, self.pid = self.pid, None
        assert pid is not None
        status = until(lambda: _ended(pid), seconds, f"the worker to end; log: {self.log()[-2000:]}")
        assert status is not None
        return os.waitstatus_to_exitcode(status[1])

    def log(self) -> str:
        """What the worker logged."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def noted(self) -> list[str]:
        """What the scripts noted: action, promoted flag, epoch."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def actions(self) -> list[str]:
        """The actions that were run, in order."""
        return [line.split()[0] for line in self.noted()]

    def wakeups(self) -> int:
        """How often the worker has waited for something so far."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

    def close(self) -> None:
        """End all that is left."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        leftovers.kill(leftovers.Mark(str(self.services), "db", "a", 13))
        if self.link is not None:
            self.link.close()


def _ended(pid: int) -> Optional[tuple[int, int]]:
    found, value = os.waitpid(pid, os.WNOHANG)
    return (found, value) if found else None


def promoted(lone: Lone) -> Lone:
    """The same, with a worker that is promoted under a lease without end."""
    lone.fork()
    lone.lease(math.inf)
    lone.order("promoted")
    lone.until("Promoted")
    return lone


def ends(lone: Lone, seconds: float = 0.2) -> None:
    """The lease, which was unlimited, ends soon; the worker reads that when it wakes."""
    lone.lease(seconds)
    lone.send(Announce())
