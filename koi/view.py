"""How things look on a terminal: ages, colours, aligned columns. Pure: values in, text out.

The rule it keeps: a name is never cut, and text that came from a script or another node cannot steer the terminal.
view_status, view_tree and view_node build on it; none of them asks a clock, a file or a socket.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Mapping, Optional, Sequence, Union

from koi.core.data import dataclass

JSON = dict[str, Any]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NOTHING = "-"

STYLES = {"good": "32;1", "fair": "36", "odd": "33", "bad": "31;1", "dim": "2", "head": "1"}

STATE_STYLE = {
    "Master": "good", "Promoted": "good", "leader": "good",
    "Backup": "fair", "Started": "fair",
    "Live": "odd", "Starting": "odd", "Promoting": "odd", "Demoting": "odd", "Stopping": "odd", "candidate": "odd",
    "Failed": "bad", "Failing": "bad", "Disconnected": "bad", "disconnected": "bad",
    "Stopped": "dim",
}


@dataclass(frozen=True)
class Cell:
    """Text with a style of STYLES; its width is the text's."""

    text: str
    style: str = ""


Row = Sequence[Union[str, Cell]]


def printable(text: object) -> str:
    """The text without control characters: a script's output must not move the cursor."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def paint(text: str, style: str, colour: bool) -> str:
    """The text in a style, or as it is when no colour is wanted."""
    if not colour or not style:
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def colour_wanted(always: bool, terminal: bool, environ: Mapping[str, str]) -> bool:
    """Colour: with -c always, else on a terminal unless NO_COLOR is set or it can show none."""
    if always:
        return True
    return terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def age(seconds: Optional[float]) -> str:
    """A length of time for people: `4 ms`, `1.2 s`, `42 s`, `3 min`, `2 h`, `5 d`."""
    if seconds is None:
        return NOTHING
    if seconds < 0.0995:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.0f} h"
    return f"{seconds / DAY:.0f} d"


def local_time(text: str) -> str:
    """An ISO time as this machine's clocks show it: `2026-11-22 14:01:04`."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return printable(text)


def state_cell(state: Optional[str]) -> Cell:
    """A state's name in its colour."""
    return Cell(printable(state or NOTHING), STATE_STYLE.get(state or "", ""))


def count(number: int, one: str, many: Optional[str] = None) -> str:
    """`1 warning`, `2 warnings`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def columns(rows: Sequence[Row], colour: bool, gap: str = "  ") -> list[str]:
    """The rows with their cells aligned to the left; no line ends in spaces."""
    cells = [[c if isinstance(c, Cell) else Cell(printable(c)) for c in row] for row in rows]
    widths: list[int] = []
    for row in cells:
        widths += [0] * (len(row) - len(widths))
        for i, cell in enumerate(row):
            widths[i] = max(widths[i], len(cell.text))
    return [_line(row, widths, colour, gap) for row in cells]


def _line(row: list[Cell], widths: list[int], colour: bool, gap: str) -> str:
    while row and not row[-1].text:
        row = row[:-1]
    parts = [paint(c.text, c.style, colour) + " " * (widths[i] - len(c.text)) for i, c in enumerate(row[:-1])]
    return gap.join(parts + [paint(c.text, c.style, colour) for c in row[-1:]])


def table(head: Sequence[str], rows: Sequence[Row], colour: bool) -> list[str]:
    """Rows below a line of headings."""
    return columns([[Cell(h, "head") for h in head], *rows], colour)


def last_script(last: Optional[JSON]) -> str:
    """The last script of a service: `status 0 in 4 ms`, `start killed by signal 9 after 6 min`."""
    if not last:
        return NOTHING
    code, took = last["exit"], age(last["seconds"])
    if code is None:
        return printable(f"{last['action']} ended without an exit code after {took}")
    if code < 0:
        return printable(f"{last['action']} killed by signal {-code} after {took}")
    return printable(f"{last['action']} {code} in {took}")


def service_state(service: JSON, fresh: bool = True) -> Cell:
    """A service's state, with the script that runs now: `Starting (start)`, and whether it failed.

    Of a node that is not heard only the last known is left: `was Promoted`.
    """
    state = service["state"]
    if not fresh:
        return Cell(printable(f"was {state}"), "dim")
    style = "bad" if service["failed"] else STATE_STYLE.get(state, "")
    notes = [service["action"]] if service["action"] else []
    if service["failed"] and state not in ("Failed", "Failing"):
        notes.append("failed")
    return Cell(printable(state + (f" ({', '.join(notes)})" if notes else "")), style)
