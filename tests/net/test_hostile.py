"""Hostile packets against a real cluster on loopback: never a crash, the master kept, memory bounded."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import time
import zlib
from pathlib import Path
from typing import Iterator

import pytest

from koi.client import Client
from koi.core.messages import Request, Response
from koi.wire.codec import encode
from koi.wire.seal import COOKIE_MAGIC, Sealer
from koi.wire.udp import Endpoint
from tests.cluster import PASSWORD, Node, RealCluster, answer, until
from tests.net.hostile import CLUSTER, KEY, Rebinding, capture, flood, insider, replay, rss_kb
from tests.net.netcluster import SLACK_S

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="capturing and forging packets needs root")
RATE, FLOOD_S, MAX_GROWTH_KB = 20_000, 3.0, 8_000
CLIENTS = 1_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Three nodes with a service that stamps, settled; each test must leave it so."""
    with RealCluster(tmp_path_factory.mktemp("hostile"), failover="4s") as cluster:
        for action in ("promote", "demote"):
            cluster.script("web", action)
        cluster.start()
        cluster.wait_master()
        until("all electors", lambda: cluster.status()["cluster"]["quorum"]["have"] == 3)
        yield cluster


def epoch(cluster: RealCluster) -> tuple[str, int]:
    """Master and epoch."""
    status = cluster.status()
    return status["cluster"]["master"], status["cluster"]["epoch"]


def elector(node: Node) -> int:
    """The process id of a node's elector."""
    return int(node.local()["pids"]["elector"])


def told(node: Node, words: str) -> bool:
    """Whether the node's log has these words."""
    return words in node.log.read_text()


@root_only
def test_a_flood_of_bad_packets_moves_nothing(cluster: RealCluster) -> None:
    """20,000 a second of all kinds to the port of every node."""
    before, captured = epoch(cluster), capture(cluster, 2.0)
    assert len(captured) > 20
    electors = {node.name: elector(node) for node in cluster.nodes.values()}
    memory = {name: rss_kb(pid) for name, pid in electors.items()}
    sent = flood([node.port for node in cluster.nodes.values()], RATE, FLOOD_S, captured)
    began = time.monotonic()
    after = epoch(cluster)
    print(f"{sent} bad datagrams in {FLOOD_S:g} s; status right after took {1000 * (time.monotonic() - began):.0f} ms;"
          f" growth {max(rss_kb(pid) - memory[name] for name, pid in electors.items())} kB")
    assert sent > RATE * FLOOD_S / 2
    assert after == before and cluster.overlaps() == []
    assert {node.name: elector(node) for node in cluster.nodes.values()} == electors
    assert all(rss_kb(pid) - memory[name] < MAX_GROWTH_KB for name, pid in electors.items())
    for words in ("speaks version", "of cluster 99", "the seal does not open", "not a datagram of Koi", "seen before"):
        assert any(told(node, words) for node in cluster.nodes.values()), words


@root_only
@pytest.mark.long
def test_a_failover_under_the_flood_takes_no_longer(tmp_path: Path) -> None:
    """The master's whole node is killed while every node gets bad packets, and the rest is asked meanwhile."""
    with RealCluster(tmp_path, failover="4s") as cluster:
        for action in ("promote", "demote"):
            cluster.script("web", action)
        cluster.start()
        master, captured = cluster.wait_whole(), capture(cluster, 1.0)
        ports = [node.port for node in cluster.nodes.values()]
        attacker = multiprocessing.get_context("fork").Process(target=flood, args=(ports, RATE, 3 * FLOOD_S, captured))
        attacker.start()
        try:
            until("noticed", lambda: any(told(node, "seen before") for node in cluster.nodes.values()))
            since = cluster[master].kill_all()
            new = cluster.wait_master(master)
            stamp = cluster.first("promote", "end", since, new)
            assert attacker.is_alive() and stamp is not None
        finally:
            attacker.kill()
            attacker.join()
        print(f"{RATE} bad datagrams a second: {new} promoted {stamp.time - since:.2f} s after {master} was killed")
        assert stamp.time - since < 4.0 + SLACK_S and cluster.overlaps(cluster.killed) == []


@root_only
def test_captured_traffic_is_worth_nothing(cluster: RealCluster) -> None:
    """Replayed at once, after its receiver was started again, and after its senders were."""
    captured, before = capture(cluster, 1.5), epoch(cluster)
    replay(captured * 3)
    until("replays are noticed", lambda: any(told(node, "seen before") for node in cluster.nodes.values()))
    victim = next(node for node in cluster.nodes.values() if node.name != before[0])
    old = elector(victim)
    os.kill(old, signal.SIGKILL)
    until("a new elector", lambda: elector(victim) != old)
    replay(captured * 3)
    assert epoch(cluster) == before
    victim.kill_all()
    victim.start()
    until("all electors", lambda: cluster.status()["cluster"]["quorum"]["have"] == 3)
    replay(captured * 3)
    assert epoch(cluster) == before and cluster.overlaps() == []


def test_an_insiders_bombs_and_nonsense_change_nothing(cluster: RealCluster) -> None:
    """Sealed with the right key, after a proof of life: bodies that inflate without end, are too long, or mean nothing."""
    before, node = epoch(cluster), cluster.any()
    pid, mallory = elector(node), insider()
    memory, address = rss_kb(pid), ("127.0.0.1", node.port)
    deflater = zlib.compressobj(9, zlib.DEFLATED, 12)
    bomb = deflater.compress(bytes(50_000_000)) + deflater.flush()
    assert len(bomb) < 60_000
    nested = b"[" * 50_000
    for body in (bomb, nested, b"{}", b'["Request","a",[1]]', b'["Nothing","a",[]]', b"\xff" * 100, b"") * 20:
        mallory._send_body(address, body)
        select.select(mallory.filenos(), [], [], 0.02)
        mallory.receive()
    mallory.close()
    faults = ("inflates to more than", "not JSON", "unknown kind", "not [kind", "Request: not a list")
    until("noticed", lambda: any(told(node, words) for words in faults))
    assert elector(node) == pid and rss_kb(pid) - memory < MAX_GROWTH_KB
    assert epoch(cluster) == before


def test_without_the_cookie_nobody_gets_more_than_he_sent(cluster: RealCluster) -> None:
    """The largest question there is for the smallest request: one Cookie datagram, and nothing more until it is shown."""
    node, sealer = cluster.any(), Sealer(KEY, CLUSTER, os.urandom(16))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for number in range(50):
            request = sealer.seal(encode("x", Request(f"{number:x}", "status", ())))
            stranger.sendto(request, ("127.0.0.1", node.port))
            assert select.select([stranger], [], [], 10)[0]
            answer = stranger.recv(65_535)
            assert answer[:3] == COOKIE_MAGIC and len(answer) <= len(request)
            assert not select.select([stranger], [], [], 0.01)[0]


def test_a_client_whose_address_changes_is_known_again_at_once(cluster: RealCluster) -> None:
    """Behind a router that has given it another port, its old cookie fits no more."""
    node = cluster.any()
    router = Rebinding(("127.0.0.1", node.port))
    try:
        with Client(str(node.config), host="127.0.0.1", port=router.address[1], timeout=5.0) as client:
            for _ in range(5):
                router.due = True
                assert client.local()["name"] == node.name and not router.due
    finally:
        router.close()


def test_a_thousand_clients_at_once(cluster: RealCluster) -> None:
    """All are answered, and what is kept of them is bounded."""
    before, node = epoch(cluster), cluster.any()
    pid = elector(node)
    memory, address = rss_kb(pid), ("127.0.0.1", node.port)
    answered: set[int] = set()
    began = time.monotonic()
    for start in range(0, CLIENTS, 250):
        clients = [insider() for _ in range(250)]
        _ask_all(clients, address, start, answered)
        for client in clients:
            client.close()
    print(f"{CLIENTS} clients answered in {time.monotonic() - began:.1f} s; growth {rss_kb(pid) - memory} kB")
    assert len(answered) == CLIENTS
    assert elector(node) == pid and rss_kb(pid) - memory < MAX_GROWTH_KB
    assert epoch(cluster) == before and cluster.overlaps() == []


def _ask_all(clients: list[Endpoint], address: tuple[str, int], start: int, answered: set[int]) -> None:
    """Every client asks, and asks again until it is answered."""
    waiting, ends = dict(enumerate(clients, start)), time.monotonic() + 30
    poll = select.poll()
    owner = {fd: number for number, client in waiting.items() for fd in client.filenos()}
    for fd in owner:
        poll.register(fd, select.POLLIN)
    while waiting and time.monotonic() < ends:
        for number, client in waiting.items():
            client.send(address, Request(f"{number:032x}", "local", ()))
        while ready := poll.poll(500):
            for fd, _ in ready:
                number = owner[fd]
                if any(isinstance(r.message, Response) for r in clients[number - start].receive()):
                    answered.add(number)
                    waiting.pop(number, None)


def test_a_runner_called_like_an_elector_elsewhere_is_named(tmp_path: Path) -> None:
    """Both work, but whoever asks for one of them by name may reach the other."""
    with RealCluster(tmp_path, runners="bc") as cluster:
        twin = Node(cluster, "twin", cluster["a"].port, True, False)
        text = cluster["a"].config.read_text().replace(str(cluster["a"].folder), str(twin.folder))
        text = text.replace("runner: false", "elector: false").replace("bind: [127.0.0.1]", "bind: [127.0.0.2]")
        twin.config.write_text(text)
        twin.config.chmod(0o600)
        cluster.nodes["twin"] = twin
        cluster.start()

        def warned() -> str:
            warnings = cluster.status()["cluster"]["warnings"]
            return next((w for w in warnings if "called a" in w), "")

        assert until("the warning", warned).startswith(
            "two machines are called a: its runner is at 127.0.0.2, its elector at 127.0.0.1; give one of them another node.name")


def test_two_nodes_of_one_name_are_named_and_the_younger_is_refused(cluster: RealCluster) -> None:
    master, number = epoch(cluster)
    twin = Node(cluster, "twin", cluster[master].port, True, True)
    text = cluster[master].config.read_text().replace(str(cluster[master].folder), str(twin.folder))
    twin.config.write_text(text.replace("bind: [127.0.0.1]", "bind: [127.0.0.2]"))
    twin.config.chmod(0o600)
    twin.start()
    cluster.nodes["twin"] = twin

    def warned() -> str:
        with cluster["a"].client() as client:
            warnings = client.status()["cluster"]["warnings"]
        return next((w for w in warnings if "two nodes call" in w), "")

    warning = until("the warning", warned)
    assert f"themselves {master}" in warning and "127.0.0.1 " in warning and "127.0.0.2 " in warning and "younger" in warning
    time.sleep(1.0)
    assert epoch(cluster) == (master, number) and cluster.overlaps() == []


def test_a_node_that_is_not_understood_is_told_from_a_silent_one(tmp_path: Path) -> None:
    """Found: status asked whether koinode runs there and whether UDP reaches it, while its datagrams came and were dropped."""
    with RealCluster(tmp_path) as cluster:
        cluster.start()
        cluster.wait_whole()
        cluster["c"].stop()
        text = cluster["c"].config.read_text()
        cluster["c"].config.write_text(text.replace(PASSWORD, "not what the others have"))
        cluster["c"].start()
        for node, silent in (("a", "c"), ("c", "a")):
            with cluster[node].client() as client:
                def warned(client: Client = client, silent: str = silent) -> bool:
                    begins = f"elector {silent} is not heard, and a datagram from 127.0.0.1 "
                    told = answer(client.status).get("cluster", {}).get("warnings", ())
                    return any(warning.startswith(begins) and "the seal does not open" in warning for warning in told)

                until(f"{node} says so of {silent}", warned)
