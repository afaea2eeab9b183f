"""Going to the background: the caller's process ends only when the node is up, or with the reason why it is not.

Rule: the daemon tells its starter exactly one thing through a pipe, that it is up or why it failed; if it ends without
a word, the starter sees the pipe's end. So `koinode --daemonize` never says 0 about a node that does not run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

UP, FAILED = b"+", b"-"
MAX_REASON_BYTES = 60_000

Serve = Callable[["Report"], int]


class Report:
    """The daemon's end of the pipe to its starter."""

    def __init__(self, fd: int | None = None) -> None:
        """Without a descriptor nobody waits for the word."""
        self._fd = fd

    def up(self) -> None:
        """The node is up."""
        self._say(UP)

    def failed(self, reason: str) -> None:
        """The node cannot start; ignored once it was up."""
        self._say(FAILED + reason.encode()[:MAX_REASON_BYTES])

    def close(self) -> None:
        """Close this end, also a child's copy."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _say(self, word: bytes) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, word)
        except BrokenPipeError:
            pass  # the starter was killed; the node runs all the same
        self.close()


def start(serve: Serve, keep_stderr: bool) -> int:
    """Run `serve(report)` in the background, in a session of its own; the exit code for the starter: 0 up, 1 failed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _be_daemon(serve, Report(write), keep_stderr)
    os.close(write)
    word = _read_all(read)
    if word == UP:
        return 0
    reason = word[1:].decode(errors="replace") or "it ended while it was starting; its log says why"
    print(f"koinode: {reason}", file=sys.stderr)
    return 1


def _be_daemon(serve: Serve, report: Report, keep_stderr: bool) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1) if keep_stderr else (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        code = serve(report)
    finally:
        os._exit(code)


def _read_all(fd: int) -> bytes:
    word = b""
    while data := os.read(fd, MAX_REASON_BYTES + 1):
        word += data
    os.close(fd)
    return word
