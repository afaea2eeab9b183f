"""One question of a client and its answer, as a pure machine: responses and the time in, "send it now" and the outcome out.

The rule it keeps: the same question keeps its id, so that asking again is harmless; silence, redirects and pages are
bounded. A node may be silent because it has just died: after HOP_SILENCE_S the first node is asked again, which may know
a new leader by then.
"""

from __future__ import annotations

import json
import math
from typing import Any

from koi.core.messages import ANSWER, PROGRESS, REDIRECT, REFUSED, Response
from koi.errors import NoAnswer, Refused
from koi.names import Address, written

FIRST_REPEAT_S = 0.3
"""The question is repeated after this, then after twice as long, and so on."""
MAX_REPEAT_S = 2.4
PROGRESS_REPEAT_S = 3.0
"""A node that reports progress is asked again after this much silence: its answer may be lost."""
HOP_SILENCE_S = 2.1
CLOSED_S = 2.0
"""A closed port may be that of a koinode that starts: it is asked again for so long before that counts as the answer."""
CLOSED_HOP_S = 0.7
"""In the place of HOP_SILENCE_S where the port of the node redirected to is closed."""
REVISIT_PAUSE_S = 0.3
"""Before a node is asked again that has redirected already: the cluster may be choosing a leader."""
TIME_UP = "the time is up"
ANOTHER = "try again, or ask another node with -H"
MAX_HOPS = 8
MAX_PAGES = 2000


class Exchange:
    """A question with id `request_id`, first asked at `first`.

    `timeout` is the longest silence in seconds, `until` the end of all patience, `remedy` what to do if nobody answers there,
    `if_closed` if it is known that nobody listens.
    """

    def __init__(
        self, request_id: str, first: Address, timeout: float, now: float, until: float | None = None, remedy: str = "",
        if_closed: str = "",
    ) -> None:
        self.id = request_id
        self.first = self.address = first
        self.timeout = timeout
        self.until = until
        self.remedy, self.if_closed = remedy, if_closed
        self.message: str | None = None
        """The words of the newest progress."""
        self._heard = now
        self._answered: set[Address] = set()
        self._hops = 0
        self._pages: dict[str, dict[int, str]] = {}
        self._asked_since = now
        self._send_at = now
        self._repeat = FIRST_REPEAT_S
        self._closed_at: float | None = None
        """Since when every datagram to the present node has met a closed port."""
        self._met_closed = False
        """Whether the last one has."""

    def deadline(self) -> float:
        """When `handle_timer` is due next."""
        times = [self._send_at, self._heard + self.timeout, self._closed_until()]
        if self.until is not None:
            times.append(self.until)
        return min(times)

    def _closed_until(self) -> float:
        """When a closed port counts as the answer; infinite where none was met, or a node has answered there before."""
        if not self._met_closed or self._closed_at is None or self.address in self._answered:
            return math.inf
        return self._closed_at + (CLOSED_S if self.address == self.first else CLOSED_HOP_S)

    def handle_timer(self, now: float) -> Address | None:
        """The address to send the question to now, if any. Raises NoAnswer when the silence has lasted too long."""
        if self.until is not None and now >= self.until:
            raise NoAnswer(self.message or (TIME_UP if self._answered else self._silence()))
        if now >= self._heard + self.timeout:
            raise NoAnswer(self._silence())
        closed = now >= self._closed_until()
        if closed and self.address == self.first:
            raise NoAnswer(self._silence())
        if now < self._send_at and not closed:
            return None
        if self.address != self.first and (closed or now >= self._asked_since + HOP_SILENCE_S):
            self._go(self.first, now)
        self._closed_at = self._closed_at if self._met_closed else None
        self._met_closed = False
        self._send_at = now + self._repeat
        self._repeat = min(2 * self._repeat, MAX_REPEAT_S)
        return self.address

    def closed(self, now: float) -> None:
        """The network says that nobody listens at any address of the node asked."""
        self._met_closed = True
        self._closed_at = now if self._closed_at is None else self._closed_at
        self._send_at = min(self._send_at, now + FIRST_REPEAT_S)

    def receive(self, response: Response, now: float) -> dict[str, Any] | None:
        """The final answer when this response completes it. Raises Refused, or NoAnswer after too many redirects."""
        if response.id != self.id:
            return None
        content = self._join(response, now)
        if content is None:
            return None
        self._answered.add(self.address)
        if response.kind == ANSWER:
            return content
        if response.kind == REFUSED:
            raise Refused(_words(content, "the node refused without a reason"))
        if response.kind == PROGRESS:
            self._progress(content, now)
        elif response.kind == REDIRECT:
            self._redirect(content, now)
        return None

    def _join(self, response: Response, now: float) -> dict[str, Any] | None:
        """The JSON object of all pages of this kind once they are all there."""
        if not 0 <= response.page < response.pages <= MAX_PAGES:
            return None
        kind = f"{response.kind} in {response.pages} pages"
        pages = self._pages.setdefault(kind, {})
        pages[response.page] = response.text
        if response.kind in (ANSWER, PROGRESS):
            self._heard = self._asked_since = now
        if len(pages) < response.pages:
            self._ask_again(now + FIRST_REPEAT_S)
            return None
        del self._pages[kind]
        try:
            content = json.loads("".join(pages[i] for i in range(response.pages)))
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def _progress(self, content: dict[str, Any], now: float) -> None:
        self.message = _words(content, "") or self.message
        self._hops = 0
        self._ask_again(now + PROGRESS_REPEAT_S)

    def _redirect(self, content: dict[str, Any], now: float) -> None:
        host, port = content.get("host"), content.get("port")
        if not isinstance(host, str) or not isinstance(port, int) or (host, port) == self.address:
            return
        self._hops += 1
        if self._hops > MAX_HOPS:
            where = f"redirected {MAX_HOPS} times, last to {written((host, port))}"
            raise NoAnswer(f"{where}: the nodes do not agree who leads; try again in a moment")
        self._go((host, port), now)

    def _go(self, address: Address, now: float) -> None:
        """Turns to another node; one that has answered already is given a moment first."""
        self.address = address
        self._asked_since = now
        self._repeat = FIRST_REPEAT_S
        self._send_at = now + REVISIT_PAUSE_S if address in self._answered else now
        self._pages.clear()
        self._closed_at, self._met_closed = None, False

    def _ask_again(self, at: float) -> None:
        self._send_at = at
        self._repeat = FIRST_REPEAT_S

    def _silence(self) -> str:
        if self.address == self.first and not self._answered:
            remedy = self.if_closed if self._closed_until() < math.inf else self.remedy
            return f"no koinode answers at {written(self.address)}{'; ' if remedy else ''}{remedy}"
        if self.address in self._answered:
            return f"{written(self.address)} has answered before, but not for {self.timeout:g} s now; {ANOTHER}"
        where = f"{written(self.first)} redirects to {written(self.address)}"
        return f"{where}, which has not answered within {self.timeout:g} s; {ANOTHER}"


def _words(content: dict[str, Any], default: str) -> str:
    message = content.get("message")
    return message if isinstance(message, str) and message else default
