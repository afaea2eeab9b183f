"""Draws the costs that grow: `python -m tests.bench.plot JSON SVG`, from what `python -m tests.bench --json JSON` has written.

Five panels, each with its points and the straight line of least squares, whose slope is named.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 300, 260, 56, 34, 46
INK, LINE, DOT = "#333", "#999", "#b33"
PANELS = (
    ("CPU of the leader's elector, %", "runners", re.compile(r"leader, (\d+) runners: leader_cpu_percent"), "% a runner"),
    ("reports at an elector, kB/s", "runners", re.compile(r"leader, (\d+) runners: bytes_per_s_in"), "kB/s a runner"),
    ("CPU of the leader's elector, %", "services", re.compile(r"leader, (\d+) services: leader_cpu_percent"), "% a service"),
    ("reports at an elector, kB/s", "services", re.compile(r"leader, (\d+) services: bytes_per_s_in"), "kB/s a service"),
    ("memory of a node (PSS), MB", "services", re.compile(r"PSS of a node, (\d+) services"), "MB a service"),
)

Points = list[tuple[float, float]]


def points(report: dict[str, Any], pattern: re.Pattern[str]) -> Points:
    """(number, median) of each row whose name has the number; bytes as kilobytes."""
    found = []
    for row in report["rows"]:
        match = pattern.fullmatch(row["what"])
        if match is not None and "median" in row:
            found.append((float(match[1]), row["median"] / (1000 if row["unit"] == "B/s" else 1)))
    return sorted(found)


def straight(found: Points) -> tuple[float, float]:
    """Slope and height at 0 of the line of least squares."""
    mean_x, mean_y = (sum(p[i] for p in found) / len(found) for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in found)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in found) / spread if spread else 0.0
    return slope, mean_y - slope * mean_x


def panel(number: int, title: str, below: str, unit: str, found: Points) -> list[str]:
    """One panel as SVG elements; empty where nothing was measured."""
    if len(found) < 2:
        return []
    slope, base = straight(found)
    top_x, top_y = max(x for x, _ in found), 1.15 * max(y for _, y in found)
    inner_w, inner_h, left = WIDTH - LEFT - 20, HEIGHT - TOP - BOTTOM, number * WIDTH + LEFT

    def at(x: float, y: float) -> tuple[str, str]:
        return f"{left + inner_w * x / top_x:.1f}", f"{TOP + inner_h * (1 - max(0.0, y) / top_y):.1f}"

    (x0, y0), (x1, y1) = at(0, base), at(top_x, base + slope * top_x)
    floor, right = TOP + inner_h, left + inner_w
    parts = [
        _text(left - LEFT + 12, 20, f"{title}", "start"),
        f'<path d="M{left} {TOP}V{floor}H{right}" fill="none" stroke="{INK}"/>',
        f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{LINE}"/>',
        _text(right, floor + 38, f"{below}; {slope:.2g} {unit}", "end"),
    ]
    for x, y in found:
        cx, cy = at(x, y)
        parts += [f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="{DOT}"/>', _text(float(cx), float(cy) - 8, f"{y:.3g}", "middle")]
        if x >= 0.08 * top_x:
            parts.append(_text(float(cx), floor + 16, f"{x:g}", "middle"))
    return parts


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{words}</text>'


def svg(report: dict[str, Any]) -> str:
    """The whole picture."""
    parts = [part for i, (title, below, pattern, unit) in enumerate(PANELS)
             for part in panel(i, title, below, unit, points(report, pattern))]
    size = f'width="{len(PANELS) * WIDTH}" height="{HEIGHT}"'
    style = f'font-family="sans-serif" font-size="11" fill="{INK}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])


def main(arguments: Sequence[str]) -> int:
    """The command."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    Path(arguments[1]).write_text(svg(json.loads(Path(arguments[0]).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
