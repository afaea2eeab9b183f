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
def test_what_is_faulty_is_told_once_and_changes_nothing(watched: Watched, fault: str) -> None:
    if fault == "mode":
        (watched.folder / "10-vip/status").write_text("#!/bin/sh\n")
    elif fault == "yaml":
        (watched.folder / "10-vip/service.yaml").write_text("no such key: 1\n")
    else:
        (watched.folder / "20-vip").mkdir()
    told = [watched.watch.told]
    for _ in range(4):
        assert watched.look() == {}
        told.append(watched.watch.told)
    assert [len(texts) for texts in told] == [0, 1, 1, 1, 1]
    word = {"mode": "chmod +x", "yaml": "no such key", "name": "there is a service vip already"}[fault]
    assert word in next(iter(told[-1]))


def test_a_folder_that_cannot_be_read_lets_the_services_go_on(watched: Watched) -> None:
    away = watched.folder.with_name("away")
    os.rename(watched.folder, away)
    assert (watched.look(), watched.look()) == ({}, {}) and "the services go on as they are" in next(iter(watched.watch.told))
    os.rename(away, watched.folder)
    assert (watched.look(), watched.look()) == ({}, {})
