"""Two nodes of one name: which of the two is believed, and the words that name both.

Rule kept (docs/protocol.md rule 5.5): a second living boot of a name, not descended from the first, is refused while the first
still reports, unless it is the older one; the one that holds the present epoch is never displaced. One that has said its last
word, as koinode ended in order, is followed at once, and what it gave up stays given up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Hashable, Optional

from koi.core.arbiter import Seen
from koi.core.data import dataclass
from koi.core.messages import ENDS, Report
from koi.core.timing import Timing


@dataclass(frozen=True)
class Rivals:
    """Two boots of one name of which neither descends from the other."""

    boots: frozenset[str]
    since: float
    text: str
    warned_at: Optional[float] = None
    """When both were last known to be alive; None while the first may just have ended."""


def strangers(known: Seen, report: Report) -> bool:
    """Whether the report is of another boot that does not descend from the known one."""
    return known.report.boot not in (report.boot, *report.lineage)


def has_ended(report: Report) -> bool:
    """Whether it is the last word of a boot that ended in order: nothing is held, and every service is stopped."""
    return (report.state, report.why, report.holding, report.stuck) == ("Stopped", ENDS, None, False)


def following(known: Optional[Seen], report: Report) -> Report:
    """The report with what the boot before it gave up, if that has ended in order: no epoch is begun twice (rule 6.3)."""
    if known is None or known.report.renounced is None:
        return report
    if report.boot != known.report.boot and not (strangers(known, report) and has_ended(known.report)):
        return report
    return replace(report, renounced=max(known.report.renounced, report.renounced or 0))


def refused(known: Seen, report: Report, epoch: int, timing: Timing, now: float) -> bool:
    """Whether the known boot stays and the report of another one is not believed."""
    gone = now > known.at + timing.lease + 3 * timing.heartbeat or has_ended(known.report)
    if gone or not strangers(known, report):
        return False
    if epoch in (known.report.holding, report.holding):
        return known.report.holding == epoch
    return known.report.uptime + now - known.at >= report.uptime


def watch(before: Optional[Rivals], known: Seen, report: Report, origin: Hashable, now: float) -> Rivals:
    """What is known of two such boots after the second has reported; `warned_at` is set once both go on talking."""
    boots = frozenset((known.report.boot, report.boot))
    if before is None or before.boots != boots:
        return Rivals(boots, now, _text(known, report, origin))
    return replace(before, warned_at=now) if known.at > before.since else before


def _text(known: Seen, report: Report, origin: Hashable) -> str:
    one, other = _where(known.origin, known.report), _where(origin, report)
    both = f"two nodes call themselves {report.name}: {one} and {other}"
    return f"{both}; the younger is refused. Give one of them another name or stop it"


def _where(origin: object, report: Report) -> str:
    host = origin[0] if isinstance(origin, tuple) else origin
    return f"{host} (port {report.port})"
