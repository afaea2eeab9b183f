"""What a node takes while it does nothing, and how it starts: memory by number of services, idle CPU, start, imports.

How it is taken: PSS of all processes of a tree, SETTLE_S after all services are promoted; CPU of a node of three from
/proc/PID/schedstat over IDLE_S, scripts not counted; the start from the launch of koinode by the lines of its own log.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.bench import vrrp
from tests.bench.counting_node import WORD
from tests.bench.processes import cpu_s, pss_mb, switches
from tests.bench.rows import Row, ms
from tests.cluster import REPOSITORY, Node, RealCluster, tree_of, until

SETTLE_S = 3.0
ACTIONS = ("start", "stop", "promote", "demote", "status")
COUNTS = (3, 10, 30, 100)
GOALS = {3: 45.0, 100: 190.0}
PER_WORKER_MB = 1.5
IDLE_S, WAITING_S = 60.0, 10.0
IDLE_SERVICES, IDLE_GOAL_PERCENT = 10, 0.5


def services(node: Node, count: int) -> None:
    """So many services of one node, of equal priority, whose scripts return at once."""
    for number in range(count):
        folder = node.services / f"10-s{number:03d}"
        folder.mkdir()
        for action in ACTIONS:
            (folder / action).write_text("#!/bin/sh\nexit 0\n")
            (folder / action).chmod(0o755)


def slowly(cluster: RealCluster) -> None:
    """Status every 10 s, as the default is."""
    for node in cluster.nodes.values():
        node.config.write_text(node.config.read_text().replace("status_interval: 1s", "status_interval: 10s"))


def _said(node: Node, words: str) -> list[float]:
    """The wall times of all lines of its log that have these words."""
    lines = [line for line in node.log.read_text().splitlines() if words in line] if node.log.exists() else []
    return [datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S.%f").timestamp() for line in lines]


def memory(count: int) -> tuple[float, float, float]:
    """(PSS in MB of a node with so many services, seconds from its launch until all are started, the same of a new cluster).

    The elector of a new cluster knows nothing and cannot say whether there is maintenance, for which the runner waits
    3 H before it starts anything (rule 6.5); so the node is launched a second time.
    """
    with tempfile.TemporaryDirectory() as folder, RealCluster(Path(folder), nodes="a", failover="3s") as cluster:
        node = cluster["a"]
        services(node, count)
        slowly(cluster)
        fresh = _started(node, count)
        until("all promoted", lambda: len(_said(node, "Promoting -> Promoted")) >= count, 60)
        time.sleep(SETTLE_S)
        pss = pss_mb(tree_of(node.pid))
        node.stop()
        node.log.unlink()
        return pss, _started(node, count), fresh


def _started(node: Node, count: int) -> float:
    """Launch it; seconds until all services are started, by its own log."""
    began = time.time()
    node.start()
    until("all started", lambda: len(_said(node, "Starting -> Started")) >= count)
    return max(_said(node, "Starting -> Started")) - began


def memory_rows(trials: int) -> list[Row]:
    """PSS by number of services, what each further worker takes, and how long the most take to start."""
    found = {count: [memory(count) for _ in range(trials)] for count in COUNTS}
    rows = [
        Row(f"PSS of a node, {count} services", "koi", "MB", tuple(round(mb, 1) for mb, _, _ in measured), GOALS.get(count))
        for count, measured in found.items()
    ]
    few, many = min(COUNTS), max(COUNTS)
    each = tuple(round((b - a) / (many - few), 2) for (a, *_), (b, *_) in zip(found[few], found[many], strict=True))
    rows.append(Row("PSS of each further worker", "koi", "MB", each, PER_WORKER_MB))
    rows.append(ms(f"launch -> {many} services started", [again for _, again, _ in found[many]], goal=1000))
    rows.append(ms(f"launch -> {many} services started, of a new cluster", [fresh for _, _, fresh in found[many]]))
    return rows + _beside(rows, "PSS of a node, 3 services", vrrp.MEMORY)


def _beside(rows: list[Row], what: str, same: str) -> list[Row]:
    """The row once more under the words by which the peers have it."""
    return [Row(same, row.who, row.unit, row.values) for row in rows if row.what == what]


def idle_rows(trials: int) -> list[Row]:
    """CPU of each node of a cluster of three with ten services each, and how often its processes are woken."""
    seconds = IDLE_S
    used: dict[bool, list[float]] = {True: [], False: []}
    woken: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, RealCluster(Path(folder), failover="3s") as cluster:
        for node in cluster.nodes.values():
            services(node, IDLE_SERVICES)
        slowly(cluster)
        cluster.start()
        master = cluster.wait_master()
        time.sleep(SETTLE_S)
        trees = {name: list(node.processes().values()) for name, node in cluster.nodes.items()}
        for _ in range(trials):
            before = {name: (cpu_s(pids), switches(pids)) for name, pids in trees.items()}
            began = time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            for name, pids in trees.items():
                used[name == master].append(round(100 * (cpu_s(pids) - before[name][0]) / took, 3))
                woken[name == master].append(round((switches(pids) - before[name][1]) / took, 1))
    words = {True: "the master's node", False: "a backup's node"}
    rows = [Row(f"idle CPU of {words[is_master]}", "koi", "%", tuple(used[is_master]), IDLE_GOAL_PERCENT) for is_master in words]
    rows += _beside(rows, "idle CPU of a backup's node", vrrp.IDLE)
    rows += _waiting_rows(trials)
    return rows + [Row(f"wake-ups a second of {words[is_master]}", "koi", "1/s", tuple(woken[is_master])) for is_master in words]


def _waiting_rows(trials: int) -> list[Row]:
    """A waiting, not promoted worker whose service has no status: nothing may wake it."""
    with tempfile.TemporaryDirectory() as folder, RealCluster(Path(folder), failover="3s") as cluster:
        cluster.script("10-still", "start")
        cluster.start()
        master = cluster.wait_master()
        pids = [node.processes()["service still"] for name, node in cluster.nodes.items() if name != master]
        time.sleep(SETTLE_S)
        found = []
        for _ in range(trials):
            before = cpu_s(pids)
            time.sleep(WAITING_S)
            found.append(round(100 * (cpu_s(pids) - before) / WAITING_S, 4))
    return [Row("CPU of waiting, not promoted workers", "koi", "%", tuple(found), worst_goal=0)]


def start_rows(trials: int) -> list[Row]:
    """From the launch of three fresh nodes at once to the end of promote, with failover 3s; and import times."""
    took: list[float] = []
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as folder, RealCluster(Path(folder), failover="3s") as cluster:
            for action in ("promote", "demote"):
                cluster.script("10-vip", action)
            began = time.time()
            cluster.start()
            took.append(until("a master", lambda: cluster.first("promote", "end", 0.0)).time - began)
    rows = [ms("launch of three fresh nodes -> master, failover 3s", took, worst=5000)]
    modules = {"koinode": "koi.node, koi.proc.root, koi.proc.elector, koi.proc.runner, koi.proc.worker",
               "koi": "koi.cli, koi.client, koi.config, koi.wire.udp, koi.view_status"}
    bare = [_python("pass") for _ in range(10)]
    rows.append(ms("start of Python alone", bare, who="python"))
    rows.append(_imported_by_children())
    return rows + [ms(f"import of {name}, with Python's start", [_python(f"import {m}") for _ in range(10)], goal=150)
                   for name, m in modules.items()]


def _python(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    return time.perf_counter() - began


def _imported_by_children() -> Row:
    """What elector, runner and a worker import after the fork, a number each."""
    with tempfile.TemporaryDirectory() as folder:
        with RealCluster(Path(folder), nodes="a", failover="3s", program="tests.bench.counting_node") as cluster:
            node = cluster["a"]
            services(node, 1)
            cluster.start()
            until("all have counted", lambda: len(_lines(node, WORD)) == 3)
            counts = [float(line.split()[-1]) for line in _lines(node, WORD)]
    return Row("modules that a forked child imports for itself", "koi", "", tuple(counts), worst_goal=0)


def _lines(node: Node, words: str) -> list[str]:
    return [line for line in node.log.read_text().splitlines() if words in line] if node.log.exists() else []
