"""Real scripts for the tests: written to a folder, run to their end by a real loop."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

from koi.proc.loop import Loop, now
from koi.service.script import Script

MOST_S = 20.0


class Runner:
    """Runs scripts one at a time and keeps what they print."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.loop = folder, Loop()
        self.lines: list[str] = []
        self.ended: list[Script] = []
        self.closed = 0

    def close(self) -> None:
        """Close the loop."""
        self.loop.close()

    def write(self, text: str, name: str = "script", mode: int = 0o755) -> str:
        """A script of sh; returns its path."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(mode)
        return str(path)

    def start(self, text: str, timeout: Optional[float] = 30.0, **environment: str) -> Script:
        """Write and start a script."""
        return self.start_path(self.write(text), timeout, **environment)

    def start_path(self, path: str, timeout: Optional[float] = 30.0, **environment: str) -> Script:
        """Start what is there."""
        environment = {"PATH": "/usr/bin:/bin", **environment}
        return Script(self.loop, [path], environment, timeout, self.lines.append, self.ended.append, self._closed)

    def until(self, condition: Callable[[], bool], script: Optional[Script] = None) -> None:
        """Turn the loop until the condition holds; the timers of the script are kept."""
        end = now() + MOST_S

        def deadline() -> Optional[float]:
            if condition():
                self.loop.stop()
            due = script.deadline() if script is not None and not script.ended else None
            return min(end, now() + 0.02, due if due is not None else end)

        def on_deadline(at: float) -> None:
            assert at < end, f"the condition does not come: {self.lines[-5:]}"
            if script is not None:
                script.handle_timer(at)

        self.loop.run(deadline, on_deadline)

    def run(self, text: str, timeout: Optional[float] = 30.0, **environment: str) -> Script:
        """Run a script to its end."""
        script = self.start(text, timeout, **environment)
        self.until(lambda: script.ended, script)
        return script

    def _closed(self, tail: object) -> None:
        self.closed += 1
