"""A node that answers as a test says: a real endpoint on loopback with real seals, and a handler in the place of a cluster.

It runs in a thread that blocks until a datagram or the end comes.
"""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from koi.core.messages import ANSWER, PROGRESS, REDIRECT, REFUSED, Request, Response
from koi.wire.seal import Opener, Sealer, cluster_key
from koi.wire.udp import Endpoint

SECRET, ID = "a secret for the tests only", 77

Handler = Callable[[Request], Iterable[Response]]


@lru_cache
def key() -> bytes:
    """The key of the tests' cluster."""
    return cluster_key(SECRET, ID)


def paged(request: Request, kind: str, content: Any, pages: int = 1) -> list[Response]:
    """A response in a number of pages."""
    text = json.dumps(content)
    size = -(-len(text) // pages)
    return [Response(request.id, kind, i, pages, text[i * size:(i + 1) * size]) for i in range(pages)]


def answer(request: Request, content: Any, pages: int = 1) -> list[Response]:
    """The final answer."""
    return paged(request, ANSWER, content, pages)


def progress(request: Request, message: str) -> list[Response]:
    """Something is under way."""
    return paged(request, PROGRESS, {"message": message})


def redirect(request: Request, port: int) -> list[Response]:
    """Another node knows."""
    return paged(request, REDIRECT, {"host": "127.0.0.1", "port": port})


def refused(request: Request, message: str) -> list[Response]:
    """Nothing was done."""
    return paged(request, REFUSED, {"message": message})


class FakeNode:
    """Answers every request with what `handler` returns for it; `asked` are the requests that came, repeats included."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self.handler = handler
        self.asked: list[Request] = []
        self.errors: list[BaseException] = []
        self._endpoint = Endpoint(("127.0.0.1",), port, Sealer(key(), ID, os.urandom(16)), Opener(key(), ID), "fake")
        self.port = self._endpoint.port
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeNode:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._ended)
        self._thread.join(10)
        os.close(self._end)
        self._endpoint.close()
        assert not self.errors, self.errors

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([*self._endpoint.filenos(), self._end], [], [])
            if self._end in ready:
                return
            for address, _, message, _ in self._endpoint.receive():
                self._take(address, message)

    def _take(self, address: tuple[str, int], message: Any) -> None:
        self.asked.append(message)
        try:
            for response in self.handler(message):
                self._endpoint.send(address, response)
        except Exception as error:  # shown by the test that used the node
            self.errors.append(error)
