"""run_dir/lease: until when the lease of this node runs, for the koinode that comes after one which was killed as a whole.

Rule (docs/protocol.md 6.4): the runner writes it with the lease cell, before anything is promoted, and says `none` only once
nothing is promoted any more. A koinode that finds an unclean tree counts the grace from it, and from its own start when it
cannot know. One line: the id of this boot of the machine, for its clock begins anew, seconds of CLOCK_BOOTTIME, and G in
seconds as the electors vouched for it.
"""

from __future__ import annotations

import math
import os
from typing import Optional

from koi import log
from koi.core.facts import Debt
from koi.proc import files

LEASE_NAME = "lease"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LINE_BYTES = 80
"""Every line has this length, so that a shorter one leaves nothing of a longer one."""
LONGEST_S = 3600.0
"""A lease that ends later than that is none of ours: the file is spoilt."""
NONE, UNLIMITED = "none", "unlimited"


class LeaseFile:
    """The runner's end: kept open, for it is written some times a second while this node is master."""

    def __init__(self, run_dir: str) -> None:
        self._path = os.path.join(run_dir, LEASE_NAME)
        self._fd: Optional[int] = None
        self._boot = boot_id()
        self._fault = ""

    def write(self, end: Optional[float], grace: float) -> None:
        """It ends then, with this G; inf: under a hold, None: nothing is promoted. What cannot be written is logged once."""
        word = NONE if end is None else UNLIMITED if end == math.inf else f"{end:.6f}"
        line = f"{self._boot} {word} {grace:.6f}".ljust(LINE_BYTES - 1) + "\n"
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.pwrite(self._fd, line.encode("ascii"), 0)
            self._fault = ""
        except OSError as error:
            if self._fault != str(error):
                self._fault = str(error)
                log.get().error(f"{self._path} cannot be written: {error.strerror}; if koinode is killed as a whole, its "
                                "successor counts the time to demote what it left from its own start")


def debt(run_dir: str, may_hold: bool, began: float) -> Optional[Debt]:
    """The lease under which a dead tree may have left something promoted; None: it had none.

    `may_hold` counts when the file cannot be used; `began` is when this koinode began.
    """
    try:
        with open(os.path.join(run_dir, LEASE_NAME), encoding="utf-8") as file:
            boot, word, grace = file.read(LINE_BYTES).split()
        if word == NONE or boot != boot_id():
            return None
        end = began if word == UNLIMITED else float(word)
        shortest = float(grace)
        if not shortest > 0.0:
            raise ValueError(f"a grace of {grace}")
    except (OSError, ValueError):
        return Debt(began, began) if may_hold else None
    return Debt(end if end <= began + LONGEST_S else began, began, shortest, word == UNLIMITED)


def remove(run_dir: str) -> None:
    """Nothing is left. Raises OSError."""
    files.remove(os.path.join(run_dir, LEASE_NAME))


def boot_id() -> str:
    """Names the time between two starts of the machine."""
    try:
        with open(BOOT_ID, encoding="utf-8") as file:
            return file.read().strip() or "unknown"
    except OSError:
        return "unknown"
