"""The whole of koinode killed on the master while what its services started lives on: what the koinode after it owes.

Within the guard: demoted in time, or killed before another node may be promoted. After it: killed at once, then demoted.
And run_dir/lease, from which it knows.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from koi import log
from koi.core.facts import Debt
from koi.core.pipe import Freeze, Held, ServiceState
from koi.proc import leasefile, treefile
from koi.proc.leasefile import LEASE_NAME, LeaseFile
from koi.proc.loop import now
from koi.proc.treefile import Tree
from koi.service import leftovers
from tests.cluster import RealCluster, beneath, send, until
from tests.core.test_reporting import service
from tests.proc.conftest import Begin
from tests.proc.lone_worker import Lone
from tests.proc.waiting import is_gone
from tests.proc.waiting import until as wait

Make = Callable[..., RealCluster]


@pytest.fixture
def make(begin: Begin, tmp_path: Path) -> Make:
    """A cluster with one service; while that is promoted, a daemon of its script notes the time in NODE.active."""
    fence = {name: f"  self_fence: date +%s.%N >> {tmp_path}/{name}.fenced\n" for name in "abc"}
    daemon = f'sh -c "while :; do date +%s.%N >> {tmp_path}/$KOI_NODE.active; sleep 0.02; done" &'

    def start(failover: str = "2s", **bodies: str) -> RealCluster:
        return begin(("10-vip",), {"promote": daemon, **bodies}, failover=failover, node_extra=fence)

    return start


def active(cluster: RealCluster, node: str) -> list[float]:
    """When the daemon of the node's service was alive."""
    path = cluster.folder / f"{node}.active"
    return [float(word) for word in path.read_text().split() if "." in word] if path.exists() else []


def failover_after(cluster: RealCluster, master: str, killed: float) -> float:
    """When the next node began to promote."""
    assert cluster.wait_master(master) != master
    promoted = cluster.first("promote", "begin", killed)
    assert promoted is not None and promoted.node != master
    return promoted.time


def test_a_demote_of_leftovers_that_hangs_is_killed_before_another_node_is_promoted(make: Make, tmp_path: Path) -> None:
    cluster = make("6s", demote="sleep 60")
    master = cluster.wait_master()
    wait(lambda: active(cluster, master))
    killed = time.time()
    cluster[master].kill_koi()
    cluster[master].start()
    promoted = failover_after(cluster, master, killed)
    said = cluster[master].log.read_text()
    assert "not demoted within 2.28 s after the lease of the dead koinode" in said and "another node may be master now" in said
    assert max(active(cluster, master)) < promoted
    fenced = tmp_path / f"{master}.fenced"
    until("self_fence", lambda: fenced.exists() and fenced.read_text())
    cluster.wait_state(master, "Backup")  # it recovers by itself


def test_leftovers_found_after_the_guard_are_killed_at_once_and_then_demoted(make: Make, tmp_path: Path) -> None:
    """Nobody could act before: docs/guide.md says so. From the start on there is no waiting, and no failure when demote works."""
    cluster = make()
    master = cluster.wait_master()
    wait(lambda: active(cluster, master))
    killed = time.time()
    cluster[master].kill_koi()
    failover_after(cluster, master, killed)
    assert active(cluster, master)[-1] > killed, "two are active, as long as nobody starts koinode"
    started = time.time()
    cluster[master].start()
    demoted = until("demote", lambda: cluster.first("demote", "end", started, master))
    assert max(active(cluster, master)) < demoted.time
    cluster.wait_state(master, "Backup")
    said = cluster[master].log.read_text()
    assert "its processes are killed, then it is demoted" in said and "after its lease had ended" in said
    assert "has failed" not in said and not (tmp_path / f"{master}.fenced").exists()


def test_workers_that_outlived_root_say_what_they_have_demoted(make: Make, tmp_path: Path) -> None:
    """A slow stop: the next koinode begins after the guard, and yet nothing is in haste, for all was demoted in time."""
    cluster = make(promote="", stop="sleep 2", demote="sleep 0.3")
    master, run = cluster.wait_master(), None
    node = cluster[master]
    run = node.folder / "run"
    os.kill(node.pid, signal.SIGKILL)
    assert node.process is not None
    node.process.wait()
    until("the worker notes its end", lambda: (run / "vip.demoted").exists())
    until("all are gone", lambda: not beneath(node.folder))
    assert (run / LEASE_NAME).read_text().split()[1] != "none"
    cluster.script("10-vip", "stop")
    node.start()
    cluster.wait_state(master, "Backup")
    said = node.log.read_text()
    assert "did not end in order" in said and "may be master" not in said and not (tmp_path / f"{master}.fenced").exists()
    assert not (run / "vip.demoted").exists() and cluster.overlaps() == []
    assert (run / LEASE_NAME).read_text().split()[1] == "none"


def test_workers_that_are_stuck_under_a_hold_keep_no_koinode_away(make: Make, tmp_path: Path) -> None:
    """Found by the simulator: their lease had no end, so they waited for ever, and with them the next koinode, for their lock."""
    broken = f"[ -e {tmp_path}/mended ]"
    cluster = make(promote="", demote=f"{broken} || exit 1", stop=f"{broken} || exit 1")
    node = cluster[cluster.wait_master()]
    with node.client() as client:
        client.promote(next(name for name in "abc" if name != node.name), no_wait=True)
    lease = node.folder / "run" / LEASE_NAME
    until("the hold", lambda: cluster.status().get("cluster", {}).get("hold") == "stuck" and "unlimited" in lease.read_text())
    os.kill(node.pid, signal.SIGKILL)
    assert node.process is not None
    node.process.wait()
    until("all are gone", lambda: not beneath(node.folder))
    assert "it is stuck, and nobody else is promoted meanwhile" in node.log.read_text()
    (tmp_path / "mended").touch()
    node.start()
    until("it is back", lambda: any(n["name"] == node.name and n["state"] in ("Backup", "Master")
                                    for n in cluster.status().get("nodes", ())))
    assert cluster.overlaps() == []


def test_an_orderly_stop_leaves_no_lease(make: Make) -> None:
    cluster = make(promote="")
    node = cluster[cluster.wait_master()]
    assert float((node.folder / "run" / LEASE_NAME).read_text().split()[1]) > now()
    assert node.stop() == 0 and list((node.folder / "run").iterdir()) == []


def test_what_was_left_is_demoted_in_maintenance_too_if_another_node_is_master(make: Make, tmp_path: Path) -> None:
    """It stayed promoted beside that one for the whole maintenance."""
    cluster = make(demote=f"touch {tmp_path}/$KOI_NODE.demoted")
    node = cluster[cluster.wait_master()]
    wait(lambda: active(cluster, node.name))
    killed = time.time()
    node.kill_koi()
    failover_after(cluster, node.name, killed)
    with cluster.any().client() as client:
        client.maintenance(True)
    started = time.time()
    node.start()
    until("it is demoted", lambda: cluster.first("stop", "end", started, node.name))
    until("it follows the maintenance", lambda: any(n["name"] == node.name and n["state"] == "Stopped"
                                                    for n in cluster.status().get("nodes", ())))
    assert max(active(cluster, node.name)) < started + 10 and (tmp_path / f"{node.name}.demoted").exists()
    assert cluster.first("start", "begin", started, node.name) is None
    with cluster.any().client() as client:
        client.maintenance(False)
    until("it starts", lambda: cluster.first("start", "end", started, node.name))


@pytest.mark.parametrize("hold", ["maintenance", "stuck"])
def test_what_was_left_under_a_hold_may_take_its_time_to_demote(make: Make, tmp_path: Path, hold: str) -> None:
    """Longer than demote_grace: it was killed, and the node fenced, although nobody else could be promoted."""
    slow = f"[ -e {tmp_path}/mended ] || exit 1\nsleep 2\ntouch {tmp_path}/$KOI_NODE.demoted"
    cluster = make("3s", promote="", demote=slow, stop=f"[ -e {tmp_path}/mended ] || exit 1")
    node = cluster[cluster.wait_master()]
    if hold == "stuck":
        with node.client() as client:
            client.promote(next(name for name in "abc" if name != node.name), no_wait=True)
        until("the hold", lambda: cluster.status().get("cluster", {}).get("hold") == "stuck")
    (tmp_path / "mended").touch()
    node.kill_koi()
    if hold == "maintenance":
        with cluster.any().client() as client:
            client.maintenance(True)
    node.start()
    if hold == "maintenance":
        until("it says that it is frozen", lambda: "there is maintenance, so it stays as it is" in node.log.read_text())
        with cluster.any().client() as client:
            assert "maintenance is off" in client.maintenance(False)["message"]
    until("it is demoted", lambda: (tmp_path / f"{node.name}.demoted").exists())
    until("it is back", lambda: any(n["name"] == node.name and n["state"] in ("Backup", "Master")
                                    for n in cluster.status().get("nodes", ())))
    said = node.log.read_text()
    assert "not demoted within" not in said and not (tmp_path / f"{node.name}.fenced").exists()
    cluster.wait_master()
    assert cluster.overlaps() == []


# --- a worker alone ---------------------------------------------------------------------------


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Lone]:
    one = Lone(tmp_path, service=", stop_timeout: 60s")
    (tmp_path / "r").mkdir()
    yield one
    one.close()


def test_a_program_that_ignores_sigterm_is_killed_in_time(lone: Lone) -> None:
    """It is ended before the demote begins, with all of stop_timeout for that: the grace counts meanwhile."""
    lone.script("run", f"trap '' TERM; echo $$ > {lone.folder}/pid; while :; do sleep 0.05; done")
    lone.fork()
    lone.lease(math.inf)
    lone.order("promoted")
    lone.until("Promoted")
    pid = int(wait(lambda: (lone.folder / "pid").exists() and (lone.folder / "pid").read_text().strip()))
    assert lone.pid is not None
    os.kill(lone.pid, signal.SIGKILL)
    os.waitpid(lone.pid, 0)
    lone.lease(-1.0)
    lone.said.clear()
    began = now()
    lone.fork(unclean=True, debt=Debt(began, began))
    lone.until("Failed")
    assert is_gone(pid) and now() - began < 30 and "not demoted within 1.14 s" in lone.log()


def test_a_worker_that_begins_late_has_the_whole_grace_to_demote(lone: Lone) -> None:
    """A busy machine: the worker was forked long after koinode began, which was after the guard already."""
    lone.scripts("stop")
    lone.script("demote", "sleep 0.2")
    lone.fork(unclean=True, debt=Debt(now() - 20, now() - 10))
    wait(lambda: lone.actions() == ["demote", "stop"], what="demoted and stopped")
    assert re.search(r"found 2\d\.\d s after its lease had ended", lone.log()) and lone.failures() == []


def test_a_worker_whose_runner_says_nothing_decides_alone(lone: Lone) -> None:
    lone.scripts("demote", "stop")
    lone.fork(unclean=True, frozen=None, debt=Debt(now() - 20, now() - 10))
    wait(lambda: lone.actions() == ["demote", "stop"], what="demoted and stopped")
    lone.send(Freeze(False))
    lone.until("Stopped")
    assert lone.actions() == ["demote", "stop"]


def test_a_worker_whose_runner_says_nothing_believes_its_state_folder(lone: Lone) -> None:
    lone.scripts("demote", "stop")
    (lone.folder / "s").mkdir()
    (lone.folder / "s" / "node.json").write_text('{"format": 1, "stopped": false, "maintenance": true}')
    began = now()
    lone.fork(unclean=True, frozen=None, debt=Debt(began - 1, began, covered=True))
    wait(lambda: now() > began + 2.5, what="the time to decide is over")
    assert lone.actions() == []
    lone.send(Freeze(False))
    wait(lambda: lone.actions() == ["stop"], what="its time is over: everything is killed, and stop is the last try")


def test_the_state_folder_does_not_keep_promoted_what_had_a_lease_with_an_end(lone: Lone) -> None:
    lone.scripts("demote", "stop")
    (lone.folder / "s").mkdir()
    (lone.folder / "s" / "node.json").write_text('{"format": 1, "stopped": false, "maintenance": true}')
    lone.fork(unclean=True, frozen=None, debt=Debt(now() - 0.2, now()))
    wait(lambda: lone.actions() == ["demote", "stop"], what="demoted and stopped")


def test_what_a_tree_left_that_died_before_maintenance_is_demoted_after_it(lone: Lone) -> None:
    """Nothing was told of it: it counted as stopped, and stayed promoted for good."""
    lone.scripts("demote", "stop")
    lone.fork(unclean=True, frozen=None, debt=Debt(now(), now()))
    lone.send(Freeze(True))
    wait(lambda: "there is maintenance" in lone.log())
    state: Optional[ServiceState] = lone.last()
    assert state is not None and state.promoted and not state.clean and lone.actions() == []
    lone.send(Freeze(False))
    wait(lambda: lone.actions() == ["demote", "stop"], what="demoted and stopped")


def test_the_grace_counts_from_the_end_of_maintenance_although_a_program_will_not_end(lone: Lone) -> None:
    """Found: it counted only once what was left of the program had ended, up to stop_timeout later; who ends a hold by force
    waits no longer than the guard."""
    lone.script("run", f"(trap '' TERM; echo $$ > {lone.folder}/pid; while :; do sleep 0.05; done) &\nwait")
    lone.fork()
    lone.lease(math.inf)
    lone.order("promoted")
    lone.until("Promoted")
    wait(lambda: (lone.folder / "pid").exists() and (lone.folder / "pid").read_text().strip())
    assert lone.pid is not None
    left = leftovers.find(leftovers.Mark(str(lone.services), "db", "a", 13))
    send([lone.pid, *(one.pid for one in left if one.leads)], signal.SIGKILL)
    os.waitpid(lone.pid, 0)
    lone.cell.write(None)
    lone.said.clear()
    lone.fork(unclean=True, frozen=None, debt=Debt(now(), now()))
    lone.send(Freeze(True))
    wait(lambda: "there is maintenance" in lone.log())
    thawed = now()
    lone.send(Freeze(False))
    lone.until("Failed")
    assert now() - thawed < 30 and "not demoted within 1.14 s" in lone.log()


# --- the file ---------------------------------------------------------------------------------


def test_the_file_says_when_the_lease_ends(tmp_path: Path) -> None:
    file, run = LeaseFile(str(tmp_path)), str(tmp_path)
    for end, counts in ((12.5, 12.5), (math.inf, 20.0), (1234.567891, 1234.567891), (1e9, 20.0), (math.nan, 20.0)):
        for grace in (0.5, math.inf):
            file.write(end, grace)
            assert leasefile.debt(run, True, 20.0) == Debt(counts, 20.0, grace, covered=end == math.inf)
    file.write(None, 0.5)
    assert leasefile.debt(run, True, 20.0) is None
    assert len((tmp_path / LEASE_NAME).read_text().splitlines()) == 1


@pytest.mark.parametrize("text", [None, "", "x", "boot 1 2 3", f"{leasefile.boot_id()} soon 1", f"{leasefile.boot_id()} 1 0"])
def test_what_cannot_be_read_counts_from_the_start_if_it_may_have_held_something(tmp_path: Path, text: Optional[str]) -> None:
    if text is not None:
        (tmp_path / LEASE_NAME).write_text(text)
    assert leasefile.debt(str(tmp_path), True, 20.0) == Debt(20.0, 20.0)
    assert leasefile.debt(str(tmp_path), False, 20.0) is None


def test_a_lease_before_the_machine_was_started_anew_is_no_debt(tmp_path: Path) -> None:
    (tmp_path / LEASE_NAME).write_text("another-boot 12.5 0.5\n")
    assert leasefile.debt(str(tmp_path), True, 20.0) is None


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "get", lambda: type("Said", (), {"error": staticmethod(said.append)}))
    file = LeaseFile(str(tmp_path / "missing"))
    file.write(1.0, 0.5)
    file.write(2.0, 0.5)
    assert len(said) == 1 and "counts the time to demote what it left from its own start" in said[0]


def test_the_tree_owes_what_it_held_but_what_was_demoted(tmp_path: Path) -> None:
    run: Any = str(tmp_path)
    tree = Tree(clean=False)
    tree.held(Held("boot", 7, None))
    treefile.write(run, tree)
    LeaseFile(run).write(12.5, 0.5)
    treefile.note_demoted(run, "vip")
    found, fault = treefile.find(run, 20.0)
    assert fault is None and found.owed("db") == Debt(12.5, 20.0, 0.5) and found.owed("vip") is None
    assert treefile.adopt(found).owed("db") == Debt(12.5, 20.0, 0.5)
    assert treefile.find(run, 30.0)[0].owed("vip") == Debt(12.5, 30.0, 0.5), "a note holds for one successor"
    tree.clean = True
    treefile.write(run, tree)
    assert treefile.find(run, 30.0)[0].owed("db") is None


def test_a_tree_that_held_nothing_owes_nothing(tmp_path: Path) -> None:
    run, tree = str(tmp_path), Tree(clean=False)
    tree.service(service("Started"))
    treefile.write(run, tree)
    assert treefile.find(run, 20.0)[0].owed("vip") is None
    tree.service(service("Promoted", promoted=True))
    treefile.write(run, tree)
    assert treefile.find(run, 20.0)[0].owed("vip") == Debt(20.0, 20.0)


def test_a_tree_that_is_killed_while_it_takes_services_over_leaves_what_it_was_told(tmp_path: Path) -> None:
    """Found: its new workers' first word, that they had not begun, was all that the next tree knew in maintenance."""
    run, tree = str(tmp_path), Tree(clean=False, maintenance=True)
    fresh, promoted = replace(service("Stopped"), clean=False), service("Promoted", promoted=True)
    for word, told in ((fresh, fresh), (promoted, promoted), (fresh, promoted), (service("Started"), service("Started"))):
        tree.service(word)
        treefile.write(run, tree)
        assert treefile.adopt(treefile.find(run, 20.0)[0]).told("vip") == told


def test_without_a_tree_file_nothing_is_started(make: Make) -> None:
    """A full disk: the next koinode would take this tree for one that ended in order, and demote nothing."""
    cluster = make(promote="")
    node = cluster[cluster.wait_master()]
    assert node.stop() == 0
    (node.folder / "run" / "tree.json.new").mkdir()
    node.start()
    assert node.process is not None and node.process.wait(30) == 1
    assert "tree.json cannot be written: Is a directory; make room or set another node.run_dir" in node.log.read_text()
    assert beneath(node.folder) == {}
    node.process = None
