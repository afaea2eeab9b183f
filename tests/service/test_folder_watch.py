"""The folder of services while koinode runs, scan by scan."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from koi import config as configuration
from koi.proc.folder import SETTLE_S, FolderWatch
from koi.service.catalog import scan


class Watched:
    """A folder, a watch over it, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "services"
        (self.folder / "10-vip").mkdir(parents=True)
        text = f"cluster: {{password: 0123456789abcdef}}\nservice: {{folder: {self.folder}}}\ntime: {{status_interval: 10s}}\n"
        self.config = configuration.loads(text.encode(), str(folder / "koi.conf"))
        self.watch = FolderWatch(self.config, scan(str(self.folder)).definitions, 0.0)
        self.now = 0.0

    def look(self) -> dict[str, bool]:
        """The next scan, when it is due: name -> whether it is there."""
        self.now = self.watch.due
        return {name: one is not None for name, one in self.watch.changes(self.now).items()}


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_what_is_new_counts_once_a_second_look_finds_the_same(watched: Watched) -> None:
    assert watched.look() == {} and watched.now == 10.0
    (watched.folder / "web").mkdir()
    assert watched.look() == {} and watched.watch.due == 20.0 + SETTLE_S
    (watched.folder / "web/start").write_text("#!/bin/sh\n")
    (watched.folder / "web/start").chmod(0o755)
    assert watched.look() == {}, "it has changed meanwhile"
    assert watched.look() == {"web": True} and watched.look() == {} and watched.watch.due == watched.now + 10.0


def test_what_has_vanished_and_what_has_changed(watched: Watched) -> None:
    (watched.folder / "10-vip/service.yaml").write_text("restarts: 3\n")
    assert (watched.look(), watched.look()) == ({}, {"vip": True})
    shutil.rmtree(watched.folder / "10-vip")
    assert (watched.look(), watched.look()) == ({}, {"vip": False})


def test_it_is_looked_at_on_reconfigure(watched: Watched) -> None:
    watched.watch.reconfigured(watched.config, 3.0)
    assert watched.watch.due == 3.0


@pytest.mark.parametrize("fault", ["mode", "yaml", "name"])
def test_what_is_faulty_is_told_once_and_changes_nothing(watched: Watched, fault: str, capfd: pytest.CaptureFixture[str]) -> None:
    place = {"mode": "10-vip/status", "yaml": "10-vip/service.yaml", "name": "20-vip"}[fault]
    word = {"mode": "chmod +x", "yaml": "colour: no such key", "name": "there is a service vip already"}[fault]
    for _ in range(2):  # it is told again when it comes again
        assert watched.watch.fault == ""
        if fault == "name":
            (watched.folder / place).mkdir()
        else:
            (watched.folder / place).write_text("colour: red\n")
        for _ in range(4):
            assert watched.look() == {} and word in watched.watch.fault
        assert capfd.readouterr().err.count(word) == 1
        (watched.folder / place).rmdir() if fault == "name" else (watched.folder / place).unlink()
        assert watched.look() == {}


def test_a_single_file_that_cannot_be_executed_any_more_has_not_vanished(watched: Watched) -> None:
    """Found: it was to be demoted and stopped by what could not be run: stuck."""
    file = watched.folder / "20-web"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o644)
    assert (watched.look(), watched.look(), watched.watch.fault) == ({}, {}, "")
    file.chmod(0o755)
    assert (watched.look(), watched.look()) == ({}, {"web": True})
    file.chmod(0o644)
    assert (watched.look(), watched.look()) == ({}, {}) and "chmod +x" in watched.watch.fault
    assert watched.watch.fault.endswith("until that is mended web goes on with what was last seen of it")
    file.unlink()
    assert (watched.look(), watched.look()) == ({}, {"web": False})


def test_more_than_one_fault_and_what_is_ignored(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    (watched.folder / "10-vip/service.yaml").write_text("no such key: 1\n")
    (watched.folder / "10-vip/status").write_text("#!/bin/sh\n")
    (watched.folder / "vip.bak").mkdir()
    assert watched.look() == {} and watched.watch.fault.endswith(" (and 1 more, see the log)")
    assert watched.look() == {} and capfd.readouterr().err.count("vip.bak is ignored: its name has a period") == 1


def test_a_folder_that_cannot_be_read_lets_the_services_go_on(watched: Watched) -> None:
    away = watched.folder.with_name("away")
    os.rename(watched.folder, away)
    assert (watched.look(), watched.look()) == ({}, {}) and "the services go on as they are" in watched.watch.fault
    os.rename(away, watched.folder)
    assert (watched.look(), watched.look()) == ({}, {})
