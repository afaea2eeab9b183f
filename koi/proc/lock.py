"""The lock that keeps a second koinode of the same node away.

Rule: run_dir/koinode.lock is held twice. The record lock (fcntl) is root's alone and ends with it: while it is held, a
koinode runs. The flock is inherited by the workers: while only it is held, workers of a dead tree still demote and
stop, and a new koinode waits for them; one that a signal has stopped is killed. The file holds the pid of the root that
owns it, or did. An orderly end removes it while it is held; who has opened the removed one opens it anew.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Optional

from koi import log
from koi.errors import KoiError
from koi.proc.loop import now
from koi.proc.system import is_stopped

LOCK_NAME = "koinode.lock"
PID_BYTES = 32
MAX_TRIES = 5
"""How often a lock that was removed while it was waited for is opened anew."""
LOOK_S = 1.0
"""So often the workers that are waited for are looked at, besides when they have ended."""
MAX_WATCHED = 64
"""So many of them at a time."""


class ToldToEnd(KoiError):
    """SIGTERM or SIGINT came before anything was begun."""


def acquire(run_dir: str, node: str, wait_s: float, on_wait: Callable[[str], None]) -> int:
    """Take the lock of the node; the descriptor keeps it, and is not passed on to executed programs.

    Waits up to `wait_s` seconds for workers of a dead tree and says so once through `on_wait`. Raises KoiError when a
    koinode of this node runs already, when the workers have not ended in time, or when run_dir cannot be used, and ToldToEnd.
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
    """Remove the lock file at an orderly end, while it is held. The descriptor stays open."""
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
            with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "rb+") as file:
                _note_pid(file.fileno())
        except OSError as error:
            raise KoiError(f"the pid file {path} cannot be written: {error.strerror}; make room or name another") from error


def _note_pid(fd: int) -> None:
    """In place of the one before: a full disk has no room for what is first given up."""
    line = f"{os.getpid()}\n".encode()
    os.pwrite(fd, line, 0)
    os.ftruncate(fd, len(line))


def remove_pid(paths: Sequence[str]) -> None:
    """Remove the files again that hold this process's id, or nothing for which there was room."""
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                mine = file.read().strip() in ("", str(os.getpid()))
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
    try:
        _note_pid(fd)
    except OSError as error:
        raise KoiError(f"{path} cannot be written: {error.strerror}; make room there, or set another node.run_dir") from error
    if not _flocked(fd):
        _wait(fd, path, before, wait_s, on_wait)


def _wait(fd: int, path: str, before: str, wait_s: float, on_wait: Callable[[str], None]) -> None:
    """Wait for the flock: workers end one by one, and one that was stopped by a signal would never do so by itself."""
    handlers = {signum: signal.signal(signum, _told_to_end) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        on_wait(f"workers of the dead koinode {before} still demote and stop their services; waiting up to {wait_s:g} s for them")
        ends = now() + wait_s
        while not _flocked(fd):
            if now() >= ends:
                raise KoiError(
                    f"workers of the dead koinode {before} still run after {wait_s:g} s; "
                    f"end them (`fuser {path}` names them), then start koinode again"
                )
            _until_they_end(_others(fd), min(LOOK_S, max(0.0, ends - now())))
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _told_to_end(signum: int, frame: Optional[FrameType]) -> None:
    raise ToldToEnd(f"{signal.Signals(signum).name}: ends before it has begun anything; what workers of a dead koinode still "
                    "demote and stop they go on with")


def _flocked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _others(fd: int) -> list[int]:
    """The processes that have the file open, this one excepted; those that a signal has stopped are killed."""
    found = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid() and _has_open(name, fd)]
    for pid in found:
        if is_stopped(pid):
            log.get().warning(f"process {pid} of the dead koinode was stopped by a signal and demotes nothing: it is killed, and "
                              "what it left is demoted and stopped as soon as the others have ended")
            _kill(pid)
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has gone on and ended meanwhile


def _has_open(pid: str, fd: int) -> bool:
    try:
        return any(_is_at(fd, f"/proc/{pid}/fd/{one}") for one in os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # it has ended, or is somebody else's
        return False


def _until_they_end(pids: Sequence[int], most_s: float) -> None:
    """Or so many seconds; of many, until those have ended that are watched."""
    poll, opened, ends = select.poll(), set(), now() + most_s
    try:
        for pid in pids[:MAX_WATCHED]:
            try:
                opened.add(os.pidfd_open(pid))
            except ProcessLookupError:
                continue
        for one in opened:
            poll.register(one, select.POLLIN)
        while (opened or not pids) and now() < ends:
            for one, _ in poll.poll((ends - now()) * 1000):
                poll.unregister(one)
                opened.remove(one)
                os.close(one)
    finally:
        for one in opened:
            os.close(one)


def _pid(fd: int) -> str:
    return os.pread(fd, PID_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
