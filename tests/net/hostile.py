"""What an attacker and a broken insider can send: raw packets, captured traffic, forged datagrams. Only to loopback."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import time
from typing import Callable, Iterator

from koi.core.messages import Hello
from koi.wire.codec import encode
from koi.wire.seal import Opener, Sealer, cluster_key
from koi.wire.udp import Address, Endpoint
from tests.cluster import PASSWORD, RealCluster

CLUSTER = 13
KEY = cluster_key(PASSWORD, CLUSTER)
UDP_HEADER, PORTS = 8, slice(2, 4)
NO_CHECKSUM = bytes(2)
"""On loopback the kernel leaves the checksum undone, and would drop what comes back with it."""


def insider() -> Endpoint:
    """Somebody who knows the password."""
    return Endpoint(("127.0.0.1",), 0, Sealer(KEY, CLUSTER, os.urandom(16)), Opener(KEY, CLUSTER), "mallory")


def capture(cluster: RealCluster, seconds: float) -> list[bytes]:
    """Whole IP packets that went to ports of the cluster's nodes. Needs root."""
    ports = {node.port for node in cluster.nodes.values()}
    ends, packets = time.monotonic() + seconds, []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sniffer:
        while (left := ends - time.monotonic()) > 0:
            if select.select([sniffer], [], [], left)[0]:
                packet = sniffer.recv(65_535)
                header = 4 * (packet[0] & 15)
                if int.from_bytes(packet[header:][PORTS], "big") in ports:
                    packets.append(packet[: header + 6] + NO_CHECKSUM + packet[header + UDP_HEADER :])
    return packets


def replay(packets: list[bytes]) -> None:
    """Send captured packets again, from the addresses and ports that they came from. Needs root."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in packets:
            raw.sendto(packet, ("127.0.0.1", 0))


def payload(packet: bytes) -> bytes:
    """The datagram in a captured packet."""
    return packet[4 * (packet[0] & 15) + UDP_HEADER :]


def bad_datagrams(seed: int, captured: list[bytes]) -> Iterator[bytes]:
    """Random bytes, truncations, bit flips, replays from elsewhere, other clusters, passwords and versions, for ever."""
    chance = random.Random(seed)
    hello = encode("a", Hello("n", 1))
    wrong = Sealer(cluster_key("wrong", CLUSTER), CLUSTER, os.urandom(16))
    foreign = Sealer(KEY, 99, os.urandom(16))
    fresh = Sealer(KEY, CLUSTER, os.urandom(16))
    genuine = [payload(packet) for packet in captured] or [fresh.seal(hello)]

    def flipped() -> bytes:
        data = bytearray(chance.choice(genuine))
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(data)

    def version() -> bytes:
        return genuine[0][:3] + bytes([chance.randrange(2, 256)]) + genuine[0][4:]

    kinds: list[Callable[[], bytes]] = [
        lambda: chance.randbytes(chance.randrange(1400)), lambda: (data := chance.choice(genuine))[: chance.randrange(len(data))],
        flipped, lambda: chance.choice(genuine), lambda: wrong.seal(hello), lambda: foreign.seal(hello), version,
        lambda: fresh.seal(hello), lambda: genuine[0][:8] + chance.randbytes(16) + genuine[0][24:],
    ]
    while True:
        yield chance.choice(kinds)()


def flood(ports: list[int], rate: int, seconds: float, captured: list[bytes]) -> int:
    """Send about `rate` bad datagrams a second to ports of loopback; how many were sent."""
    ready = [next(source) for source in [bad_datagrams(1, captured)] for _ in range(5_000)]
    sent, began = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(min(200, int(passed * rate) - sent)):
                sock.sendto(ready[sent % len(ready)], ("127.0.0.1", ports[sent % len(ports)]))
                sent += 1
            if int(passed * rate) <= sent:
                time.sleep(0.001)
    return sent


class Rebinding:
    """A router that gives the client behind it a new port whenever it is told to, and loses what comes to the old ones."""

    def __init__(self, server: Address) -> None:
        self.server, self.due = server, False
        self.front, self.back = _bound(), _bound()
        self.client: Address | None = None
        self.address: Address = self.front.getsockname()
        self.open = True
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while self.open:
            for sock in select.select([self.front, self.back], [], [], 0.1)[0]:
                if sock is self.back and self.client is not None:
                    self.front.sendto(self.back.recv(65_535), self.client)
                elif sock is self.front:
                    datagram, self.client = self.front.recvfrom(65_535)
                    self._rebind()
                    self.back.sendto(datagram, self.server)
                    break

    def _rebind(self) -> None:
        if self.due:
            self.due = False
            self.back.close()
            self.back = _bound()

    def close(self) -> None:
        """Relay no more."""
        self.open = False
        self.thread.join()
        self.front.close()
        self.back.close()


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def rss_kb(pid: int) -> int:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
