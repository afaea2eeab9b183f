"""One end of the pipe between root and a child.

Rule: a link never blocks and never grows without bound. What the other side does not take is queued up to
MAX_QUEUED_BYTES; then `overflowed` is set and nothing more is queued. A frame is the length of the body, the length of
the address, the address, the body; root passes bodies on unread.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections import deque
from multiprocessing.connection import Connection, Pipe
from typing import Any, Callable, Optional

from koi.proc.loop import Loop, now

Frame = tuple[str, bytes]

HEADER = struct.Struct("!IH")
MAX_BODY_BYTES = 1 << 20
MAX_QUEUED_BYTES = 2 << 20
READ_BYTES = 1 << 16
"""Read in one turn, so that one talkative child keeps nobody waiting. For a larger buffer the C library would map memory anew
each time."""


def dumps(message: Any) -> bytes:
    """The body of a message."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def loads(body: bytes) -> Any:
    """The message of a body; only ever of our own processes."""
    return pickle.loads(body)


def _frame(to: str, body: bytes) -> bytes:
    """ValueError: the body is larger than any may be."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a message of {len(body)} bytes for {to}; at most {MAX_BODY_BYTES} are sent")
    address = to.encode()
    return HEADER.pack(len(body), len(address)) + address + body


def pair() -> tuple[Link, Link]:
    """Both ends of a new pipe."""
    one, other = Pipe(duplex=True)
    return Link(one), Link(other)


class Link:
    """One end: messages `(to, body)` in both directions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._fd = connection.fileno()
        os.set_blocking(self._fd, False)
        self._out: deque[bytes] = deque()
        self._read = bytearray()
        self._loop: Optional[Loop] = None
        self._watches = False
        self.queued = 0
        """Bytes that wait for the other side."""
        self.blocked_since: Optional[float] = None
        """Since when (CLOCK_BOOTTIME) the other side has taken nothing although something waits."""
        self.overflowed = False
        """A message was dropped because the other side does not read."""
        self.ended = False
        """The other side is gone and all that it said has been read, or it sent what is no frame."""
        self.broken = False
        """The other side is gone; what is sent is dropped."""

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether this end was closed here."""
        return self._connection.closed

    @property
    def wants_write(self) -> bool:
        """Whether something waits until the other side reads."""
        return bool(self._out)

    def attach(self, loop: Loop, on_frame: Callable[[str, bytes], None], on_end: Callable[[], None]) -> None:
        """Let the loop read and write this link: `on_frame(to, body)` for each frame, at last `on_end()` once."""
        self._loop = loop

        def readable() -> None:
            for to, body in self.receive():
                on_frame(to, body)
            if self.ended and not self.closed:
                loop.remove(self._fd)
                self._loop = None
                on_end()

        loop.add(self._fd, readable)
        self._watches = False
        self._watch_writing()

    def send(self, to: str, message: Any) -> None:
        """Send or queue a message for the process with the address `to`. ValueError: it is larger than any may be."""
        self.forward(to, dumps(message))

    def send_both(self, to: str, other: str, message: Any) -> None:
        """Send or queue a message for two processes; the other side is woken once."""
        body = dumps(message)
        self._put(_frame(to, body) + _frame(other, body))

    def forward(self, to: str, body: bytes) -> None:
        """Send or queue a body as it is."""
        self._put(_frame(to, body))

    def _put(self, frames: bytes) -> None:
        if self.broken or self.closed:
            return
        if self.queued + len(frames) > MAX_QUEUED_BYTES:
            self.overflowed = True
            return
        self._out.append(frames)
        self.queued += len(frames)
        self.flush()

    def flush(self) -> None:
        """Write what the other side takes now."""
        if self.closed:
            return
        moved = False
        while self._out and self._write_first():
            moved = True
        if not self._out:
            self.blocked_since = None
        elif moved or self.blocked_since is None:
            self.blocked_since = now()
        self._watch_writing()

    def receive(self) -> list[Frame]:
        """The frames that have come, READ_BYTES of them at most; sets `ended`."""
        if self.ended or self.closed:
            return []
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = self.broken = True
            return []
        self._read += data
        return self._frames()

    def close(self) -> None:
        """Close this end; the other side reads what was sent and then sees the end."""
        if self.closed:
            return
        if self._loop is not None:
            self._loop.remove(self._fd)
            self._loop = None
        self._connection.close()
        self._drop()

    def close_copy(self) -> None:
        """After a fork: close the inherited copy of an end that belongs to the other process, and nothing else."""
        self._loop = None
        self.close()

    def _write_first(self) -> bool:
        """Write from the first queued frame; False when the other side takes nothing more."""
        frame = self._out[0]
        try:
            count = os.write(self._fd, frame)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._drop()
            return False
        self.queued -= count
        if count < len(frame):
            self._out[0] = frame[count:]
        else:
            self._out.popleft()
        return True

    def _drop(self) -> None:
        self.broken = True
        self._out.clear()
        self.queued = 0
        self.blocked_since = None

    def _watch_writing(self) -> None:
        if self._loop is None or self._watches == self.wants_write:
            return
        self._watches = self.wants_write
        if self._watches:
            self._loop.add(self._fd, self.flush, write=True)
        else:
            self._loop.remove(self._fd, write=True)

    def _frames(self) -> list[Frame]:
        frames: list[Frame] = []
        begin = 0
        while len(self._read) - begin >= HEADER.size:
            body_size, address_size = HEADER.unpack_from(self._read, begin)
            if body_size > MAX_BODY_BYTES:
                self.ended = self.broken = True
                break
            body_begin = begin + HEADER.size + address_size
            if len(self._read) < body_begin + body_size:
                break
            address = self._read[begin + HEADER.size : body_begin].decode(errors="replace")
            frames.append((address, bytes(self._read[body_begin : body_begin + body_size])))
            begin = body_begin + body_size
        del self._read[:begin]
        return frames
