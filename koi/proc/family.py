"""Root's children as processes: forking them, hearing them, killing them, and seeing them end.

Rule: fork only, from a process without threads, with root's signals blocked until the child has dropped what it inherited:
the pipe ends of its siblings, root's loop, systemd's socket, and (workers excepted) the node's lock. Nothing here
blocks and nothing here decides when a child is started or what its end means.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Optional, Union

from koi import log
from koi.core.pipe import Stop
from koi.proc.cell import LeaseCell, LifeSigns
from koi.proc.child import DISREGARDED, ELECTOR, SERVICE, SIGNING, Context, live, reset_signals
from koi.proc.link import Link, pair
from koi.proc.loop import Loop, now
from koi.proc.supervise import MAX_DELAY_S, Child
from koi.proc.system import TOO_MANY, descendants, die_with_parent

Main = Callable[[Context], None]
Outfit = Callable[[Child], dict[str, Any]]
"""What a child is born with besides its pipe: the fields of its Context."""
Pipes = Sequence[tuple[Child, Link, Link]]
"""Children that are to be forked, root's end of the pipe to each, and its own."""

BLOCKED = (signal.SIGCHLD, *DISREGARDED)
"""What the new process must not get before it has dropped root's handlers."""
DRAIN_S = 5.0
"""A child whose full pipe has not moved for this long is killed."""
PIPE_END_S = 0.1
"""A child whose pipe has ended is ending too; one that lives on for so long is killed."""
SHORT_OF = {
    errno.EMFILE: "koinode may have too few files open; raise its limit (ulimit -n, LimitNOFILE of systemd)",
    errno.ENFILE: "the machine has too many files open; see which program leaks them, or raise fs.file-max",
    errno.EAGAIN: TOO_MANY,
    errno.ENOMEM: "the machine has too little memory; end what needs too much",
}
"""What to do when no child can be started."""
MAX_LAST_READS = 64
"""Reads of what an ended child has left in its pipe."""


class Family:
    """All children of root by name, whether they run or wait to be started."""

    def __init__(self, loop: Loop, mains: Mapping[str, Main], on_frame: Callable[[Child, str, bytes], None], lock: int) -> None:
        self.loop = loop
        self.cell, self.signs = LeaseCell(), LifeSigns(SIGNING)
        self._children: dict[str, Child] = {}
        self._by_pid: dict[int, Child] = {}
        self._mains = mains
        self._on_frame = on_frame
        self._lock = lock
        self.inherited: list[Callable[[], None]] = []
        """Called in every new child to close what else of root's it must not keep."""

    def add(self, child: Child) -> None:
        """Take up a child; it is started when it is due."""
        self._children[child.name] = child

    def remove(self, name: str) -> None:
        """Forget a child that has ended for good."""
        del self._children[name]

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def get(self, name: str) -> Optional[Child]:
        """The child of that name, if there is one."""
        return self._children.get(name)

    def all(self) -> Iterable[Child]:
        """Every child, running or not, in the order of their first start."""
        return self._children.values()

    def alive(self, kind: Optional[str] = None) -> list[str]:
        """The names of those that run."""
        return [c.name for c in self._children.values() if c.pid is not None and kind in (None, c.kind)]

    def fork(self, children: Sequence[Child], hang_s: float, outfit: Outfit) -> list[Child]:
        """Start these children; those that were. For the others the system has no process or pipe: they are tried again later.

        One is forked right after the other, with all pipes made before and all else done after: each page that root
        writes to between two forks becomes the first child's own, which was half a megabyte for each.
        """
        pipes = [(child, *ends) for child in children if (ends := self._pipe(child)) is not None]
        born = []
        for (child, ours, theirs), pid in zip(pipes, self._fork(pipes, outfit), strict=True):
            theirs.close()
            if isinstance(pid, OSError):
                ours.close()
                self._not_born(child, pid)
            else:
                self._born(child, pid, ours, None if child.kind == SERVICE else hang_s)
                born.append(child)
        return born

    def _pipe(self, child: Child) -> Optional[tuple[Link, Link]]:
        if self.signs.has(child.kind):
            self.signs.show(child.kind, 0.0)
        try:
            return pair()
        except OSError as error:
            self._not_born(child, error)
            return None

    def _fork(self, pipes: Pipes, outfit: Outfit) -> list[Union[int, OSError]]:
        """The process ids, or why there is none."""
        links = [one.link for one in self._children.values() if one.link is not None and not one.link.closed]
        fds = [link.fileno() for link in (*links, *(end for _, *ends in pipes for end in ends))]
        pids: list[Union[int, OSError]] = []
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        parent = os.getpid()
        try:
            for child, _, theirs in pipes:
                try:
                    pids.append(os.fork())
                except OSError as error:
                    pids.append(error)
                if pids[-1] == 0:
                    self._child(child, parent, theirs, fds, outfit)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pids

    def _born(self, child: Child, pid: int, link: Link, hang_s: Optional[float]) -> None:
        child.born(pid, link, now(), hang_s)
        self._by_pid[pid] = child
        link.attach(self.loop, lambda to, body: self._hear(child, to, body), lambda: self._pipe_ended(child, pid))

    def tell(self, name: str, message: object) -> None:
        """Send a message to a child; dropped when it does not run."""
        link = self._children[name].link
        if link is not None:
            link.send(name, message)
            self._check_overflow(self._children[name])

    def forward(self, name: str, body: bytes) -> None:
        """Pass a body on unread; dropped when there is no such child now: its successor is told anew."""
        child = self._children.get(name)
        if child is not None and child.link is not None:
            child.link.forward(name, body)
            self._check_overflow(child)

    def close(self, name: str) -> None:
        """Close root's end of the child's pipe, which the child takes as the end."""
        link = self._children[name].link
        if link is not None:
            link.close()

    def replace(self, name: str) -> None:
        """Ask a child to end so that a new one takes its place at once: an elector resigns, a runner sees its pipe's end."""
        child = self._children[name]
        if child.pid is not None and not child.planned:
            child.planned = True
            self.tell(name, Stop()) if child.kind == ELECTOR else self.close(name)

    def kill(self, name: str, why: str) -> None:
        """Kill a child that runs; its end is seen like any other."""
        child = self._children[name]
        if child.pid is not None and child.killed_why is None:
            child.killed_why = why
            os.kill(child.pid, signal.SIGKILL)

    def kill_below(self) -> None:
        """Kill every process below root: the children, their scripts and programs, and orphans that became root's."""
        for pid in reversed(descendants(os.getpid())):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def reap(self) -> list[tuple[Child, int, int]]:
        """The children that have ended, each with its pid and wait status, after all that it had said was heard.

        A stopped child is killed. Orphans that became root's are reaped and not told.
        """
        ended: list[tuple[Child, int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            child = self._by_pid.get(pid)
            if child is None:
                continue
            if os.WIFSTOPPED(status):
                self.kill(child.name, "it was stopped by " + signal_name(os.WSTOPSIG(status)))
                continue
            del self._by_pid[pid]
            child.pid = None  # from here on it may be another process's
            self._hear_last(child)
            ended.append((child, pid, status))

    def drain_due(self) -> Optional[float]:
        """When the next child counts as one that does not drain its pipe, or lives on without it."""
        dues = [since + DRAIN_S for child in self._children.values() if (since := _blocked_since(child)) is not None]
        dues += [child.deaf_at for child in self._children.values() if child.deaf_at is not None]
        return min(dues, default=None)

    def kill_blocked(self, time: float) -> None:
        """Kill the children that do not drain their pipes."""
        for child in self._children.values():
            since = _blocked_since(child)
            if since is not None and since + DRAIN_S <= time:
                self.kill(child.name, f"it has not read its pipe for {time - since:.1f} s")
            if child.deaf_at is not None and child.deaf_at <= time:
                child.deaf_at = None
                self.kill(child.name, "it closed its pipe")

    def _check_overflow(self, child: Child) -> None:
        if child.link is not None and child.link.overflowed:
            self.kill(child.name, f"it does not read its pipe, {child.link.queued} bytes wait")

    def _hear(self, child: Child, to: str, body: bytes) -> None:
        """Whatever one child says, root lives on: what cannot be understood costs that child its life."""
        try:
            self._on_frame(child, to, body)
        except Exception as fault:  # root may not die
            log.get().critical(f"what {child.name} said to {to} cannot be handled: {fault!r}")
            self.kill(child.name, f"it said what cannot be handled: {fault!r}")

    def _pipe_ended(self, child: Child, pid: int) -> None:
        if child.pid == pid:
            child.deaf_at = now() + PIPE_END_S

    def _hear_last(self, child: Child) -> None:
        link = child.link
        if link is None:
            return
        for _ in range(MAX_LAST_READS):
            frames = link.receive()
            if not frames and (link.ended or link.closed):
                break
            for to, body in frames:
                self._hear(child, to, body)
        link.close()

    def _not_born(self, child: Child, error: OSError) -> None:
        """Told once, however often it is tried; `child.not_born` keeps it."""
        why = f"{child.name} cannot be started: {error.strerror}; {SHORT_OF.get(error.errno or 0, 'see the log of the kernel')}"
        if child.not_born != why:
            child.not_born = why
            log.get().error(f"{why}; it is tried again and again, {MAX_DELAY_S:g} s apart at most")
        child.started = now()
        child.gone(now(), again=True)

    def _child(self, child: Child, parent: int, link: Link, fds: list[int], outfit: Outfit) -> NoReturn:
        """In the new process: drop what is not its own, then live. Never returns.

        `fds` are all ends of all pipes. They are closed by number, for to touch the links of a hundred siblings takes
        memory; the links live on in the frames below this one, so none is closed a second time.
        """
        try:
            if child.kind != SERVICE:
                die_with_parent(signal.SIGKILL)
            for fd in fds:
                if fd != link.fileno():
                    os.close(fd)
            self.loop.close()
            for close in self.inherited:
                close()
            if child.kind != SERVICE:
                os.close(self._lock)
            reset_signals()
            context = Context(name=child.name, link=link, loop=Loop(), cell=self.cell, signs=self.signs, **outfit(child))
        except BaseException as fault:
            log.get().critical(f"{child.name} cannot begin: {fault!r}")
            os._exit(os.EX_SOFTWARE)
        if child.kind != SERVICE and os.getppid() != parent:
            os._exit(0)
        live(context, self._mains[child.kind])


def _blocked_since(child: Child) -> Optional[float]:
    """Since when a child that was not killed yet has taken nothing from its full pipe."""
    return child.link.blocked_since if child.link is not None and child.killed_why is None else None


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def how_it_ended(child: Child, status: int) -> str:
    """In words: "was killed by SIGKILL", "exited 70", "was killed: it has not answered for 0.8 s"."""
    if child.killed_why is not None:
        return f"was killed: {child.killed_why}"
    if os.WIFSIGNALED(status):
        return f"was killed by {signal_name(os.WTERMSIG(status))}"
    return f"exited {os.WEXITSTATUS(status)}" + (f": {child.reason}" if child.reason else "")
