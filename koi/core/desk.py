"""What an elector says, in order, and what of it has to wait for the disk.

Section 2: the record is written before the answer that depends on it is sent, and never by the loop that answers
reports. So a datagram that is said while the record has changes that are not on disk yet waits for them here.
"""

from __future__ import annotations

from typing import Any

from koi.core.effects import Become, Log, Persist, Send
from koi.core.ledger import Acceptor, Record

MAX_WAITING = 1000
"""Datagrams that wait for the disk; what comes on top is lost, as on a bad network."""

MAX_IN_FLIGHT = 100
"""Records handed to the disk and not written yet; a newer one waits, so a disk that hangs or is full costs no memory."""


class Desk:
    """Collects the effects of one event; `drain` hands them out at its end."""

    def __init__(self, acceptor: Acceptor) -> None:
        self.acceptor = acceptor
        self.out: list[Any] = []
        self.waiting: list[tuple[int, Send]] = []
        self.number = 0
        self.durable = 0
        self.submitted = acceptor.record
        self.durable_record = acceptor.record
        self.in_flight: dict[int, Record] = {}

    def due(self) -> int:
        """The number of the write after which all that is remembered now is on disk."""
        return self.number + (self.acceptor.record is not self.submitted)

    def say(self, to: Any, message: Any) -> None:
        """Send once everything that is remembered now is on disk."""
        self.say_after(self.due(), to, message)

    def say_after(self, number: int, to: Any, message: Any) -> None:
        """Send once the write of this number is done."""
        if number <= self.durable:
            self.out.append(Send(to, message))
        elif len(self.waiting) < MAX_WAITING:
            self.waiting.append((number, Send(to, message)))

    def say_now(self, to: Any, message: Any) -> None:
        """Send at once: nothing in it depends on the disk."""
        self.out.append(Send(to, message))

    def log(self, level: str, text: str) -> None:
        """One line for the administrator."""
        self.out.append(Log(level, text))

    def become(self, machine: str, old: str, new: str, why: str) -> None:
        """Tell a change of state with its reason."""
        self.out.append(Become(machine, old, new, why))

    def persisted(self, number: int) -> None:
        """The record of this number is on disk, and with it all earlier ones."""
        if number <= self.durable:
            return
        self.durable = number
        self.durable_record = self.in_flight[number]
        self.in_flight = {n: r for n, r in self.in_flight.items() if n > number}
        self.out.extend(effect for n, effect in self.waiting if n <= number)
        self.waiting = [(n, effect) for n, effect in self.waiting if n > number]

    def drain(self) -> list[Any]:
        """The effects since the last call, with the write of the record when it changed and the disk may be given one."""
        record = self.acceptor.record
        if record is not self.submitted and len(self.in_flight) < MAX_IN_FLIGHT:
            self.number += 1
            self.submitted = record
            self.in_flight[self.number] = record
            self.out.append(Persist(self.number, record))
        out, self.out = self.out, []
        return out
