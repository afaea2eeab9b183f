"""Log lines as an administrator finds them, and that no target can stop or end the process that writes."""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from koi import log
from koi.core import effects
from koi.errors import KoiError

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} a root "


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The log is one for a process: leave it as it was."""
    before = dict(vars(log.get()))
    log.get().secrets = []
    yield
    vars(log.get()).update(before)


def to_file(path: Path, level: str = "info") -> None:
    log.setup(f"file:{path}", "root", "a", level, False)


def test_the_form_of_a_line(tmp_path: Path):
    to_file(tmp_path / "log", "debug")
    for level in log.LEVELS:
        log.write(level, f"a {level} text: with a colon")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == len(log.LEVELS)
    for line, level in zip(lines, log.LEVELS, strict=True):
        assert re.fullmatch(f"{LINE}{level.upper()}: a {level} text: with a colon", line)


def test_the_levels_are_those_of_the_effects():
    assert log.LEVELS == (effects.DEBUG, effects.INFO, effects.WARNING, effects.ERROR, effects.CRITICAL)


def test_lines_below_the_level_are_left_out(tmp_path: Path):
    to_file(tmp_path / "log", "warning")
    logger = log.get()
    for method in (logger.debug, logger.info, logger.warning, logger.error, logger.critical):
        method("x")
    assert re.findall("[A-Z]+(?=: x)", (tmp_path / "log").read_text()) == ["WARNING", "ERROR", "CRITICAL"]


def test_a_child_renames_its_lines(tmp_path: Path):
    to_file(tmp_path / "log")
    log.rename("service vip")
    log.get().info("x")
    assert " a service vip INFO: x\n" in (tmp_path / "log").read_text()


def test_each_line_of_a_text_is_a_line_and_nothing_else_gets_through(tmp_path: Path):
    to_file(tmp_path / "log")
    log.write("info", "one\ntwo\r\n\n\x1b[31mred\tü\udc80\n")
    texts = [re.sub(f"^{LINE}INFO: ", "", line) for line in (tmp_path / "log").read_text().splitlines()]
    assert texts == ["one", "two", "\\x1b[31mred ü\\udc80"]


def test_lines_and_texts_have_a_bound(tmp_path: Path):
    to_file(tmp_path / "log")
    log.write("info", "ü" * 20_000 + "\n" * 10 + "x\n" * 1000)
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert len(lines[0]) <= log.MAX_LINE_BYTES and lines[0].endswith(b" ...")
    assert len(lines) <= log.MAX_LINES + 1


def test_secrets_are_blotted_out(tmp_path: Path):
    to_file(tmp_path / "log")
    log.hide("hunter2hunter2")
    log.write("info", "the password is hunter2hunter2!")
    assert (tmp_path / "log").read_text().endswith(": the password is ***!\n")


@pytest.mark.parametrize("remove", [True, False])
def test_a_file_that_was_moved_or_removed_is_made_again(tmp_path: Path, remove: bool):
    path = tmp_path / "log"
    to_file(path)
    log.write("info", "before")
    path.unlink() if remove else path.rename(tmp_path / "log.1")
    log.write("info", "after")
    assert path.read_text().endswith(": after\n") and "before" not in path.read_text()
    assert remove or "after" not in (tmp_path / "log.1").read_text()


def test_what_a_target_did_not_take_is_counted_and_told(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    to_file(folder / "log")
    (folder / "log").unlink()
    folder.rmdir()
    log.write("info", "lost")
    log.write("info", "lost too")
    folder.mkdir()
    log.write("info", "kept")
    lines = (folder / "log").read_text().splitlines()
    assert len(lines) == 2
    assert re.search("WARNING: 2 lines were lost", lines[0]) and lines[1].endswith("kept")


def test_a_target_that_fails_does_not_disturb_the_others(tmp_path: Path):
    log.setup(f"file:{tmp_path}/good, file:{tmp_path}/sub", "root", "a", "info", False)
    (tmp_path / "sub").unlink()
    (tmp_path / "sub").mkdir()
    for number in range(3):
        log.write("info", f"line {number}")
    assert [line[-6:] for line in (tmp_path / "good").read_text().splitlines()] == ["line 0", "line 1", "line 2"]


def test_a_console_whose_reader_stands_still_never_blocks():
    reader, writer = os.pipe()
    outlet = log.Outlet(log.Console(True, writer))
    for _ in range(100):
        outlet.write("info", "head", "x" * 5000)
    assert outlet.lost > 50
    received = b""
    while select.select([reader], [], [], 0)[0]:
        received += os.read(reader, 65536)
    outlet.write("info", "head", "again")
    text = os.read(reader, 65536).decode()
    assert re.search(r"head WARNING: \d+ lines were lost here", text) and text.endswith("head INFO: again\n")
    assert b"\x1b" not in received, "a pipe takes no colour"
    os.close(reader)
    outlet.write("info", "head", "nobody reads")
    assert outlet.lost == 1
    os.close(writer)


def on_terminal(colour: bool) -> bytes:
    """What a terminal gets of a warning."""
    master, slave = os.openpty()
    try:
        assert log.Console(colour, slave).write("warning", "head", "x")
        return os.read(master, 1000)
    finally:
        os.close(master)
        os.close(slave)


def test_colour_is_for_terminals_and_can_be_turned_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert on_terminal(True).startswith(b"\x1b[33mhead: x\x1b[0m")
    assert on_terminal(False).startswith(b"head: x")
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_terminal(True).startswith(b"head: x")


def listener(path: Path) -> socket.socket:
    """A syslog daemon's socket."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.bind(str(path))
    found.settimeout(10)
    return found


def test_syslog_gets_datagrams_and_its_daemon_may_restart(tmp_path: Path):
    target = log.Syslog(str(tmp_path / "dev-log"))
    assert not target.write("info", "2026-11-22 14:01:04.123 a root INFO", "nobody listens")
    with listener(tmp_path / "dev-log") as daemon:
        assert target.write("error", "2026-11-22 14:01:04.123 a root ERROR", "text")
        form = rb"<27>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d koinode\[%d\]: a root ERROR: text" % os.getpid()
        assert re.fullmatch(form, daemon.recv(1000))
    (tmp_path / "dev-log").unlink()
    with listener(tmp_path / "dev-log") as daemon:
        assert target.write("info", "2026-11-22 14:01:04.123 a root INFO", "again")
        assert daemon.recv(1000).endswith(b"a root INFO: again")


@pytest.mark.parametrize("targets", ["", " , ", "printer", "file:", "console,printer", "file:/nonexistent/folder/log", "file:/"])
def test_a_target_that_cannot_be_is_said_and_changes_nothing(targets: str):
    before = log.get().outlets
    with pytest.raises(KoiError, match="log"):
        log.setup(targets, "root", "a", "info", False)
    assert log.get().outlets is before


def test_a_folder_that_is_missing_comes_with_the_command_that_makes_it():
    with pytest.raises(KoiError, match="No such file or directory; make its folder: mkdir -p /nonexistent/folder"):
        log.setup("file:/nonexistent/folder/log", "root", "a", "info", False)


def test_a_level_that_is_not_known_is_said():
    with pytest.raises(KoiError, match="debug, info"):
        log.setup("console", "root", "a", "loud", False)
