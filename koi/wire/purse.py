"""The sender's side of cookies: which cookie each receiver has given, and what was sent lately, to send it again at once.

Rule kept (docs/protocol.md section 10): a Cookie datagram counts only if it echoes something that was sent just now, and once
for each; a datagram is sent again at most MAX_TRIES - 1 times, and a Cookie datagram never, so that two processes never
play ping-pong.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from koi.wire.seal import NO_COOKIE

Address = tuple[str, int]

MAX_COOKIES = 4096
"""Receivers whose cookie is kept; the oldest is forgotten first and gives another when asked again."""
KEPT = 256
"""Datagrams that can be sent again. They are refused within a round trip or never."""
MAX_KEPT_BODY = 4_000
"""Bytes of a body that is kept; a longer one is not sent again, its sender repeats itself anyway."""
MAX_TRIES = 3


class Sent(NamedTuple):
    """A datagram that has left; MAX_TRIES: it is not sent again."""

    seq: int
    address: Address
    body: bytes
    tries: int


class Purse:
    """The cookies of one process."""

    def __init__(self) -> None:
        self._cookies: dict[Address, bytes] = {}
        self._sent: list[Optional[Sent]] = [None] * KEPT
        self._given: list[Optional[Sent]] = [None] * KEPT
        """Apart from the others: whoever draws many cookies pushes nothing out that is to be sent again."""

    def cookie(self, address: Address) -> bytes:
        """What the receiver at this address wants to see."""
        return self._cookies.get(address, NO_COOKIE)

    def keep(self, seq: int, address: Address, body: bytes, tries: int) -> None:
        """This has been sent."""
        self._sent[seq % KEPT] = Sent(seq, address, body, tries) if len(body) <= MAX_KEPT_BODY else None

    def keep_given(self, seq: int, address: Address) -> None:
        """A cookie has been given; who gets it may answer with one of its own."""
        self._given[seq % KEPT] = Sent(seq, address, b"", MAX_TRIES)

    def refused(self, seq: int) -> Optional[Sent]:
        """The datagram of this seq, if it was sent lately; the second time it is not found any more."""
        for ring in (self._sent, self._given):
            sent = ring[seq % KEPT]
            if sent is not None and sent.seq == seq:
                ring[seq % KEPT] = None
                return sent
        return None

    def put(self, address: Address, cookie: bytes) -> None:
        """Send this cookie to this address from now on."""
        if address not in self._cookies and len(self._cookies) >= MAX_COOKIES:
            self._cookies.pop(next(iter(self._cookies)))
        self._cookies[address] = cookie
