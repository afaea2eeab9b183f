"""`koi why`: changes of master, leader and maintenance and administrators' commands, newest last, each with its reason.

The rule it keeps: times are this machine's local ones; the JSON has them in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence

from koi.view import JSON, NOTHING, Cell, Row, local_time, printable, table

HEAD = ("TIME", "WHAT", "CHANGE", "EPOCH", "REASON")
STYLES = {"master": "good", "stuck": "bad", "maintenance": "odd", "command": "head"}
NONE = "nobody"


def why_lines(entries: Sequence[JSON], colour: bool = False) -> list[str]:
    """The text of `koi why`."""
    if not entries:
        return ["Nothing has changed yet: no node has an entry in its journal."]
    return table(HEAD, [_row(entry) for entry in entries], colour)


def _row(entry: JSON) -> Row:
    what, epoch = printable(entry["what"]), entry["epoch"]
    return [
        local_time(entry["time"]), Cell(what, STYLES.get(what, "")), _change(entry), NOTHING if epoch is None else str(epoch),
        printable(entry["reason"] or ""),
    ]


def _change(entry: JSON) -> str:
    old, new = entry["from"], entry["to"]
    if entry["what"] in ("maintenance", "stuck"):
        return "off" if new is None else "on" if new == entry["what"] else str(new)
    if entry["what"] == "command":
        return str(new)
    return f"{old or NONE} -> {new or NONE}"
