"""The cluster of `koi demo`: a temporary folder, a configuration for each node, its koinode as a process of its own.

The rule it keeps: everything it makes is inside the folder or descends from what it started, so that `close` leaves nothing.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import koi
from koi.client import Client
from koi.core.data import dataclass
from koi.demo_processes import kill, wait_for_end
from koi.errors import KoiError
from koi.proc.system import die_with_parent

NAMES = "abcdefghi"
MAX_ELECTORS = 5
FAILOVER_S = 3
CLUSTER_ID = 13
LOWEST_PORT, PORT_TRIES = 20000, 1000
STOP_S = 20.0
"""How long a node may take to demote and stop its services when the demo ends."""
CLIENT_S = 3.0
"""The longest silence of a client of the demo."""
LOG_LINES = 5

CONFIG = """\
# Node {name} of a cluster made by `koi demo`. It is gone when the demo ends.
node:
  name: {name}
  state_dir: {folder}/state
  run_dir: {folder}/run
cluster:
  id: {id}
  password: {password}
  port: {port}
  bind: [127.0.0.1]
  electors:
{electors}
service:
  folder: {folder}/services
time:
  failover: {failover}s
"""


@dataclass
class Node:
    """One node: its folder, its ports, its koinode once it runs."""

    name: str
    folder: str
    port: int
    web_port: int
    client: Client | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> str:
        """The path of its configuration."""
        return os.path.join(self.folder, "koi.conf")

    @property
    def log(self) -> str:
        """The path of its log."""
        return os.path.join(self.folder, "log")

    @property
    def running(self) -> bool:
        """Whether its koinode lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def koi(self) -> Client:
        """A client that asks this node."""
        if self.client is None:
            self.client = Client(self.config, timeout=CLIENT_S)
        return self.client


class Cluster:
    """Nodes a, b, c ... on 127.0.0.1, each with a copy of the sample services. Who makes one calls `close`."""

    def __init__(self, size: int) -> None:
        ports = _free_ports(2 * size)
        self.folder = tempfile.mkdtemp(prefix="koi-demo-")
        self.nodes = [
            Node(name, os.path.join(self.folder, name), ports[2 * i], ports[2 * i + 1]) for i, name in enumerate(NAMES[:size])
        ]
        self.electors = self.nodes[: electors_of(size)]

    @property
    def holder(self) -> str:
        """The file that stands for the address that only one node may have: it holds the name of the node that has it."""
        return os.path.join(self.folder, "shared", "address")

    def node(self, name: str) -> Node:
        """The node of this name."""
        return next(node for node in self.nodes if node.name == name)

    def prepare(self) -> None:
        """Writes each node's folder: configuration and services."""
        password = secrets.token_hex(24)
        os.mkdir(os.path.dirname(self.holder))
        for node in self.nodes:
            self._write(node, password)

    def start(self, node: Node) -> None:
        """Starts the koinode of a node, in a session of its own so that Ctrl-C reaches the demo alone; it ends with the demo."""
        command = [sys.executable, "-m", "koi.node", "-f", node.config, "--log", "console", "-C"]
        with open(node.log, "ab") as log:
            node.process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment(node), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )

    def check(self) -> None:
        """Raises KoiError with the end of its log when a node that was started has ended by itself."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is not None:
                code, end = node.process.returncode, _tail(node.log)
                raise KoiError(f"the koinode of node {node.name} has ended with exit code {code}; its log ends:\n{end}")

    def kill(self, node: Node) -> int:
        """SIGKILL to every process of a node; how many there were."""
        killed = kill(node.folder, node.process.pid if node.process else None)
        if node.process is not None:
            node.process.wait(STOP_S)
            node.process = None
        return killed

    def close(self) -> None:
        """Ends every process in order, kills what does not end, removes the folder. May be called again."""
        for node in self.nodes:
            if node.running and node.process is not None:
                node.process.send_signal(signal.SIGTERM)
        wait_for_end([node.process for node in self.nodes if node.process is not None], STOP_S)
        for node in self.nodes:
            self.kill(node)
            if node.client is not None:
                node.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.path.exists(self.folder):
            raise KoiError(f"{self.folder} cannot be removed; remove it by hand")

    def _write(self, node: Node, password: str) -> None:
        os.mkdir(node.folder)
        shutil.copytree(_samples(), os.path.join(node.folder, "services"))
        electors = "\n".join(f'    {n.name}: "127.0.0.1:{n.port}"' for n in self.electors)
        text = CONFIG.format(
            name=node.name, folder=node.folder, id=CLUSTER_ID, password=password, port=node.port, electors=electors,
            failover=FAILOVER_S,
        )
        descriptor = os.open(node.config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)

    def _environment(self, node: Node) -> dict[str, str]:
        package = os.path.dirname(os.path.dirname(os.path.abspath(koi.__file__)))
        path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH", "")) if p)
        known = {k: v for k, v in os.environ.items() if not k.startswith("KOI_")}
        shared = os.path.dirname(self.holder)
        return {**known, "PYTHONPATH": path, "KOI_DEMO_DIR": shared, "KOI_DEMO_WEB_PORT": str(node.web_port)}


def electors_of(size: int) -> int:
    """How many of so many nodes vote: an odd number where that is possible, for an even one bears no more losses."""
    return size if size < 3 else min(MAX_ELECTORS, size - 1 + size % 2)


def _samples() -> str:
    return os.path.join(os.path.dirname(os.path.abspath(koi.__file__)), "share", "demo")


def _tail(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-LOG_LINES:]).rstrip()
    except OSError as error:
        return f"({path}: {error.strerror})"


def _free_ports(number: int) -> list[int]:
    """Ports that neither UDP nor TCP uses on 127.0.0.1, below those that the system gives to anybody who asks."""
    found: list[int] = []
    for port in random.sample(range(LOWEST_PORT, _first_given_port()), PORT_TRIES):
        if _free(port, socket.SOCK_DGRAM) and _free(port, socket.SOCK_STREAM):
            found.append(port)
        if len(found) == number:
            return found
    raise KoiError("no free ports on 127.0.0.1")


def _first_given_port() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            first = int(file.read().split()[0])
    except (OSError, ValueError):
        first = 32768
    return first if first >= LOWEST_PORT + 2 * PORT_TRIES else 65536


def _free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
