"""A real cluster for tests and benchmarks: koinodes on 127.0.0.1 with folders of their own, whose services stamp times.

Every promote and demote appends "TIME HOST ACTION begin|end EPOCH" to one file, by the services' own clock; `overlaps`
reads from it whether two hosts were ever promoted at once.
"""

from __future__ import annotations

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

PATIENCE_S = 30.0
PORTS = range(12000, 30000)
"""Below those that Linux gives to sockets without a port of their own."""
REPOSITORY = Path(__file__).parents[1]
PASSWORD = "a password for tests only"
T = TypeVar("T")

STAMP = """#!/bin/sh
echo "$(date +%s.%N) $KOI_NODE $KOI_ACTION begin $KOI_EPOCH" >> {stamps}
{body}
echo "$(date +%s.%N) $KOI_NODE $KOI_ACTION end $KOI_EPOCH" >> {stamps}
"""


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


def tree_of(root: int) -> list[int]:
    """The process ids of a root and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
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
                line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry)] = line.decode(errors="replace").strip()
        except OSError:
            continue
    return found


def send(pids: Iterable[int], signum: int) -> None:
    """A signal to processes that may be gone."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


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
        command = [sys.executable, "-m", self.cluster.program, "-f", str(self.config), *self.options]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder,
                env=environment,
            )

    def processes(self) -> dict[str, int]:
        """The processes of the tree that live, by their titles: root, elector, runner, service vip ..."""
        titles = {pid: line for pid, line in beneath(self.folder).items() if line.startswith("koinode: ")}
        return {line[len("koinode: ") :].partition(" [")[0]: pid for pid, line in titles.items()}

    def answers(self) -> bool:
        """Whether root runs, and is not stopped."""
        if self.process is None or self.process.poll() is not None:
            return False
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "Tt"

    def kill_all(self) -> float:
        """SIGKILL to every process of the node, which see nothing of each other's end; the wall time just before."""
        os.kill(self.pid, signal.SIGSTOP)
        pids = tree_of(self.pid)
        send(pids, signal.SIGSTOP)
        began = time.time()
        send(pids, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        self.process = None
        return began

    def kill_koi(self) -> None:
        """SIGKILL to koinode's own processes; what the services' scripts have started lives on."""
        for pid in tree_of(self.pid):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                if title.startswith(b"koinode: ") or pid == self.pid:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
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
        """`koi local`."""
        return self.asker.local()

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
                 program: str = "koi.node") -> None:
        self.folder, self.program = folder, program
        self.stamps = folder / "stamps"
        self.stamps.touch()
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
                f"cluster:\n  password: {PASSWORD}\n  port: {node.port}\n  bind: [127.0.0.1]\n  electors: {{{listed}}}\n{extra}"
                f"service:\n  folder: {node.services}\n{service}"
                f"time:\n  failover: {failover}\n  status_interval: 1s\n  auto_recover_time: 1s\n"
            )
            node.config.chmod(0o600)

    def __enter__(self) -> RealCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        for node in self.nodes.values():
            if node.process is not None:
                send(tree_of(node.pid), signal.SIGCONT)
                node.process.terminate()
        for node in self.nodes.values():
            if node.process is not None:
                try:
                    node.process.wait(10)
                except subprocess.TimeoutExpired:
                    node.kill_all()
        send(beneath(self.folder), signal.SIGKILL)  # what is left as it is in maintenance

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

    def any(self) -> Node:
        """A node that runs, an elector if there is one."""
        alive = [n for n in self.nodes.values() if n.answers()]
        return sorted(alive, key=lambda n: not n.elector)[0]

    def status(self) -> dict[str, Any]:
        """`koi status`, empty while nobody answers."""
        try:
            return self.any().asker.status()
        except (KoiError, IndexError):
            return {}

    def master(self) -> Optional[str]:
        """The node that is wholly Master, by the leader's word."""
        status = self.status()
        for node in status.get("nodes", ()):
            if node["state"] == "Master" and status["cluster"]["master"] == node["name"]:
                return str(node["name"])
        return None

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

    def overlaps(self, killed: tuple[tuple[str, float], ...] = ()) -> list[str]:
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
