"""The tree as it changes: `koi watch`, and the picture of `koi demo`.

The rule it keeps: a terminal is redrawn in place; anything else gets a tree only when it has changed.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from koi.client import JSON, Client
from koi.client_line import pause
from koi.errors import NoAnswer, Refused
from koi.view import count
from koi.view_tree import tree_lines

INTERVAL_S = 1.0
SILENCE_S = 2.0
"""After so much silence `watch` turns to another node."""
HOME, CLEAR_LINE, CLEAR_BELOW, CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """Where lines are shown; `redraw` for a terminal: each picture takes the last one's place."""

    def __init__(self, out: TextIO, redraw: bool) -> None:
        self._out = out
        self._redraw = redraw
        self._shown: list[str] | None = None
        self._size: tuple[int, int] | None = None

    def show(self, lines: Sequence[str]) -> None:
        """Shows the lines if they differ from the last ones, or the terminal has another size now."""
        size = shutil.get_terminal_size() if self._redraw else None
        lines = fit(lines, *size) if size else list(lines)
        if (lines, size) == (self._shown, self._size):
            return
        if self._redraw:
            start = CLEAR if size != self._size else ""
            self._out.write(start + HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines) + CLEAR_BELOW)
        else:
            self._out.write("".join(f"{line}\n" for line in ([""] if self._shown else []) + lines))
        self._out.flush()
        self._shown, self._size = lines, size


def fit(lines: Sequence[str], width: int, height: int) -> list[str]:
    """As many of the first lines as a terminal shows whole, wrapped ones counted; the last then says that there are more."""
    room, shown = height - 1, list(lines)
    rows = [max(1, -(-len(COLOURS.sub("", line)) // max(width, 1))) for line in shown]
    if sum(rows) <= room:
        return shown
    while shown and sum(rows[: len(shown)]) > room - 1:
        shown.pop()
    return [*shown, f"... {count(len(lines) - len(shown), 'more line')}; enlarge the terminal"]


def watch(client: Client, colour: bool, as_json: bool) -> int:
    """`koi watch`: until Ctrl-C, which is its orderly end. In the place of a silent node the next elector is asked."""
    redraw = sys.stdout.isatty() and not as_json
    screen = Screen(sys.stdout, redraw)
    client.timeout = min(client.timeout, SILENCE_S)
    try:
        while True:
            screen.show(_picture(client, colour, as_json))
            pause(INTERVAL_S)
    except KeyboardInterrupt:
        if redraw:
            print()  # the shell's prompt belongs below the ^C
        return 0


def _picture(client: Client, colour: bool, as_json: bool) -> list[str]:
    try:
        status: JSON = client.status()
    except (NoAnswer, Refused) as error:
        other = client.turn() if isinstance(error, NoAnswer) else None
        if other is not None:
            error = NoAnswer(f"{error}; asking {other} now")
        return [json.dumps({"error": str(error)})] if as_json else [str(error)]
    return [json.dumps(status)] if as_json else tree_lines(status, colour)
