"""Order on real nodes, across all kinds of services; what scripts find; and that nothing that hangs holds a node up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.cluster import RealCluster, beneath, until

NOTE = """#!/bin/sh
cd "$KOI_SERVICE_DIR" && exec 3>&1
env | grep ^KOI_ > {folder}/env.$KOI_NODE.$KOI_SERVICE.$KOI_ACTION.new
mv {folder}/env.$KOI_NODE.$KOI_SERVICE.$KOI_ACTION.new {folder}/env.$KOI_NODE.$KOI_SERVICE.$KOI_ACTION
echo "$(date +%s.%N) $KOI_NODE $KOI_SERVICE $KOI_ACTION begin" >> {folder}/order
{body}
echo "$(date +%s.%N) $KOI_NODE $KOI_SERVICE $KOI_ACTION end" >> {folder}/order
"""
MEET = """here={folder}/met.$KOI_NODE
echo > $here.$KOI_SERVICE.$KOI_ACTION
until [ -e $here.{other}.$KOI_ACTION ]; do sleep 0.02; done"""
"""Ends only once the other service runs the same action at the same time."""
CALM = "3s"
"""Leases that a busy machine keeps."""
PACE = "500ms"
"""How often `status` is run, and how soon a new service is seen."""
WHERE = {"low": 5, "scripts": 10, "file": 10, "program": 20, "watched": 30, "only": 40}
"""Service -> priority. `only` is on one node; `free`, without a priority, is in nobody's order."""
ALL = ("start", "stop", "promote", "demote")


class Mixed(RealCluster):
    """Three nodes with services of all kinds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, failover=CALM, pace=PACE)
        (folder / "order").touch()
        for node in self.nodes:
            self.put(node, "5-low", ALL)
            self.put(node, "10-scripts", ("status",))
            self.put(node, "10-scripts", ALL, MEET.replace("{other}", "file"))
            self.put_file(node, "10-file", '[ "$1" = status ] || {\n' + MEET.replace("{other}", "scripts") + "\n}")
            self.put(node, "20-program", ("run",), "exec sleep 1000")
            self.put(node, "20-program", ("promote", "demote"))
            self.put(node, "30-watched", ALL)
            self.put(node, "30-watched", ("watch",), "exec sleep 1000")
            self.put(node, "free", ("start",), f"until [ -e {folder}/release ]; do sleep 0.02; done")
            (self[node].services / "35-empty").mkdir()
        self.put("a", "40-only", ALL)

    def put(self, node: str, service: str, actions: tuple[str, ...], body: str = "") -> None:
        """Scripts that note when they begin and end."""
        for action in actions:
            self._write(self[node].services / service / action, body)

    def put_file(self, node: str, service: str, body: str) -> None:
        """A service of one file."""
        self._write(self[node].services / service, body)

    def _write(self, path: Path, body: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(NOTE.replace("{body}", body).replace("{folder}", str(self.folder)))
        path.chmod(0o755)

    def times(self, node: str, action: str, since: float = 0.0) -> dict[str, tuple[float, float]]:
        """Service -> first begin and first end of the action after a time; a program never ends."""
        found: dict[str, dict[str, float]] = {}
        for line in (self.folder / "order").read_text().splitlines():
            at, host, service, act, edge = line.split()
            if (host, act) == (node, action) and float(at) > since:
                found.setdefault(service, {}).setdefault(edge, float(at))
        return {name: (edges["begin"], edges.get("end", edges["begin"])) for name, edges in found.items()}

    def env(self, node: str, service: str, action: str) -> dict[str, str]:
        """What the script found when it ran last."""
        path = self.folder / f"env.{node}.{service}.{action}"
        return dict(line.split("=", 1) for line in path.read_text().splitlines()) if path.exists() else {}

    def up(self, node: str, since: float = 0.0) -> bool:
        """Whether the node's services were started in order, and all of them; the program's own stamp may come last."""
        until(f"the program of {node}", lambda: self.times(node, "run", since))
        times = self.times(node, "start", since) | self.times(node, "run", since)
        there = {name for name in WHERE if name != "only" or node == "a"}
        return times.keys() >= there and in_order(times, up=True, spawned=("program",))


def in_order(times: dict[str, tuple[float, float]], up: bool, spawned: tuple[str, ...] = ()) -> bool:
    """Whether each begins only once all that come before it have ended; what is `spawned` is waited for no longer than that,
    and may write its stamp later."""
    names = [name for name in times if name in WHERE]
    pairs = [(x, y) for x in names for y in names if (WHERE[x] < WHERE[y] if up else WHERE[x] > WHERE[y]) and x not in spawned]
    return bool(pairs) and all(times[x][1] <= times[y][0] for x, y in pairs)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    with Mixed(tmp_path_factory.mktemp("mixed")) as mixed:
        mixed.start()
        until("all but `free` have started", lambda: all("watched" in mixed.times(n, "start") for n in "abc"))
        until("Live while services start", lambda: list(mixed.states().values()) == ["Live"] * 3)
        (mixed.folder / "release").touch()
        yield mixed


def test_start_promote_demote_and_stop_go_by_priority(cluster: Mixed) -> None:
    first = cluster.wait_whole()
    assert all(cluster.up(node) for node in "abc")
    assert set(cluster.times(first, "promote")) >= {"low", "scripts", "file", "program", "watched"}
    assert in_order(cluster.times(first, "promote"), up=True)
    other = next(n for n in "abc" if n != first)
    began = time.time()
    with cluster.any().client() as client:
        client.promote(other)
        demotes, promotes = cluster.times(first, "demote", began), cluster.times(other, "promote", began)
        assert in_order(demotes, up=False) and in_order(promotes, up=True)
        assert max(end for _, end in demotes.values()) <= min(begin for begin, _ in promotes.values())
        client.stop(first)
        assert in_order(cluster.times(first, "stop", began), up=False)
        began = time.time()
        client.start(first)
        assert cluster.up(first, began)


def test_what_scripts_find_in_their_environment(cluster: Mixed) -> None:
    master = cluster.wait_whole()
    backup = next(n for n in "abc" if n != master)
    epoch = str(cluster.status()["cluster"]["epoch"])
    common = {"KOI_CLUSTER_ID": "13"}

    def told(node: str, action: str, **expected: str) -> Callable[[], bool]:
        wanted = {"KOI_NODE": node, "KOI_ACTION": action, **common, **expected}
        own = {"scripts": str(cluster[node].services / "10-scripts"), "file": str(cluster[node].services)}
        return lambda: all(
            cluster.env(node, service, action).items() >= {**wanted, "KOI_SERVICE": service, "KOI_SERVICE_DIR": path}.items()
            for service, path in own.items())

    promoted = {"KOI_IS_PROMOTED": "1", "KOI_EPOCH": epoch, "KOI_MASTER": master}
    until("promote", told(master, "promote", KOI_STATE="Backup", **promoted))
    until("status of the master", told(master, "status", KOI_STATE="Master", **promoted))
    until("status of a backup", told(backup, "status", KOI_STATE="Backup", KOI_IS_PROMOTED="0", KOI_MASTER=master))
    with cluster.any().client() as client:
        client.promote(backup)
    until("demote", told(master, "demote", KOI_IS_PROMOTED="0", KOI_EPOCH=epoch))
    new = str(int(epoch) + 1)
    until("the next epoch", told(backup, "promote", KOI_IS_PROMOTED="1", KOI_EPOCH=new, KOI_MASTER=backup))
    until("the new master's name", told(master, "status", KOI_STATE="Backup", KOI_IS_PROMOTED="0", KOI_MASTER=backup))
    assert "KOI_SECRET" not in cluster.env(backup, "scripts", "promote") and "KOI_SHARE" in cluster.env(backup, "file", "start")


STUBBORN = "trap '' TERM; echo > {0}; while :; do sleep 0.2; done"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    with RealCluster(tmp_path_factory.mktemp("plain"), failover=CALM, pace=PACE) as cluster:
        for name in ALL:
            cluster.script("10-vip", name)
        cluster.start()
        yield cluster


@pytest.mark.parametrize("action", ["start", "promote", "status"])
def test_a_script_that_hangs_holds_up_neither_demote_nor_stop(plain: RealCluster, tmp_path: Path, action: str) -> None:
    """Each would run for its timeout, 30 s and more, and ignores SIGTERM."""
    cluster, master = plain, plain.wait_whole()
    other = next(n for n in "abc" if n != master)
    hangs, folder = tmp_path / "hangs", cluster[master].services / "20-hangs"
    cluster.script("away.d", action, body=STUBBORN.replace("{0}", str(hangs)), nodes=master)
    (cluster[master].services / "away.d").rename(folder)
    until("it hangs", hangs.exists)
    if action == "promote":  # Master only once every service is Promoted
        until("a backup meanwhile", lambda: state_of(cluster, master) == ("Backup", "Promoting"))
    began = time.monotonic()
    with cluster.any().client() as client:
        client.promote(other)
        client.stop(master)
        assert time.monotonic() - began < 15, "TERM, KILL a second later, and on"
        left = beneath(folder).values()
        assert [line for line in left if not line.startswith("koinode: ")] == [] and cluster.overlaps() == []
        shutil.rmtree(folder)
        until("its worker is gone", lambda: "service hangs" not in cluster[master].processes())
        client.start(master)


def state_of(cluster: RealCluster, name: str) -> tuple[str, str]:
    """The state of a node and of its last service."""
    node = next(n for n in cluster.status()["nodes"] if n["name"] == name)
    return node["state"], node["services"][-1]["state"]


def test_services_start_without_any_elector(tmp_path: Path) -> None:
    """Two of three nodes are down: nobody leads, and the third starts its services all the same."""
    with RealCluster(tmp_path) as cluster:
        cluster.script("10-vip", "start", body=f"until [ -e {tmp_path}/go ]; do sleep 0.02; done")
        cluster["a"].start()
        until("Live while they start", lambda: node_and_services(cluster) == ["Live", "Starting"])
        (tmp_path / "go").touch()
        until("a backup", lambda: node_and_services(cluster) == ["Backup", "Started"])
        assert cluster.status()["cluster"]["leader"] is None and [s.action for s in cluster.read_stamps()] == ["start", "start"]


def node_and_services(cluster: RealCluster) -> list[str]:
    """The states of node a and of its services."""
    local = cluster["a"].local()
    return [local["state"], *(service["state"] for service in local["services"])]


def test_stdin_and_folder_of_scripts(tmp_path: Path) -> None:
    with RealCluster(tmp_path, nodes="a") as cluster:
        body = f"echo $PWD >> {tmp_path}/where; readlink /proc/self/fd/0 >> {tmp_path}/input; echo one; echo two >&2"
        cluster.script("10-vip", "start", body=body)
        shutil.copy(cluster["a"].services / "10-vip/start", cluster["a"].services / "20-file")
        cluster.start()
        cluster.wait_master()
        services = cluster["a"].services
        assert set((tmp_path / "input").read_text().split()) == {"/dev/null"}
        assert set((tmp_path / "where").read_text().split()) == {str(services), str(services / "10-vip")}
        log = cluster["a"].log.read_text()
        for line in ("service vip INFO: start: one", "service vip INFO: start: two", "service file INFO: promote: one"):
            assert line in log
