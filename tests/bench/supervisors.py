"""The supervisors beside Koi: runit, s6 and supervisord restart a killed program; taken as for Koi (endings.py)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.endings import LIVED_S
from tests.bench.processes import pss_mb
from tests.bench.rows import Row, ms
from tests.bench.stamps import SHELL
from tests.cluster import tree_of, until

WHAT, MEMORY = "exit of a program -> its new start", "PSS of the supervisor of one program"
RUN = SHELL + 'echo "$EPOCHREALTIME $$" >> {stamps}\nexec sleep 100000\n'
SUPERVISORD = """[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={folder}/pid
[program:one]
command={folder}/one/run
autorestart=true
"""


def rows(trials: int) -> list[Row]:
    """A row for the time and one for the memory of each; a missing one is named."""
    commands: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
        "runit": ("runsv", lambda folder: ["runsv", str(folder / "one")]),
        "s6": ("s6-supervise", lambda folder: ["s6-supervise", str(folder / "one")]),
        "supervisor": ("supervisord", lambda folder: ["supervisord", "-c", str(folder / "conf")]),
    }
    found = []
    for name, (program, command) in commands.items():
        if shutil.which(program) is None:
            found.append(Row(WHAT, name, "ms", missing=f"{program} is not installed (package {name})"))
        else:
            found += _measure(name, command, trials)
    return found


def _measure(name: str, command: Callable[[Path], list[str]], trials: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        stamps, run = folder / "stamps", folder / "one" / "run"
        stamps.touch()
        run.parent.mkdir()
        run.write_text(RUN.format(stamps=stamps))
        run.chmod(0o755)
        (folder / "conf").write_text(SUPERVISORD.format(folder=folder))
        supervisor = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            took = [_trial(stamps) for _ in range(trials)]
            own = pss_mb([pid for pid in tree_of(supervisor.pid) if pid != _pid(stamps)])
        finally:
            _end(supervisor, stamps)
    return [ms(WHAT, took, name), Row(MEMORY, name, "MB", (round(own, 2),))]


def _lines(stamps: Path) -> list[str]:
    return [line for line in stamps.read_text().splitlines() if len(line.split()) == 2]


def _pid(stamps: Path) -> int:
    return int(_lines(stamps)[-1].split()[1])


def _trial(stamps: Path) -> float:
    until("the program runs", lambda: _lines(stamps))
    time.sleep(LIVED_S)
    known = len(_lines(stamps))
    began = time.time()
    os.kill(_pid(stamps), signal.SIGKILL)
    until("it runs again", lambda: len(_lines(stamps)) > known)
    return float(_lines(stamps)[-1].split()[0]) - began


def _end(supervisor: subprocess.Popen[bytes], stamps: Path) -> None:
    """The supervisor first, so that it starts nothing again, then its program."""
    supervisor.kill()
    supervisor.wait()
    try:
        os.kill(_pid(stamps), signal.SIGKILL)
    except (ProcessLookupError, IndexError):
        return
