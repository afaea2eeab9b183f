"""What a service's `status` script says, and how often it may be put right.

Rule: what status finds is taken as the truth (docs/guide.md). The table holds only what differs from what the machine
believed: (believed state, exit code) -> what is true instead. More than MAX_CORRECTIONS within CORRECTIONS_S seconds
are a failure.
"""

from __future__ import annotations

from typing import Mapping, Optional

from koi.core.data import dataclass

OK, PROMOTED, RUNNING, STOPPED, LIVE = 0, 90, 91, 92, 93
"""Exit codes of `status`; koi-service.sh names them KOI_OK, KOI_MASTER, KOI_BACKUP, KOI_STOPPED, KOI_LIVE."""

MEANINGFUL = frozenset({OK, PROMOTED, RUNNING, STOPPED, LIVE})
"""All other exit codes are failures."""

MAX_CORRECTIONS = 3
CORRECTIONS_S = 60.0

Corrections = tuple[float, ...]
"""When the service was put right; no more than MAX_CORRECTIONS + 1 of them are kept."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The truth that status found: the state, and why in words."""

    state: str
    why: str


FINDINGS: Mapping[tuple[str, int], Finding] = {
    ("Started", PROMOTED): Finding("Promoted", "status found it promoted"),
    ("Started", STOPPED): Finding("Stopped", "status found it stopped"),
    ("Promoted", RUNNING): Finding("Started", "status found it running but not promoted"),
    ("Promoted", LIVE): Finding("Started", "status found it running but not ready to be promoted"),
    ("Promoted", STOPPED): Finding("Stopped", "status found it stopped"),
}


def found(believed: str, exit: Optional[int]) -> Optional[Finding]:
    """What must be put right, or None when the finding agrees with what was believed."""
    if exit is None:
        return None
    return FINDINGS.get((believed, exit))


def noted(corrections: Corrections, now: float) -> Corrections:
    """The corrections of the last CORRECTIONS_S seconds and one more, now."""
    recent = tuple(at for at in corrections if now - at < CORRECTIONS_S)
    return (*recent, now)[-(MAX_CORRECTIONS + 1):]


def too_many(corrections: Corrections) -> bool:
    """Whether the service was put right too often to go on."""
    return len(corrections) > MAX_CORRECTIONS
