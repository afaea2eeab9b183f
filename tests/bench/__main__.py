"""All measurements: `python -m tests.bench [--only PART,...] [--trials N] [--json FILE]`; a table, then JSON.

Koi and, where they are installed, its peers (Debian packages keepalived, runit, s6, supervisor) are measured in the same
run on the same machine; a missing one is named. Nothing else should run meanwhile, and namespaces need root.

With --json FILE the file is written after each part, and parts that stand in it from an earlier run are kept unless they are
measured again: so the whole can be done in pieces. `--show` measures nothing and prints the table of the file.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import koi
from tests.bench import commands, cut, endings, failover, footprint, scale, stable, supervisors, vrrp
from tests.bench.rows import Row, ratios, table

MANY, SOME, FEW = 30, 10, 3
"""Trials: of what must hold at the worst, of what varies, of what takes long and hardly varies."""


@dataclass(frozen=True)
class Part:
    """One group of rows that is measured by itself."""

    measure: Callable[[int], list[Row]]
    trials: int
    minutes: float
    """What it takes with so many trials on two cores."""
    goal: str
    """What it shows."""


PARTS: dict[str, Part] = {
    "crash-3s": Part(partial(failover.crash_rows, 3.0), MANY, 6, "a crash of the master's node, failover 3 s"),
    "crash-1s": Part(partial(failover.crash_rows, 1.0), MANY, 3, "the same, failover 1 s"),
    "crash-0.5s": Part(partial(failover.crash_rows, 0.5), MANY, 2, "the same, failover 0.5 s"),
    "cut-3s": Part(partial(cut.rows, 3.0), MANY, 6, "the master's node cut off silently, failover 3 s"),
    "cut-1s": Part(partial(cut.rows, 1.0), MANY, 3, "the same, failover 1 s"),
    "cut-0.5s": Part(partial(cut.rows, 0.5), MANY, 2, "the same, failover 0.5 s"),
    "stable": Part(stable.rows, 1, 11, "failover 0.5 s for ten minutes with one core busy"),
    "handover": Part(failover.handover_rows, SOME, 2, "end of demote to the next promote; one write of a record"),
    "commands": Part(commands.rows, SOME, 1, "koi status and koi promote as a shell starts them"),
    "endings": Part(endings.rows, SOME, 3, "a program, a watch or a status that ends or fails"),
    "memory": Part(footprint.memory_rows, FEW, 3, "PSS with 3, 10, 30, 100 services, and their start"),
    "idle": Part(footprint.idle_rows, FEW, 4, "CPU of an idle node"),
    "start": Part(footprint.start_rows, SOME, 2, "three fresh nodes to a master; imports"),
    "runners": Part(scale.runner_rows, 1, 3, "the leader by number of runners"),
    "services": Part(scale.service_rows, 1, 2, "the leader by number of services"),
    "supervisors": Part(supervisors.rows, SOME, 1, "runit, s6, supervisor"),
    "vrrp": Part(vrrp.rows, SOME, 5, "keepalived"),
}


def help_text() -> str:
    """The parts with their trials and durations."""
    width = max(map(len, PARTS))
    lines = [f"  {name:{width}}  {part.trials:2} trials, {part.minutes:g} min: {part.goal}" for name, part in PARTS.items()]
    whole = sum(part.minutes for part in PARTS.values())
    head = "Parts, with the trials that are made without --trials:"
    return "\n".join([__doc__ or "", head, *lines, f"All of them: {whole:g} min."])


def read(path: Optional[Path]) -> dict[str, Any]:
    """The parts of an earlier run, by name; none where there is no file."""
    if path is None or not path.exists():
        return {}
    return dict(json.loads(path.read_text())["parts"])


def all_rows(parts: dict[str, Any]) -> list[Row]:
    """The rows of all parts in the order of PARTS."""
    return [Row.of(row) for name in PARTS if name in parts for row in parts[name]["rows"]]


def report(parts: dict[str, Any]) -> str:
    """All of it as JSON."""
    rows = all_rows(parts)
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    found = {"machine": machine, "parts": parts, "rows": [row.json() for row in rows], "ratios": ratios(rows)}
    return json.dumps(found) + "\n"


def measure(name: str, trials: Optional[int]) -> dict[str, Any]:
    """One part, with the machine's load before it and how long it took."""
    load, began = os.getloadavg()[0], time.monotonic()
    count = PARTS[name].trials if trials is None else trials
    rows = PARTS[name].measure(count)
    return {"load_before": load, "seconds": round(time.monotonic() - began), "rows": [row.json() for row in rows]}


def show(rows: Sequence[Row]) -> None:
    """The table and the ratios."""
    print(table(rows))
    for ratio in ratios(rows):
        print(f"{ratio['what']}: koi needs {ratio['koi_by_it']:g} of what {ratio['who']} needs")


def compile_as_installed() -> None:
    """Compile the product, as pip does: koinode that compiles itself at each start starts more slowly, and takes more memory."""
    compileall.compile_dir(os.path.dirname(koi.__file__), quiet=1)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=help_text(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, help="for every part, instead of its own number")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--json", type=Path, help="keep the JSON there, part by part, instead of printing it")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    options = parser.parse_args()
    wanted = [] if options.show else options.only.split(",")
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.trials is not None and options.trials < 1:
        parser.error("--trials must be positive")
    parts, failed = read(options.json), []
    compile_as_installed()
    for name in wanted:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            parts[name] = measure(name, options.trials)
        except Exception:  # the other parts are measured all the same
            traceback.print_exc()
            failed.append(name)
        if options.json is not None:
            options.json.write_text(report(parts))
    show(all_rows(parts))
    if options.json is None:
        print(report(parts))
    if failed:
        print(f"not measured: {', '.join(failed)}; see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
