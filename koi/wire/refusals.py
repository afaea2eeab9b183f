"""What the network says of datagrams that could not be delivered: at which addresses nobody listens.

Rule kept: it is a hint, no proof, for whoever sees a datagram can forge the answer. So nodes do not listen to it; the client
does, for words that come sooner.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any, Iterator

IP_RECVERR, IPV6_RECVERR = 11, 25
MAX_READ = 64
"""Errors read at once."""
ROOM = 512


def ask_for(sock: socket.socket) -> None:
    """Let the kernel keep the errors of this UDP socket."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def read(sock: socket.socket) -> Iterator[Any]:
    """The addresses, as the kernel calls them, whose ports were closed as datagrams came; each error is told once."""
    for _ in range(MAX_READ):
        try:
            _, told, _, target = sock.recvmsg(0, ROOM, socket.MSG_ERRQUEUE)
        except OSError:  # there are no more
            return
        if any(int.from_bytes(data[:4], sys.byteorder) == errno.ECONNREFUSED for _, _, data in told):
            yield target


def send(sock: socket.socket, datagram: bytes, source: list[tuple[int, int, bytes]], target: Any) -> None:
    """Send from `source` (ancillary data), or from where the kernel likes, even if one that was sent before has been refused."""
    try:
        _send(sock, datagram, source, target)
    except ConnectionRefusedError:
        _send(sock, datagram, source, target)


def _send(sock: socket.socket, datagram: bytes, source: list[tuple[int, int, bytes]], target: Any) -> None:
    if source:
        sock.sendmsg((datagram,), source, 0, target)
    else:
        sock.sendto(datagram, target)
