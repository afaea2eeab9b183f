"""A real cluster for tests and benchmarks: koinodes on 127.0.0.1 with folders of their own, whose services stamp times.

Every promote and demote appends "TIME HOST ACTION begin|end EPOCH" to one file, by the services' own clock; `overlaps`
reads from it whether two hosts were ever promoted at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from koi.client import Client
from koi.errors import KoiError
from tests.proc.waiting import cmdline

PATIENCE_S = 60.0
"""With a machine that is far too busy: nothing is promised to come within this."""
PORTS = range(12000, 30000)
"""Below those that Linux gives to sockets without a port of their own."""
REPOSITORY = Path(__file__).parents[1]
PASSWORD = "a password for tests only"
T = TypeVar("T")

STAMP = """#!/bin/sh
at=$(date +%s.%N) && echo "$at $KOI_NODE $KOI_ACTION begin $KOI_EPOCH" >> {stamps}
{body}
at=$(date +%s.%N) && echo "$at $KOI_NODE $KOI_ACTION end $KOI_EPOCH" >> {stamps}
"""
"""Whole lines, each by one write; none when `date` is killed a moment before its script."""
NEVER = "1h"
"""bully_delay: a leader that changes by itself in the middle of a test is none of what most of them look at."""


@dataclass(frozen=True)
class Stamp:
    """One line of a script."""

    time: float
    node: str
    action: str
    edge: str
    epoch: str


def free_ports(count: int) -> list[int]:
    """UDP ports that nobody uses, and that the system gives to nobody by itself: a node that starts again finds its own free."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


def until(what: str, condition: Callable[[], Optional[T]], patience: float = PATIENCE_S) -> T:
    """Wait for a condition; AssertionError that names it when it does not come."""
    ends = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < ends, f"not within {patience:g} s: {what}"
        time.sleep(0.02)


def answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a node says; empty when it does not."""
    try:
        return ask()
    except KoiError:
        return {}


def parent(pid: int) -> int:
    """The process id of its parent; 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def tree_of(root: int) -> list[int]:
    """The process ids of a root and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            children.setdefault(parent(int(entry)), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(children.get(pid, ()))
    return found


def beneath(folder: Path) -> dict[int, str]:
    """Every living process that works beneath the folder, whoever its parent is: pid -> command line."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and Path(os.readlink(f"/proc/{entry}/cwd")).is_relative_to(folder):
                found[int(entry)] = cmdline(int(entry))
        except OSError:
            continue
    return found


def send(pids: Iterable[int], signum: int) -> list[int]:
    """A signal to processes that may be gone; those that were not."""
    reached = []
    for pid in pids:
        try:
            os.kill(pid, signum)
            reached.append(pid)
        except ProcessLookupError:
            continue
    return reached


class Node:
    """One koinode."""

    def __init__(self, cluster: RealCluster, name: str, port: int, runner: bool, elector: bool) -> None:
        self.cluster, self.name, self.port, self.runner, self.elector = cluster, name, port, runner, elector
        self.folder = cluster.folder / name
        self.folder.mkdir()
        self.config = self.folder / "koi.conf"
        self.services = self.folder / "services"
        self.services.mkdir()
        self.options: list[str] = []
        """More arguments of koinode."""
        self.before: list[str] = []
        """What calls it."""
        self.process: Optional[subprocess.Popen[bytes]] = None

    @property
    def pid(self) -> int:
        """Of root."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / "log"

    def start(self) -> None:
        """Run koinode."""
        command = [*self.before, sys.executable, "-m", self.cluster.program, "-f", str(self.config), *self.options]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder,
                env=environment,
            )

    def processes(self) -> dict[str, int]:
        """The processes of the tree that live, by their titles: root, elector, runner, service vip ...

        A process that was forked a moment ago has its parent's title still: it is left out.
        """
        titles = {pid: line for pid, line in beneath(self.folder).items() if line.startswith("koinode: ")}
        named = {pid: line[len("koinode: ") :].partition(" [")[0] for pid, line in titles.items()}
        return {name: pid for pid, name in named.items() if pid == self.pid or name != "root" and parent(pid) == self.pid}

    def answers(self) -> bool:
        """Whether root runs, and is not stopped."""
        if self.process is None or self.process.poll() is not None:
            return False
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "Tt"

    def epoch(self) -> Optional[int]:
        """That of the ledger which its elector has accepted, by its state file; None while that is missing or spoilt."""
        try:
            return int(json.loads((self.folder / "state/elector.json").read_text())["ledger"]["epoch"])
        except (OSError, ValueError):
            return None

    def kill_all(self) -> float:
        """SIGKILL to every process of the node, which see nothing of each other's end; the wall time just before."""
        os.kill(self.pid, signal.SIGSTOP)
        pids = tree_of(self.pid)
        send(pids, signal.SIGSTOP)
        began = time.time()
        send(pids, signal.SIGKILL)
        self.cluster.killed.append((self.name, began))
        assert self.process is not None
        self.process.wait()
        self.process = None
        return began

    def kill_koi(self) -> None:
        """SIGKILL to koinode's own processes, which see nothing of each other's end; what the scripts have started lives on."""
        os.kill(self.pid, signal.SIGSTOP)
        own = [self.pid, *(pid for pid in tree_of(self.pid) if cmdline(pid).startswith("koinode: "))]
        send(own, signal.SIGSTOP)
        send(own, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        self.process = None

    def stop(self, patience: float = PATIENCE_S) -> int:
        """Orderly stop; the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(patience)
        self.process = None
        return code

    def client(self, timeout: float = 6.0) -> Client:
        """A client of this node."""
        return Client(str(self.config), timeout=timeout)

    def local(self) -> dict[str, Any]:
        """`koi local`, once it is answered."""
        return until(f"an answer of {self.name}", lambda: answer(self.asker.local))

    @cached_property
    def asker(self) -> Client:
        """A client that is kept, for making its key takes 50 ms."""
        return self.client(timeout=2.0)


class RealCluster:
    """Nodes, electors, one stamp file."""

    template = STAMP
    """What every script is made from."""

    def __init__(self, folder: Path, nodes: str = "abc", electors: Optional[str] = None, runners: Optional[str] = None,
                 failover: str = "1s", extra: str = "", service: str = "", node_extra: Optional[dict[str, str]] = None,
                 program: str = "koi.node", bully_delay: str = NEVER, pace: str = "1s") -> None:
        self.folder, self.program = folder, program
        self._begin()
        electors = nodes if electors is None else electors
        runners = nodes if runners is None else runners
        ports = dict(zip(nodes, free_ports(len(nodes)), strict=True))
        self.nodes = {n: Node(self, n, ports[n], n in runners, n in electors) for n in nodes}
        listed = ", ".join(f'{n}: "127.0.0.1:{ports[n]}"' for n in electors)
        for node in self.nodes.values():
            own = (node_extra or {}).get(node.name, "")
            node.config.write_text(
                f"node:\n  name: {node.name}\n  runner: {str(node.runner).lower()}\n  state_dir: {node.folder}/state\n"
                f"  run_dir: {node.folder}/run\n{own}"
                f"cluster:\n  password: {PASSWORD}\n  port: {node.port}\n  bind: [127.0.0.1]\n  electors: {{{listed}}}\n"
                f"  bully_delay: {bully_delay}\n{extra}"
                f"service:\n  folder: {node.services}\n{service}"
                f"time:\n  failover: {failover}\n  status_interval: {pace}\n  auto_recover_time: {pace}\n"
            )
            node.config.chmod(0o600)

    def _begin(self) -> None:
        self.stamps = self.folder / "stamps"
        self.stamps.touch()
        self.killed: list[tuple[str, float]] = []
        """Each `kill_all` so far, node and wall time: what was promoted there was so until then, by its own word."""

    def __enter__(self) -> RealCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill all that is left: how a node ends in order is the business of the tests that look at it."""
        roots = [node.pid for node in self.nodes.values() if node.process is not None]
        send(roots, signal.SIGSTOP)
        send([pid for root in roots for pid in tree_of(root)], signal.SIGKILL)
        for node in self.nodes.values():
            if node.process is not None:
                node.process.wait()
        until("nothing of the cluster lives", lambda: not send(beneath(self.folder), signal.SIGKILL))

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def script(self, service: str, action: str, body: str = "", nodes: Optional[str] = None) -> None:
        """A script that stamps its begin and end, on all nodes or some."""
        for node in self.nodes.values():
            if node.runner and (nodes is None or node.name in nodes):
                path = node.services / service / action
                path.parent.mkdir(exist_ok=True)
                temporary = path.with_name(f".{action}.new")
                temporary.write_text(self.template.format(stamps=self.stamps, body=body))
                temporary.chmod(0o755)
                temporary.rename(path)

    def start(self) -> None:
        """Start every node."""
        for node in self.nodes.values():
            node.start()

    def stop(self) -> None:
        """End all nodes that run in order, at the same time; whatever their exit codes."""
        running = [node for node in self.nodes.values() if node.process is not None]
        send([node.pid for node in running], signal.SIGTERM)
        for node in running:
            assert node.process is not None
            node.process.wait(PATIENCE_S)
            node.process = None

    def running(self) -> list[Node]:
        """The nodes that run, electors first."""
        return sorted((n for n in self.nodes.values() if n.answers()), key=lambda n: not n.elector)

    def any(self) -> Node:
        """A node that runs, an elector if there is one."""
        return self.running()[0]

    def status(self) -> dict[str, Any]:
        """`koi status`, once somebody answers; see `_status`."""
        return until("an answer to `koi status`", self._status)

    def _status(self) -> dict[str, Any]:
        """The answer of a node that hears a leader, if there is one: one that has just started does not know the cluster yet.
        Empty when nobody answers."""
        found: dict[str, Any] = {}
        for node in self.running():
            status = answer(node.asker.status)
            if status and status["cluster"]["leader"] is not None:
                return status
            found = found or status
        return found

    def master(self) -> Optional[str]:
        """The node that is wholly Master, by the leader's word."""
        status = self.status()
        for node in status["nodes"]:
            if node["state"] == "Master" and status["cluster"]["master"] == node["name"]:
                return str(node["name"])
        return None

    def states(self) -> dict[str, Any]:
        """The state of each node, by the leader's word; None of one that runs no services."""
        return {n["name"]: n["state"] for n in self.status()["nodes"]}

    def wait_state(self, name: str, state: str) -> None:
        """Wait until the leader says so of the node."""
        until(f"{name} is {state}", lambda: self.states().get(name) == state)

    def wait_whole(self) -> str:
        """The master, once every other runner is a backup and every elector stands for the master: any one of them may be lost.

        One that has just started waits out its guard before it does, and until then the loss of another costs the lease.
        """
        backups = ["Backup"] * (sum(node.runner for node in self.nodes.values()) - 1)

        def whole() -> Optional[str]:
            status = self.status()
            epoch, quorum = status["cluster"]["epoch"], status["cluster"]["quorum"]
            stand = quorum["have"] == quorum["electors"] and all(n.epoch() == epoch for n in self.nodes.values() if n.elector)
            states = sorted(n["state"] for n in status["nodes"] if n["state"] is not None)
            return status["cluster"]["master"] if stand and states == [*backups, "Master"] else None

        return until("a master, all others backups, every elector standing for it", whole)

    def wait_master(self, other_than: Optional[str] = None, patience: float = PATIENCE_S) -> str:
        """The master, once there is one."""
        what = "a master" if other_than is None else f"a master other than {other_than}"
        return until(what, lambda: (m := self.master()) and m != other_than and m or None, patience)

    def read_stamps(self) -> list[Stamp]:
        """All stamps so far, by time."""
        lines = [line.split(" ") for line in self.stamps.read_text().splitlines()]
        return sorted((Stamp(float(x[0]), x[1], x[2], x[3], x[4] if len(x) > 4 else "") for x in lines), key=lambda s: s.time)

    def first(self, action: str, edge: str, after: float, node: Optional[str] = None) -> Optional[Stamp]:
        """The first such stamp after a wall time."""
        for stamp in self.read_stamps():
            if stamp.time >= after and (stamp.action, stamp.edge) == (action, edge) and node in (None, stamp.node):
                return stamp
        return None

    def overlaps(self, killed: Iterable[tuple[str, float]] = ()) -> list[str]:
        """Moments with two hosts promoted: from begin of promote to end of demote, or to when the host was killed."""
        ends = [Stamp(at, name, "killed", "end", "") for name, at in killed]
        active: dict[str, float] = {}
        found = []
        for stamp in sorted([*self.read_stamps(), *ends], key=lambda s: s.time):
            if (stamp.action, stamp.edge) == ("promote", "begin"):
                found += [f"{stamp.node} begins promote at {stamp.time:.3f} while {other} is promoted" for other in active
                          if other != stamp.node]
                active[stamp.node] = stamp.time
            elif (stamp.action, stamp.edge) in (("demote", "end"), ("stop", "end"), ("killed", "end")):
                active.pop(stamp.node, None)
        return found
