"""What a script prints: cut into lines for the log.

Rule: no script can fill the log or the memory. A line is cut at LINE_BYTES; of more than LINES_PER_S lines in a second
the rest is dropped, and how many is told.
"""

from __future__ import annotations

from typing import Callable

LINE_BYTES = 8192
LINES_PER_S = 200
CUT = " ... (cut)"


class Output:
    """Takes bytes as they come, gives lines."""

    def __init__(self, log: Callable[[str], None], now: Callable[[], float]) -> None:
        self._log, self._now = log, now
        self._rest = b""
        self._cut = False
        """The present line was cut; what is left of it is skipped."""
        self._window = 0.0
        self._lines = 0
        self.dropped = 0
        """Lines dropped since the last that was written."""
        self.last = ""
        """The last line that was not empty."""

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        self._rest = rest
        if len(rest) > LINE_BYTES:
            self._line(rest)
            self._cut, self._rest = True, b""

    def end(self) -> None:
        """The script has ended: a line without an end is one too."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        self._tell_dropped()

    def _line(self, line: bytes) -> None:
        if self._cut:
            self._cut = False
            return
        text = line[:LINE_BYTES].decode("utf-8", "replace").rstrip()
        if len(line) > LINE_BYTES:
            text += CUT
        if text:
            self.last = text
        if self._allowed():
            self._tell_dropped()
            self._log(text)
        else:
            self.dropped += 1

    def _allowed(self) -> bool:
        now = self._now()
        if now >= self._window + 1:
            self._window, self._lines = now, 0
        self._lines += 1
        return self._lines <= LINES_PER_S

    def _tell_dropped(self) -> None:
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            self._log(f"({dropped} lines dropped, for more than {LINES_PER_S} came within a second)")
