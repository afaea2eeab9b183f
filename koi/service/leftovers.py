"""Find and end what the scripts of a service started, whoever started it and whatever became of its parent.

Rule: every process that a script starts inherits KOI_SERVICE_DIR, KOI_SERVICE, KOI_NODE and KOI_CLUSTER_ID; what carries
all of them belongs to the service, also after a daemon has left group and session. Own ancestors are never touched.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Callable, Optional

from koi.core.data import dataclass
from koi.proc.loop import Loop
from koi.service import catalog
from koi.service.script import ENDING

MAX_ROUNDS = 4
"""A process that forks while it is looked for is found in the next round."""
MAX_PIPES = 16
READ_BYTES = 1 << 16
"""Of a file of /proc in one read."""
NEVER_LEFT = frozenset({"run", "watch", "status"})
"""What these have started is of no use once they have ended; other scripts may start a daemon that lives on."""


@dataclass(frozen=True)
class Mark:
    """What the environment of the service's processes says."""

    folder: str
    """What KOI_SERVICE_DIR is (of single files) or lies in: a service's own folder is renamed for another priority."""
    service: str
    node: str
    cluster_id: int

    def entries(self) -> tuple[bytes, ...]:
        """As they stand in /proc/PID/environ."""
        return (
            b"KOI_SERVICE=" + os.fsencode(self.service), b"KOI_NODE=" + os.fsencode(self.node),
            b"KOI_CLUSTER_ID=%d" % self.cluster_id,
        )

    def owns(self, environ: list[bytes]) -> bool:
        """Whether a process with this environment belongs to the service."""
        if not all(entry in environ for entry in self.entries()):
            return False
        place = _value(environ, "KOI_SERVICE_DIR")
        return self.folder in (place, os.path.dirname(place))

    def is_script(self, place: str, action: str, command: Iterable[str]) -> bool:
        """Whether this is a script of the service itself, by where it lay when it was started: `place` is KOI_SERVICE_DIR."""
        if place != self.folder:
            return os.path.join(place, action) in command
        inside = [os.path.basename(word) for word in command if os.path.dirname(word) == place]
        return any(catalog.split(name)[0] == self.service for name in inside)


@dataclass(frozen=True)
class Leftover:
    """A process of the service."""

    pid: int
    action: str
    """The action of the script that started it."""
    command: tuple[str, ...]
    leads: bool
    """It leads a session, as every script does; what a script leaves in the background does not, or runs another program."""
    script: bool = False
    """It runs a script of the service, also one that has been renamed since."""


def find(mark: Mark) -> list[Leftover]:
    """All living processes of the service, other than this process and its ancestors."""
    looked_at = (_leftover(name, _environ(name), (mark,)) for name in os.listdir("/proc") if name.isdigit())
    return _spare([one for one in looked_at if one is not None])


def _leftover(name: str, content: bytes, marks: tuple[Mark, ...]) -> Optional[Leftover]:
    """The process, if it belongs to the service by its environment; all marks are of one service."""
    if marks[0].entries()[0] not in content:  # few have it, and a program's restart waits for this
        return None
    environ = content.split(b"\0")
    mark = next((mark for mark in marks if mark.owns(environ)), None)
    if mark is None:
        return None
    action = _value(environ, "KOI_ACTION")
    command = tuple(map(os.fsdecode, _read(f"/proc/{name}/cmdline").rstrip(b"\0").split(b"\0")))
    script = mark.is_script(_value(environ, "KOI_SERVICE_DIR"), action, command)
    return Leftover(int(name), action, command, _leads(int(name)), script)


def _spare(found: list[Leftover]) -> list[Leftover]:
    """Without this process and its ancestors."""
    spared = _ancestors() if found else set()
    return [one for one in found if one.pid not in spared]


class Search:
    """Looks again and again for what a service's program has left, and reads of all other processes only what is new.

    Whoever runs with another environment never becomes the service's, and is known again, while it lives, by the number of
    its folder in /proc. One without any environment may be just about to get one, unless it has no program either.
    """

    def __init__(self) -> None:
        self._marks: tuple[Mark, ...] = ()
        self._others: set[tuple[str, int]] = set()
        """(name, inode number) in /proc of what was there at the last look, and is not the service's."""

    def of_action(self, marks: tuple[Mark, ...], action: str) -> list[int]:
        """The living processes that the scripts of an action, or the program, have started."""
        known = self._others if marks == self._marks else set()
        self._marks, self._others = marks, set()
        found = []
        with os.scandir("/proc") as entries:
            for entry in entries:
                who = entry.name, entry.inode()
                if who in known or not entry.name.isdigit():
                    self._others.add(who)
                    continue
                content = _environ(entry.name)
                one = _leftover(entry.name, content, marks)
                if one is not None:
                    found.append(one)
                elif content or not _has_program(entry.name):
                    self._others.add(who)
        return [one.pid for one in _spare(found) if one.action == action]


def _value(environ: list[bytes], name: str) -> str:
    """Of a variable; empty when it is not there."""
    start = os.fsencode(name) + b"="
    return os.fsdecode(next((entry[len(start):] for entry in environ if entry.startswith(start)), b""))


def kill(mark: Mark) -> list[int]:
    """SIGKILL every process of the service; returns their pids."""
    killed: set[int] = set()
    for _ in range(MAX_ROUNDS):
        pids = {one.pid for one in find(mark)} - killed
        if not pids:
            break
        for pid in pids:
            send(pid, signal.SIGKILL)
        killed |= pids
    return sorted(killed)


def unfinished(found: list[Leftover], interrupted: Optional[str]) -> list[Leftover]:
    """Of what a dead worker left, what nobody waits for any more: programs, scripts, and all of the interrupted action.

    A daemon that a script has left lives on.
    """
    useless = NEVER_LEFT | {interrupted}
    return [one for one in found if one.action in useless or (one.leads and one.script)]


def pipes(found: list[Leftover]) -> list[int]:
    """Reading ends of the pipes to a dead worker, for the one that takes over; they are open both ways (see script.py)."""
    opened: dict[str, int] = {}
    for one in found:
        for stream in (1, 2):
            path = f"/proc/{one.pid}/fd/{stream}"
            try:
                pipe = os.readlink(path)
                if pipe.startswith("pipe:") and pipe not in opened and len(opened) < MAX_PIPES and _both_ways(one.pid, stream):
                    opened[pipe] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
    return list(opened.values())


class Ending:
    """Ends processes that are not our children: SIGTERM to their groups, SIGKILL after `patience` seconds."""

    def __init__(self, loop: Loop, pids: list[int], patience: float, on_done: Callable[[], None]) -> None:
        """`on_done()` is called once all have ended, from the loop or, when there are none, at once."""
        self._loop, self._on_done = loop, on_done
        self._watched: dict[int, int] = {}
        self.deadline: Optional[float] = loop.now() + patience
        for pid in pids:
            try:
                self._watched[os.pidfd_open(pid)] = pid
            except ProcessLookupError:
                continue
        for pidfd, pid in list(self._watched.items()):
            loop.add(pidfd, lambda pidfd=pidfd: self._ended(pidfd))  # type: ignore[misc]
            for signum in ENDING:
                self._signal(pidfd, pid, signum)
        if not self._watched:
            self.deadline = None
            on_done()

    def handle_timer(self, now: float) -> None:
        """Kill what has not ended in time."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            for pidfd, pid in self._watched.items():
                self._signal(pidfd, pid, signal.SIGKILL)

    def _signal(self, pidfd: int, pid: int, signum: int) -> None:
        """To the process by its pidfd, and to its group if it leads one."""
        try:
            if os.getpgid(pid) == pid:
                os.killpg(pid, signum)
            signal.pidfd_send_signal(pidfd, signum)
        except (ProcessLookupError, PermissionError):
            pass

    def _ended(self, pidfd: int) -> None:
        if self._watched.pop(pidfd, None) is None:
            return
        self._loop.remove(pidfd)
        os.close(pidfd)
        if not self._watched:
            self.deadline = None
            self._on_done()


def send(pid: int, signum: int) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def _environ(name: str) -> bytes:
    """The environment of a process, as it was when its program began; empty when it is gone or another's."""
    return _read(f"/proc/{name}/environ")


def _has_program(name: str) -> bool:
    """Whether a process executes a file; the kernel's own, and those that have ended, do not."""
    try:
        os.readlink(f"/proc/{name}/exe")
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _read(path: str) -> bytes:
    """A file of /proc; empty when the process is gone or another's. What fits the buffer comes with one read.

    OSError when none can be opened: who does not see what was left must not start another beside it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        data = os.read(fd, READ_BYTES)
        return data if len(data) < READ_BYTES else data + b"".join(iter(lambda: os.read(fd, READ_BYTES), b""))
    except OSError:
        return b""
    finally:
        os.close(fd)


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _both_ways(pid: int, stream: int) -> bool:
    """Whether a process can read and write the stream; what programs pipe to one another has one way."""
    for line in _read(f"/proc/{pid}/fdinfo/{stream}").splitlines():
        if line.startswith(b"flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE == os.O_RDWR
    return False


def _ancestors() -> set[int]:
    """This process and all above it."""
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 and int(fields[1]) not in pids else 0
    return pids
