"""Runs cluster.fence for the leader: `COMMAND NODE EPOCH`, exit 0 = NODE is surely off.

Rule: one at a time, FENCE_S at most; its output is in the log line by line.
"""

from __future__ import annotations

import os
from typing import Callable, Optional

from koi import log
from koi.core.states import outcome
from koi.proc.given import NOT_FOR_SCRIPTS
from koi.proc.loop import Loop
from koi.service.script import NotRun, Script, Tail

FENCE_S = 60.0
SHELL = "/bin/sh"


class Fence:
    """The fence command of this node. `on_end(node, epoch, ok, what)` once a run has ended."""

    def __init__(self, loop: Loop, command: Optional[str], on_end: Callable[[str, int, bool, str], None]) -> None:
        self._loop, self._command, self._on_end = loop, command, on_end
        self._script: Optional[Script] = None

    def run(self, node: str, epoch: int) -> None:
        """Begin; what still runs for another order is killed."""
        self.end()
        assert self._command is not None
        log.get().warning(f"fences {node} (epoch {epoch}): {self._command} {node} {epoch}")
        command = [SHELL, "-c", f'{self._command} "$@"', "fence", node, str(epoch)]

        def ended(script: Script) -> None:
            self._ended(script, node, epoch)

        def printed(line: str) -> None:
            log.get().info(f"fence: {line}")

        try:
            environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_SCRIPTS}
            self._script = Script(self._loop, command, environment, FENCE_S, printed, ended, _closed)
        except (NotRun, OSError) as error:
            self._on_end(node, epoch, False, str(error))

    def end(self) -> None:
        """The order is taken back, or another leads now."""
        script, self._script = self._script, None
        if script is not None:
            script.kill()

    def deadline(self) -> float:
        """When `handle_timer` is due, in seconds."""
        due = self._script.deadline() if self._script is not None else None
        return float("inf") if due is None else due

    def handle_timer(self, now: float) -> None:
        """End a command that takes too long."""
        if self._script is not None:
            self._script.handle_timer(now)

    def _ended(self, script: Script, node: str, epoch: int) -> None:
        script.tail.close()
        if self._script is not script:
            return
        self._script = None
        what = outcome("the command", script.exit, FENCE_S)
        if script.exit == 0:
            log.get().warning(f"{node} is fenced, after {script.seconds:.2f} s")
        self._on_end(node, epoch, script.exit == 0, f"{what}{': ' + script.output.last if script.output.last else ''}")


def _closed(tail: Tail) -> None:
    """The output has ended: nothing to do."""
