"""The long run: `python -m tests.sim --seeds 20000 [--from N] [--jobs N] [--off RULE ...] [--family NAME] [--shape E,R]`.

`KOI_SEED=n` replays one seed with its trace. A family is a directed scenario of families.py; the shape, how many electors
and runners.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from functools import partial
from typing import Callable

from tests.sim import families
from tests.sim.measure import measure
from tests.sim.plan import Plan
from tests.sim.run import Outcome, simulate
from tests.sim.switches import NAMES

REPORT_EVERY = 500


def replay(seed: int, run: Callable[..., Outcome]) -> int:
    """Print the trace of one seed; 1 when it breaks something."""
    outcome = run(seed, tracing=True)
    print("\n".join(outcome.trace))
    print(f"seed {seed}: {outcome.broken or 'all is well'}")
    return int(bool(outcome.broken))


def long_run(seeds: range, jobs: int, run: Callable[..., Outcome]) -> int:
    """Run many seeds; 1 when any breaks something."""
    began, bad, events, begun = time.monotonic(), [], 0, 0
    with multiprocessing.Pool(jobs) as pool:
        for done, outcome in enumerate(pool.imap_unordered(run, seeds, chunksize=10), 1):
            events, begun = events + outcome.events, begun + outcome.begun
            if outcome.broken:
                bad.append(outcome)
                print(_words(outcome), flush=True)
            if done % REPORT_EVERY == 0:
                print(f"{done} of {len(seeds)} seeds, {time.monotonic() - began:.0f} s, {len(bad)} broken", flush=True)
    safety = sum(1 for outcome in bad if outcome.safety)
    print(
        f"{len(seeds)} seeds of 60 simulated seconds: {safety} violations of safety, {len(bad) - safety} of liveness;"
        f" {events} events, {begun} masters begun, {time.monotonic() - began:.0f} s"
    )
    return int(bool(bad))


def _words(outcome: Outcome) -> str:
    kind = "SAFETY" if outcome.safety else "liveness"
    return f"seed {outcome.seed}: {kind}: {outcome.broken}; KOI_SEED={outcome.seed} python -m tests.sim replays it"


FAMILIES = ("one_sided", "stopped_clocks", "left_under_hold", "half_a_hold", "stale_hold")


def _shape(text: str) -> tuple[int, int]:
    electors, runners = map(int, text.split(","))
    return electors, runners


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--from", dest="first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--off", action="append", default=[], choices=NAMES, help="turn a rule off")
    parser.add_argument("--family", choices=FAMILIES, help="in place of all kinds of faults")
    parser.add_argument("--shape", type=_shape, metavar="ELECTORS,RUNNERS")
    options = parser.parse_args()
    family = Plan.schedule if options.family is None else getattr(families, options.family)
    run = partial(simulate, off=tuple(options.off), shape=options.shape, family=family)
    if "KOI_SEED" in os.environ:
        return replay(int(os.environ["KOI_SEED"]), run)
    code = long_run(range(options.first, options.first + options.seeds), options.jobs, run)
    for measured in measure(30):
        print(measured.line(3.0))
    return code


if __name__ == "__main__":
    sys.exit(main())
