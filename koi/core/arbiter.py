"""The leader's decisions, each with its reason in words (docs/protocol.md section 9). Pure functions of a View.

A decision is a new ledger to propose, or none; the words go into ledger, journal, log and status.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from koi.core.data import dataclass
from koi.core.messages import ENDING, STUCK, Ledger, Report, Version
from koi.core.states import still_active
from koi.core.timing import Timing


@dataclass(frozen=True)
class Seen:
    """The last report of one runner, when it came and from where."""

    report: Report
    at: float
    origin: object = None


@dataclass(frozen=True)
class View:
    """What the leader knows when it decides; points in time are seconds of its own clock."""

    ledger: Ledger
    version: Version
    top: int
    now: float
    leader_since: float
    reports: dict[str, Seen]
    free_by: int
    """How many electors have their guard for the present epoch down (rule 9.2)."""
    majority: int
    electors: int
    timing: Timing
    target_since: Optional[float] = None
    fence: bool = False
    """Whether there is a fence command."""
    lost_by: int = 0
    """How many electors have not heard the master for M (rule 9.5)."""


@dataclass(frozen=True)
class Decision:
    """`ledger` to propose, or None to keep the present one. `nobody` says why there is no master; `wake` when to look again.

    `next`: who would be chosen now, while the master lets go.
    """

    ledger: Optional[Ledger] = None
    nobody: str = ""
    wake: Optional[float] = None
    next: Optional[str] = None


def ago(seconds: float) -> str:
    """An age in words."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


# --- what is known of a runner ---


def heard(view: View, name: str) -> Optional[Report]:
    """The report of a runner that counts as heard: younger than 3 H + M (rule 9.4)."""
    seen = view.reports.get(name)
    if seen is None or view.now - seen.at > 3 * view.timing.heartbeat + view.timing.lease:
        return None
    return seen.report


def why_not(view: View, name: str) -> str:
    """Why a runner cannot be promoted now, in words; empty when it can (rule 9.4)."""
    report = heard(view, name)
    if report is None:
        seen = view.reports.get(name)
        return f"{name} is not heard" if seen is None else f"{name} is not heard for {ago(view.now - seen.at)}"
    fenced = view.ledger.fenced
    if fenced is not None and (fenced.name, fenced.boot) == (name, report.boot):
        return f"{name} was fenced"
    if name in view.ledger.passive:
        return f"{name} is passive"
    if report.stuck:
        return f"{name} is stuck: demote and stop failed, it may still be active"
    if report.failed:
        return f"{name} {_failed_words(view, report)}"
    if report.hears < view.majority:
        return f"{name} hears {report.hears} of {view.electors} electors"
    if not report.ready:
        return f"{name} is {report.state} ({report.why})"
    return ""


def _failed_words(view: View, report: Report) -> str:
    words = "failed"
    if report.failed_ago is not None:
        words += f" {ago(report.failed_ago + view.now - view.reports[report.name].at)} ago"
    if report.last_failure:
        words += f" ({report.last_failure})"
    if report.recovers_in is None:
        return words + ", does not recover by itself: use 'koi recover'"
    return words + f", recovers in {report.recovers_in:.0f} s"


def _failed_lately(view: View, report: Report) -> bool:
    if report.failed_ago is None:
        return False
    return report.failed_ago + view.now - view.reports[report.name].at < view.timing.failure_promotion_timeout


# --- is there a master? ---


def _for_it_failed(view: View, report: Report) -> str:
    return f", for it {_failed_words(view, report)}" if report.failed else ""


def is_fenced(ledger: Ledger) -> bool:
    """Whether the present master is surely off (rule 5.5)."""
    return ledger.fenced is not None and (ledger.fenced.name, ledger.fenced.epoch) == (ledger.master, ledger.epoch)


def vacancy(view: View) -> str:
    """Why the post of the master is vacant, in words; empty when it is not (rule 9.2)."""
    ledger = view.ledger
    if ledger.master is None:
        return "no master was chosen yet"
    seen = view.reports.get(ledger.master)
    if seen is not None and seen.report.renounced is not None and seen.report.renounced >= ledger.epoch:
        return f"{ledger.master} gave up epoch {ledger.epoch}{_for_it_failed(view, seen.report)}"
    if is_fenced(ledger):
        return f"{ledger.master} is fenced"
    if view.free_by >= view.majority:
        if seen is not None and view.now - seen.at < view.timing.lease:  # its report to this elector is late, or was lost
            return f"{ledger.master} no longer holds epoch {ledger.epoch}, as {view.free_by} of {view.electors} electors know"
        last = "never heard" if seen is None else f"last heard {ago(view.now - seen.at)} ago"
        return f"{ledger.master} lost by {view.free_by} of {view.electors} electors ({last})"
    return ""


# --- deciding ---


def decide(view: View) -> Decision:
    """What the leader proposes now, on a committed ledger (section 9)."""
    if view.ledger.hold is not None:
        return _under_hold(view)
    master = heard(view, view.ledger.master) if view.ledger.master is not None else None
    if master is not None and master.stuck and not is_fenced(view.ledger):
        words = f"{master.name} may still be active: its demote and stop failed; nobody is promoted"
        return Decision(replace(view.ledger, hold=STUCK, reason=words))
    vacant = vacancy(view)
    if not vacant:
        return _yield(view, master)
    if view.ledger.manual and view.ledger.target is None:
        return Decision(nobody=f"manual mode: nobody is promoted until 'koi elect' or 'koi promote NODE' ({vacant})")
    return _elect(view, vacant)


def _under_hold(view: View) -> Decision:
    ledger = view.ledger
    seen = view.reports.get(ledger.master) if ledger.master is not None else None
    if ledger.hold == ENDING and (_taken_up_again(view, seen) or vacancy(view)):
        return Decision(replace(ledger, hold=None, reason="maintenance is over"))
    if ledger.hold == STUCK:
        if seen is not None and _is_clean(view, seen):
            return Decision(replace(ledger, hold=None, reason=f"{ledger.master} reports that nothing on it is active any more"))
        return Decision(nobody=still_active(str(ledger.master)))
    return Decision(nobody="maintenance: no master is changed")


def _is_clean(view: View, seen: Seen) -> bool:
    """A report of this leader's own time that gives the epoch up: that it is not stuck and holds nothing says a starting node
    too, before it knows what a dead koinode left."""
    renounced = seen.report.renounced
    given_up = renounced is not None and renounced >= view.ledger.epoch
    return seen.at >= view.leader_since and not seen.report.stuck and given_up


def _taken_up_again(view: View, seen: Optional[Seen]) -> bool:
    """Rule 9.1: the master has its lease again, or has given the epoch up."""
    if view.ledger.master is None:
        return True
    if seen is None:
        return False
    renounced = seen.report.renounced
    return seen.report.acknowledged == view.version or (renounced is not None and renounced >= view.ledger.epoch)


def _yield(view: View, master: Optional[Report]) -> Decision:
    """Rule 9.3: ask the master to let go, when there is somebody to take over."""
    ledger = view.ledger
    if ledger.target is not None:
        dropped = _drop_target(view)
        if dropped is not None:
            return dropped
    if ledger.yielding:
        return Decision(wake=_target_ends(view), next=_next(view))
    if ledger.target not in (None, ledger.master):
        if not why_not(view, str(ledger.target)):
            return Decision(replace(ledger, yielding=True, reason=f"{ledger.master} yields to {ledger.target}: {ledger.reason}"))
    elif master is not None:
        why = _unfit(view, master)
        others = [name for name in view.reports if name != ledger.master and not why_not(view, name)]
        if why and others:
            return Decision(replace(ledger, yielding=True, reason=f"{why}; {others[0]} can take over"))
    failing = master is not None and master.failed and master.holding is not None
    return Decision(wake=_target_ends(view), next=_next(view) if failing else None)


def _unfit(view: View, master: Report) -> str:
    """One that fails while it holds the epoch lets go by itself (rule 6.3): a ledger to say so would only be in the way."""
    if master.name in view.ledger.passive or master.mode == "passive":
        return f"{master.name} is passive"
    if master.holding is None and not master.ready:
        return f"{master.name} holds nothing and is {master.state} ({master.why})"
    return ""


def _target_ends(view: View) -> Optional[float]:
    if view.ledger.target is None or view.target_since is None:
        return None
    return view.target_since + view.timing.promote_timeout + view.timing.demote_timeout


def _drop_target(view: View) -> Optional[Decision]:
    """Rule 9.4: a target that is reached is done with; one not reached in time, or given up meanwhile, is dropped."""
    ledger, ends = view.ledger, _target_ends(view)
    late = ends is not None and view.now >= ends
    if late or _is_given_up(view, str(ledger.target)):
        why = why_not(view, str(ledger.target)) or ledger.reason
        words = f"{ledger.target} could not be made master{' in time' if late else ''} ({why}); dropped"
        return Decision(replace(ledger, target=None, reason=words))
    return None


def _is_given_up(view: View, target: str) -> bool:
    """Whether a target was stopped, made passive, or has failed since it was asked for: nobody need wait for it."""
    report = heard(view, target)
    if report is None or target == view.ledger.master:
        return False
    return report.stopped or report.failed or report.mode == "passive" or target in view.ledger.passive


def _elect(view: View, vacant: str) -> Decision:
    """Rule 9.4: choose the next master."""
    ready_at = view.leader_since + 2 * view.timing.heartbeat
    if view.now < ready_at:
        return Decision(nobody="the leader has just been elected and waits for the runners' reports", wake=ready_at)
    reasons = {name: why_not(view, name) for name in sorted(view.reports)}
    chosen = _best(view, [name for name, reason in reasons.items() if not reason])
    if chosen is None:
        return Decision(nobody="; ".join(reasons.values()) or "no runner has reported yet")
    words = f"{vacant}; {chosen.name} chosen: {_merits(view, chosen)}"
    ledger = replace(
        view.ledger, epoch=view.top + 1, master=chosen.name, yielding=False, target=None, fenced=None, fencing=None,
        reason=words,
    )
    return Decision(ledger)


def _next(view: View) -> Optional[str]:
    """Who would be chosen once the master has let go, as things are now."""
    if view.ledger.manual and view.ledger.target is None:
        return None
    best = _best(view, [name for name in view.reports if name != view.ledger.master and not why_not(view, name)])
    return best.name if best is not None else None


def _best(view: View, fit: list[str]) -> Optional[Report]:
    return min((view.reports[name].report for name in fit), key=lambda report: _order(view, report), default=None)


def _order(view: View, report: Report) -> tuple[bool, bool, bool, int, float, str]:
    """Lowest first: the target, who is still promoted, who has not failed lately, preference, uptime, name."""
    return (
        report.name != view.ledger.target,
        report.holding is None,
        _failed_lately(view, report),
        -report.preference,
        -report.uptime,
        report.name,
    )


def _merits(view: View, report: Report) -> str:
    asked = "asked for, " if report.name == view.ledger.target else ""
    return f"{asked}ready, preference {report.preference}, up {ago(report.uptime)}"
