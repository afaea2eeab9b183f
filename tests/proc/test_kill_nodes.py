"""The master's root or its whole tree killed or stopped, the dead-man's switch, the orderly stop: what is left of the
node, when the next master begins, and that there are never two."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.cluster import Node, RealCluster, beneath, send, until
from tests.proc.conftest import Begin

LEASE, GRACE = 0.52, 0.38
"""As parts of time.failover."""
LATE_S = 0.3
"""What a busy machine may add."""
Make = Callable[..., RealCluster]


@pytest.fixture
def make(begin: Begin, tmp_path: Path) -> Iterator[Make]:
    """Starts a cluster with two services; at the end of the test all nodes end in order, and nothing outlives its node."""
    made: list[RealCluster] = []

    def start(bodies: Optional[dict[str, str]] = None, **options: Any) -> RealCluster:
        made.append(begin(("10-vip", "20-db"), bodies or {}, **options))
        return made[-1]

    yield start
    for cluster in made:
        cluster.stop()
        assert beneath(tmp_path) == {}, "something outlived its node"


def ran(cluster: RealCluster, node: str, after: float) -> list[str]:
    """What ran on the node since then, by the end of each script."""
    return [s.action for s in cluster.read_stamps() if s.node == node and s.time >= after and s.edge == "end"]


def gone(node: Node) -> None:
    """Wait until nothing of the node lives; init reaps root."""
    assert node.process is not None
    node.process.wait()
    node.process = None
    until("nothing of the node lives", lambda: not beneath(node.folder))


def kill_root(node: Node) -> float:
    """SIGKILL to root alone; when nothing lives any more, the wall time just before."""
    began = time.time()
    os.kill(node.pid, signal.SIGKILL)
    gone(node)
    return began


# --- root -------------------------------------------------------------------------------------


def test_root_killed_the_workers_demote_and_stop_and_the_next_waits_for_nothing_else(make: Make) -> None:
    cluster = make({"10-vip/demote": "sleep 0.1"})
    master = cluster.wait_master()
    began = kill_root(cluster[master])
    assert sorted(ran(cluster, master, began)) == ["demote", "demote", "stop", "stop"]
    assert "service db WARNING: root has ended: db is demoted if need be, and stopped" in cluster[master].log.read_text()
    assert cluster.wait_master(master) != master
    assert cluster.overlaps() == []
    cluster[master].start()
    cluster.wait_state(master, "Backup")
    assert "did not end in order; demoting and stopping its services first" in cluster[master].log.read_text()


def test_root_stopped_the_runner_lets_the_lease_go_and_a_new_root_takes_the_node_over(make: Make) -> None:
    cluster = make(failover="2s")
    master, began = cluster.wait_master(), time.time()
    os.kill(cluster[master].pid, signal.SIGSTOP)
    assert cluster.wait_master(master) != master
    assert ran(cluster, master, began)[:2] == ["demote", "demote"]
    kill_root(cluster[master])
    cluster[master].start()
    cluster.wait_state(master, "Backup")
    assert cluster.overlaps() == []


def test_root_and_a_worker_stopped_the_next_koinode_kills_the_worker_and_demotes_what_it_left(make: Make) -> None:
    """A worker that a signal has stopped would be waited for until somebody continues it."""
    cluster = make(nodes="a")
    node, began = cluster["a"], time.time()
    worker, root = node.processes()["service vip"], node.pid
    send([root, worker], signal.SIGSTOP)
    os.kill(root, signal.SIGKILL)
    assert node.process is not None
    node.process.wait()
    until("the other worker ends", lambda: set(beneath(node.folder)) == {worker})
    node.start()
    cluster.wait_state("a", "Master")
    said = node.log.read_text()
    assert f"workers of the dead koinode {root} still demote and stop" in said
    assert f"process {worker} of the dead koinode was stopped by a signal and demotes nothing: it is killed" in said
    scripts = ran(cluster, "a", began)
    assert scripts.count("demote") >= 2 and scripts[-2:] == ["promote", "promote"]


def test_while_it_waits_for_a_dead_tree_signals_mean_what_they_always_mean(make: Make, tmp_path: Path) -> None:
    """Found: SIGHUP killed it, and Ctrl-C printed a traceback."""
    go = tmp_path / "go"
    cluster = make({"10-vip/stop": f"while [ ! -e {go} ]; do sleep 0.05; done"}, nodes="a")
    node = cluster["a"]
    root, signum = node.pid, signal.SIGTERM
    os.kill(root, signal.SIGKILL)
    assert node.process is not None
    node.process.wait()
    for times in (1, 2, 3):
        node.start()
        until("it waits", lambda times=times: node.log.read_text().count("services; waiting up to") == times)
        if times < 3:
            os.kill(node.pid, signum)
            assert node.process.wait() == 0 and f"{signum.name}: ends before it has begun anything" in node.log.read_text()
            signum = signal.SIGINT
    os.kill(node.pid, signal.SIGHUP)
    go.touch()
    until("it is read once it is up", lambda: "SIGHUP: nothing has changed in the configuration" in node.log.read_text())
    cluster.wait_state("a", "Master")
    assert "Traceback" not in node.log.read_text()


def test_root_stopped_for_a_moment_costs_nothing(make: Make) -> None:
    cluster = make(failover="2s")
    master, began = cluster.wait_master(), time.time()
    before = cluster[master].processes()
    for _ in range(2):
        os.kill(cluster[master].pid, signal.SIGSTOP)
        time.sleep(0.4 * LEASE * 2)
        os.kill(cluster[master].pid, signal.SIGCONT)
        until("root answers", lambda: cluster[master].local()["pids"]["root"])
    assert cluster[master].processes() == before and cluster.read_stamps()[-1].time < began


def test_killed_in_the_middle_of_a_switchover_there_are_never_two(make: Make) -> None:
    """Whoever dies while a promote or a demote runs: the script is ended, what it may have done is undone, nobody is early."""
    cluster = make({"10-vip/promote": "sleep 0.5", "10-vip/demote": "sleep 0.5"}, failover="3s")
    for action, victim in (("promote", "root"), ("promote", "service vip"), ("demote", "runner"), ("demote", "service vip")):
        old = cluster.wait_master()
        new = next(name for name in "abc" if name != old)
        until("two backups", lambda: list(cluster.states().values()).count("Backup") == 2)
        began, node = time.time(), cluster[new if action == "promote" else old]
        assert cluster[old].asker.promote(new, no_wait=True)["done"]
        until(f"{action} of {node.name}", lambda action=action, began=began, node=node: cluster.first(
            action, "begin", began, node.name))
        if victim == "root":
            kill_root(node)
            node.start()
        else:
            os.kill(node.processes()[victim], signal.SIGKILL)
        cluster.wait_master()
        assert cluster.overlaps() == [], f"{victim} killed during {action}"


# --- everything -------------------------------------------------------------------------------


def test_everything_killed_and_not_started_again_the_others_take_over_after_the_guard(make: Make) -> None:
    cluster = make()
    master = cluster.wait_master()
    killed = cluster[master].kill_all()
    next_master = cluster.wait_master(master)
    promoted = cluster.first("promote", "begin", killed)
    assert promoted is not None and promoted.node == next_master
    assert LEASE + GRACE - 0.1 < promoted.time - killed
    assert ran(cluster, master, killed) == []


def test_everything_killed_and_started_again_at_once_it_cleans_up_and_is_master_in_a_new_epoch(make: Make) -> None:
    cluster = make(runners="a", failover="6s")
    epoch = cluster.status()["cluster"]["epoch"]
    killed = cluster["a"].kill_all()
    cluster["a"].start()
    until("it is master again", lambda: cluster.status()["cluster"]["epoch"] > epoch and cluster.master())
    assert cluster.status()["cluster"]["epoch"] == epoch + 1
    scripts = ran(cluster, "a", killed)  # each service is cleaned up at once, for itself
    assert scripts[0] == "demote" and sorted(scripts[:4]) == ["demote"] * 2 + ["stop"] * 2
    assert scripts[4:] == ["start"] * 2 + ["promote"] * 2


def test_everything_stopped_past_the_guard_lets_go_at_once_when_it_goes_on(make: Make) -> None:
    """A frozen worker can demote nothing (README says so); awake again it is too late and kills, and the node comes back."""
    cluster = make(failover="2s")
    master = cluster.wait_master()
    pids = list(beneath(cluster[master].folder))
    send(pids, signal.SIGSTOP)
    assert cluster.wait_master(master) != master
    went_on = time.time()
    send(reversed(pids), signal.SIGCONT)
    cluster.wait_state(master, "Backup")
    said = cluster[master].log.read_text()
    assert "another node may be master now" in said or ran(cluster, master, went_on)[0] == "demote"
    assert not [s for s in cluster.read_stamps() if s.node == master and s.action == "promote" and s.time > went_on]


def test_what_a_dead_tree_left_is_demoted_before_the_new_one_gives_its_epoch_up(make: Make) -> None:
    """Killed, started again within the guard: the electors hear of the renounced epoch only when it is true."""
    cluster = make({"demote": "sleep 0.2", "stop": "sleep 0.2"}, failover="6s")
    master = cluster.wait_master()
    killed = cluster[master].kill_all()
    cluster[master].start()
    cluster.wait_master()
    until("a promote", lambda: cluster.first("promote", "begin", killed))
    assert cluster.overlaps() == []
    promoted = cluster.first("promote", "begin", killed)
    assert promoted is not None
    ended = [s.time for s in cluster.read_stamps() if s.node == master and s.action in ("demote", "stop") and s.edge == "end"]
    assert len(ended) == 4 and max(ended) < promoted.time


def test_everything_killed_and_started_again_another_ready_node_is_master_before_the_guard_is_over(make: Make) -> None:
    """The epoch is given up once all is demoted and stopped, and nobody waits any longer (rules 9.2 and 9.4)."""
    cluster = make(failover="6s")
    master, epoch = cluster.wait_master(), cluster.status()["cluster"]["epoch"]
    killed = cluster[master].kill_all()
    cluster[master].start()
    assert cluster.wait_master(master) != master
    promoted = cluster.first("promote", "begin", killed)
    assert promoted is not None and promoted.node != master and promoted.epoch == str(epoch + 1)
    assert promoted.time - killed < (LEASE + GRACE) * 6 - 1
    cluster.wait_state(master, "Backup")
    assert {"demote", "stop", "start"} <= set(ran(cluster, master, killed))
    assert cluster.overlaps(cluster.killed) == []


# --- the dead-man's switch --------------------------------------------------------------------


def freeze(node: Node) -> float:
    """Stop root, then all but the workers; the wall time."""
    processes, began = node.processes(), time.time()
    for name in ("root", "elector", "runner"):
        os.kill(processes[name], signal.SIGSTOP)
    return began


def thaw(node: Node) -> None:
    """Let them go on, root last."""
    for name, pid in sorted(node.processes().items(), key=lambda one: one[0] == "root"):
        if not name.startswith("service"):
            os.kill(pid, signal.SIGCONT)


def test_workers_demote_by_themselves_at_the_end_of_the_lease(make: Make) -> None:
    cluster = make(failover="2s")
    master = cluster.wait_master()
    frozen = freeze(cluster[master])
    assert cluster.wait_master(master) != master
    first = cluster.first("demote", "begin", frozen, master)
    assert first is not None and first.time - frozen < 2 * (LEASE + GRACE / 4) + LATE_S
    assert ran(cluster, master, frozen) == ["demote", "demote"]
    assert cluster.overlaps() == []
    thaw(cluster[master])
    cluster.wait_state(master, "Backup")


def test_a_demote_that_hangs_is_killed_with_all_it_started_and_the_node_fences_itself(make: Make, tmp_path: Path) -> None:
    daemon = f'sh -c "while :; do date +%s.%N >> {tmp_path}/$KOI_NODE.active; sleep 0.02; done" &'
    cluster = make(
        {"10-vip/promote": daemon, "10-vip/demote": "sleep 60"}, failover="2s",
        node_extra={name: f"  self_fence: date +%s.%N >> {tmp_path}/{name}.fenced\n" for name in "abc"},
    )
    master = cluster.wait_master()
    frozen = freeze(cluster[master])
    assert cluster.wait_master(master) != master
    note = tmp_path / f"{master}.fenced"
    fenced = float(until("self_fence", lambda: note.exists() and note.read_text()))
    assert fenced - frozen < 2 * (LEASE + GRACE) + LATE_S
    promoted = cluster.first("promote", "begin", frozen)
    last = float((tmp_path / f"{master}.active").read_text().split()[-1])
    assert promoted is not None and last < promoted.time
    until("Failed", lambda: f"koinode: service vip [{master}: Failed]" in beneath(cluster[master].folder).values())
    assert "everything of it is killed; another node may be master now" in cluster[master].log.read_text()
    thaw(cluster[master])


# --- the orderly stop -------------------------------------------------------------------------


def test_an_orderly_stop_goes_in_order_leaves_nothing_and_the_next_begins_at_once(make: Make) -> None:
    cluster = make(failover="2s")
    master, began = cluster.wait_master(), time.time()
    node = cluster[master]
    assert node.stop() == 0
    assert ran(cluster, master, began) == ["demote", "demote", "stop", "stop"]
    demoted = max(s.time for s in cluster.read_stamps() if (s.node, s.action, s.edge) == (master, "demote", "end"))
    promoted = until("the next promote", lambda: cluster.first("promote", "begin", began))
    assert 0 < promoted.time - demoted < LEASE * 2 / 2
    assert beneath(node.folder) == {} and list((node.folder / "run").iterdir()) == []
    assert sorted(path.name for path in (node.folder / "state").iterdir() if path.name.endswith(".new")) == []


def test_a_second_sigterm_does_not_wait_for_a_stop_that_hangs(make: Make) -> None:
    cluster = make({"20-db/stop": "sleep 60"})
    master = cluster.wait_master()
    node, began = cluster[master], time.time()
    os.kill(node.pid, signal.SIGTERM)
    until("stop runs", lambda: cluster.first("stop", "begin", began, master))
    os.kill(node.pid, signal.SIGTERM)
    assert node.process is not None and node.process.wait(10) == 1
    gone(node)
    assert cluster.wait_master(master) != master and cluster.overlaps() == []
    cluster.script("20-db", "stop")
    node.start()
    cluster.wait_state(master, "Backup")
