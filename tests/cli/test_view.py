"""The views: from JSON to lines, without a cluster."""

from __future__ import annotations

import pytest

from koi.view import Cell, age, colour_wanted, columns, last_script, paint, printable, service_state
from koi.view_node import failure_lines, node_lines
from koi.view_status import CRITICAL, HEAD, OK, WARNING, check_line, check_node_line, headline, status_lines
from koi.view_tree import tree_lines
from tests.cli.samples import failed_node, node, service, status


@pytest.mark.parametrize(("seconds", "text"), [
    (None, "-"), (0, "0 ms"), (0.004, "4 ms"), (0.12, "0.1 s"), (1.23, "1.2 s"), (9.96, "10 s"), (59.6, "60 s"),
    (119, "119 s"), (180, "3 min"), (7100, "118 min"), (10800, "3 h"), (172800, "2 d"), (-1, "0 ms"),
])
def test_ages_read_like_words(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def test_columns_are_aligned_whatever_the_colour() -> None:
    rows = [["a", Cell("Master", "good"), "x"], ["long-name", "Backup", ""]]
    plain = columns(rows, colour=False)
    assert plain == ["a          Master  x", "long-name  Backup"]
    painted = columns(rows, colour=True)
    assert painted[0] == f"a          {paint('Master', 'good', True)}  x"


def test_a_script_cannot_steer_the_terminal() -> None:
    assert printable("ok\x1b[2J\r\n") == "ok?[2J??"
    lines = failure_lines([{
        "time": "2026-11-22T14:00:00+00:00", "node": "a", "service": "vip", "action": "start", "exit": 1, "seconds": 0.5,
        "line": "\x1b[31mboom", "what": "start exited 1",
    }])
    assert "\x1b" not in "".join(lines)
    assert lines[1].endswith("start exited 1  ?[31mboom")


@pytest.mark.parametrize(("always", "terminal", "environ", "wanted"), [
    (False, True, {}, True), (False, False, {}, False), (True, False, {"NO_COLOR": "1"}, True),
    (False, True, {"NO_COLOR": "1"}, False), (False, True, {"NO_COLOR": ""}, True), (False, True, {"TERM": "dumb"}, False),
])
def test_colour_only_where_it_is_wanted(always: bool, terminal: bool, environ: dict[str, str], wanted: bool) -> None:
    assert bool(colour_wanted(always, terminal, environ)) is wanted


@pytest.mark.parametrize(("last", "text"), [
    (None, "-"), ({"action": "status", "exit": 0, "seconds": 0.004}, "status 0 in 4 ms"),
    ({"action": "start", "exit": -9, "seconds": 360}, "start killed by signal 9 after 6 min"),
    ({"action": "start", "exit": None, "seconds": 1}, "start ended without an exit code after 1.0 s"),
])
def test_the_last_script_in_words(last: dict[str, object] | None, text: str) -> None:
    assert last_script(last) == text


def test_a_service_that_runs_a_script_says_so() -> None:
    assert service_state(service("vip", 10, "Starting", action="start")) == Cell("Starting (start)", "odd")
    assert service_state(service("vip", 10, "Stopped", failed=True)) == Cell("Stopped (failed)", "bad")
    assert service_state(service("vip", 10, "Failed", failed=True)).text == "Failed"


def test_all_is_well() -> None:
    assert headline(status()) == "b is master (epoch 7) for 3 h; 3 of 3 electors agree; all well."
    assert check_line(status()) == ("KOI OK - b is master (epoch 7) for 3 h; 3 of 3 electors agree; all well.", OK)


def test_no_master_with_the_leaders_own_words() -> None:
    words = "c is Live (db says: still syncing), b failed 20 s ago (vip: start exited 1), recovers in 12 s"
    found = status(node("c", "Live"), failed_node("b"), master=None, nobody=words)
    assert headline(found) == f"No master: {words}."
    assert check_line(found)[1] == CRITICAL


def test_no_master_and_no_words_from_the_leader() -> None:
    found = status(node("c", "Live", why="db says: still syncing"), failed_node("b"), master=None)
    assert headline(found) == "No master: c is Live (db says: still syncing), b failed (vip: start exited 1), recovers in 12 s."


def test_manual_mode_is_a_reason_for_no_master() -> None:
    assert headline(status(master=None, manual=True)) == "No master: manual mode until `koi elect`."


def test_no_leader_says_how_many_electors_are_heard_and_who_was_master() -> None:
    found = status(leader=None, quorum={"need": 2, "have": 1, "electors": 3})
    assert headline(found) == "No leader: 1 of 3 electors heard, 2 needed; the last known master is b (epoch 7)."
    assert check_line(found)[1] == CRITICAL


@pytest.mark.parametrize(("cluster", "words"), [
    ({"manual": True}, "manual mode"), ({"maintenance": True}, "maintenance is on"), ({"target": "a"}, "switching over to a"),
    ({"warnings": ["x"]}, "1 warning below"), ({"warnings": ["x", "y"]}, "2 warnings below"),
    ({"stale": 4.0}, "stale, no majority has agreed for 4.0 s"), ({"quorum": {"need": 2, "have": 2, "electors": 3}}, "2 of 3"),
])
def test_whatever_is_amiss_forbids_all_well(cluster: dict[str, object], words: str) -> None:
    found = status(**cluster)
    assert words in headline(found)
    assert "all well" not in headline(found)
    assert check_line(found)[1] == WARNING


@pytest.mark.parametrize(("member", "words"), [
    (failed_node("a"), "a failed (vip: start exited 1), recovers in 12 s"),
    ({**failed_node("a"), "recovers_in": None},
     "a failed (vip: start exited 1), does not recover by itself any more: mend it, then 'koi recover a'"),
    (node("a", "Disconnected", seen=20.0), "a is not heard for 20 s"),
    (node("a", "Backup", seen=None), "a is not heard"),
    (node("a", "Stopped", stopped=True), "a is stopped by hand"),
    (node("a", "Stopped", why="not started yet"), "a is stopped (not started yet)"),
    (node("a", "Live", why="db: Starting"), "a is Live (db: Starting)"),
    (node("a", "Failed", stuck=True, failed=True), "a is stuck: demote and stop failed"),
])
def test_a_node_in_trouble_forbids_all_well(member: dict[str, object], words: str) -> None:
    found = status(member, node("b", "Master"), node("c", None, "leader"))
    assert words in headline(found)
    assert "all well" not in headline(found)


def test_a_stuck_master_is_no_master() -> None:
    """It was said to be becoming master, for as long as it was stuck."""
    words = "b may still be active: its demote and stop failed"
    stuck = node("b", "Failed", stuck=True, failed=True)
    found = status(node("a", "Backup"), stuck, node("c", None, "leader"), hold="stuck", nobody=words)
    assert headline(found) == f"No master: {words}."
    assert check_line(found)[1] == CRITICAL


def test_nobody_could_take_over() -> None:
    found = status(node("a", "Backup", promotable=False), node("b", "Master"))
    assert headline(found).endswith("; nobody could take over.")
    assert headline(status(node("b", "Master"))).endswith("; all well.")


def test_a_master_that_stops_is_not_becoming_one() -> None:
    stops = node("b", "Backup", why="koinode stops", services=[service("vip", 10, "Promoted"), service("db", 20, "Demoting")])
    assert headline(status(stops)).startswith("b is named master (epoch 7), but is Backup (db Demoting);")


def test_a_master_that_is_not_one_yet() -> None:
    becoming = node("b", "Backup", services=[service("vip", 10, "Promoted"), service("db", 20, "Promoting")])
    words = "b is becoming master (epoch 7), still Backup (db Promoting);"
    assert headline(status(node("a", "Backup"), becoming)).startswith(words)
    assert check_line(status(becoming))[1] == CRITICAL
    leaving = node("b", "Live", services=[service("vip", 10, "Demoting")])
    assert headline(status(leaving)).startswith("b is named master (epoch 7), but is Live (vip Demoting);")
    words = "b may still be active: its demote and stop failed. Make sure that it is off, then 'koi recover b --force'"
    stuck = status(node("b", "Failed", stuck=True), hold="stuck", nobody=words)
    assert headline(stuck) == f"No master: {words}." and check_line(stuck)[1] == CRITICAL
    lost = status(node("a", "Backup"), node("b", "Disconnected", seen=1.2))
    assert headline(lost).startswith("b is named master (epoch 7) but not heard; ")


@pytest.mark.parametrize(("member", "code"), [
    (node("b", "Master"), 0), (node("c", None, "leader"), 0), (node("a", "Live"), 1), (node("a", "Stopped"), 1),
    (failed_node("a"), 2), (node("a", "Disconnected"), 2),
])
def test_the_check_of_one_node(member: dict[str, object], code: int) -> None:
    line, found = check_node_line(member)
    assert found == code
    assert line.startswith(("KOI OK", "KOI WARNING", "KOI CRITICAL")[code])


def test_the_status_table_is_aligned_and_cuts_no_name() -> None:
    name = "a-node-with-a-name-of-sixty-three-characters-as-long-as-it-gets"
    found = status(node(name, "Backup"), node("b", "Master"), node("c", None, "leader"), warnings=["quorum is unsafe"])
    lines = status_lines(found)
    head = lines[2]
    for title, values in (("SERVICE", ("vip", "db", "vip", "db", "-")), ("ELECTOR", ("follower", "", "follower", "", "leader"))):
        column = head.index(title)
        for line, value in zip(lines[3:8], values, strict=True):
            assert line[column:].startswith(value)
            assert line[column - 2:column] == "  "
    assert any(line.startswith(name) for line in lines)
    assert lines[-1] == "Warning: quorum is unsafe"


def test_the_tree() -> None:
    assert tree_lines(status()) == [
        "cluster 13: leader c, term 4, epoch 7, 3 of 3 electors",
        "├── a        Backup            elector: follower",
        "│   ├── vip  Started           priority 10",
        "│   └── db   Started           priority 20",
        "├── b        Master            elector: follower",
        "│   ├── vip  Promoted          priority 10",
        "│   └── db   Promoted          priority 20",
        "└── c        runs no services  elector: leader",
        "",
        "b is master (epoch 7) for 3 h; 3 of 3 electors agree; all well.",
    ]


def test_the_tree_names_what_is_odd() -> None:
    lost = node("b", "Disconnected", None, seen=20.0, mode="passive")
    text = "\n".join(tree_lines(status(failed_node("a"), lost, leader=None)))
    assert "no leader" in text
    assert "recovers in 12 s" in text
    assert "no elector, not heard for 20 s, passive" in text
    assert "was Stopped" in text


def test_one_node_in_full() -> None:
    local = failed_node("a") | {"pids": {"root": 1, "elector": None, "runner": 3, "services": {"vip": 4}}}
    text = "\n".join(node_lines(local, share="/x/koi-service.sh"))
    last = "1 counted; the last: vip: start exited 1"
    for fact in ("Failed", "no: failed", last, "root 1, runner 3, vip 4", "/x/koi-service.sh"):
        assert fact in text
    assert "None" not in text


def test_a_witness_in_full() -> None:
    text = "\n".join(node_lines(node("c", None, "leader")))
    assert "runs no services" in text
    assert "SERVICE" not in text
    assert "None" not in text


def test_a_witness_that_is_lost() -> None:
    lost = node("c", None, "disconnected", seen=4.0)
    assert "c is not heard for 4.0 s" in headline(status(node("a", "Backup"), node("b", "Master"), lost))
    assert check_node_line(lost)[1] == CRITICAL


def test_no_failures() -> None:
    assert failure_lines([]) == ["No failures."]


def test_who_cannot_take_over_is_told_with_the_reason_once() -> None:
    passive = node("a", "Backup", promotable=False, mode="passive", why="a is passive")
    assert "; nobody could take over (a is passive)." in headline(status(passive, node("b", "Master")))
    assert "Backup (passive)" in "\n".join(status_lines(status(passive, node("b", "Master"))))
    unready = node("a", "Backup", promotable=False, why="node.watchdog /dev/dog cannot be opened")
    assert "(a: node.watchdog /dev/dog cannot be opened)." in headline(status(unready, node("b", "Master")))
    stopped = node("a", "Stopped", promotable=False, stopped=True, why="stopped by hand")
    assert headline(status(stopped, node("b", "Master"))).endswith("a is stopped by hand; nobody could take over.")


def test_a_narrow_terminal_gets_fewer_columns_and_whole_names() -> None:
    services = [service(f"service-{i:02}", i, "Started") for i in range(30)]
    name = "a-node-with-a-long-name"
    whole = status(node("b", "Master"), node(name, "Backup", services=services))
    assert status_lines(whole) == status_lines(whole, width=200), "nothing is left out where there is room"
    assert gone(status_lines(whole, width=110)) == {"ADDRESS"}
    assert gone(status_lines(whole, width=90)) == {"ADDRESS", "UP", "SEEN"}
    for width in (110, 90, 10):
        lines = status_lines(whole, width=width)
        assert width == 10 or max(map(len, lines[2:])) <= width
        assert all(f"service-{i:02}" in lines[-30 + i] for i in range(30)) and name in "".join(lines)
    assert gone(lines) == {"ADDRESS", "UP", "SEEN", "PRIO", "LAST"}


def gone(lines: list[str]) -> set[str]:
    """The columns that a table was printed without."""
    return set(HEAD) - set(lines[2].split())
