"""The codec: what is said comes back the same, and nothing but what the type hints allow ever comes back."""

from __future__ import annotations

import json
import sys
import tracemalloc
import zlib
from dataclasses import fields, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koi.core import messages
from koi.core.messages import DATAGRAMS, Report, Request, Resign, Response, ServiceInfo, Vote, Vouch
from koi.core.pipe import Ping
from koi.wire.codec import DEFLATE_ABOVE, LIMIT, MAX_BODY, MAX_ITEMS, MAX_TEXT, Malformed, decode, encode
from tests.wire.wire_strategies import LONG_LEDGER, MESSAGES, example

LONG_VOTE = Vote(5, "c", (5, 17), LONG_LEDGER, 9)


def body(kind: str, values: list[Any], sender: str = "a") -> bytes:
    """A body made by another hand."""
    return json.dumps([kind, sender, values]).encode()


def values_of(message: Any) -> list[Any]:
    """The fields of a short message as they stand on the wire."""
    return list(json.loads(encode("a", message))[2])


def refused(data: bytes, words: str = "") -> None:
    """decode must say no, with these words."""
    with pytest.raises(Malformed) as caught:
        decode(data)
    assert words in str(caught.value)


@settings(max_examples=500, deadline=None)
@given(MESSAGES)
def test_every_message_comes_back_the_same(message: Any) -> None:
    assert decode(encode("node-1", message)) == ("node-1", message)


@pytest.mark.parametrize("kind", DATAGRAMS, ids=lambda kind: kind.__name__)
def test_every_class_has_an_example_that_comes_back(kind: type) -> None:
    assert decode(encode("a", example(kind))) == ("a", example(kind))


def test_deflated_above_the_bound_and_smaller() -> None:
    data = encode("a", LONG_VOTE)
    assert data[:1] != b"[" and len(data) < DEFLATE_ABOVE
    assert decode(data) == ("a", LONG_VOTE)
    assert encode("a", Resign(1))[:1] == b"["


def test_what_is_for_pipes_is_no_datagram() -> None:
    with pytest.raises(Malformed, match="Ping is not a datagram"):
        encode("a", Ping(1))
    refused(body("Ping", [1]), "unknown kind")


def test_an_impostor_of_the_same_name_is_no_datagram() -> None:
    impostor = type("Resign", (), {"term": 1})()
    with pytest.raises(Malformed):
        encode("a", impostor)


BAD: dict[Any, list[Any]] = {
    int: [True, 1.0, "1", None, [], {}, LIMIT + 1, -LIMIT - 1, 10**400],
    float: [True, "1", None, [], {}, 2 * LIMIT, -2 * LIMIT],
    bool: [0, 1, "true", None, [], {}],
    str: [1, True, None, [], {}, "x" * (MAX_BODY + 1), "\ud800"],
}


def wrong_values(hint: Any) -> list[Any]:
    """Values that no field of this hint may have."""
    arguments = get_args(hint)
    if get_origin(hint) is Union:
        return [value for value in wrong_values(arguments[0]) if value is not None]
    if get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return [None, 1, "ab", {}, [{}], [[[]]]]
    if get_origin(hint) is tuple:
        return [None, 1, [], [1], [1, 2, 3], [1, True], [1, None], {"0": 1, "1": 2}]
    return BAD.get(hint, [None, 1, "x", {}, [], [1] * 40])


def wrong_fields() -> list[Any]:
    """Each field of each class with each value it may not have."""
    cases = []
    for kind in DATAGRAMS:
        hints = get_type_hints(kind)
        for index, field in enumerate(fields(kind)):
            for number, value in enumerate(wrong_values(hints[field.name])):
                cases.append(pytest.param(kind, index, value, id=f"{kind.__name__}.{field.name}-{number}"))
    return cases


@pytest.mark.parametrize(("kind", "index", "value"), wrong_fields())
def test_a_wrong_field_is_refused_on_reading(kind: type, index: int, value: Any) -> None:
    values = values_of(example(kind))
    values[index] = value
    refused(body(kind.__name__, values))


@pytest.mark.parametrize("kind", DATAGRAMS, ids=lambda kind: kind.__name__)
def test_missing_and_extra_fields_are_refused(kind: type) -> None:
    values = values_of(example(kind))
    refused(body(kind.__name__, values[:-1]), "fields")
    refused(body(kind.__name__, [*values, None]), "fields")
    named = dict(zip([field.name for field in fields(kind)], values, strict=True))
    refused(json.dumps([kind.__name__, "a", named]).encode(), "fields")


@pytest.mark.parametrize("data", [
    b"", b"[", b"null", b"{}", b"[]", b'["Resign","a"]', b'["Resign","a",[1],1]', b'["Resign","a",[1]] ', b' ["Resign","a",[1]]',
    b'["Resign","a",[1]][]', b'[1,"a",[1]]', b'[[],"a",[1]]', b'["resign","a",[1]]', b'["Resign","a",[01]]', b"\xff\xfe", b"\x00",
    b'["Resign","a",{"term":1,"term":2}]', b'{"kind":"Resign","kind":"Resign"}', b'["Resign","a",[{"term":1,"term":1}]]',
    b'["Resign","a",[1],]', b'["Resign","a\xff",[1]]', '["Resign","a",[1]]'.encode("utf-16"), b'\xef\xbb\xbf["Resign","a",[1]]',
])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e20", "-1"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    values = json.dumps(values_of(example(Vouch))).replace("0.5", number)
    assert number in values
    refused(f'["Vouch","a",{values}]'.encode())
    if number != "-1":
        refused(f'["Request","a",["1","status",[["wait",{number}]]]]'.encode())


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_not_said(number: float) -> None:
    with pytest.raises(Malformed, match="Report.uptime"):
        encode("a", replace(example(Report), uptime=number))
    with pytest.raises(Malformed, match="Request.arguments"):
        encode("a", Request("1", "wait", (("timeout", number),)))


def test_nan_is_not_json() -> None:
    refused(b'["Resign","a",[NaN]]', "NaN is not a number")


def test_numbers_of_thousands_of_digits_are_refused() -> None:
    refused(b'["Resign","a",[' + b"9" * 50_000 + b"]]")
    refused(b'["Resign","a",[' + b"9" * 4_000 + b"]]", "out of range")


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a\n", "a/b", "ä", "x" * 64, "a\x00"])
def test_names_are_names(name: str) -> None:
    refused(body("Resign", [1], sender=name), "sender")
    with pytest.raises(Malformed, match="sender"):
        encode(name, Resign(1))
    with pytest.raises(Malformed, match="Report.name"):
        encode("a", replace(example(Report), name=name))


def test_counts_are_not_negative_but_ranks_may_be() -> None:
    refused(body("Resign", [-1]), "Resign.term")
    with pytest.raises(Malformed, match="Resign.term"):
        encode("a", Resign(-1))
    election = messages.Election(1, -5)
    assert decode(encode("a", election)) == ("a", election)


def test_deep_nesting_is_refused() -> None:
    for depth in (100, sys.getrecursionlimit(), 20_000):
        refused(b"[" * depth + b"]" * depth)
        refused(b'["Resign","a",' + b"[" * depth + b"]" * depth + b"]")
        refused(b'{"a":' * (depth // 2) + b"1" + b"}" * (depth // 2))


def test_free_text_is_cut_not_refused() -> None:
    report = replace(example(Report), why="x" * (MAX_TEXT + 1), warnings=("y" * 5 * MAX_TEXT,))
    _, got = decode(encode("a", report))
    assert len(got.why) == MAX_TEXT and got.why.endswith("...")
    assert len(got.warnings[0]) == MAX_TEXT


def test_a_page_is_never_cut() -> None:
    page = Response("1", "answer", 1, 1, "x" * 30_000)
    assert decode(encode("a", page)) == ("a", page)
    with pytest.raises(Malformed, match="Response.text"):
        encode("a", replace(page, text="x" * (MAX_BODY + 1)))
    with pytest.raises(Malformed, match="more than 60000"):
        encode("a", replace(page, text="x" * MAX_BODY))


def test_text_that_nobody_can_print_leaves_as_question_marks() -> None:
    _, got = decode(encode("a", replace(example(Report), last_failure="exit \udcff\x1b ü")))
    assert got.last_failure == "exit ?\x1b ü"


def test_too_many_items_are_refused() -> None:
    values = values_of(example(Report))
    values[3] = ["x"] * (MAX_ITEMS + 1)
    refused(body("Report", values), "Report.lineage")
    with pytest.raises(Malformed, match="Report.lineage"):
        encode("a", replace(example(Report), lineage=("x",) * (MAX_ITEMS + 1)))


def test_fields_of_nested_classes_are_checked() -> None:
    service = ServiceInfo("vip", 10, "Started", pid=-1)
    with pytest.raises(Malformed, match="ServiceInfo.pid"):
        encode("a", replace(example(Report), services=(service,)))
    with pytest.raises(Malformed, match="not a ServiceInfo"):
        encode("a", replace(example(Report), services=("vip",)))


def test_arguments_of_a_request() -> None:
    request = Request("1", "stop", (("force", True), ("node", None), ("wait", 1.5), ("n", 3), ("reason", "tired")))
    assert decode(encode("client", request)) == ("client", request)
    twice = (("node", "a"), ("node", "b"))
    refused(body("Request", ["1", "stop", twice]), "twice")
    with pytest.raises(Malformed, match="twice"):
        encode("client", Request("1", "stop", twice))
    nested: list[Any] = [[], {}, [1], 2**54]
    for value in nested:
        refused(body("Request", ["1", "stop", [["node", value]]]), "Request.arguments")


# --- bodies that lie about their size ----------------------------------------------------------


def deflated(data: bytes, level: int = 9) -> bytes:
    """As the codec does it."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, 12)
    return deflater.compress(data) + deflater.flush()


def test_a_deflated_body_by_another_hand_is_read() -> None:
    assert decode(deflated(body("Resign", [4]))) == ("a", Resign(4))


def test_a_bomb_inflates_no_further_than_the_bound() -> None:
    bomb = deflated(b"[" + b" " * 10_000_000 + b"]")
    tracemalloc.start()
    refused(bomb, "inflates to more than")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * MAX_BODY
    refused(deflated(b"[" + b" " * MAX_BODY), "inflates to more than")


def test_too_long_a_body_is_refused_unread() -> None:
    refused(b"[" * (MAX_BODY + 1), "more than 60000")


def test_a_deflated_body_has_nothing_behind_it_and_is_whole() -> None:
    data = deflated(body("Resign", [4]))
    refused(data + b"x", "more behind")
    for end in range(1, len(data)):
        refused(data[:end])
    refused(deflated(data))


@pytest.mark.parametrize("message", [example(Report), LONG_VOTE], ids=["plain", "deflated"])
def test_every_truncation_of_a_body_is_refused(message: Any) -> None:
    data = encode("a", message)
    for end in range(len(data)):
        refused(data[:end])


@pytest.mark.parametrize("message", [example(Report), LONG_VOTE], ids=["plain", "deflated"])
def test_a_flipped_bit_gives_a_message_or_malformed_and_nothing_else(message: Any) -> None:
    data = encode("a", message)
    outcomes = set()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            outcomes.add(type(decode(bytes(flipped))[1]).__name__)
        except Malformed:
            outcomes.add("Malformed")
    assert "Malformed" in outcomes and outcomes <= {"Malformed", type(message).__name__}


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["a", "Report", "Ack"])),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
).map(lambda value: json.dumps(value).encode())))
def test_any_bytes_at_all_are_a_message_or_malformed(data: bytes) -> None:
    try:
        sender, message = decode(data)
    except Malformed:
        return
    assert decode(encode(sender, message)) == (sender, message)
