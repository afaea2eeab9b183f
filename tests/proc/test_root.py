"""Root on real processes: what is killed or stopped is replaced alone, and the node ends in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from koi.proc.loop import now
from koi.proc.system import descendants
from tests.proc.waiting import cmdline, descriptors, is_gone, state, until

REPOSITORY = str(Path(__file__).parents[2])
CHILDREN = ("elector", "runner", "service:db", "service:vip")
Start = Callable[..., "Tree"]


class Tree:
    """A fake tree that runs, and what its processes noted."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        (folder / "options.json").write_text(json.dumps(options))
        environment = {**os.environ, "PYTHONPATH": REPOSITORY, "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.proc.fake_tree", str(folder)],
            cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.pid = self.process.pid

    def events(self, who: Optional[str] = None, what: Optional[str] = None) -> list[dict[str, Any]]:
        """What was noted, in order."""
        try:
            lines = (self.folder / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        return [e for e in found if who in (None, e["who"]) and what in (None, e["what"])]

    def pids(self) -> dict[str, int]:
        """The newest process of each address."""
        return {event["who"]: event["pid"] for event in self.events(what="starts")}

    def tree_json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "tree.json").read_text())
        return found

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_up(self, *names: str) -> dict[str, int]:
        """Wait until elector, runner and every service work as they should; the pids."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "up\n", self.process.stderr.read() if self.process.stderr else ""
        until(lambda: all(self.promoted(name) for name in names), what="services promoted")
        return {name: pid for name, pid in self.pids().items()}

    def promoted(self, name: str) -> bool:
        pid = self.pids().get(name)
        return pid is not None and cmdline(pid) == f"koinode: {name.replace(':', ' ')} [a: Promoted]"

    def replaced(self, name: str, old: int) -> int:
        """Wait for the successor of a child."""
        until(lambda: self.pids()[name] != old, what=f"{name} replaced")
        assert is_gone(old)
        return self.pids()[name]

    def end(self) -> int:
        """Wait for the end of root."""
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    trees: list[Tree] = []

    def begin(**options: Any) -> Tree:
        trees.append(Tree(tmp_path, **options))
        return trees[-1]

    yield begin
    for tree in trees:
        for pid in [tree.pid, *(event["pid"] for event in tree.events(what="starts"))]:
            if cmdline(pid).startswith("koinode: ") or pid == tree.pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        tree.process.communicate()


WORKERS = ("service:db", "service:vip")


def test_titles_name_every_process(start: Start) -> None:
    tree = start()
    pids = tree.wait_up(*WORKERS)
    assert cmdline(tree.pid) == "koinode: root [a]"
    assert cmdline(pids["elector"]) == "koinode: elector [a]"
    assert cmdline(pids["runner"]) == "koinode: runner [a: Master]"
    assert cmdline(pids["service:vip"]) == "koinode: service vip [a: Promoted]"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("name", ["elector", "runner", "service:vip"])
def test_a_killed_or_stopped_child_is_replaced_alone(start: Start, name: str, signum: int) -> None:
    tree = start(holding=7)
    before = tree.wait_up(*WORKERS)
    os.kill(before[name], signum)
    new = tree.replaced(name, before[name])
    until(lambda: all(tree.promoted(worker) for worker in WORKERS), what="promoted again")
    after = tree.pids()
    assert {n: p for n, p in after.items() if n != name} == {n: p for n, p in before.items() if n != name}
    assert tree.events(name, "starts")[-1]["respawned"] is True
    assert tree.events("elector", "starts")[0]["respawned"] is False
    until(lambda: [e for e in tree.events("runner", "Pids") if new in (e["elector"], e["runner"], e["services"]["vip"])])
    assert not tree.events(what="root is gone")


@pytest.mark.parametrize("name", ["elector", "runner"])
def test_a_child_that_hangs_without_being_stopped_is_killed(start: Start, name: str) -> None:
    tree = start()
    old = tree.wait_up(*WORKERS)[name]
    os.kill(old, signal.SIGUSR2)
    until(lambda: tree.events(name, "hangs"))
    tree.replaced(name, old)
    assert f"{name} (pid {old}) was killed: it has not answered for" in tree.log()


def test_the_successor_of_a_runner_is_told_what_was_held(start: Start) -> None:
    tree = start(holding=7)
    pids = tree.wait_up(*WORKERS)
    first = tree.events("runner", "starts")[0]["heritage"]
    assert all(not value for value in first.values())
    os.kill(pids["runner"], signal.SIGKILL)
    tree.replaced("runner", pids["runner"])
    second = tree.events("runner", "starts")[1]["heritage"]
    assert {name: value for name, value in second.items() if value} == {
        "lineage": [f"boot{pids['runner']}"], "holding": 7, "lease_end": 4711.0,
    }
    until(lambda: all(tree.events(worker, "Announce") for worker in WORKERS), what="workers were asked for their states")


def test_the_successor_of_a_worker_is_told_its_last_state(start: Start) -> None:
    tree = start(maintenance=True, save_s=3600.0)  # in maintenance tree.json follows at once
    pids = tree.wait_up(*WORKERS)
    until(lambda: tree.tree_json()["services"].get("vip", {}).get("state") == "Promoted")
    os.kill(pids["service:vip"], signal.SIGKILL)
    tree.replaced("service:vip", pids["service:vip"])
    assert tree.events("service:vip", "starts")[1]["last"] == "Promoted"


def test_a_child_that_ends_again_and_again_is_started_with_growing_delays(start: Start) -> None:
    tree = start(crashes="service:vip")
    tree.wait_up("service:db")
    until(lambda: "it is started again in 0.8 s" in tree.log(), what="the fifth end")
    log = tree.log()
    places = [log.index(f"it is started again {when}") for when in ("at once", "in 0.1 s", "in 0.2 s", "in 0.4 s", "in 0.8 s")]
    assert places == sorted(places)
    assert len(tree.events("service:vip", "starts")) == 5
    assert len(tree.events("service:db", "starts")) == 1


@pytest.mark.parametrize(
    "drain_s, flooders, words",
    [(0.2, ["elector"], "it has not read its pipe for"), (20.0, ["elector", "runner"], "it does not read its pipe,")],
)
def test_a_worker_that_does_not_drain_its_pipe_is_replaced(start: Start, drain_s: float, flooders: list[str], words: str) -> None:
    tree = start(drain_s=drain_s)
    pids = tree.wait_up(*WORKERS)
    os.kill(pids["service:vip"], signal.SIGUSR2)
    until(lambda: tree.events("service:vip", "hangs"))
    for name in flooders:
        os.kill(pids[name], signal.SIGALRM)
    tree.replaced("service:vip", pids["service:vip"])
    assert f"service:vip (pid {pids['service:vip']}) was killed: {words}" in tree.log()
    assert {n: p for n, p in tree.pids().items() if n != "service:vip"} == {n: p for n, p in pids.items() if n != "service:vip"}


def test_children_keep_nothing_of_their_siblings(start: Start) -> None:
    tree = start()
    pids = tree.wait_up(*WORKERS)
    for name in ("service:vip", "elector", "runner"):  # one that was forked late must not keep more
        os.kill(pids[name], signal.SIGKILL)
        pids[name] = tree.replaced(name, pids[name])
    until(lambda: all(tree.promoted(worker) for worker in WORKERS))
    own = {name: descriptors(pid) for name, pid in tree.pids().items()}
    sockets = {name: {t for t in fds.values() if t.startswith("socket:")} for name, fds in own.items()}
    for name, fds in own.items():
        kinds = sorted(target.split(":")[0] for fd, target in fds.items() if fd > 2 and not target.endswith(("/log", "/events")))
        lock = [target for target in fds.values() if target.endswith("koinode.lock")]
        assert len(sockets[name]) == 1, (name, fds)
        assert len(lock) == (1 if name.startswith("service:") else 0), (name, fds)
        # its loop and the loop's timer, the wake-up pipe of the fake's own signal, its pipe to root, the lock
        assert len(kinds) == 5 + len(lock), (name, fds)
    assert len(set.union(*sockets.values())) == len(CHILDREN)


def test_workers_see_the_end_of_root_and_the_others_end_at_once(start: Start) -> None:
    many = [f"s{number}" for number in range(30)]
    tree = start(services=many)
    pids = tree.wait_up(*(f"service:{name}" for name in many))
    os.kill(pids["elector"], signal.SIGUSR2)  # even one that hangs must not outlive root
    until(lambda: tree.events("elector", "hangs"))
    os.kill(tree.pid, signal.SIGKILL)
    tree.end()
    until(lambda: all(is_gone(pid) for pid in tree.pids().values()))
    assert {event["who"] for event in tree.events(what="root is gone")} == {f"service:{name}" for name in many}


def test_root_goes_on_after_it_was_stopped_and_blames_nobody(start: Start) -> None:
    tree = start(failover=0.5)
    pids = tree.wait_up(*WORKERS)
    os.kill(tree.pid, signal.SIGSTOP)
    until(lambda: state(tree.pid) == "T")
    stopped = len(tree.events())
    since = now()
    until(lambda: now() > since + 0.6, what="longer than any ping may stay unanswered")
    os.kill(tree.pid, signal.SIGCONT)
    os.kill(pids["service:vip"], signal.SIGKILL)
    tree.replaced("service:vip", pids["service:vip"])
    assert len(tree.events()) > stopped
    assert {n: p for n, p in tree.pids().items() if n != "service:vip"} == {n: p for n, p in pids.items() if n != "service:vip"}


def test_a_second_koinode_is_kept_away_and_told_the_pid(start: Start) -> None:
    tree = start()
    tree.wait_up(*WORKERS)
    second = start()
    output = second.process.communicate(timeout=30)
    assert second.process.returncode == 1
    assert f"koinode of node a runs already, pid {tree.pid}" in output[1]
    assert not is_gone(tree.pid)


def test_a_new_koinode_waits_for_the_workers_of_a_dead_tree(start: Start) -> None:
    tree = start(worker="lingers", services=["vip"], holding=7)
    pids = tree.wait_up("service:vip")
    until(lambda: tree.tree_json()["holding"] == 7)
    os.kill(tree.pid, signal.SIGKILL)
    until(lambda: tree.events("service:vip", "lingers"))
    second = start(services=["vip"])
    until(lambda: f"workers of the dead koinode {tree.pid} still demote" in second.log())
    assert len(second.events("runner", "starts")) == 1
    os.kill(pids["service:vip"], signal.SIGKILL)
    second.wait_up("service:vip")
    began = second.events("runner", "starts")[1]
    assert began["heritage"]["renounced"] == 7 and began["heritage"]["holding"] is None
    assert began["heritage"]["lineage"] == [f"boot{pids['runner']}"]
    assert began["heritage"]["unclean"] is True and began["unclean"] is True and began["respawned"] is False
    assert second.events("service:vip", "starts")[1]["unclean"] is True


def test_the_wait_for_a_dead_tree_is_bounded(start: Start) -> None:
    tree = start(worker="lingers", services=["vip"])
    tree.wait_up("service:vip")
    os.kill(tree.pid, signal.SIGKILL)
    until(lambda: tree.events("service:vip", "lingers"))
    second = start(services=["vip"], end_s=0.2)
    output = second.process.communicate(timeout=30)
    assert second.process.returncode == 1
    assert f"workers of the dead koinode {tree.pid} still run after 0.2 s" in output[1]


def test_orderly_stop_goes_runner_workers_elector(start: Start) -> None:
    tree = start(holding=7)
    pids = tree.wait_up(*WORKERS)
    os.kill(tree.pid, signal.SIGTERM)
    assert tree.end() == 0
    stops = [event["who"] for event in tree.events(what="Stop")]
    assert stops[0] == "runner" and sorted(stops[1:-1]) == list(WORKERS) and stops[-1] == "elector"
    assert not tree.events(what="root is gone")
    assert all(is_gone(pid) for pid in pids.values())
    assert not {"tree.json", "koinode.lock", "koinode.pid"} & set(os.listdir(tree.folder))


def test_a_tree_that_ended_in_order_leaves_no_suspicion(start: Start) -> None:
    tree = start(holding=7)
    tree.wait_up(*WORKERS)
    os.kill(tree.pid, signal.SIGTERM)
    tree.end()
    second = start()
    second.wait_up(*WORKERS)
    began = second.events("runner", "starts")[1]["heritage"]
    assert began["unclean"] is False and began["lineage"] == []


def test_a_runner_killed_during_the_stop_is_replaced_and_stops(start: Start) -> None:
    tree = start(runner="does not stop", services=["vip"])
    pids = tree.wait_up("service:vip")
    os.kill(tree.pid, signal.SIGTERM)
    until(lambda: tree.events("runner", "Stop"))
    (tree.folder / "options.json").write_text("{}")
    os.kill(pids["runner"], signal.SIGKILL)
    until(lambda: len(tree.events("runner", "Stop")) == 2, what="the successor is told to stop")
    assert tree.pids()["elector"] == pids["elector"]


def test_a_second_sigterm_lets_go(start: Start) -> None:
    tree = start(runner="does not stop")
    pids = tree.wait_up(*WORKERS)
    os.kill(tree.pid, signal.SIGTERM)
    until(lambda: tree.events("runner", "Stop"))
    os.kill(tree.pid, signal.SIGTERM)
    assert tree.end() == 1
    assert len(tree.events(what="root is gone")) == 2
    assert all(is_gone(pid) for pid in pids.values())
    assert tree.tree_json()["clean"] is False


def test_workers_that_do_not_end_by_themselves_are_killed_at_last(start: Start) -> None:
    tree = start(runner="does not stop", worker="lingers", end_s=0.2)
    pids = tree.wait_up(*WORKERS)
    os.kill(tree.pid, signal.SIGTERM)
    assert tree.end() == 1
    until(lambda: all(is_gone(pid) for pid in pids.values()))
    assert "did not end in time while demoting" in tree.log()
    assert len(tree.events(what="lingers")) == 2
    assert "CRITICAL" in tree.log()


def test_the_program_of_a_killed_worker_becomes_roots_and_ends_with_a_hard_end(start: Start) -> None:
    tree = start(runner="does not stop", worker="has a program and lingers", services=["vip"])
    pids = tree.wait_up("service:vip")
    program = tree.events("service:vip", "program")[0]["program"]
    os.kill(pids["service:vip"], signal.SIGKILL)
    tree.replaced("service:vip", pids["service:vip"])
    assert program in descendants(tree.pid) and cmdline(program) == "sleep 1000"
    os.kill(tree.pid, signal.SIGTERM)
    until(lambda: tree.events("runner", "Stop"))
    os.kill(tree.pid, signal.SIGTERM)
    until(lambda: tree.events("service:vip", "lingers"))
    os.kill(tree.pid, signal.SIGTERM)  # nor for the workers
    assert tree.end() == 1
    until(lambda: is_gone(program))


def test_an_elector_that_does_not_end_is_killed(start: Start) -> None:
    tree = start(elector="does not end", step_s=0.2)
    tree.wait_up(*WORKERS)
    os.kill(tree.pid, signal.SIGTERM)
    assert tree.end() == 1
    assert "elector did not end in time while resigning" in tree.log()


@pytest.mark.parametrize("missing, left", [("runner", {"elector"}), ("elector", {"runner", *WORKERS})])
def test_a_node_without_runner_or_elector(start: Start, missing: str, left: set[str]) -> None:
    tree = start(**{f"has_{missing}": False})
    tree.wait_up(*(left & set(WORKERS)))
    assert set(tree.pids()) == left
    os.kill(tree.pid, signal.SIGINT)
    assert tree.end() == 0


def test_a_child_that_cannot_work_here_fails_the_start_with_its_reason(start: Start) -> None:
    tree = start(refuses={"elector": "port 42012 is in use"})
    output = tree.process.communicate(timeout=30)
    assert tree.process.returncode == 1
    assert output[1].strip() == "port 42012 is in use" and output[0] == ""
    until(lambda: all(is_gone(pid) for pid in tree.pids().values()))


def test_signals_to_the_whole_group_touch_no_child(start: Start) -> None:
    tree = start()
    pids = tree.wait_up(*WORKERS)
    for pid in pids.values():
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP):
            os.kill(pid, signum)
    os.kill(pids["service:vip"], signal.SIGKILL)
    tree.replaced("service:vip", pids["service:vip"])
    assert {n: p for n, p in tree.pids().items() if n != "service:vip"} == {n: p for n, p in pids.items() if n != "service:vip"}


def test_a_spoilt_tree_file_counts_as_unclean(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text('{"boots": 7')
    tree = start()
    tree.wait_up(*WORKERS)
    assert tree.events("runner", "starts")[0]["unclean"] is True
    assert "tree.json cannot be used" in tree.log()


def test_what_a_tree_owes_is_owed_once_and_known_though_its_file_cannot_be_written_anew(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text('{"boots": [], "services": {}, "holding": 7, "clean": false}')
    (tmp_path / "tree.json.new").mkdir()
    tree = start()
    tree.wait_up(*WORKERS)
    assert tree.events("runner", "starts")[0]["heritage"]["renounced"] == 7
    assert "if root dies, its successor knows less of what it left" in tree.log()
    old = tree.pids()["service:db"]
    os.kill(old, signal.SIGKILL)
    tree.replaced("service:db", old)
    assert [one["owes"] for one in tree.events("service:db", "starts")] == [True, False], "paid once it was clean"
