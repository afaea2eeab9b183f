"""The rows of the table: a quantity, its trials, the goal; medians with minimum and maximum, and ratios.

Rule: a row keeps every trial, so that what is printed can be reckoned again from the JSON; a part that cannot be measured
here is named with the reason and is no error.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Row:
    """One quantity of one program."""

    what: str
    """The same words for the same quantity of every program."""
    who: str
    unit: str
    values: tuple[float, ...] = ()
    goal: Optional[float] = None
    """The most that the median may be."""
    worst_goal: Optional[float] = None
    missing: str = ""
    """Why nothing was measured."""

    @property
    def median(self) -> float:
        """The median of the trials."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """Whether the goals are met; empty without one."""
        if not self.values or (self.goal is None and self.worst_goal is None):
            return ""
        met = (self.goal is None or self.median <= self.goal) and (self.worst_goal is None or max(self.values) <= self.worst_goal)
        limits = (("median", self.goal), ("worst", self.worst_goal))
        wanted = [f"{word} {_short(limit)}" for word, limit in limits if limit is not None]
        return f"{'met' if met else 'NOT met'}: {', '.join(wanted)}"

    def json(self) -> dict[str, Any]:
        """The row as JSON, with every trial."""
        found: dict[str, Any] = {"what": self.what, "who": self.who, "unit": self.unit}
        if self.missing:
            return {**found, "missing": self.missing}
        found |= {"trials": len(self.values), "min": min(self.values), "median": self.median, "max": max(self.values)}
        found |= {"values": list(self.values)}
        goals = {"median": self.goal, "worst": self.worst_goal}
        return {**found, "goal": self.verdict, "goals": goals} if self.verdict else found

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Row:
        """The row from its JSON."""
        goals, values = kept.get("goals", {}), tuple(kept.get("values", ()))
        wanted = goals.get("median"), goals.get("worst")
        return cls(kept["what"], kept["who"], kept["unit"], values, *wanted, kept.get("missing", ""))


def ms(what: str, seconds: Sequence[float], who: str = "koi", goal: Optional[float] = None, worst: Optional[float] = None) -> Row:
    """A row of times, given in seconds and shown in milliseconds."""
    return Row(what, who, "ms", tuple(round(1000 * s, 2) for s in seconds), goal, worst)


def ratios(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each quantity that was measured of Koi and of others: Koi's median by theirs, below 1 where Koi needs less."""
    own = {row.what: row for row in rows if row.who == "koi" and row.values}
    return [
        {"what": row.what, "who": row.who, "koi_by_it": round(own[row.what].median / row.median, 3)}
        for row in rows if row.who != "koi" and row.values and row.median and row.what in own
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows in columns."""
    lines = [("what", "who", "trials", "min", "median", "max", "unit", "goal")]
    for row in rows:
        if row.missing:
            lines.append((row.what, row.who, "-", "-", "-", "-", row.unit, row.missing))
        else:
            figures = (_short(min(row.values)), _short(row.median), _short(max(row.values)))
            lines.append((row.what, row.who, str(len(row.values)), *figures, row.unit, row.verdict))
    widths = [max(len(line[i]) for line in lines) for i in range(8)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    right = range(2, 6)
    cells = (cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
    return "  ".join(cells).rstrip()


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
