"""An administrator's commands to the cluster: what each changes in the ledger, or why it is refused.

Pure functions of a View. A refusal says what to do instead. Rule 4.5: a command is done when its ledger is committed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Optional, Union

from koi.core.arbiter import View, heard, vacancy, why_not
from koi.core.data import dataclass
from koi.core.messages import ENDING, MAINTENANCE, STUCK, Fenced, Ledger
from koi.core.states import still_active

MAX_RECENT = 32
"""Ids of commands carried out that the ledger remembers."""
ASKED = ", asked by "
"""What stands in the reason of a ledger that carries a command out."""


@dataclass(frozen=True)
class Command:
    """One request of an administrator."""

    id: str
    verb: str
    node: Optional[str] = None
    on: bool = False
    force: bool = False
    reason: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Refused:
    """Why a command is not carried out, and what to do."""

    message: str


@dataclass(frozen=True)
class AlreadySo:
    """Nothing to change."""

    message: str


Outcome = Union[Ledger, Refused, AlreadySo]


def apply(view: View, command: Command) -> Outcome:
    """The ledger that carries the command out."""
    outcome = _VERBS[command.verb](view, command)
    if isinstance(outcome, Ledger):
        return replace(outcome, recent=(*outcome.recent, command.id)[-MAX_RECENT:])
    return outcome


def _words(command: Command, what: str) -> str:
    words = f"{what}{ASKED}{command.origin or 'an administrator'}"
    return f"{words}: {command.reason}" if command.reason else words


def unknown(view: View, node: Optional[str]) -> Optional[Refused]:
    """A refusal when no runner of that name was ever heard."""
    if node in view.reports:
        return None
    names = ", ".join(sorted(view.reports)) or "none has reported yet"
    return Refused(f"there is no runner named {node}; runners: {names}")


def _held(view: View) -> Optional[Refused]:
    hold = view.ledger.hold
    if hold == STUCK:
        return Refused(still_active(str(view.ledger.master)))
    if hold is not None:
        return Refused("the cluster is in maintenance; end it with 'koi maintenance off' first")
    return None


def _promote(view: View, command: Command) -> Outcome:
    refused = unknown(view, command.node) or _held(view)
    if refused is not None:
        return refused
    ledger, node = view.ledger, str(command.node)
    words = _words(command, f"promote {node}")
    if node == ledger.master and not ledger.yielding and not vacancy(view):
        if not ledger.manual and ledger.target is None:
            return AlreadySo(f"{node} is the master already")
        return replace(ledger, manual=False, target=None, reason=words)
    why = why_not(view, node)
    if why and node != ledger.master:
        return Refused(f"{node} cannot be promoted: {why}; {_way_out(view, node)}")
    return replace(ledger, manual=False, target=node, reason=words)


def _way_out(view: View, node: str) -> str:
    """What makes a node that cannot be promoted one that can be."""
    report = heard(view, node)
    if node in view.ledger.passive:
        return f"'koi active {node}' includes it again"
    if report is not None and report.failed and report.recovers_in is not None:
        return f"'koi recover {node}' starts it at once"
    return f"see 'koi status {node}'"


def _demote(view: View, command: Command) -> Outcome:
    refused = _held(view)
    if refused is not None:
        return refused
    ledger = view.ledger
    if ledger.manual and (ledger.yielding or vacancy(view)):
        return AlreadySo("nobody is to be master already (manual mode); 'koi elect' or 'koi promote NODE' ends it")
    yielding = ledger.yielding or not vacancy(view)
    return replace(ledger, manual=True, target=None, yielding=yielding, reason=_words(command, "demote"))


def _elect(view: View, command: Command) -> Outcome:
    if not view.ledger.manual:
        return AlreadySo("the cluster is not in manual mode: it elects by itself")
    return replace(view.ledger, manual=False, reason=_words(command, "elect"))


def _passive(view: View, command: Command) -> Outcome:
    ledger, node = view.ledger, str(command.node)
    refused = unknown(view, command.node)
    if refused is not None:
        return refused
    if node in ledger.passive:
        return AlreadySo(f"{node} is passive already")
    others = [name for name in view.reports if name != node and not why_not(view, name)]
    if not others and not why_not(view, node) and not command.force:
        return Refused(f"{node} is the only node that can be promoted; --force makes it passive all the same")
    passive = tuple(sorted((*ledger.passive, node)))
    yielding = ledger.yielding or (node == ledger.master and ledger.hold is None and not vacancy(view))
    return replace(ledger, passive=passive, yielding=yielding, reason=_words(command, f"passive {node}"))


def _active(view: View, command: Command) -> Outcome:
    ledger = view.ledger
    if command.node not in ledger.passive:
        return unknown(view, command.node) or AlreadySo(f"{command.node} is active already")
    passive = tuple(name for name in ledger.passive if name != command.node)
    return replace(ledger, passive=passive, reason=_words(command, f"active {command.node}"))


def _maintenance(view: View, command: Command) -> Outcome:
    ledger = view.ledger
    if ledger.hold == STUCK:
        return _held(view) or AlreadySo("")
    if command.on:
        if ledger.hold == MAINTENANCE:
            return AlreadySo("the cluster is in maintenance already")
        return replace(ledger, hold=MAINTENANCE, reason=_words(command, "maintenance on"))
    if ledger.hold is None:
        return AlreadySo("the cluster is not in maintenance")
    if command.force:
        return replace(ledger, hold=None, reason=_words(command, "maintenance off by force"))
    if ledger.master is not None and heard(view, ledger.master) is None and not vacancy(view):
        return Refused(
            f"{ledger.master} is the master and is not heard; once maintenance ends it may be replaced while it still is active:"
            " make sure that it is off, then add --force"
        )
    return replace(ledger, hold=ENDING, reason=_words(command, "maintenance off"))


def _release(view: View, command: Command) -> Outcome:
    """`recover NODE --force`: the administrator vouches that the stuck node is off (rule 9.1)."""
    ledger = view.ledger
    if ledger.hold != STUCK or ledger.master is None or ledger.master != command.node:
        return AlreadySo(f"{command.node} is not stuck")
    fenced = Fenced(ledger.master, None, ledger.epoch)
    return replace(ledger, hold=None, fenced=fenced, reason=_words(command, f"recover {command.node} --force"))


_VERBS: dict[str, Callable[[View, Command], Outcome]] = {
    "promote": _promote,
    "demote": _demote,
    "elect": _elect,
    "passive": _passive,
    "active": _active,
    "maintenance": _maintenance,
    "release": _release,
}
VERBS = frozenset(_VERBS)
