"""What a leader knows, for the tests of its decisions and of commands: three runners a, b, c, and a is the master of epoch 5."""

from __future__ import annotations

from typing import Any

from koi.core import timing
from koi.core.arbiter import Seen, View
from koi.core.messages import Ledger, Report

T = timing.derive(3.0, promote_timeout=5.0, demote_timeout=5.0, failure_promotion_timeout=60.0)
NOW = 1000.0
HEARD_S = 3 * T.heartbeat + T.lease
"""A report of this age still counts."""


def report(name: str, **fields: Any) -> Report:
    """Of a runner that may be promoted, unless a field says otherwise."""
    values: dict[str, Any] = {"ready": True, "state": "Backup", "hears": 3, "uptime": 100.0}
    return Report(name, f"{name}1", 1, **(values | fields))


def view(ledger: Ledger | None = None, *, ages: dict[str, float] | None = None, since: float = 100.0, **fields: Any) -> View:
    """`a`, `b`, `c`: fields of their reports, None for no report at all; `ages`: of the reports, in seconds."""
    reports = {}
    for name in "abc":
        given = fields.pop(name, {})
        if given is not None:
            held = {"holding": 5, "state": "Master"} if name == "a" else {}
            reports[name] = Seen(report(name, **(held | given)), NOW - (ages or {}).get(name, 0.1))
    values: dict[str, Any] = {"version": (2, 7), "top": 5, "free_by": 0, "majority": 2, "electors": 3}
    ledger = Ledger(5, "a", reason="before") if ledger is None else ledger
    return View(ledger=ledger, now=NOW, leader_since=NOW - since, reports=reports, timing=T, **(values | fields))
