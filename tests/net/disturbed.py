"""A network that delays, reorders and repeats: a hub in the place of the bridge, for kernels without a queue that does it.

Every IPv4 frame of a host goes to all others after `delay_s` and up to `jitter_s` more, so that it may overtake and be
overtaken; with the chance `repeated` it comes twice.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import threading
import time
from types import TracebackType

from tests.net.hosts import Hosts, run

ETH_P_ALL, SO_RCVBUFFORCE, BUFFER, MAX_FRAME = 3, 33, 8 << 20, 65_535
MAX_HELD = 20_000
"""Frames under way; more are lost."""
TURN_S = 0.1
IP, IPV4, PROTOCOL, UDP = 14, b"\x08\x00", 23, 17


class Disturbed:
    """Between `with` and its end the hosts hear each other through this hub."""

    def __init__(self, hosts: Hosts, delay_s: float, jitter_s: float, repeated: float, seed: int = 1) -> None:
        self.hosts, self.delay_s, self.jitter_s, self.repeated = hosts, delay_s, jitter_s, repeated
        self.chance = random.Random(seed)
        self.passed = 0
        self.silenced: set[str] = set()
        """Hosts of which nothing passes, in either direction."""
        self._held: list[tuple[float, int, str, bytes]] = []
        self._open = True
        self._sockets: dict[str, socket.socket] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Disturbed:
        for host in self.hosts.names:
            run("ip", "-n", self.hosts.switch, "link", "set", f"{host}x0", "nomaster", "promisc", "on")
        with self.hosts.inside("sw"):
            for host in self.hosts.names:
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
                sock.setblocking(False)
                sock.bind((f"{host}x0", 0))
                self._sockets[host] = sock
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open = False
        self._thread.join()
        for host, sock in self._sockets.items():
            sock.close()
            run("ip", "-n", self.hosts.switch, "link", "set", f"{host}x0", "master", "br0")

    def _work(self) -> None:
        names = {sock: host for host, sock in self._sockets.items()}
        while self._open:
            due = self._held[0][0] - time.monotonic() if self._held else TURN_S
            for sock in select.select(list(names), [], [], min(max(due, 0.0), TURN_S))[0]:
                self._take(names[sock], sock)
            self._deliver()

    def _take(self, host: str, sock: socket.socket) -> None:
        while True:
            try:
                frame, origin = sock.recvfrom(MAX_FRAME)
            except BlockingIOError:
                return
            if origin[2] == socket.PACKET_OUTGOING or len(self._held) >= MAX_HELD:
                continue
            for _ in range(2 if self.chance.random() < self.repeated else 1):
                self.passed += 1
                at = time.monotonic() + self.delay_s + self.chance.random() * self.jitter_s
                heapq.heappush(self._held, (at, self.passed, host, _without_checksum(frame)))

    def _deliver(self) -> None:
        while self._held and self._held[0][0] <= time.monotonic():
            _, _, source, frame = heapq.heappop(self._held)
            for host, sock in self._sockets.items():
                if host != source and not self.silenced & {host, source}:
                    try:
                        sock.send(frame)
                    except OSError:  # no room: it is lost, as on any network
                        continue


def _without_checksum(frame: bytes) -> bytes:
    """Between namespaces the kernel leaves UDP's checksum undone, and would drop what comes back with it."""
    first = not int.from_bytes(frame[IP + 6 : IP + 8], "big") & 0x1FFF
    if frame[12:14] != IPV4 or frame[PROTOCOL] != UDP or not first:
        return frame
    at = IP + 4 * (frame[IP] & 15) + 6
    return frame[:at] + bytes(2) + frame[at + 2 :]
