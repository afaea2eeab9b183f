"""Answers to clients: paged, and remembered by the request's id, so that it is carried out at most once.

docs/protocol.md section 10.
"""

from __future__ import annotations

import json
from typing import Any, Optional

from koi.core.messages import ANSWER, PROGRESS, REDIRECT, REFUSED, Request, Response
from koi.wire.udp import Address, Endpoint

PAGE_CHARS = 800
"""Of JSON text in one datagram, which so stays below 1,200 bytes."""

MAX_KEPT = 256
"""Requests whose answers are remembered."""


class Replies:
    """What was asked lately, by whom, and what was answered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._asked: dict[str, Address] = {}
        self._answers: dict[str, list[Response]] = {}

    def repeated(self, address: Address, request: Request) -> bool:
        """Note a request; True when it is known already, and then its answer, if there is one, is sent again."""
        known = request.id in self._asked
        if not known and len(self._asked) >= MAX_KEPT:
            oldest = next(iter(self._asked))
            self._asked.pop(oldest)
            self._answers.pop(oldest, None)
        self._asked[request.id] = address
        for response in self._answers.get(request.id, ()):
            self.endpoint.send(address, response)
        return known

    def answer(self, request_id: str, content: Any) -> None:
        """The final answer."""
        self._final(request_id, ANSWER, content)

    def refuse(self, request_id: str, message: str) -> None:
        """A refusal with its reason."""
        self._final(request_id, REFUSED, {"message": message})

    def redirect(self, request_id: str, address: Address) -> None:
        """Ask there; this node forgets the request, for it may come back."""
        self._send(request_id, REDIRECT, {"host": address[0], "port": address[1]})
        self.forget(request_id)

    def progress(self, request_id: str, message: str) -> None:
        """Still at it."""
        self._send(request_id, PROGRESS, {"message": message})

    def forget(self, request_id: str) -> None:
        """As if it had never been asked."""
        self._asked.pop(request_id, None)

    def _final(self, request_id: str, kind: str, content: Any) -> None:
        self._answers[request_id] = self._send(request_id, kind, content)
        if request_id not in self._asked:
            self._answers.pop(request_id)

    def _send(self, request_id: str, kind: str, content: Any) -> list[Response]:
        text = json.dumps(content, separators=(",", ":"))
        parts = [text[i : i + PAGE_CHARS] for i in range(0, len(text), PAGE_CHARS)]
        responses = [Response(request_id, kind, page, len(parts), part) for page, part in enumerate(parts)]
        address: Optional[Address] = self._asked.get(request_id)
        if address is not None:
            for response in responses:
                self.endpoint.send(address, response)
        return responses


def arguments(request: Request) -> dict[str, Any]:
    """The request's arguments by name."""
    return dict(request.arguments)
