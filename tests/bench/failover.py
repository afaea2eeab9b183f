"""How long it takes to replace a master: `python -m tests.bench.failover [--trials N] [--failover 1s] [--json]`.

Three koinodes on one machine, scripts that return at once and stamp the wall clock. Measured by the stamps:
crash: SIGKILL to every process of the master's node -> begin of the next promote;
move: `koi promote NODE`, end of demote -> begin of the next promote; status: a failing `status`, the same;
fsync: what one write of the elector's record costs here, for each of these needs two in a row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

from koi.core.ledger import Record
from koi.proc import files
from tests.cluster import RealCluster, Stamp, until

ACTIONS = ("promote", "demote")


def crash(cluster: RealCluster) -> float:
    """Kill the master's node; seconds to the next promote."""
    master = cluster.wait_master()
    killed = cluster[master].kill_all()
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


def figures(seconds: list[float], keep: bool = False) -> dict[str, Any]:
    """Minimum, median and maximum in milliseconds."""
    ms = sorted(1000 * s for s in seconds)
    median = round(statistics.median(ms), 1)
    found = {"trials": len(ms), "min_ms": round(ms[0], 1), "median_ms": median, "max_ms": round(ms[-1], 1)}
    return {**found, "seconds": seconds} if keep else found


def run(trials: int, failover: str, keep: bool = False) -> dict[str, Any]:
    """All measurements on one cluster; with `keep` each trial stands in `seconds`."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, RealCluster(Path(name), failover=failover) as cluster:
        results["fsync"] = figures([fsync(Path(name)) for _ in range(trials)], keep)
        for action in ACTIONS:
            cluster.script("10-vip", action)
        cluster.script("10-vip", "status", "exit 0")
        cluster.start()
        kinds: dict[str, Callable[[RealCluster], float]] = {"crash": crash, "move": move, "status": failing_status}
        for kind, measure in kinds.items():
            results[kind] = figures([measure(cluster) for _ in range(trials)], keep)
    return {"failover": failover, "nodes": 3, "cores": os.cpu_count(), "results": results}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--failover", default="1s")
    parser.add_argument("--json", action="store_true", help="JSON only")
    options = parser.parse_args()
    report = run(options.trials, options.failover)
    if not options.json:
        print(f"failover: {options.failover}, 3 nodes on one machine, {report['cores']} cores")
        for kind, row in report["results"].items():
            low, median, high = (f"{row[key]:8.1f} ms" for key in ("min_ms", "median_ms", "max_ms"))
            print(f"{kind:8} min {low}  median {median}  max {high}  ({row['trials']} trials)")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
