"""The client's line to the nodes: one socket, and a loop that asks several questions at once and waits for their answers.

The rule it keeps: a question first goes to the address at hand, every time after that to all addresses of the same node,
for one of its networks may be dead. The same question keeps its id, so it is carried out at most once.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from koi.core.data import dataclass
from koi.core.messages import Request, Response
from koi.errors import KoiError
from koi.names import Address, written

if TYPE_CHECKING:
    from koi.client_exchange import Exchange
    from koi.wire.udp import Endpoint

JSON = dict[str, Any]


def now() -> float:
    """The clock of all waiting: seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Question:
    """A request, where it stands, and what came of it: `outcome` is None until its end, then the answer or an error."""

    request: Request
    exchange: Exchange
    outcome: JSON | KoiError | None = None
    target: Address | None = None
    """Where it was sent last, as the exchange calls it."""
    ways: tuple[Address, ...] = ()
    """The numeric addresses to which it was sent since the target changed."""
    closed: set[Address] = field(default_factory=set)
    """Those of them at which nobody listens."""


class Line:
    """Opened with the first question. `ways` tells all addresses of the node that has this one."""

    def __init__(
        self, secret: str, cluster_id: int, ways: Callable[[Address], tuple[Address, ...]], progress: Callable[[str], None],
        trace: Callable[[str], None],
    ) -> None:
        self._secret, self._id, self._ways = secret, cluster_id, ways
        self._progress, self._trace = progress, trace
        self._endpoint: Endpoint | None = None
        self._dropped = 0

    def open(self) -> Endpoint:
        """The socket. KoiError without a password."""
        if self._endpoint is None:
            if not self._secret:
                raise KoiError("no cluster password: give a configuration with -f, or --secret-file, or KOI_SECRET")
            making = _Key(self._secret, self._id)
            from koi.wire.seal import Opener, Sealer
            from koi.wire.udp import Endpoint

            key = making.take()
            self._endpoint = Endpoint(("::",), 0, Sealer(key, self._id, os.urandom(16)), Opener(key, self._id), "client")
            self._endpoint.hear_refusals()
        return self._endpoint

    def close(self) -> None:
        """Close the socket; a later question opens a new one."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def ask(self, questions: Sequence[Question]) -> None:
        """Ask until each of them has its outcome."""
        endpoint = self.open()
        poll = select.poll()
        for fd in endpoint.filenos():
            poll.register(fd, select.POLLIN)
        while True:
            for question in _open(questions):
                self._send_if_due(endpoint, question)
            waiting = _open(questions)
            if not waiting:
                return
            poll.poll(_milliseconds(min(question.exchange.deadline() for question in waiting) - now()))
            self._hear_refusals(endpoint, waiting)
            self._receive(endpoint, {question.request.id: question for question in waiting})

    def _send_if_due(self, endpoint: Endpoint, question: Question) -> None:
        try:
            address = question.exchange.handle_timer(now())
            if address is None:
                return
            again = address == question.target
            ways = self._ways(address) if again else _first(address)
        except KoiError as error:
            question.outcome = error
            return
        question.closed = question.closed if again else set()
        question.target, question.ways = address, ways
        for way in ways:
            self._trace(f"to {written(way)}: {question.request}")
            endpoint.send(way, question.request)

    def _hear_refusals(self, endpoint: Endpoint, waiting: Sequence[Question]) -> None:
        """A node is closed only once nobody listens at any of its addresses."""
        for address in endpoint.refusals():
            self._trace(f"nobody listens at {written(address)}")
            for question in waiting:
                if address in question.ways:
                    question.closed.add(address)
                    if question.closed.issuperset(question.ways):
                        question.exchange.closed(now())

    def _receive(self, endpoint: Endpoint, waiting: dict[str, Question]) -> None:
        """Hand what has arrived to the exchanges that it is for."""
        for address, sender, message, _ in endpoint.receive():
            self._trace(f"from {written(address)} ({sender}): {message}")
            question = waiting.get(message.id) if isinstance(message, Response) else None
            if question is not None and question.outcome is None:
                self._take(question, message)
        if sum(endpoint.noise.values()) > self._dropped:
            self._dropped = sum(endpoint.noise.values())
            self._trace(f"dropped what this client cannot read: {'; '.join(endpoint.noise_text.values())}")

    def _take(self, question: Question, response: Response) -> None:
        exchange = question.exchange
        before = exchange.message
        try:
            question.outcome = exchange.receive(response, now())
        except KoiError as error:
            question.outcome = error
        if exchange.message is not None and exchange.message != before:
            self._progress(exchange.message)


class _Key:
    """The cluster's key, made beside what else is to be done: it takes some 50 ms, as long as importing what seals with it."""

    def __init__(self, secret: str, cluster_id: int) -> None:
        from threading import Thread

        self._secret, self._id = secret, cluster_id
        self._made: bytes | None = None
        self._thread = Thread(target=self._make, daemon=True)
        self._thread.start()

    def _make(self) -> None:
        from koi.wire.key import cluster_key

        self._made = cluster_key(self._secret, self._id)

    def take(self) -> bytes:
        """The key, once it is there; a fault of the thread is raised here."""
        self._thread.join()
        if self._made is None:
            self._make()
        assert self._made is not None
        return self._made


def pause(seconds: float) -> None:
    """Lets time pass: between two questions, never inside one."""
    select.poll().poll(_milliseconds(seconds))


def meanings(address: Address) -> tuple[Address, ...]:
    """The numeric addresses of a host, looked up if it is a name. KoiError if it means nothing."""
    from koi.wire.udp import resolve

    return resolve(*address)


def literal(host: str, port: int) -> Address | None:
    """The address in its one form; None for a name."""
    from koi.wire.udp import literal

    return literal(host, port)


def _first(address: Address) -> tuple[Address, ...]:
    return meanings(address)[:1]


def _open(questions: Sequence[Question]) -> list[Question]:
    return [question for question in questions if question.outcome is None]


def _milliseconds(seconds: float) -> int:
    """Rounded up, so that the deadline has surely passed after the wait."""
    return max(0, int(seconds * 1000) + 1)
