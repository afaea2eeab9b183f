"""The elector's writer: an orderly end waits for the write under way, and not for ever."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from koi.core.ledger import Record
from koi.proc import files, writer
from koi.proc.writer import Writer


def test_an_end_waits_for_what_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, begun = files.write_json, threading.Event()

    def slowly(path: str, content: Any) -> None:
        begun.set()
        time.sleep(0.1)
        write(path, content)

    monkeypatch.setattr(files, "write_json", slowly)
    one = Writer(str(tmp_path / "elector.json"))
    one.submit(1, Record(top=1))
    assert begun.wait(10)
    one.submit(2, Record(top=2))
    one.finish()
    assert os.listdir(tmp_path) == ["elector.json"] and files.read_json(one.path)["top"] == 2 and one.done() == 2


def test_an_end_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FINISH_S", 0.2)
    one, free = Writer(str(tmp_path / "missing" / "elector.json")), time.monotonic()
    one.submit(1, Record())
    one.finish()
    assert 0.15 < time.monotonic() - free < 10 and one.trouble


def test_an_end_with_nothing_to_write_is_at_once(tmp_path: Path) -> None:
    one = Writer(str(tmp_path / "elector.json"))
    one.finish()
    assert os.listdir(tmp_path) == []
