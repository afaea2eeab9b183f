"""The invariants, checked at every step of a simulation.

At most one node between begin of promote and end of demote; one leader for each term; one ledger for each version; an
epoch is begun by one node only, and epochs grow; an acknowledged command is never lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from koi.core.effects import Done
from koi.core.messages import Ledger, Version
from tests.sim.world import World


class Violation(AssertionError):
    """A rule was broken."""


@dataclass
class Watch:
    """Sees everything that happens in one simulation."""

    world: World
    active: dict[str, set[str]] = field(default_factory=dict)
    """host -> services that may be active."""
    leaders: dict[int, str] = field(default_factory=dict)
    ledgers: dict[Version, Ledger] = field(default_factory=dict)
    epochs: dict[int, str] = field(default_factory=dict)
    begun: list[tuple[float, int, str]] = field(default_factory=list)
    """When, which epoch, which host: every begin."""
    promotes: list[tuple[float, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Ids of acknowledged commands that changed the ledger."""
    done: dict[str, Any] = field(default_factory=dict)

    def promote(self, host: str, service: str) -> None:
        """A promote script begins."""
        others = [h for h, services in self.active.items() if services and h != host]
        if others:
            raise Violation(f"{self.world.now:.3f} s: {host} promotes {service} while {others} may be active")
        self.active.setdefault(host, set()).add(service)
        self.promotes.append((self.world.now, host))

    def inactive(self, host: str, service: Optional[str] = None) -> None:
        """A demote or stop has succeeded, or everything was killed, or the host (no service named) is off."""
        if service is None:
            self.active.pop(host, None)
        else:
            self.active.get(host, set()).discard(service)

    def leads(self, name: str, term: int) -> None:
        """An elector became leader."""
        if self.leaders.setdefault(term, name) != name:
            raise Violation(f"{self.world.now:.3f} s: {name} and {self.leaders[term]} both lead term {term}")

    def accepted(self, version: Version, ledger: Ledger) -> None:
        """An elector has a ledger on disk."""
        if self.ledgers.setdefault(version, ledger) != ledger:
            raise Violation(f"{self.world.now:.3f} s: two ledgers of version {version}: {ledger} and {self.ledgers[version]}")

    def acknowledged(self, done: Done, recent: tuple[str, ...]) -> None:
        """A command is answered; `recent`: what the leader's ledger remembers."""
        self.done[done.id] = done
        if done.ok and done.id in recent:
            self.changed.append(done.id)

    def begins(self, host: str, epoch: int) -> None:
        """A runner begins to hold an epoch."""
        if self.epochs.setdefault(epoch, host) != host:
            raise Violation(f"{self.world.now:.3f} s: {host} begins epoch {epoch} of {self.epochs[epoch]}")
        if self.begun and epoch < self.begun[-1][1]:
            raise Violation(f"{self.world.now:.3f} s: {host} begins epoch {epoch} after {self.begun[-1][1]}")
        self.begun.append((self.world.now, epoch, host))
        self.world.say(host, f"begins epoch {epoch}")
