"""The live tree: redrawn in place on a terminal, appended elsewhere; and `koi watch` as a program that Ctrl-C ends."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from koi import cli
from koi.view import paint
from koi.view_live import CLEAR, CLEAR_BELOW, HOME, Screen, fit
from tests.cli.fakes import ID, SECRET, FakeNode, answer
from tests.cli.samples import status


def test_a_terminal_is_redrawn_only_when_something_changed() -> None:
    out = io.StringIO()
    screen = Screen(out, redraw=True)
    screen.show(["a", "b"])
    first = out.getvalue()
    screen.show(["a", "b"])
    assert out.getvalue() == first
    screen.show(["a"])
    assert out.getvalue()[len(first):].startswith(HOME + "a")
    assert out.getvalue().endswith(CLEAR_BELOW)


def test_another_size_of_the_terminal_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    screen = Screen(out, redraw=True)
    for columns in (80, 80, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        screen.show(["a"])
    assert out.getvalue().count(CLEAR) == 2


def test_a_picture_that_is_too_high_says_so() -> None:
    lines = [paint("x" * 10, "good", True), "y" * 11, "z"]
    assert fit(lines, 10, 5) == lines
    assert fit(lines, 10, 4) == [lines[0], "... 2 more lines; enlarge the terminal"]
    assert fit(lines, 11, 4) == lines
    assert fit(["z", "y" * 11], 10, 3) == ["z", "... 1 more line; enlarge the terminal"]
    assert fit(lines, 10, 1) == ["... 3 more lines; enlarge the terminal"]


def test_elsewhere_each_change_is_appended_without_control_characters() -> None:
    out = io.StringIO()
    screen = Screen(out, redraw=False)
    for lines in (["a"], ["a"], ["b"]):
        screen.show(lines)
    assert out.getvalue() == "a\n\nb\n"


def test_watch_shows_changes_until_ctrl_c() -> None:
    with FakeNode(lambda r: answer(r, status(epoch=7 + (len(fake.asked) > 1)))) as fake:
        process = subprocess.Popen(
            [sys.executable, "-m", "koi.cli", "-H", "127.0.0.1", "-p", str(fake.port), "--id", str(ID), "watch"],
            stdout=subprocess.PIPE, env={**os.environ, "KOI_SECRET": SECRET}, cwd=Path(cli.__file__).parent.parent,
        )
        assert process.stdout is not None
        text = ""
        while "epoch 8" not in text:
            assert select.select([process.stdout], [], [], 20)[0], text
            text += os.read(process.stdout.fileno(), 65536).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        process.stdout.close()
    assert text.index("epoch 7") < text.index("epoch 8")
    assert "\x1b" not in text
