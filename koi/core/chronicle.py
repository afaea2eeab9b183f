"""What changed from one accepted ledger to the next, as entries for `koi why`. Pure.

Every elector writes its own journal from the ledgers that it accepts, so an entry outlives any one node. `key` is equal
in all journals for one and the same change: who merges them keeps the first.
"""

from __future__ import annotations

from koi.core.commands import ASKED
from koi.core.effects import Journal
from koi.core.ledger import same_master
from koi.core.messages import HOLDS, Ledger


def changes(old: Ledger, new: Ledger) -> list[Journal]:
    """The entries for the step from `old` to `new`; none when nothing that people ask about has changed."""
    found = [*_mastership(old, new), *_hold(old, new)]
    command = _command(old, new)
    if command and not any(entry.what in ("maintenance", "stuck") for entry in found):
        found.insert(0, Journal("command", None, command, new.epoch, new.reason, f"command {_last_id(new)}"))
    if not found and old.target is not None and new.target is None:
        found.append(Journal("target", old.target, None, new.epoch, new.reason, f"target {new.epoch} {_last_id(new)}"))
    return found


def _last_id(ledger: Ledger) -> str:
    return ledger.recent[-1] if ledger.recent else ""


def _mastership(old: Ledger, new: Ledger) -> list[Journal]:
    if not same_master(old, new):
        return [Journal("master", old.master, new.master, new.epoch, new.reason, f"master {new.epoch}")]
    if new.yielding and not old.yielding and not _is_new_command(old, new):
        return [Journal("yield", new.master, new.target, new.epoch, new.reason, f"yield {new.epoch}")]
    return []


def _hold(old: Ledger, new: Ledger) -> list[Journal]:
    if old.hold == new.hold:
        return []
    known = [hold for hold in (old.hold, new.hold) if hold in HOLDS]
    what = "stuck" if "stuck" in known else "maintenance"
    key = f"{what} {new.epoch} {_last_id(new)} {new.hold or 'off'}"
    return [Journal(what, old.hold, new.hold, new.epoch, new.reason, key)]


def _is_new_command(old: Ledger, new: Ledger) -> bool:
    return bool(new.recent) and _last_id(new) != _last_id(old)


def _command(old: Ledger, new: Ledger) -> str:
    """The command that this ledger carries out, as it is typed; empty when it carries none."""
    if not _is_new_command(old, new) or (not old.recent and ASKED not in new.reason):
        return ""  # none, or an elector that was blank learns of a command long done
    for name in sorted({*old.passive} ^ {*new.passive}):
        return f"{'passive' if name in new.passive else 'active'} {name}"
    if new.fenced is not None and new.fenced != old.fenced:
        return f"recover {new.fenced.name} --force"
    if new.target is not None:
        return f"promote {new.target}"
    if new.manual != old.manual:
        return "demote" if new.manual else "elect"
    return f"promote {new.master}"
