"""Rules that can be turned off by name, to show that the simulator would notice.

Each switch replaces one small method of a freshly made machine; the product knows nothing of it.
"""

from __future__ import annotations

from typing import Any, Callable

from koi.core.elector import Elector
from koi.core.lease import UNLIMITED
from koi.core.messages import Ledger, Version
from koi.core.ordering import demoted
from koi.core.runner import Runner


def no_guard(machine: Elector) -> None:
    """An elector accepts another master although it vouched for the present one a moment ago."""
    machine.acceptor.guard_up = lambda now: False  # type: ignore[method-assign]


def no_accept_rule(machine: Elector) -> None:
    """An elector accepts whatever a leader proposes."""
    acceptor = machine.acceptor

    def offer(version: Version, ledger: Ledger, now: float) -> bool:
        acceptor.see_top(ledger.epoch)
        if version > acceptor.record.version:
            acceptor._accept(version, ledger, now)
            return True
        return False

    acceptor.offer = offer  # type: ignore[method-assign]


def no_own_promise_first(machine: Elector) -> None:
    """A candidate asks for votes, and counts its own, before its promise is on disk."""
    machine.roles.promise_write = lambda: 0  # type: ignore[method-assign]


def no_pending(machine: Elector) -> None:
    """An elector forgets a ledger that it cannot accept yet, and goes on vouching."""
    acceptor = machine.acceptor
    offer = acceptor.offer

    def forgetting(version: Version, ledger: Ledger, now: float) -> bool:
        accepted = offer(version, ledger, now)
        acceptor.pending = None
        return accepted

    acceptor.offer = forgetting  # type: ignore[method-assign]


def no_free_majority(machine: Elector) -> None:
    """A leader takes its own lost link to the master for the loss of the master."""
    view = machine.view

    def alone(lead: Any, now: float) -> Any:
        from dataclasses import replace

        seen = view(lead, now)
        return replace(seen, free_by=seen.majority if machine.acceptor.free(now) == lead.ledger.epoch else 0)

    machine.view = alone  # type: ignore[method-assign]


def no_counting_from_sending(machine: Runner) -> None:
    """A runner counts its lease from the answer that it receives."""
    machine.lease.counted_from = lambda vouch, now: now  # type: ignore[method-assign]


def no_one_version(machine: Runner) -> None:
    """A runner begins with vouches of different ledgers."""
    machine.lease.same_version = lambda word: (0, 0)  # type: ignore[method-assign]


def no_renounce(machine: Runner) -> None:
    """A runner gives its epoch up before its services are demoted."""
    settle = machine._renounce_if_demoted

    def early(now: float) -> None:
        if machine.letting_go and machine.holding is not None and not all(demoted(s) for s in machine.services.values()):
            machine._renounce(machine.holding)
        else:
            settle(now)

    machine._renounce_if_demoted = early  # type: ignore[method-assign]


def no_end_of_left_lease(machine: Runner) -> None:
    """What a dead tree left under a hold is taken for held as long as the hold was once heard of."""
    count, write = machine._count_lease_of_left, machine._set_lease

    def endless() -> None:
        machine._set_lease = lambda end, epoch=None: write(UNLIMITED, epoch)  # type: ignore[method-assign]
        count()
        machine._set_lease = write  # type: ignore[method-assign]

    machine._count_lease_of_left = endless  # type: ignore[method-assign]


def no_sure_hold(machine: Runner) -> None:
    """What a dead tree left stays promoted because one elector says that there is maintenance."""
    machine._is_unsure = lambda holds: False  # type: ignore[method-assign]


def no_agreement_on_hold(machine: Runner) -> None:
    """A runner adds up what electors said of different ledgers, some of them long ago."""
    machine.lease.agreeing = lambda words: len(list(words))  # type: ignore[method-assign]


ELECTOR: dict[str, Callable[[Any], None]] = {
    "guard": no_guard,
    "accept rule": no_accept_rule,
    "own promise first": no_own_promise_first,
    "pending": no_pending,
    "majority of free": no_free_majority,
}
RUNNER: dict[str, Callable[[Any], None]] = {
    "counting from sending": no_counting_from_sending,
    "one version to begin": no_one_version,
    "renounce": no_renounce,
    "end of what was left": no_end_of_left_lease,
    "majority of hold": no_sure_hold,
    "one version of a hold": no_agreement_on_hold,
}
OTHERS = ("blank start", "majority", "dead tree's debt")
"""Turned off where the cluster is built: blank_rule, quorum and debt_rule."""

SAFETY = (
    "guard", "blank start", "majority", "counting from sending", "accept rule", "renounce", "own promise first",
    "one version to begin", "dead tree's debt", "end of what was left", "majority of hold",
    "one version of a hold",
)
NAMES = (*ELECTOR, *RUNNER, *OTHERS)


def turn_off(names: tuple[str, ...]) -> Callable[[str, Any], None]:
    """The hook for Cluster.switch."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"no rule named {unknown}; rules: {', '.join(NAMES)}")

    def switch(kind: str, machine: Any) -> None:
        table = ELECTOR if kind == "elector" else RUNNER
        for name in names:
            if name in table:
                table[name](machine)

    return switch
