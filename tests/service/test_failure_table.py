"""The table of failures in docs/guide.md, row by row on three real nodes: what the service, the node and the cluster do.

Each script notes "NODE SERVICE ACTION FAILED_SERVICE" in one file when it begins.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from koi.errors import Refused
from tests.cluster import RealCluster, until
from tests.proc.waiting import is_gone

SCRIPTS = ("start", "stop", "promote", "demote", "status", "failed")
SERVICES = ("10-vip", "20-web", "30-again")
AGAIN = "30-again"
"""It has restarts."""
CALM = "3s"
"""Leases that a busy machine keeps: what is looked at is not a lost lease."""
PACE = "500ms"
"""How often `status` is run, and how soon a failed node recovers."""
ONCE = "[ -e {0} ] || { echo > {0}; exit 1; }"


class Table(RealCluster):
    """Three nodes with scripts that note, a program, a watch, and what happened since the last look."""

    def __init__(self, folder: Path) -> None:
        timeouts = "  status_timeout: 2s\n  failed_timeout: 1s\n  promote_timeout: 2s\n"
        super().__init__(folder, failover=CALM, service=timeouts, pace=PACE)
        self.notes = folder / "notes"
        self.notes.touch()
        for node in self.nodes.values():
            (node.services / AGAIN).mkdir()
            (node.services / AGAIN / "service.yaml").write_text("restarts: 9\n")
        self.mend()
        self.script("40-program", "run", body=f"echo $$ > {folder}/run.$KOI_NODE; exec sleep 1000")
        self.script("50-probe", "watch", body=f"echo $$ > {folder}/watch.$KOI_NODE; exec sleep 1000")

    def write(self, service: str, action: str, body: str = "", nodes: Optional[str] = None) -> None:
        """A script that notes its begin."""
        note = f'echo "$KOI_NODE $KOI_SERVICE $KOI_ACTION $KOI_FAILED_SERVICE" >> {self.notes}'
        self.script(service, action, f"{note}\n{body}", nodes)

    def mend(self) -> None:
        """All scripts succeed."""
        for service in SERVICES:
            for action in SCRIPTS:
                self.write(service, action)

    def settle(self) -> None:
        """Wait until all is well, and look only at what follows."""
        self.first_master = self.wait_whole()
        until("no target", lambda: self.status()["cluster"]["target"] is None)
        self.epoch = self.status()["cluster"]["epoch"]
        self.seen = len(self.notes.read_text().splitlines())
        self.since = max((str(failure["time"]) for name in self.nodes for failure in self.failures(name)), default="")
        self.backup, self.other = (name for name in self.nodes if name != self.first_master)

    def service(self, node: str, name: str) -> dict[str, Any]:
        """One service as the leader knows it."""
        nodes = {n["name"]: n for n in self.status()["nodes"]}
        return {s["name"]: s for s in nodes[node]["services"]}[name] if node in nodes else {"state": None}

    def acted(self, node: str) -> list[str]:
        """What the scripts of a node were called for, without `status`."""
        lines = [line.split() for line in self.notes.read_text().splitlines()[self.seen :]]
        return [" ".join(words[1:]) for words in lines if words[0] == node and words[2] != "status"]

    def failures(self, node: str) -> list[dict[str, Any]]:
        """`koi failures` of one node."""
        found = self[node].asker.failures()["failures"]
        return [failure for failure in found if failure["node"] == node]

    def new_failures(self, node: str) -> list[tuple[str, str, Optional[int]]]:
        """Service, action and exit of what failed since the last look."""
        return [(f["service"], f["action"], f["exit"]) for f in self.failures(node) if f["time"] > self.since]

    def acts(self, node: str, *expected: str) -> None:
        """Wait until the scripts of the node were called so often, and for just that, in this order."""
        until(f"{node}: {expected}", lambda: len(self.acted(node)) >= len(expected))
        assert self.acted(node)[: len(expected)] == list(expected)

    def recovers(self, node: str) -> None:
        """Mended, it is a backup again by itself."""
        self.mend()
        self.wait_state(node, "Backup")

    def unchanged(self) -> bool:
        """Whether the cluster has done nothing."""
        cluster = self.status()["cluster"]
        return (cluster["master"], cluster["epoch"]) == (self.first_master, self.epoch)

    def replaced(self) -> str:
        """Wait for another master, which was promoted only after the first was demoted."""
        new = self.wait_master(other_than=self.first_master)
        lines = self.notes.read_text().splitlines()[self.seen :]
        last = max(i for i, line in enumerate(lines) if line.split()[0] == self.first_master and line.split()[2] == "demote")
        assert last < next(i for i, line in enumerate(lines) if line.startswith(f"{new} vip promote")), lines
        return new

    def pid(self, kind: str, node: str) -> int:
        """Of the program or the watch of a node that runs now; it may say so a moment after it was started."""
        path = self.folder / f"{kind}.{node}"

        def living() -> int:
            pid = int((path.exists() and path.read_text().strip()) or 0)
            return pid if pid and not is_gone(pid) else 0

        return until(f"the {kind} of {node}", living)


def demoted(*names: str) -> list[str]:
    return [f"{name} demote" for name in names]


def failed(by: str, *names: str) -> list[str]:
    return [act for name in names for act in (f"{name} failed {by}", f"{name} stop")]


DOWN = ("again", "web", "vip")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    with Table(tmp_path_factory.mktemp("table")) as table:
        table.start()
        yield table


@pytest.fixture
def table(started: Table) -> Iterator[Table]:
    started.settle()
    yield started
    started.mend()
    with started.any().client() as client:
        client.recover(no_wait=True)


def test_start_fails_on_a_backup(table: Table) -> None:
    node = table.backup
    with table[node].client() as client:
        client.stop(node)
        table.seen = len(table.notes.read_text().splitlines())
        table.write("20-web", "start", "exit 1", node)
        with pytest.raises(Refused, match="web: start exited 1"):
            client.start(node)
    until("all is stopped again", lambda: "vip stop" in table.acted(node))
    acts = table.acted(node)
    acts.remove("again failed web")  # it was not started yet, so it has nothing to wait for
    assert acts[:6] == ["vip start", "web start", *failed("web", "web", "vip")]
    assert ("web", "start", 1) in table.new_failures(node) and table.unchanged()
    table.recovers(node)


def test_start_fails_on_the_master(table: Table) -> None:
    node = table.first_master
    table.write("20-web", "start", "exit 1", node)
    with table[node].client() as client, pytest.raises(Refused, match="web: start exited 1"):
        client.restart("web", node)
    table.replaced()
    table.acts(node, "web demote", "web stop", "web start", *demoted("again", "vip"), *failed("web", *DOWN))


@pytest.mark.parametrize("action", ["start", "promote"])
def test_with_restarts_left_it_is_tried_again(table: Table, action: str, tmp_path: Path) -> None:
    """And the node does not fail for it."""
    node = table.first_master
    table.write(AGAIN, action, ONCE.replace("{0}", str(tmp_path / "once")), node)
    with table[node].client() as client:
        assert "is Promoted" in client.restart("again", node)["message"]
    undone = {"start": ["stop"], "promote": ["demote", "stop", "start"]}[action]
    up = ["start"] if action == "start" else ["start", "promote"]
    last = ["start", "promote"] if action == "start" else ["promote"]
    assert table.acted(node) == [f"again {a}" for a in ("demote", "stop", *up, *undone, *last)]
    assert table.new_failures(node) == [("again", action, 1)] and table.unchanged() and table.states()[node] == "Master"


def promote_fails(table: Table, exit: Optional[int]) -> None:
    """A promotion of a backup that has been made to fail."""
    node = table.backup
    with table.any().client() as client, pytest.raises(Refused, match=f"{node} .* master.*web: promote"):
        client.promote(node)
    table.wait_master(other_than=node)
    table.acts(node, "vip promote", *["web promote"] * (exit != 126), *demoted("web", "vip"), *failed("web", *DOWN))
    assert table.new_failures(node) == [("web", "promote", exit)]
    table.recovers(node)


def test_promote_fails(table: Table) -> None:
    table.write("20-web", "promote", "exit 7", table.backup)
    promote_fails(table, 7)


def test_a_script_outlives_its_timeout(table: Table, tmp_path: Path) -> None:
    body = f"trap '' TERM; sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' & sleep 60"
    table.write("20-web", "promote", body, table.backup)
    promote_fails(table, None)
    assert is_gone(int((tmp_path / "child").read_text()))


def test_a_script_cannot_be_run(table: Table) -> None:
    script = table[table.backup].services / "20-web/promote"
    script.chmod(0o644)
    promote_fails(table, 126)
    assert f"chmod +x {script}" in table[table.backup].log.read_text()


def test_demote_fails(table: Table) -> None:
    node = table.first_master
    table.write("20-web", "demote", "exit 3", node)
    with table.any().client() as client:
        client.promote(table.backup)
    assert table.replaced() == table.backup
    table.acts(node, "again demote", "web demote", "web stop", "vip demote",
               "again failed web", "again stop", "web failed web", "vip failed web", "vip stop")
    assert table.new_failures(node) == [("web", "demote", 3)]
    table.recovers(node)


def test_stop_alone_fails(table: Table) -> None:
    node = table.backup
    table.write("20-web", "stop", "exit 4", node)
    os.kill(table.pid("run", node), signal.SIGKILL)
    until("stop has failed", lambda: ("web", "stop", 4) in table.new_failures(node))
    table.recovers(node)
    assert table.unchanged() and "stuck" not in str(table.status()["cluster"]["warnings"])


@pytest.mark.parametrize(("body", "exit"), [("exit 1", 1), ("exec sleep 60", None)])
def test_status_fails_on_the_master(table: Table, body: str, exit: Optional[int]) -> None:
    node = table.first_master
    table.write("20-web", "status", body, node)
    table.replaced()
    table.acts(node, *demoted(*DOWN), *failed("web", *DOWN))
    assert table.new_failures(node)[0] == ("web", "status", exit)


def test_status_is_put_right_too_often(table: Table) -> None:
    node = table.backup
    table.write("20-web", "status", "exit 92", node)
    until("the fourth time is a failure", lambda: any(" failed " in act for act in table.acted(node)))
    assert table.acted(node)[:3] == ["web start"] * 3
    found = [failure for failure in table.failures(node) if failure["time"] > table.since]
    assert [f["exit"] for f in found[:4]] == [92] * 4 and "4 times within 60 s" in found[3]["what"] and table.unchanged()


def test_status_fails_with_restarts_left(table: Table, tmp_path: Path) -> None:
    node = table.first_master
    table.write(AGAIN, "status", ONCE.replace("{0}", str(tmp_path / "once")), node)
    acts = [f"again {action}" for action in ("demote", "stop", "start", "promote")]
    until("it was started again", lambda: table.acted(node) == acts and table.states().get(node) == "Master")
    assert table.unchanged()


def test_status_cannot_be_run(table: Table) -> None:
    node = table.first_master
    (table[node].services / "20-web/status").chmod(0o644)
    until("it is told", lambda: table.new_failures(node) == [("web", "status", 126)])
    last = until("another round", lambda: (s := table.service(node, "web"))["last"]["exit"] == 126 and s)
    assert (last["state"], table.states()[node], table.acted(node)) == ("Promoted", "Master", []) and table.unchanged()


@pytest.mark.parametrize("body", ["exit 5", "exec sleep 60"])
def test_failed_fails(table: Table, body: str) -> None:
    node = table.backup
    table.write("20-web", "failed", body, node)
    os.kill(table.pid("run", node), signal.SIGKILL)
    table.acts(node, *failed("program", *DOWN))
    table.recovers(node)
    assert [action for _, action, _ in table.new_failures(node)] == ["run"] and table.unchanged()


@pytest.mark.parametrize("kind", ["run", "watch"])
def test_the_end_of_a_program_or_a_watch(table: Table, kind: str) -> None:
    node, service = table.first_master, {"run": "program", "watch": "probe"}[kind]
    os.kill(table.pid(kind, node), signal.SIGKILL)
    table.replaced()
    table.acts(node, *demoted(*DOWN), *failed(service, *DOWN))
    assert table.new_failures(node) == [(service, kind, -9)]
    table.recovers(node)


def test_disabled_appears(table: Table) -> None:
    node = table.first_master
    disabled = table[node].services / "20-web/disabled"
    disabled.touch()
    table.replaced()
    table.wait_state(node, "Live")  # until it is gone
    table.acts(node, *demoted(*DOWN), *failed("web", *DOWN))
    assert table.service(node, "web")["state"] == "Stopped"
    disabled.unlink()
    table.wait_state(node, "Backup")


def test_the_lease_ends_and_demote_does_not(tmp_path: Path) -> None:
    """Its root, elector and runner are stopped: nobody renews the lease, and the worker is on its own."""
    extra = {name: f"  self_fence: 'date +%s.%N > {tmp_path}/fenced.{name}'\n" for name in "abc"}
    with RealCluster(tmp_path, failover=CALM, node_extra=extra) as cluster:
        for action in ("start", "stop", "promote"):
            cluster.script("10-vip", action)
        cluster.script("10-vip", "demote", body=f"echo $$ > {tmp_path}/demote; trap '' TERM; sleep 60")
        cluster.start()
        master = cluster.wait_whole()
        processes = cluster[master].processes()
        for name in ("root", "elector", "runner"):
            os.kill(processes[name], signal.SIGSTOP)
        cluster.wait_master(other_than=master)
        assert is_gone(int((tmp_path / "demote").read_text()))
        note = tmp_path / f"fenced.{master}"
        fenced = float(until("self_fence", lambda: note.exists() and note.read_text()))
        promoted = [s.time for s in cluster.read_stamps() if (s.action, s.edge) == ("promote", "begin") and s.node != master]
        assert fenced < promoted[0]
        until("stop is tried", lambda: [s for s in cluster.read_stamps() if (s.node, s.action) == (master, "stop")])
        log = cluster[master].log.read_text()
        assert "not demoted within" in log and "everything of it is killed" in log


ROWS = {
    "`start`": (test_start_fails_on_a_backup, test_start_fails_on_the_master, test_with_restarts_left_it_is_tried_again),
    "`promote`": (test_promote_fails, test_with_restarts_left_it_is_tried_again),
    "`demote`": (test_demote_fails,),
    "`demote` and then `stop`": ("tests/proc/test_fence.py",),
    "`stop` alone": (test_stop_alone_fails,),
    "`status` (a failure, a timeout, put right four times in 60 s)": (
        test_status_fails_on_the_master, test_status_is_put_right_too_often, test_status_fails_with_restarts_left),
    "`failed`": (test_failed_fails,),
    "the `run` program ends": (test_the_end_of_a_program_or_a_watch,),
    "`watch` ends": (test_the_end_of_a_program_or_a_watch,),
    "`disabled` appears": (test_disabled_appears,),
    "a script outlives its timeout": (test_a_script_outlives_its_timeout,),
    "a script cannot be run (mode, interpreter, a link to nothing, folder)": (test_a_script_cannot_be_run,),
    "`status` cannot be run": (test_status_cannot_be_run,),
    "the lease ends and `demote` does not": (test_the_lease_ends_and_demote_does_not,),
}


def test_every_row_of_the_table_has_its_test(repository: Path) -> None:
    lines = (repository / "docs/guide.md").read_text().partition("| What fails |")[2].splitlines()[2:]
    rows = [line.split("|")[1].strip() for line in lines[: lines.index("")]]
    assert rows == list(ROWS) and all(ROWS.values())
