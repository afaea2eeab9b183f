"""What a request says, taken with care: its origin, a command to a node, and that command as an entry of the journal."""

from __future__ import annotations

from typing import Any

from koi.core.effects import Journal
from koi.core.messages import Request
from koi.core.pipe import NodeCommand
from koi.proc.journal import MAX_ENTRIES
from koi.proc.replies import arguments

MAX_ORIGIN = 80
DEFAULT_ORIGIN = "koi"


def origin(request: Request) -> str:
    """Who asks, by his own word: user@host, bounded and printable."""
    text = str(arguments(request).get("origin") or DEFAULT_ORIGIN)
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_ORIGIN])


def node_command(request: Request) -> NodeCommand:
    """The request as a command to this node."""
    given: dict[str, Any] = arguments(request)
    return NodeCommand(request.id, request.command, bool(given.get("force")), str(given.get("reason") or ""), origin(request),
                       str(given.get("service") or ""), bool(given.get("no_wait")))


def journaled(command: NodeCommand, node: str, epoch: int) -> Journal:
    """The entry of the journal for a command to a node."""
    what = f"{command.verb} {command.service} of {node}" if command.service else f"{command.verb} {node}"
    words = f"{what}, asked by {command.origin}"
    reason = f"{words}: {command.reason}" if command.reason else words
    return Journal("command", None, what, epoch, reason, f"command {command.id}")


def entries_wanted(request: Request) -> int:
    """How many entries of the journal a client asks for."""
    limit = arguments(request).get("limit")
    return max(1, min(limit, MAX_ENTRIES)) if isinstance(limit, int) else MAX_ENTRIES
