"""A worker is rehearsed in root, whole, and nothing outside of root notices."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from koi import config as configuration
from koi import log
from koi.config import Config
from koi.core.pipe import ServiceState
from koi.proc import rehearsal, worker
from koi.proc.child import Context
from koi.proc.link import dumps, loads
from koi.proc.loop import now
from tests.proc.waiting import cmdline, descriptors


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """With a fence that would be seen."""
    text = f"node: {{name: a, run_dir: {tmp_path}/r, state_dir: {tmp_path}/s, self_fence: touch {tmp_path}/fenced}}\n"
    text += f"cluster: {{password: 0123456789abcdefghijklmnop}}\nservice: {{folder: {tmp_path}}}\n"
    return configuration.loads(text.encode(), str(tmp_path / "koi.conf"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The states that rehearsed workers told their runner, and whether they might be active."""
    found: list[tuple[str, bool]] = []

    def send(context: Context, to: str, message: Any) -> None:
        message = loads(dumps(message))
        if isinstance(message, ServiceState):
            found.append((message.info.state, message.promoted))

    monkeypatch.setattr(Context, "send", send)
    return found


def around() -> tuple[object, ...]:
    """What a rehearsal may not change."""
    pid = os.getpid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return descriptors(pid), children, os.getcwd(), cmdline(pid), log.get().outlets, log.get().process


def test_a_worker_goes_through_its_whole_life_each_time(config: Config, told: list[tuple[str, bool]]) -> None:
    rehearsal.play(config, worker.main)
    states = [state for state, _ in told]
    assert states.count("Promoted") >= rehearsal.LIVES and told.count(("Demoting", True)) == rehearsal.LIVES
    assert told[-1] == ("Stopped", False)


def test_nothing_else_notices(config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = around()
    rehearsal.play(config, worker.main)
    assert around() == before and list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("program", ["/no/such/program", "/dev/null", "/bin/false"])
def test_a_program_that_cannot_be_run_harms_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], program: str,
) -> None:
    monkeypatch.setattr(rehearsal, "PROGRAM", program)
    monkeypatch.setattr(rehearsal, "LIVES", 1)
    before = descriptors(os.getpid())
    rehearsal.play(config, worker.main)
    assert descriptors(os.getpid()) == before and list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_a_service_that_could_fence_does_not(config: Config, tmp_path: Path) -> None:
    fences: list[object] = []
    rehearsal.play(config, lambda context: fences.append(context.config.node.self_fence))
    assert config.node.self_fence and set(fences) == {None} and len(fences) == rehearsal.LIVES
    assert replace(config.node, self_fence=None) != config.node


def test_workers_that_do_not_end_are_left_all_together_after_a_while(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "LIMIT_S", 0.2)
    turns: list[list[None]] = []

    def wait(context: Context) -> None:
        turns.append([])
        context.run(lambda: turns[-1].append(None), lambda time: None)

    began = now()
    rehearsal.play(config, wait)
    assert now() - began >= 0.2 and len(turns[0]) > 1
    assert [len(turn) for turn in turns[1:]] == [1] * (rehearsal.LIVES - 1)


def test_a_rehearsal_that_fails_does_not_keep_the_node_from_starting(
    config: Config, capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(context: Context) -> None:
        raise RuntimeError("a fault of ours")

    before = around()
    rehearsal.play(config, fail)
    assert around() == before and "could not be rehearsed" in capfd.readouterr().err
