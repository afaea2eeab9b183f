"""The client over real datagrams against nodes that answer as the test says."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from koi import client_exchange
from koi.client import Client
from koi.client_exchange import CLOSED_S
from koi.client_history import origin
from koi.client_line import now
from koi.config import loads
from koi.core.messages import REDIRECT, Request, Response
from koi.errors import KoiError, NoAnswer, Refused
from tests.cli.fakes import ID, SECRET, FakeNode, answer, paged, progress, redirect, refused
from tests.cli.samples import failed_node, node, status
from tests.cluster import free_ports


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No koi.conf lies around."""
    monkeypatch.chdir(tmp_path)


def client(port: int, timeout: float = 5.0, **more: Any) -> Client:
    """A client without a configuration."""
    return Client(host="127.0.0.1", port=port, timeout=timeout, secret=SECRET, cluster_id=ID, **more)


def arguments(request: Request) -> dict[str, Any]:
    """The arguments of a request by name."""
    return dict(request.arguments)


def done(request: Request) -> list[Response]:
    """Any changing command, done."""
    return answer(request, {"done": True, "message": f"{request.command} done", "epoch": 8})


def test_a_long_answer_comes_in_pages() -> None:
    big = status(*(node(name, "Backup", uptime=float(i)) for i, name in enumerate("abdefghijk")))
    with FakeNode(lambda r: reversed(answer(r, big, pages=9))) as fake, client(fake.port) as koi:
        assert koi.status() == big


def test_lost_requests_are_repeated_with_the_same_id() -> None:
    def deaf_at_first(request: Request) -> Iterable[Response]:
        return done(request) if len(fake.asked) == 3 else []

    with FakeNode(deaf_at_first) as fake, client(fake.port) as koi:
        assert koi.elect()["epoch"] == 8
        assert len({r.id for r in fake.asked}) == 1


def test_duplicated_answers_do_not_reach_the_next_question() -> None:
    def twice(request: Request) -> Iterable[Response]:
        return 2 * answer(request, {"command": request.command})

    with FakeNode(twice) as fake, client(fake.port) as koi:
        assert [koi.ask(c)["command"] for c in ("local", "status", "local", "status")] == ["local", "status"] * 2


def test_the_leader_answers_in_the_place_of_the_node_asked() -> None:
    with FakeNode(done) as leader, FakeNode(lambda r: redirect(r, leader.port)) as follower, client(follower.port) as koi:
        koi.promote("a", reason=" disk  is\nfull ")
        assert leader.asked[0].id == follower.asked[0].id
        said = arguments(leader.asked[0])
        assert said.pop("origin") == origin()
        assert said == {"node": "a", "reason": "disk is full", "force": False, "no_wait": False}


def test_two_nodes_that_redirect_to_each_other() -> None:
    with FakeNode(lambda r: redirect(r, second.port)) as first, FakeNode(lambda r: redirect(r, first.port)) as second:
        with client(first.port) as koi, pytest.raises(NoAnswer, match="redirected 8 times"):
            koi.status()


def test_a_leader_that_died_is_given_up_for_the_new_one() -> None:
    with FakeNode(lambda r: []) as dead, FakeNode(done) as leader:
        def follower(request: Request) -> Iterable[Response]:
            return redirect(request, dead.port if not dead.asked else leader.port)

        with FakeNode(follower) as fake, client(fake.port) as koi:
            assert koi.elect()["done"]


def test_progress_is_shown_and_keeps_the_client_waiting_longer_than_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_exchange, "PROGRESS_REPEAT_S", 0.75)
    said: list[str] = []

    def slow(request: Request) -> Iterable[Response]:
        return done(request) if len(fake.asked) == 3 else progress(request, f"step {len(fake.asked)}")

    with FakeNode(slow) as fake, client(fake.port, timeout=1.2, progress=said.append) as koi:
        start = now()
        assert koi.promote("a")["done"]
        assert now() - start > 1.2
    assert said == ["step 1", "step 2"]


def test_nobody_there() -> None:
    with FakeNode(lambda r: []) as fake, client(fake.port, timeout=0.4) as koi:
        with pytest.raises(NoAnswer, match=f"^no koinode answers at 127.0.0.1:{fake.port}; see that it runs"):
            koi.local()
        with pytest.raises(NoAnswer, match="Whether `promote` was carried out is not known"):
            koi.promote("a")


def test_a_closed_port_is_told_long_before_the_patience_ends() -> None:
    """Found: it took the whole of -t, though the network had said so at once."""
    port = free_ports(1)[0]
    with client(port, timeout=60.0) as koi:
        start = now()
        with pytest.raises(NoAnswer, match=f"^no koinode answers at 127.0.0.1:{port}; nobody has that port open there; "):
            koi.local()
        assert CLOSED_S <= now() - start < 30.0


def test_a_node_that_is_just_starting_is_waited_for() -> None:
    port, said = free_ports(1)[0], 0
    with ExitStack() as nodes:
        def trace(text: str) -> None:
            nonlocal said
            said += "nobody listens" in text
            if said == 2:
                nodes.enter_context(FakeNode(done, port))
                said += 1

        with client(port, trace=trace) as koi:
            assert koi.elect()["done"] and said == 3


def test_a_node_of_two_addresses_is_reached_while_one_of_them_is_dead() -> None:
    """Found: only the first was asked: `koi -H b` failed, and `koi why` missed a journal, when one of two networks was down."""
    with FakeNode(done) as fake, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.9", fake.port))
        text = (f"cluster:\n  id: {ID}\n  password: {SECRET}\n  electors:\n    a: 127.0.0.8\n"
                f"    b: ['127.0.0.9:{fake.port}', 'no.such.host.invalid:{fake.port}', '127.0.0.1:{fake.port}']\n")
        config = loads(text.encode(), "koi.conf", "a", SECRET)
        with Client(config, "b", timeout=5.0) as koi:
            assert koi.elect()["done"]
            assert len({request.id for request in fake.asked}) == 1

        def elsewhere(request: Request) -> Iterable[Response]:
            return paged(request, REDIRECT, {"host": "127.0.0.9", "port": fake.port})

        with FakeNode(elsewhere) as follower, Client(config, "127.0.0.1", follower.port, timeout=5.0) as koi:
            assert koi.elect()["done"]


def test_nodes_that_are_silent_are_waited_for_together() -> None:
    """Found: during a partition `koi why` took 6 s for each elector on the other side."""
    def handler(request: Request) -> Iterable[Response]:
        name = arguments(request).get("node")
        return answer(request, status(*(node(n, "Backup") for n in "abcd"))) if name is None else (
            answer(request, {"entries": []}) if name == "a" else [])

    with FakeNode(handler) as fake, client(fake.port, timeout=1.5) as koi:
        start = now()
        assert [one["node"] for one in koi.history()["missing"]] == ["b", "c", "d"]
        assert now() - start < 3.0


def test_another_password_is_silence() -> None:
    with FakeNode(done) as fake, Client(host="127.0.0.1", port=fake.port, timeout=0.4, secret="another", cluster_id=ID) as koi:
        with pytest.raises(NoAnswer):
            koi.elect()
    assert fake.asked == []


def test_a_refusal_is_raised_with_its_reason() -> None:
    with FakeNode(lambda r: refused(r, "a is not promotable: db is Starting")) as fake, client(fake.port) as koi:
        with pytest.raises(Refused, match="^a is not promotable: db is Starting$"):
            koi.promote("a")


def test_what_the_other_side_would_drop_is_refused_at_once() -> None:
    with client(1) as koi:
        for command in (lambda: koi.promote("a b"), lambda: koi.stop("x" * 64), lambda: koi.wait("x" * 999),
                        lambda: koi.elect(reason="x" * 999)):
            with pytest.raises(Refused):
                command()


def test_one_node_of_the_status() -> None:
    with FakeNode(lambda r: answer(r, status())) as fake, client(fake.port) as koi:
        assert [n["name"] for n in koi.status("b")["nodes"]] == ["b"]
        with pytest.raises(Refused, match="no node named x; nodes: a, b, c"):
            koi.status("x")


def test_recover_without_a_node_recovers_each_failed_one() -> None:
    members = status(failed_node("a"), node("b", "Master"), failed_node("d"))

    def handler(request: Request) -> Iterable[Response]:
        return answer(request, members) if request.command == "status" else done(request)

    with FakeNode(handler) as fake, client(fake.port) as koi:
        assert koi.recover() == {"done": True, "message": "recover done; recover done", "epoch": 7}
        assert [arguments(r)["node"] for r in fake.asked if r.command == "recover"] == ["a", "d"]


def test_recover_when_nothing_failed() -> None:
    with FakeNode(lambda r: answer(r, status())) as fake, client(fake.port) as koi:
        assert koi.recover() == {"done": True, "message": "no node has failed", "epoch": 7}


def test_failures_of_all_nodes_newest_last() -> None:
    members = status(node("a", "Backup"), node("b", "Master"), node("c", None, "leader"), node("d", "Disconnected"))
    times = {"a": ["2026-01-03", "2026-01-01"], "b": ["2026-01-02"]}

    def handler(request: Request) -> Iterable[Response]:
        if request.command == "status":
            return answer(request, members)
        return answer(request, {"failures": [{"time": t} for t in times[arguments(request)["node"]]]})

    with FakeNode(handler) as fake, client(fake.port) as koi:
        found = koi.failures()
    assert [f["time"] for f in found["failures"]] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert found["missing"] == [{"node": "d", "why": "not heard"}]


def test_failures_without_a_leader_are_those_of_the_node_at_hand() -> None:
    def handler(request: Request) -> Iterable[Response]:
        return answer(request, status(leader=None) if request.command == "status" else {"failures": [{"time": "1"}]})

    with FakeNode(handler) as fake, client(fake.port) as koi:
        found = koi.failures()
    assert found["failures"] == [{"time": "1"}]
    assert "only this node" in found["missing"][0]["why"]


def test_wait_ends_at_its_timeout_with_the_last_words() -> None:
    with FakeNode(lambda r: progress(r, "no master: db is Starting")) as fake, client(fake.port) as koi:
        with pytest.raises(NoAnswer, match=r"not true within 0.5 s: master \(no master: db is Starting\)"):
            koi.wait("master", timeout=0.5)


def test_wait_with_a_timeout_outlives_a_silent_node() -> None:
    def late(request: Request) -> Iterable[Response]:
        return done(request) if len({r.id for r in fake.asked}) == 3 else []

    with FakeNode(late) as fake, client(fake.port, timeout=0.2) as koi:
        assert koi.wait("master", timeout=60)["done"]


def entry(time: str, what: str, old: str | None, new: str | None, key: str = "", node: str = "a") -> dict[str, Any]:
    """A line of a journal."""
    return {"time": time, "node": node, "what": what, "from": old, "to": new, "epoch": 1, "reason": f"{node} says", "key": key}


def test_journals_are_merged_and_each_change_told_once() -> None:
    journals = {
        "a": [entry("1", "leader", None, "c", "leader 1"), entry("2", "master", None, "a", "master 1")],
        "b": [entry("9", "master", None, "a", "master 1", "b"), entry("3", "maintenance", None, "maintenance", "m 1", "b")],
        "c": [entry("1.5", "leader", None, "c", "leader 1", "c"), entry("4", "maintenance", None, "maintenance", "m late", "c")],
    }
    members = status(*(node(name, "Backup") for name in "abc"), node("d", "Disconnected"))

    def handler(request: Request) -> Iterable[Response]:
        if request.command == "status":
            return answer(request, members)
        return answer(request, {"entries": journals[arguments(request)["node"]]})

    with FakeNode(handler) as fake, client(fake.port) as koi:
        found = koi.history()
    assert [(e["time"], e["node"], e["what"]) for e in found["entries"]] == [
        ("1.5", "c", "leader"), ("2", "a", "master"), ("3", "b", "maintenance")]
    assert found["missing"] == [{"node": "d", "why": "not heard"}]
    assert all("key" not in e for e in found["entries"])


def test_stop_of_a_master_that_nobody_can_follow_is_not_even_asked() -> None:
    members = status(node("a", "Master"), node("b", "Live", why="db is Starting"), master="a")

    def handler(request: Request) -> Iterable[Response]:
        return answer(request, members) if request.command == "status" else done(request)

    with FakeNode(handler) as fake, client(fake.port) as koi:
        with pytest.raises(Refused, match=r"a is the master and nobody can take over: b is Live \(db is Starting\); --force"):
            koi.stop("a")
        assert koi.stop("b")["done"] and koi.stop("a", force=True)["done"]
    assert [arguments(r)["node"] for r in fake.asked if r.command == "stop"] == ["b", "a"]


def test_the_configuration_says_whom_to_ask(tmp_path: Path) -> None:
    file = tmp_path / "koi.conf"
    file.write_text(
        "node: {name: a}\n"
        "cluster: {id: 77, password: 'a secret for the tests only', bind: ['::', 127.0.0.9],"
        " electors: {a: '127.0.0.9:5001', b: '127.0.0.1:5002', c: 192.0.2.7}}\n"
    )
    assert (Client(str(file)).host, Client(str(file)).port) == ("127.0.0.9", 5001)
    assert (Client(str(file), host="b").host, Client(str(file), host="b").port) == ("127.0.0.1", 5002)
    assert (Client(str(file), host="192.0.2.1", port=9).host, Client(host="192.0.2.1", port=9).port) == ("192.0.2.1", 9)
    assert Client().id == 77


def test_without_a_configuration_a_secret_is_needed() -> None:
    with pytest.raises(KoiError, match="koi.conf"):
        Client(host="127.0.0.1")
