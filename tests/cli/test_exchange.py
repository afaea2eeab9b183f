"""The exchange as a pure machine: repeats, silence, pages, redirects, with a clock that the test turns."""

from __future__ import annotations

import random

import pytest

from koi.client_exchange import CLOSED_HOP_S, CLOSED_S, HOP_SILENCE_S, MAX_HOPS, REVISIT_PAUSE_S, Address, Exchange, written
from koi.core.messages import REDIRECT, Request, Response
from koi.errors import NoAnswer, Refused
from tests.cli.fakes import answer, paged, progress, redirect, refused

HERE: Address = ("127.0.0.1", 1)
ASKED = Request("id", "status")


def sendings(exchange: Exchange, start: float) -> list[tuple[float, Address]]:
    """When and where the question is sent until the exchange gives up."""
    found, now = [], start
    with pytest.raises(NoAnswer):
        while True:
            address = exchange.handle_timer(now)
            if address is not None:
                found.append((round(now, 3), address))
            now = exchange.deadline()
    return found


def test_silence_is_asked_again_ever_more_rarely_and_then_given_up() -> None:
    assert [t for t, _ in sendings(Exchange("id", HERE, 6.0, 0.0), 0.0)] == [0.0, 0.3, 0.9, 2.1, 4.5]


def test_silence_names_the_node_and_the_remedy() -> None:
    with pytest.raises(NoAnswer, match=r"^no koinode answers at 127.0.0.1:1; start it$"):
        Exchange("id", HERE, 6.0, 0.0, remedy="start it").handle_timer(6.0)


def closed_sendings(exchange: Exchange, closed: int) -> list[float]:
    """When the question is sent until the exchange gives up; the first so many meet a closed port."""
    found, now = [], 0.0
    with pytest.raises(NoAnswer):
        while True:
            if exchange.handle_timer(now) is not None:
                found.append(round(now, 3))
                if len(found) <= closed:
                    exchange.closed(now + 0.001)
            now = exchange.deadline()
    return found


def test_a_closed_port_is_asked_again_for_a_moment_and_is_then_the_answer() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0, remedy="look", if_closed="start it")
    sent = closed_sendings(exchange, 99)
    assert CLOSED_S - 0.4 < sent[-1] < CLOSED_S and all(b - a <= 0.302 for a, b in zip(sent, sent[1:], strict=False))
    with pytest.raises(NoAnswer, match="^no koinode answers at 127.0.0.1:1; start it$"):
        exchange.handle_timer(CLOSED_S + 0.01)


def test_a_port_that_opens_meanwhile_is_waited_for_as_any_other() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0, remedy="look", if_closed="start it")
    assert closed_sendings(exchange, 3)[-1] > CLOSED_S
    with pytest.raises(NoAnswer, match="look$"):
        exchange.handle_timer(6.0)


def test_one_that_has_answered_and_closes_its_port_has_the_whole_patience() -> None:
    """An elector that was killed is started again."""
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.handle_timer(0.0)
    exchange.receive(*progress(ASKED, "demoting a"), 0.1)
    exchange.handle_timer(3.1)
    exchange.closed(3.1)
    assert exchange.handle_timer(3.1 + CLOSED_S) == HERE
    with pytest.raises(NoAnswer, match="has answered before"):
        exchange.handle_timer(6.1)


def test_a_redirect_to_a_closed_port_leads_back_sooner() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.handle_timer(0.0)
    exchange.receive(*redirect(ASKED, 2), 0.0)
    assert exchange.handle_timer(0.0) == ("127.0.0.1", 2)
    exchange.closed(0.001)
    assert exchange.deadline() == pytest.approx(0.3) and exchange.handle_timer(0.31) == ("127.0.0.1", 2)
    exchange.closed(0.311)
    assert CLOSED_HOP_S < HOP_SILENCE_S and exchange.handle_timer(0.002 + CLOSED_HOP_S) == HERE


def test_progress_ends_the_silence_and_the_quick_repeats() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.handle_timer(0.0)
    assert exchange.receive(*progress(ASKED, "demoting a"), 5.0) is None
    assert exchange.message == "demoting a"
    assert exchange.handle_timer(6.5) is None
    assert exchange.handle_timer(8.0) == HERE
    with pytest.raises(NoAnswer, match="has answered before"):
        exchange.handle_timer(11.0)


def test_pages_may_come_in_any_order_and_twice() -> None:
    content = {"text": "x" * 500, "n": 1}
    pages = answer(ASKED, content, pages=7)
    for seed in range(20):
        exchange = Exchange("id", HERE, 6.0, 0.0)
        shuffled = pages + pages[:3]
        random.Random(seed).shuffle(shuffled)
        found = [a for p in shuffled if (a := exchange.receive(p, 0.1)) is not None]
        assert found[0] == content


def test_a_lost_page_is_asked_for_again() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.handle_timer(0.0)
    pages = answer(ASKED, {"n": 1}, pages=3)
    assert exchange.receive(pages[0], 0.1) is None
    assert exchange.receive(pages[2], 0.1) is None
    assert exchange.handle_timer(0.3) is None
    assert exchange.handle_timer(0.41) == HERE
    assert exchange.receive(pages[1], 0.5) == {"n": 1}


@pytest.mark.parametrize("response", [
    Response("other", "answer", 0, 1, "{}"), Response("id", "answer", 1, 1, "{}"), Response("id", "answer", 0, 0, "{}"),
    Response("id", "answer", 0, 10**6, "{}"), Response("id", "answer", 0, 1, "{nonsense"), Response("id", "answer", 0, 1, "[]"),
    Response("id", "strange", 0, 1, "{}"), Response("id", "redirect", 0, 1, '{"host": 1, "port": 2}'),
])
def test_what_is_no_answer_is_ignored(response: Response) -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.handle_timer(0.0)
    assert exchange.receive(response, 0.1) is None
    assert exchange.handle_timer(0.5) == HERE


def test_a_redirect_is_followed_at_once() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.handle_timer(0.0)
    exchange.receive(*redirect(ASKED, 2), 0.1)
    assert exchange.handle_timer(0.1) == ("127.0.0.1", 2)


def test_a_redirect_to_a_dead_node_leads_back_to_the_first() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.handle_timer(0.0)
    exchange.receive(*redirect(ASKED, 2), 0.1)
    found = sendings(exchange, 0.1)
    back = next(t for t, address in found if address == HERE)
    assert back == pytest.approx(0.1 + HOP_SILENCE_S)


def test_a_repeated_redirect_counts_once() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    for _ in range(3 * MAX_HOPS):
        exchange.receive(*redirect(ASKED, 2), 0.1)
    assert exchange.handle_timer(0.1) == ("127.0.0.1", 2)


def test_a_redirect_loop_ends_and_is_slowed_down() -> None:
    exchange, now, hops = Exchange("id", HERE, 60.0, 0.0), 0.0, 0
    with pytest.raises(NoAnswer, match="redirected 8 times"):
        while True:
            address = exchange.handle_timer(now)
            if address is None:
                now = exchange.deadline()
                continue
            hops += 1
            exchange.receive(*redirect(ASKED, 3 - address[1]), now)
    assert hops == MAX_HOPS + 1
    assert now >= (MAX_HOPS - 1) * REVISIT_PAUSE_S


def test_redirects_alone_do_not_prolong_the_silence() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    exchange.receive(*redirect(ASKED, 2), 5.9)
    with pytest.raises(NoAnswer, match="redirects to 127.0.0.1:2, which has not answered"):
        exchange.handle_timer(6.0)


def test_a_refusal_carries_its_reason() -> None:
    with pytest.raises(Refused, match="^a is not promotable$"):
        Exchange("id", HERE, 6.0, 0.0).receive(*refused(ASKED, "a is not promotable"), 0.1)


def test_until_ends_all_patience_with_the_last_words() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0, until=1.0)
    assert exchange.deadline() == 0.0
    exchange.receive(*progress(ASKED, "no master yet"), 0.5)
    assert exchange.deadline() == 1.0
    with pytest.raises(NoAnswer, match="no master yet"):
        exchange.handle_timer(1.0)


def test_pages_of_two_kinds_do_not_mix() -> None:
    exchange = Exchange("id", HERE, 6.0, 0.0)
    first, _ = paged(ASKED, REDIRECT, {"host": "127.0.0.1", "port": 2}, 2)
    exchange.receive(first, 0.1)
    assert exchange.receive(*answer(ASKED, {"n": 1}), 0.2) == {"n": 1}


def test_addresses_as_people_write_them() -> None:
    assert (written(HERE), written(("fd00::4", 5))) == ("127.0.0.1:1", "[fd00::4]:5")
