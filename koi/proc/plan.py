"""`koi promote NODE --dry-run`: what the leader would do, in words. Asks the core's own rules and changes nothing."""

from __future__ import annotations

from typing import Optional, Union

from koi.core import arbiter, commands
from koi.core.arbiter import View
from koi.core.commands import AlreadySo, Command, Refused
from koi.core.messages import Report
from koi.proc.snapshot import in_order


def promote(view: View, command: Command) -> Union[Refused, str]:
    """The refusal that the command would get, or the steps that it would lead to."""
    outcome = commands.apply(view, command)
    if isinstance(outcome, Refused):
        return outcome
    if isinstance(outcome, AlreadySo):
        return f"nothing would change: {outcome.message}"
    node, old = str(command.node), view.ledger.master
    vacant = arbiter.vacancy(view)
    if node == old and not vacant:
        return f"{node} would stay the master; manual mode and other targets would end"
    steps = [] if vacant else [_demotion(view, str(old))]
    steps.append(f"{node} would be promoted{_services(view, node, downwards=False)} as epoch {view.top + 1}")
    return "; ".join([*steps, _merits(view, node), *_cautions(view, node)])


def _demotion(view: View, old: str) -> str:
    if arbiter.heard(view, old) is None:
        return f"{old} is master and not heard: its lease (up to {view.timing.span:.1f} s) would be waited for"
    return f"{old} would be demoted{_services(view, old, downwards=True)}"


def _services(view: View, name: str, downwards: bool) -> str:
    """The services in the order in which they would be acted on."""
    report: Optional[Report] = arbiter.heard(view, name)
    found = [] if report is None else list(report.services or ())
    ordered = sorted(found, key=in_order)
    names = [s.name for s in (reversed(ordered) if downwards else ordered)]
    return f" ({', '.join(names)})" if names else ""


def _merits(view: View, node: str) -> str:
    report = arbiter.heard(view, node)
    if report is None:
        return f"{node} is not heard"
    return f"{node} is {report.state}, ready, and hears {report.hears} of {view.electors} electors"


def _cautions(view: View, node: str) -> list[str]:
    others = [name for name in sorted(view.reports) if name != node and not arbiter.why_not(view, name)]
    return [] if others else [f"nobody else could take over from {node} then"]
