"""How long it takes to replace a master that is killed, and to hand over to another one.

Three koinodes on one machine, scripts that return at once and stamp the wall clock. Measured by the stamps:
crash: SIGKILL to every process of the master's node -> begin of the next promote;
move: `koi promote NODE`, end of demote -> begin of the next promote; status: a failing `status`, the same;
fsync: what one write of the elector's record costs here, for each of these needs two in a row.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from koi.core.ledger import Record
from koi.proc import files
from tests.bench.rows import Row, ms
from tests.bench.stamps import STAMP
from tests.cluster import RealCluster, Stamp, until

ACTIONS = ("promote", "demote")
CRASH = "crash of the master's node -> next promote"
BESIDE_PEERS_S = 1.0
"""The failover time whose crash stands beside the peers'."""
EXPECTED = 0.9 * 1.02 - 0.1 / 2
"""What the rules give, as a share of time.failover: the guard stands (M + G)(1 + 2 rho) from the last report (rule 5.4), which
was sent half a heartbeat before the crash on average."""
NEAR = 1.1
"""The median may exceed it by so much."""


def crash(cluster: RealCluster, all_killed: list[tuple[str, float]]) -> float:
    """Kill the master's node; seconds to the next promote."""
    master = cluster.wait_master()
    killed = cluster[master].kill_all()
    all_killed.append((master, killed))
    stamp = until("a promote elsewhere", lambda: cluster.first("promote", "begin", killed))
    cluster.wait_master(master)
    cluster[master].start()
    until("the node is back", lambda: _is_backup(cluster, master, settled=True))
    return stamp.time - killed


def move(cluster: RealCluster) -> float:
    """Move the master; seconds from the end of demote to the begin of promote."""
    master = cluster.wait_master()
    other = next(name for name in sorted(cluster.nodes) if name != master)
    began = time.time()
    with cluster[other].client() as client:
        client.promote(other)
    return _gap(cluster, began)


def failing_status(cluster: RealCluster) -> float:
    """Make the master's status fail; seconds from the end of demote to the begin of promote."""
    master = cluster.wait_master()
    began = time.time()
    cluster.script("10-vip", "status", "exit 1", master)
    gap = _gap(cluster, began)
    cluster.script("10-vip", "status", "exit 0", master)
    cluster.wait_master(master)
    until("the node is well again", lambda: _is_backup(cluster, master))
    return gap


def _gap(cluster: RealCluster, began: float) -> float:
    demoted: Stamp = until("end of demote", lambda: cluster.first("demote", "end", began))
    promoted = until("begin of promote", lambda: cluster.first("promote", "begin", demoted.time))
    return promoted.time - demoted.time


def _is_backup(cluster: RealCluster, name: str, settled: bool = False) -> bool:
    """Whether the node can be promoted; settled: up for so long that its elector waits for nothing of the past any more
    (docs/protocol.md rules 5.5 and 4.4), since the promise holds for one failure at a time."""
    status = cluster.status()
    if not status:
        return False
    up = 2 * status["cluster"]["timing"]["failover"] if settled else 0.0
    ready = [n for n in status["nodes"] if n["name"] == name and n["promotable"] and n["elector"] != "disconnected"]
    return bool(ready) and ready[0]["uptime"] >= up


def fsync(folder: Path) -> float:
    """Seconds of one write of an elector's record."""
    began = time.perf_counter()
    files.write_json(str(folder / "elector.json"), files.dump_record(Record()))
    return time.perf_counter() - began


def quick_rows(what: str, seconds: list[float], failover_s: float, overlaps: list[str]) -> list[Row]:
    """How long the master's loss took, and how often two were promoted at once; the goals of both."""
    goal = NEAR * EXPECTED * failover_s
    double = Row(f"{what}: moments with two masters", "koi", "", (float(len(overlaps)),), worst_goal=0)
    return [ms(what, seconds, goal=1000 * goal, worst=1000 * failover_s), double]


def crash_rows(failover_s: float, trials: int) -> list[Row]:
    """A crash for this failover time."""
    with tempfile.TemporaryDirectory() as name, RealCluster(
            Path(name), failover=f"{failover_s:g}s", bully_delay="10s") as cluster:
        _dress(cluster)
        cluster.start()
        killed: list[tuple[str, float]] = []
        took = [crash(cluster, killed) for _ in range(trials)]
        found = quick_rows(f"{CRASH}, failover {failover_s:g} s", took, failover_s, cluster.overlaps(tuple(killed)))
    return [*found, ms(CRASH, took)] if failover_s == BESIDE_PEERS_S else found


def handover_rows(trials: int) -> list[Row]:
    """From the end of demote to the begin of the next promote, and what one write of an elector's record takes."""
    with tempfile.TemporaryDirectory() as name, RealCluster(Path(name), failover="1s", bully_delay="10s") as cluster:
        writes = [fsync(Path(name)) for _ in range(trials)]
        _dress(cluster)
        cluster.start()
        moved = [move(cluster) for _ in range(trials)]
        failed = [failing_status(cluster) for _ in range(trials)]
    what = "end of demote -> next promote"
    return [ms(f"{what}, koi promote", moved, goal=5, worst=30), ms(f"{what}, a failing status", failed, goal=5, worst=30),
            ms("one write of an elector's record (two in a row are part of a handover)", writes)]


def _dress(cluster: RealCluster) -> None:
    """One service whose scripts return at once."""
    cluster.template = STAMP
    for action in ACTIONS:
        cluster.script("10-vip", action)
    cluster.script("10-vip", "status", "exit 0")
