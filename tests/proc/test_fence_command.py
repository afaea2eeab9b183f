"""The fence command as the leader's elector runs it: its arguments, its limit, what it may know, and its output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koi.proc import fence
from koi.proc.fence import Fence
from koi.proc.loop import Loop, now
from tests.proc.waiting import is_gone

End = tuple[str, int, bool, str]


class Bench:
    """A fence with a loop, and how its runs ended."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder, self.loop = folder, Loop()
        path = folder / "fence me"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        self.ends: list[End] = []
        self.fence = Fence(self.loop, f"'{path}' off", self._ended)

    def _ended(self, *end: Any) -> None:
        self.ends.append(end)  # type: ignore[arg-type]

    def until(self, condition: Any, seconds: float = 20.0) -> None:
        """Turn the loop until the condition holds."""
        last = now() + seconds

        def deadline() -> float:
            if condition():
                self.loop.stop()
            return min(now() + 0.02, self.fence.deadline())

        def due(at: float) -> None:
            assert at < last, self.ends
            self.fence.handle_timer(at)

        self.loop.run(deadline, due)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("KOI_SECRET", "not for scripts")
    yield tmp_path


def test_it_is_called_with_node_and_epoch_and_knows_no_secret(folder: Path) -> None:
    bench = Bench(folder, f'echo "$*" > {folder}/called; env > {folder}/env')
    bench.fence.run("b", 7)
    bench.until(lambda: bench.ends)
    assert bench.ends == [("b", 7, True, "the command exited 0")]
    assert (folder / "called").read_text() == "off b 7\n" and "not for scripts" not in (folder / "env").read_text()


def test_a_failure_has_its_last_line(folder: Path) -> None:
    bench = Bench(folder, "echo the switch does not answer; exit 3")
    bench.fence.run("b", 7)
    bench.until(lambda: bench.ends)
    assert bench.ends == [("b", 7, False, "the command exited 3: the switch does not answer")]


def test_it_is_ended_when_it_takes_too_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fence.FENCE_S == 60.0
    monkeypatch.setattr(fence, "FENCE_S", 0.2)
    bench = Bench(folder, "exec sleep 60")
    bench.fence.run("b", 7)
    bench.until(lambda: bench.ends)
    assert bench.ends == [("b", 7, False, "the command outlived its timeout of 0.2 s")]


def test_one_at_a_time(folder: Path) -> None:
    bench = Bench(folder, f"echo $$ >> {folder}/pids; [ $3 = 8 ] || exec sleep 60")
    bench.fence.run("b", 7)
    bench.until(lambda: (folder / "pids").exists() and (folder / "pids").read_text())
    bench.fence.run("b", 8)
    bench.until(lambda: bench.ends)
    first = (folder / "pids").read_text().split()[0]
    bench.until(lambda: is_gone(int(first)))
    assert bench.ends == [("b", 8, True, "the command exited 0")]
