"""All measurements: `python -m tests.bench [--trials 10] [--only PART,...] [--json FILE]`; a table, then JSON.

Koi and, where they are installed, its peers (Debian packages keepalived, runit, s6, supervisor) are measured in the same
run on the same machine; a missing one is named. Nothing else should run meanwhile. With 10 trials it takes some 25 minutes.
Parts: failover, commands, endings, footprint, scale, supervisors, vrrp.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import commands, endings, failover, footprint, scale, supervisors, vrrp
from tests.bench.rows import Row, ms, ratios, table

FAILOVERS_S = (3.0, 1.0, 0.5)
IDLE_S = 20.0
RUNNERS = (3, 10, 30, 100)
SCALE_S = 8.0
MIN_TRIALS = 10
FEW = 3
"""Trials of what takes long and hardly varies: memory, start, idle CPU."""


def failover_rows(trials: int) -> list[Row]:
    """A crash for each failover time, and from the end of demote to the next promote."""
    found = []
    for failover_s in FAILOVERS_S:
        report = failover.run(trials, f"{failover_s:g}s", keep=True)["results"]
        what = f"{vrrp.CRASH}, failover {failover_s:g} s"
        found.append(ms(what, report["crash"]["seconds"], worst=1000 * failover_s))
        if failover_s == 1:
            for kind, words in (("move", "koi promote"), ("status", "a failing status")):
                row = ms(f"end of demote -> next promote, {words}", report[kind]["seconds"], goal=5, worst=30)
                found.append(row)
            found.append(ms("one write of an elector's record", report["fsync"]["seconds"]))
            found.append(ms(vrrp.CRASH, report["crash"]["seconds"]))
    return found


def scale_rows(trials: int) -> list[Row]:
    """The leader by number of runners."""
    found = []
    for count in RUNNERS:
        row = scale.row(count, SCALE_S)
        for key, unit in (("leader_cpu_percent", "%"), ("bytes_per_s_in", "B/s"), ("change_seen_ms", "ms"), ("failover_s", "s")):
            found.append(Row(f"leader, {count} runners: {key}", "koi", unit, (float(row[key]),)))
    return found


def footprint_rows(trials: int) -> list[Row]:
    """Memory, idle CPU, start, imports."""
    few = min(trials, FEW)
    found = footprint.memory_rows(few) + footprint.idle_rows(IDLE_S, few) + footprint.start_rows(few)
    same = {"PSS of a node, 3 services": vrrp.MEMORY, "idle CPU of a backup's node": vrrp.IDLE}
    return found + [Row(same[row.what], row.who, row.unit, row.values) for row in found if row.what in same]


PARTS: dict[str, Callable[[int], list[Row]]] = {
    "failover": failover_rows, "commands": commands.rows, "endings": endings.rows, "footprint": footprint_rows,
    "scale": scale_rows, "supervisors": supervisors.rows, "vrrp": vrrp.rows,
}


def report(trials: int, rows: list[Row]) -> str:
    """All of it as JSON."""
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
               "load": os.getloadavg()}
    return json.dumps({"machine": machine, "trials": trials, "rows": [row.json() for row in rows], "ratios": ratios(rows)})


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=MIN_TRIALS)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--json", type=Path, help="write the JSON there instead of printing it")
    options = parser.parse_args()
    parts = options.only.split(",")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.trials < 1:
        parser.error("--trials must be positive")
    rows: list[Row] = []
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        rows += PARTS[part](options.trials)
        if options.json is not None:  # each time, so that a run that is ended early leaves what it has
            options.json.write_text(report(options.trials, rows) + "\n")
    print(table(rows))
    for ratio in ratios(rows):
        print(f"{ratio['what']}: koi needs {ratio['koi_by_it']:g} of what {ratio['who']} needs")
    if options.json is None:
        print(report(options.trials, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
