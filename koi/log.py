"""The log of every process of a node: a line of time, node, process, level and text, to console, syslog and files.

Written with plain descriptors because the standard module costs each process half a megabyte. A log never blocks or
ends the process that writes it: what a full or broken target does not take is counted, and the count is told in the
next line that gets through. Secrets given to `hide` are blotted out of every line.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Optional, Protocol

from koi.errors import KoiError

if TYPE_CHECKING:
    from socket import socket

LEVELS = ("debug", "info", "warning", "error", "critical")
MAX_LINE_BYTES = 10_000
MAX_LINES = 200
"""Of one text: a traceback has fewer."""
CHUNK_BYTES = 4096
"""A pipe that is reported as writable takes this many bytes without blocking."""
CONSOLE = 2
SYSLOG = "/dev/log"
_DAEMON = 3 << 3
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_COLOUR = {"debug": "\x1b[2m", "info": "", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
_PLAIN = "\x1b[0m"
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_HIDDEN = "***"


class Target(Protocol):
    """Where lines go: write one, say whether all of it was taken."""

    def write(self, level: str, head: str, text: str) -> bool:
        """Takes one line, `head` its time to level; False when it was lost."""


class Console:
    """Standard error."""

    def __init__(self, colour: bool, descriptor: int = CONSOLE) -> None:
        self._descriptor = descriptor
        self._colour = colour and _takes_colour(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, level: str, head: str, text: str) -> bool:
        """One line; a reader that does not keep up loses it rather than stopping us."""
        line = f"{head}: {text}"
        if self._colour and _COLOUR[level]:
            line = f"{_COLOUR[level]}{line}{_PLAIN}"
        data = _encoded(line)
        try:
            for start in range(0, len(data), CHUNK_BYTES):
                if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                    return False
                os.write(self._descriptor, data[start : start + CHUNK_BYTES])
        except OSError:
            return False
        return True


class File:
    """A file that is opened again when it was moved or removed, as logrotate does."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._descriptor: Optional[int] = None
        self._identity: tuple[int, int] = (0, 0)
        try:
            self._open()
        except (OSError, ValueError) as error:
            folder = os.path.dirname(self._path)
            remedy = "" if os.path.isdir(folder) else f"; make its folder: mkdir -p {folder}"
            raise KoiError(f"the log {path} cannot be opened: {getattr(error, 'strerror', None) or error}{remedy}") from None

    def write(self, level: str, head: str, text: str) -> bool:
        """Appends one line, whole, to the file that has the path now."""
        data = _encoded(f"{head}: {text}")
        try:
            self._follow()
            return self._descriptor is not None and os.write(self._descriptor, data) == len(data)
        except OSError:
            return False

    def _follow(self) -> None:
        try:
            status = os.stat(self._path)
            moved = (status.st_dev, status.st_ino) != self._identity
        except FileNotFoundError:
            moved = True
        if moved or self._descriptor is None:
            self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o640)
        old, self._descriptor = self._descriptor, descriptor
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        if old is not None:
            os.close(old)


class Syslog:
    """The system's log, by its socket; connected at the first line and again whenever its daemon was restarted."""

    def __init__(self, path: str = SYSLOG) -> None:
        self._path = path
        self._socket: Optional[socket] = None

    def write(self, level: str, head: str, text: str) -> bool:
        """Sends one datagram; the daemon adds host and time, the head is its node and process."""
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d}"
        who = head.split(" ", 2)[2]
        data = _encoded(f"<{_DAEMON | _PRIORITY[level]}>{stamp} koinode[{os.getpid()}]: {who}: {text}")[:-1]
        return self._send(data) or self._send(data)

    def _send(self, data: bytes) -> bool:
        try:
            if self._socket is None:
                self._socket = _connected(self._path)
            self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            return False
        return True


def _connected(path: str) -> socket:
    import socket as sockets  # only syslog needs it

    found = sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM | sockets.SOCK_NONBLOCK | sockets.SOCK_CLOEXEC)
    try:
        found.connect(path)
    except OSError:
        found.close()
        raise
    return found


def _takes_colour(descriptor: int) -> bool:
    """Whether colour belongs there: a terminal, and NO_COLOR is not set."""
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR")


def _encoded(line: str) -> bytes:
    """The line as bytes, ended, and not longer than MAX_LINE_BYTES."""
    data = line.encode("utf-8", "backslashreplace")
    if len(data) > MAX_LINE_BYTES:
        data = data[: MAX_LINE_BYTES - 4].decode("utf-8", "ignore").encode() + b" ..."
    return data + b"\n"


def _lines(text: str) -> list[str]:
    """The text's lines, at least one, free of anything that would confuse a terminal or a reader of the log."""
    lines = [line.rstrip() for line in text.split("\n")[: MAX_LINES + 1]]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = ["..."]
    kept = [line for line in lines if line] or [""]
    return [line if line.isprintable() else "".join(_visible(c) for c in line) for line in kept]


def _visible(char: str) -> str:
    return char if char.isprintable() else " " if char == "\t" else ascii(char)[1:-1]


class Outlet:
    """A target and how many lines it has lost since it was last told of."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.lost = 0

    def write(self, level: str, before_level: str, text: str) -> None:
        """Write one line, before it what was lost; a line that is not taken is counted."""
        if self.lost:
            told = f"{self.lost} lines were lost here: this target did not take them"
            if not self.target.write("warning", f"{before_level} WARNING", told):
                self.lost += 1
                return
            self.lost = 0
        if not self.target.write(level, f"{before_level} {level.upper()}", text):
            self.lost += 1


class Log:
    """Writes lines of at least one level to all targets; there is one for a process, see `get`."""

    def __init__(self) -> None:
        self.outlets = [Outlet(Console(False))]
        self.process = "koi"
        self.node = "-"
        self.threshold = LEVELS.index("info")
        self.secrets: list[str] = []

    def write(self, level: str, text: str) -> None:
        """Log the text, a line for each of its lines; `level` is one of LEVELS."""
        if LEVELS.index(level) < self.threshold:
            return
        for secret in self.secrets:
            text = text.replace(secret, _HIDDEN)
        for line in _lines(text):
            head = f"{_stamp()} {self.node} {self.process}"
            for outlet in self.outlets:
                outlet.write(level, head, line)

    def debug(self, text: str) -> None:
        """For who looks into Koi itself."""
        self.write("debug", text)

    def info(self, text: str) -> None:
        """What happened, as it should."""
        self.write("info", text)

    def warning(self, text: str) -> None:
        """What should be looked at, and does no harm yet."""
        self.write("warning", text)

    def error(self, text: str) -> None:
        """What failed."""
        self.write("error", text)

    def critical(self, text: str) -> None:
        """What needs somebody at once."""
        self.write("critical", text)


def _stamp() -> str:
    now = time.time()
    local = time.localtime(now)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}.{int(now % 1 * 1000):03d}"


_log = Log()


def get() -> Log:
    """The log of this process; the same object before and after `setup`."""
    return _log


def setup(targets: str, process: str, node: str, level: str, colour: bool) -> None:
    """Choose where this process and its children log: a comma list of console, syslog, file:PATH.

    Raises KoiError where a target is not known or a file cannot be opened; then nothing is changed.
    """
    if level not in LEVELS:
        raise KoiError(f"log level '{level}' is not known; it must be one of {', '.join(LEVELS)}")
    found = [_target(word.strip(), colour) for word in targets.split(",") if word.strip()]
    if not found:
        raise KoiError("no log target is given; give a comma list of console, syslog, file:PATH")
    _log.outlets, _log.process, _log.node = [Outlet(target) for target in found], process, node
    _log.threshold = LEVELS.index(level)


def _target(word: str, colour: bool) -> Target:
    if word == "console":
        return Console(colour)
    if word == "syslog":
        return Syslog()
    if word.startswith("file:") and len(word) > len("file:"):
        return File(word[len("file:") :])
    raise KoiError(f"log target '{word}' is not known; give a comma list of console, syslog, file:PATH")


def syslog_fault() -> str:
    """Why syslog takes no line now; empty while it does."""
    try:
        _connected(SYSLOG).close()
    except OSError as error:
        return f"{SYSLOG}: {error.strerror}"
    return ""


def set_level(level: str) -> None:
    """Lines of at least this level are written from now on; `level` is one of LEVELS."""
    _log.threshold = LEVELS.index(level)


def rename(process: str) -> None:
    """Name the process in its lines from now on; for a child after fork."""
    _log.process = process


@contextmanager
def silent() -> Iterator[None]:
    """Meanwhile this process logs to where nobody reads it."""
    with open(os.devnull, "wb", buffering=0) as nothing:
        outlets, _log.outlets = _log.outlets, [Outlet(Console(False, nothing.fileno()))]
        try:
            yield
        finally:
            _log.outlets = outlets


def hide(secret: str) -> None:
    """Blot this text out of every later line."""
    if secret and secret not in _log.secrets:
        _log.secrets.append(secret)


def write(level: str, text: str) -> None:
    """Log the text; `level` is one of LEVELS, as effects carry it."""
    _log.write(level, text)
