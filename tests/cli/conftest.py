"""One real cluster for all tests of the client: a, b and d run services, a, b and the witness c vote.

It is started once; `koi` puts it right before each test, so that a test may leave it as it likes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koi import cli
from tests.cluster import RealCluster, until

STATUS = '[ -e "{folder}/lag-$KOI_NODE" ] && exit 93'
FAIL = '[ ! -e "{folder}/fail-$KOI_NODE" ] || {{ echo "disk is full"; exit 1; }}'
NODES, RUNNERS = "abcd", "abd"


class Koi:
    """The program `koi` on one node's configuration; what it printed stays in `out` and `err`."""

    def __init__(self, cluster: RealCluster, capsys: pytest.CaptureFixture[str]) -> None:
        self.cluster, self._capsys = cluster, capsys
        self.out = self.err = ""

    def __call__(self, *words: str, node: str = "a") -> int:
        config = [] if "-f" in words else ["-f", str(self.cluster[node].config)]
        code = cli.main([*config, *words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *words: str, node: str = "a") -> Any:
        """The same with --json, which must succeed."""
        assert self("--json", *words, node=node) == 0, self.err
        return json.loads(self.out)

    def flag(self, what: str, node: str, on: bool = True) -> None:
        """fail: the node's promote fails. lag: its status says 93."""
        path = self.cluster.folder / f"{what}-{node}"
        path.touch() if on else path.unlink(missing_ok=True)

    def node(self, name: str) -> Any:
        """One node's object."""
        return self.json("status", name)["nodes"][0]

    def put_right(self) -> None:
        """Every node runs, nobody is stopped or failed, a master is there."""
        for name in NODES:
            for what in ("fail", "lag"):
                self.flag(what, name, False)
            if self.cluster[name].process is None:
                self.cluster[name].start()
        until("all is well", self._is_well)
        self.cluster.wait_whole()

    def _is_well(self) -> bool:
        if self("--json", "status") != 0:
            return False
        status = json.loads(self.out)
        cluster, nodes = status["cluster"], [n for n in status["nodes"] if n["runner"]]
        if cluster["maintenance"]:
            self("maintenance", "off", "--force", "--no-wait")
        if cluster["manual"]:
            self("elect", "--no-wait")
        for node in nodes:
            for wrong, verb in ((node["stopped"], "start"), (node["failed"], "recover"), (node["mode"] == "passive", "active")):
                if wrong:
                    self(verb, node["name"], "--no-wait")
        states = sorted(n["state"] for n in nodes)
        return states == ["Backup", "Backup", "Master"] and not cluster["manual"] and cluster["quorum"]["have"] == 3


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """The cluster."""
    folder = tmp_path_factory.mktemp("cli")
    with RealCluster(folder, NODES, electors="abc", runners=RUNNERS) as cluster:
        cluster.script("10-db", "start")
        cluster.script("10-db", "promote", FAIL.format(folder=folder))
        for action in ("demote", "stop"):
            cluster.script("10-db", action)
        cluster.script("10-db", "status", STATUS.format(folder=folder))
        cluster.script("20-web", "promote")
        cluster.start()
        cluster.wait_master()
        yield cluster


@pytest.fixture
def koi(real: RealCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Koi:
    """The program, on a cluster that is well."""
    monkeypatch.chdir(real.folder)
    for name in [n for n in os.environ if n.startswith("KOI_")]:
        monkeypatch.delenv(name)
    program = Koi(real, capsys)
    program.put_right()
    return program


@pytest.fixture
def master(koi: Koi) -> str:
    """The node that is master now."""
    return str(koi.json("status")["cluster"]["master"])


@pytest.fixture
def backup(koi: Koi, master: str) -> str:
    """A node that could be."""
    return next(name for name in RUNNERS if name != master)


@pytest.fixture
def another(master: str, backup: str) -> str:
    """The other one that could be."""
    return next(name for name in RUNNERS if name not in (master, backup))


@pytest.fixture
def root(koi: Koi) -> Path:
    """The cluster's folder."""
    return koi.cluster.folder
