"""The lock that keeps a second koinode of the same node away.

Rule: run_dir/koinode.lock is held twice. The record lock (fcntl) is root's alone and ends with it: while it is held, a
koinode runs. The flock is inherited by the workers: while only it is held, workers of a dead tree still demote and
stop, and a new koinode waits for them. The file holds the pid of the root that owns it, or did. An orderly end removes
it while it is held; who has opened the removed one opens it anew.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Optional

from koi.errors import KoiError

LOCK_NAME = "koinode.lock"
PID_BYTES = 32
MAX_TRIES = 5
"""How often a lock that was removed while it was waited for is opened anew."""


class _Late(Exception):
    """The time to wait is over."""


def _late(signum: int, frame: Optional[FrameType]) -> None:
    raise _Late


def acquire(run_dir: str, node: str, wait_s: float, on_wait: Callable[[str], None]) -> int:
    """Take the lock of the node; the descriptor keeps it, and is not passed on to executed programs.

    Waits up to `wait_s` seconds for workers of a dead tree and says so once through `on_wait`. Raises KoiError when a
    koinode of this node runs already, when the workers have not ended in time, or when run_dir cannot be used.
    """
    path = os.path.join(run_dir, LOCK_NAME)
    for _ in range(MAX_TRIES):
        fd = _open(path, run_dir)
        try:
            _take(fd, path, node, wait_s, on_wait)
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise KoiError(f"{path} is removed again and again by others; see what does that")


def remove(fd: int, run_dir: str) -> None:
    """Remove the lock file at an orderly end, when nobody else holds it. The descriptor stays open."""
    path = os.path.join(run_dir, LOCK_NAME)
    if _is_at(fd, path):
        os.unlink(path)


def _open(path: str, run_dir: str) -> int:
    try:
        os.makedirs(run_dir, mode=0o755, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise KoiError(f"{path} cannot be opened: {error.strerror}; make {run_dir} writable or set node.run_dir") from error


def _is_at(fd: int, path: str) -> bool:
    """Whether the path still names the file that is held."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def write_pid(paths: Sequence[str]) -> None:
    """Write this process's id into each file; only the holder of the lock may. Raises KoiError."""
    for path in paths:
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
        except OSError as error:
            raise KoiError(f"the pid file {path} cannot be written: {error.strerror}") from error


def remove_pid(paths: Sequence[str]) -> None:
    """Remove the files again that hold this process's id."""
    for path in paths:
        try:
            with open(path, encoding="ascii") as file:
                mine = file.read().strip() == str(os.getpid())
            if mine:
                os.unlink(path)
        except (OSError, ValueError):
            continue


def _take(fd: int, path: str, node: str, wait_s: float, on_wait: Callable[[str], None]) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise KoiError(f"koinode of node {node} runs already, pid {_pid(fd)} ({path}); 'koi local' shows it") from None
    before = _pid(fd)
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait(f"workers of the dead koinode {before} still demote and stop their services; waiting up to {wait_s:g} s for them")
        _wait(fd, path, before, wait_s)


def _wait(fd: int, path: str, before: str, wait_s: float) -> None:
    """Wait for the flock; the alarm's handler is what ends the wait."""
    handler = signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, max(wait_s, 0.001))  # 0 would wait for ever
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except _Late:
        raise KoiError(
            f"workers of the dead koinode {before} still run after {wait_s:g} s; "
            f"end them (`fuser {path}` names them), then start koinode again"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _pid(fd: int) -> str:
    return os.pread(fd, PID_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
