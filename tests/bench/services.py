"""What services cost: python -m tests.bench.services [--json FILE]

script     starting a script and hearing of its end, by the median of ROUNDS, beside /bin/sh run by posix_spawn alone
exit       from the end of a `run` program to the leader's word of it, on three real nodes, by the median of EXITS
idle       CPU time and wake-ups of a worker that waits for its next status, in IDLE_S seconds
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from koi.proc.loop import Loop, now
from koi.service.script import Script
from tests.cluster import RealCluster, until

ROUNDS, EXITS, IDLE_S = 300, 10, 5.0


def script_cost(folder: Path) -> dict[str, float]:
    """Milliseconds for one script, and for the same one by posix_spawn alone."""
    path = folder / "nothing"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    bare = [_bare(str(path)) for _ in range(ROUNDS)]
    whole = [_whole(str(path)) for _ in range(ROUNDS)]
    return {"bare_ms": _median_ms(bare), "koi_ms": _median_ms(whole), "more_ms": _median_ms(whole) - _median_ms(bare)}


def _bare(path: str) -> float:
    began = now()
    os.waitpid(os.posix_spawn(path, [path], os.environ), 0)
    return now() - began


def _whole(path: str) -> float:
    loop = Loop()
    began = now()
    Script(loop, [path], dict(os.environ), 10.0, lambda line: None, lambda script: loop.stop(), lambda tail: None)
    loop.run(lambda: None, lambda at: None)
    took = now() - began
    loop.close()
    return took


def _median_ms(seconds: list[float]) -> float:
    return round(1000 * statistics.median(seconds), 3)


def asking_cost(client: Any) -> float:
    """Seconds that one question to the leader takes."""
    took = []
    for _ in range(20):
        began = time.monotonic()
        client.status()
        took.append(time.monotonic() - began)
    return statistics.median(took)


def exit_cost(folder: Path) -> dict[str, float]:
    """Milliseconds from SIGKILL of a program to the first status of the leader that says Failed; asking is part of it."""
    took = []
    with RealCluster(folder) as cluster:
        cluster.script("web", "run", body=f"echo $$ > {folder}/pid.$KOI_NODE; exec sleep 1000")
        cluster.start()
        cluster.wait_master()
        leader = str(cluster.status()["cluster"]["leader"])
        other = next(n for n in "abc" if n != leader)
        with cluster[leader].client() as client:
            for _ in range(EXITS):
                took.append(_one_exit(cluster, client, other))
            asking = asking_cost(client)
    return {"asking_ms": round(1000 * asking, 3), "exit_to_leader_ms": _median_ms(took), "worst_ms": round(1000 * max(took), 3)}


def _one_exit(cluster: RealCluster, client: Any, node: str) -> float:
    def state() -> str:
        return str(next(n["state"] for n in client.status()["nodes"] if n["name"] == node))

    path = cluster.folder / f"pid.{node}"
    until("it is up", lambda: state() in ("Backup", "Master"))
    pid = int(until("a pid", lambda: path.read_text().strip()))
    path.write_text("")
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    while state() != "Failed":
        assert time.monotonic() < began + 30, "it never failed"
    return time.monotonic() - began


def idle_cost(folder: Path) -> dict[str, float]:
    """Ticks and voluntary switches of the worker of a started service; a promoted one wakes once per lease."""
    with RealCluster(folder, nodes="a", node_extra={"a": "  mode: passive\n"}) as cluster:
        cluster.script("db", "status")
        config = cluster["a"].config
        config.write_text(config.read_text().replace("status_interval: 1s", "status_interval: 1h"))
        cluster.start()
        until("a backup", lambda: [n["state"] for n in cluster.status()["nodes"]] == ["Backup"])
        pid = cluster["a"].local()["pids"]["services"]["db"]
        before = wakeups(pid)
        time.sleep(IDLE_S)
        after = wakeups(pid)
    return {"switches": float(after[0] - before[0]), "cpu_ticks": float(after[1] - before[1])}


def wakeups(pid: int) -> tuple[int, int]:
    """Voluntary switches and CPU ticks of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    switches = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary"))
    return switches, int(fields[11]) + int(fields[12])


def main() -> None:
    """Measure and print; with --json FILE write it down too."""
    found: dict[str, dict[str, float]] = {}
    for name, measure in (("script", script_cost), ("exit", exit_cost), ("idle", idle_cost)):
        with tempfile.TemporaryDirectory(prefix="koi-bench") as folder:
            found[name] = measure(Path(folder))
            print(f"{name:8}", "  ".join(f"{key} {value:g}" for key, value in found[name].items()), flush=True)
    if "--json" in sys.argv:
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
