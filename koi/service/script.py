"""Run one script or program of a service, in a session of its own.

Rule: nothing here blocks. The exit comes by a pidfd, the output by a pipe; a script that outlives its timeout gets
SIGTERM with its whole group, KILL_DELAY_S later SIGKILL. What it leaves behind of its group is killed only if it had to be ended;
a daemon that `start` left lives on, and what it prints is still read.

A script gets its output pipe open for reading too: so a daemon that still prints is not ended by SIGPIPE when the
worker dies, and the next worker finds the pipe by it (leftovers.py).
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Callable, Mapping, Optional

from koi.proc.loop import Loop
from koi.service.output import Output

ENDING = (signal.SIGTERM, signal.SIGCONT)
"""What was stopped hears of its end only when it goes on."""
KILL_DELAY_S = 1.0
READ_BYTES = 65536
MAX_LAST_READS = 16
"""Reads after the exit: what a script printed in the end, but not for ever what its children print."""
MAX_FIRST_LINE = 256
"""Bytes; the kernel reads no more of it."""
NOT_EXECUTABLE, NO_INTERPRETER = 126, 127
"""Exit codes of a script that could not be run, as a shell has them."""
MAYBE_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""Signals that Python, a shell that starts koinode in the background, or nohup has ignored; scripts have them as usual."""

HINTS = {
    errno.ENOEXEC: "; its first line must name its interpreter, such as #!/bin/sh",
    errno.ETXTBSY: "; it is just being written: write it under another name and rename it",
}

OnEnd = Callable[["Script"], None]


class NotRun(Exception):
    """The program could not be executed; `exit` as a shell would say it."""

    def __init__(self, exit: int, why: str) -> None:
        super().__init__(why)
        self.exit = exit


class Tail:
    """The reading end of the output of a script, which may live longer than the script."""

    def __init__(self, loop: Loop, fd: int, output: Output, on_close: Callable[[Tail], None]) -> None:
        self._loop, self._fd, self.output, self._on_close = loop, fd, output, on_close
        self.open = True
        os.set_blocking(fd, False)
        loop.add(fd, self._readable)

    def drain(self) -> None:
        """Read what is there now, a bounded amount."""
        for _ in range(MAX_LAST_READS):
            if not self.open or not self._read():
                return

    def close(self) -> None:
        """Read no more."""
        if self.open:
            self.open = False
            self._loop.remove(self._fd)
            os.close(self._fd)
            self.output.end()
            self._on_close(self)

    def _readable(self) -> None:
        if self.open:
            self._read()

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self.output.feed(data)
        else:
            self.close()
        return bool(data)


class Script:
    """A running script. Times are seconds of the loop's clock."""

    def __init__(
        self, loop: Loop, command: list[str], environment: Mapping[str, str], timeout: Optional[float],
        log: Callable[[str], None], on_end: OnEnd, on_close: Callable[[Tail], None],
    ) -> None:
        """Start it. `on_end(script)` once it has ended. NotRun: it could not be executed. FileNotFoundError: it is not there."""
        if not os.path.lexists(command[0]):  # known without a fork that fails; many services have no demote or status
            raise FileNotFoundError(command[0])
        self._loop, self._on_end = loop, on_end
        self.started = loop.now()
        self.output = Output(log, loop.now)
        read, write = os.pipe()
        try:
            self.pid = spawn(command, environment, write)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self.tail = Tail(loop, read, self.output, on_close)
        self._pidfd = os.pidfd_open(self.pid)
        loop.add(self._pidfd, self._exited)
        self._timeout_at = None if timeout is None else self.started + timeout
        self._kill_at: Optional[float] = None
        self.exit: Optional[int] = None
        """Exit code, negative: the signal; None while it runs, and when it outlived its timeout."""
        self.ended = self.timed_out = self.told = False
        self.seconds = 0.0

    def deadline(self) -> Optional[float]:
        """When `handle_timer` is due."""
        return self._kill_at if self.told else self._timeout_at

    def handle_timer(self, now: float) -> None:
        """End it when its time is over, kill it when it did not end."""
        if self.ended:
            return
        if not self.told and self._timeout_at is not None and now >= self._timeout_at:
            self.timed_out = True
            self.end()
        elif self._kill_at is not None and now >= self._kill_at:
            self.kill()

    def end(self, patience: float = KILL_DELAY_S) -> None:
        """SIGTERM to its group now, SIGKILL after `patience` seconds. Again changes nothing."""
        if not self.ended and not self.told:
            self.told = True
            self._kill_at = self._loop.now() + patience
            for signum in ENDING:
                self._signal(signum)

    def kill(self) -> None:
        """SIGKILL to its group."""
        if not self.ended:
            self.told, self._kill_at = True, None
            self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        """To the group; it cannot be another's, for the script has not been waited for yet."""
        try:
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            pass

    def _exited(self) -> None:
        if os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        if self.told:
            self._signal(signal.SIGKILL)
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.seconds = self._loop.now() - self.started
        self.exit = None if self.timed_out else code
        self.ended = True
        self.tail.drain()
        self._on_end(self)


def spawn(command: list[str], environment: Mapping[str, str], output: int) -> int:
    """Start a program in a session of its own, its output to the pipe, its input from /dev/null; returns its pid."""
    both = _both_ways(output)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, both, 1),
        (os.POSIX_SPAWN_DUP2, both, 2),
    ]
    try:
        return os.posix_spawn(
            command[0], command, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=MAYBE_IGNORED,
        )
    except FileNotFoundError:
        if not os.path.lexists(command[0]):
            raise
        is_file = os.path.exists(command[0])
        what = f"the interpreter named in its first line, {_interpreter(command[0])}," if is_file else "what it is a link to"
        raise NotRun(NO_INTERPRETER, f"{command[0]}: {what} is not there") from None
    except PermissionError:
        raise NotRun(NOT_EXECUTABLE, f"{command[0]} is not executable; chmod +x {command[0]}") from None
    except OSError as error:
        hint = HINTS.get(error.errno or 0, "")
        raise NotRun(NOT_EXECUTABLE, f"{command[0]} cannot be run: {error.strerror}{hint}") from None
    finally:
        if both != output:
            os.close(both)


def _interpreter(path: str) -> str:
    """What stands behind #! in the first line, as it stands there: a carriage return is told by that."""
    try:
        with open(path, "rb") as file:
            words = file.readline(MAX_FIRST_LINE).rstrip(b"\n")[2:].split(b" ")
    except OSError:
        return "?"
    return repr(next(filter(None, words), b"").decode("utf-8", "replace"))


def _both_ways(pipe: int) -> int:
    """The pipe opened for reading and writing; without /proc as it is."""
    try:
        return os.open(f"/proc/self/fd/{pipe}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return pipe
