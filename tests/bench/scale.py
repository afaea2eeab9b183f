"""What a leader costs as runners and services grow.

Three real koinodes vote; the runners are light simulated peers: the real core of a runner with services that obey at
once, each with a socket of its own, all in this one process, over real UDP on loopback. Measured: CPU of the leader's
elector process (share of one core), bytes and datagrams a second that reach it and leave it, the size of a steady
report, how long the leader takes to show a change of a service, and how long a lost master is replaced. By number of
services, each runner changes one service twice a second, for else no list of them travels.
"""

from __future__ import annotations

import os
import select
import statistics
import tempfile
from pathlib import Path
from typing import Any, Optional

from koi.core.effects import Send, Tell
from koi.core.messages import ServiceInfo, State, Vouch
from koi.core.pipe import Heritage, Order, ServiceState
from koi.core.recovery import Recovery
from koi.core.runner import Runner, RunnerSettings
from koi.core.timing import derive
from koi.proc.loop import now
from koi.wire.codec import encode
from koi.wire.seal import HEADER, TAG, Opener, Sealer
from koi.wire.udp import Endpoint
from tests.bench.rows import Row
from tests.cluster import RealCluster, until
from tests.net.hostile import CLUSTER, KEY

SERVICES = 10
FAILOVER_S = 3.0
RUNNERS = (3, 10, 30, 100)
MANY_SERVICES = (1, 10, 100)
FEW_RUNNERS = 3
SECONDS = 8.0
SHARE = 0.5
"""A simulated peer changes one of its services after so many seconds, and back, so that lists travel too."""


class Peer:
    """One simulated runner."""

    def __init__(self, name: str, electors: dict[str, tuple[str, int]], services: int) -> None:
        self.name, self.electors = name, electors
        boot = os.urandom(16)
        self.endpoint = Endpoint(("127.0.0.1",), 0, Sealer(KEY, CLUSTER, boot), Opener(KEY, CLUSTER), name)
        settings = RunnerSettings(name, boot.hex(), tuple(electors), len(electors) // 2 + 1, port=1, release="bench")
        priorities: dict[str, Optional[int]] = {f"service{i}": i for i in range(services)}
        self.machine = Runner(settings, derive(FAILOVER_S), priorities, Recovery(1, 1, 1, 1), Heritage(), now())
        self.pids: dict[str, int] = {}
        self.bytes = self.sent = self.largest = 0

    def start(self) -> None:
        """Its workers say that everything is stopped."""
        self.carry_out(self.machine.start(now()))
        for service in self.machine.priorities:
            self.become(service, "Stopped", False)

    def become(self, service: str, state: str, promoted: bool) -> None:
        """A worker's word."""
        info = ServiceInfo(service, self.machine.priorities[service], state, pid=self.pids.get(service))
        self.carry_out(self.machine.service(ServiceState(info, promoted), now()))

    def receive(self) -> None:
        """Answers of electors."""
        for _, sender, message, _ in self.endpoint.receive():
            if isinstance(message, (Vouch, State)):
                self.carry_out(self.machine.receive(sender, message, now()))

    def tick(self, at: float) -> None:
        """What is due."""
        self.machine.root_seen(at)
        if at >= self.machine.deadline():
            self.carry_out(self.machine.handle_timer(at))

    def carry_out(self, effects: list[Any]) -> None:
        """Reports are sent, orders are obeyed at once."""
        for effect in effects:
            if isinstance(effect, Send):
                size = HEADER.size + TAG + len(encode(self.name, effect.message))
                self.bytes, self.sent, self.largest = self.bytes + size, self.sent + 1, max(self.largest, size)
                self.endpoint.send(self.electors[effect.to], effect.message)
            elif isinstance(effect, Tell) and isinstance(effect.message, Order):
                goal = effect.message.goal.capitalize()
                self.become(effect.message.service, goal, goal == "Promoted")


class Crowd:
    """All peers of one measurement, served from one place."""

    def __init__(self, count: int, electors: dict[str, tuple[str, int]], services: int) -> None:
        self.peers = [Peer(f"r{number:04d}", electors, services) for number in range(count)]
        self.poll = select.epoll()
        self.by_fd = {fd: peer for peer in self.peers for fd in peer.endpoint.filenos()}
        for fd in self.by_fd:
            self.poll.register(fd, select.EPOLLIN)
        for peer in self.peers:
            peer.start()

    def serve(self, seconds: float) -> None:
        """Live on."""
        ends = now() + seconds
        while (at := now()) < ends:
            due = min(peer.machine.deadline() for peer in self.peers)
            for fd, _ in self.poll.poll(min(max(0.0, due - at), max(0.0, ends - at)) + 0.0005):
                if fd in self.by_fd:
                    self.by_fd[fd].receive()
            at = now()
            for peer in self.peers:
                peer.tick(at)

    def serve_until(self, condition: Any, patience: float = 30.0) -> float:
        """Live on until the condition holds; seconds it took."""
        began = now()
        while not condition():
            assert now() - began < patience, "not in time"
            self.serve(0.002)
        return now() - began

    def master(self) -> Peer | None:
        """The peer that holds an epoch and has promoted everything."""
        return next((peer for peer in self.peers if peer.machine.state == "Master"), None)

    def stir(self) -> None:
        """Each peer has a service whose pid is another one."""
        for peer in self.peers:
            peer.pids["service0"] = peer.pids.get("service0", 0) + 1
            promoted = peer.machine.state == "Master"
            peer.become("service0", "Promoted" if promoted else "Started", promoted)

    def remove(self, peer: Peer) -> None:
        """It is gone without a word."""
        for fd in peer.endpoint.filenos():
            self.poll.unregister(fd)
            self.by_fd.pop(fd)
        peer.endpoint.close()
        self.peers.remove(peer)

    def close(self) -> None:
        """The end."""
        for peer in list(self.peers):
            self.remove(peer)
        self.poll.close()


def cpu_s(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(cluster: RealCluster, count: int, seconds: float, services: int, stirred: bool) -> dict[str, Any]:
    """One row of the table."""
    electors = {node.name: ("127.0.0.1", node.port) for node in cluster.nodes.values()}
    leader = until("a leader", lambda: cluster.status()["cluster"]["leader"])
    pid = int(cluster[leader].local()["pids"]["elector"])
    crowd = Crowd(count, electors, services)
    crowd.serve_until(crowd.master)
    crowd.serve(2.0)
    for peer in crowd.peers:
        peer.bytes = peer.sent = peer.largest = 0
    used, began = cpu_s(pid), now()
    while now() < began + seconds:
        crowd.serve(SHARE)
        if stirred:
            crowd.stir()
    took, used = now() - began, cpu_s(pid) - used
    total, sent = (sum(getattr(p, name) for p in crowd.peers) / len(electors) / took for name in ("bytes", "sent"))
    row = {
        "runners": count, "leader_cpu_percent": round(100 * used / took, 1), "reports_per_s": round(sent, 1),
        "bytes_per_s_in": round(total), "report_bytes": max(p.largest for p in crowd.peers),
    }
    if not stirred:
        row["change_seen_ms"] = round(1000 * statistics.median(change(cluster, leader, crowd, n) for n in range(3)))
    crowd.serve_until(crowd.master)
    master = crowd.master()
    assert master is not None
    crowd.remove(master)
    row["failover_s"] = round(crowd.serve_until(crowd.master), 2)
    crowd.close()
    return row


def change(cluster: RealCluster, leader: str, crowd: Crowd, number: int) -> float:
    """Seconds until the leader's own status shows a change of one service; includes one question of about 20 ms."""
    peer = next(p for p in crowd.peers if p is not crowd.master())
    service, pid = f"service{number}", 1000 + number
    with cluster[leader].client() as client:
        client.ask("local")
        peer.pids[service] = pid
        peer.become(service, "Started", False)
        began = now()
        while True:
            crowd.serve(0.005)
            nodes = client.status()["nodes"]
            shown: list[Any] = next((n for n in nodes if n["name"] == peer.name), {"services": []})["services"]
            if any(s["name"] == service and s["pid"] == pid for s in shown):
                return now() - began
            assert now() - began < 10, "the change is not shown"


def row(count: int, seconds: float, services: int = SERVICES, stirred: bool = False) -> dict[str, Any]:
    """A fresh cluster with so many runners of so many services, measured for so long."""
    with tempfile.TemporaryDirectory() as name, RealCluster(Path(name), failover=f"{FAILOVER_S:g}s", runners="") as cluster:
        cluster.start()
        return measure(cluster, count, seconds, services, stirred)


def _rows(what: str, found: list[dict[str, Any]], units: dict[str, str]) -> list[Row]:
    """One row for each quantity; several trials of the same become one."""
    return [Row(f"leader, {what}: {key}", "koi", unit, tuple(float(one[key]) for one in found)) for key, unit in units.items()]


def runner_rows(trials: int) -> list[Row]:
    """The leader by number of runners."""
    units = {"leader_cpu_percent": "%", "bytes_per_s_in": "B/s", "change_seen_ms": "ms", "failover_s": "s"}
    found: list[Row] = []
    for count in RUNNERS:
        found += _rows(f"{count} runners", [row(count, SECONDS) for _ in range(trials)], units)
    return found


def service_rows(trials: int) -> list[Row]:
    """The leader by number of services of each of FEW_RUNNERS, which change one each all the while."""
    units = {"leader_cpu_percent": "%", "bytes_per_s_in": "B/s", "report_bytes": "B"}
    found: list[Row] = []
    for count in MANY_SERVICES:
        found += _rows(f"{count} services", [row(FEW_RUNNERS, SECONDS, count, stirred=True) for _ in range(trials)], units)
    return found
