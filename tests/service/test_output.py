"""What scripts print, cut into lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koi.service.output import CUT, LINE_BYTES, LINES_PER_S, Output


def lines_of(*chunks: bytes, now: float = 100.0) -> list[str]:
    seen: list[str] = []
    output = Output(seen.append, lambda: now)
    for chunk in chunks:
        output.feed(chunk)
    output.end()
    return seen


def test_lines_and_a_last_one_without_an_end() -> None:
    assert lines_of(b"one\ntw", b"o\n\nthree") == ["one", "two", "", "three"]


def test_what_is_no_text_is_shown_somehow() -> None:
    assert lines_of(b"\xff\xfe\n") == ["\ufffd\ufffd"]


def test_a_long_line_is_cut_once() -> None:
    seen = lines_of(*[b"x" * 5000] * 20, b"\nnext\n")
    assert seen == ["x" * LINE_BYTES + CUT, "next"]


def test_a_long_line_in_one_piece() -> None:
    assert lines_of(b"x" * 100_000 + b"\nnext\n") == ["x" * LINE_BYTES + CUT, "next"]


def test_a_line_of_just_the_length_is_whole() -> None:
    assert lines_of(b"x" * LINE_BYTES + b"\n") == ["x" * LINE_BYTES]


def test_a_flood_is_dropped_and_counted() -> None:
    clock = [100.0]
    seen: list[str] = []
    output = Output(seen.append, lambda: clock[0])
    output.feed(b"line\n" * 5000)
    assert len(seen) == LINES_PER_S and output.dropped == 5000 - LINES_PER_S
    clock[0] += 1
    output.feed(b"calm\n")
    told = f"({5000 - LINES_PER_S} lines dropped, for more than {LINES_PER_S} came within a second)"
    assert seen[LINES_PER_S:] == [told, "calm"]


def test_a_flood_at_the_end_is_counted() -> None:
    seen = lines_of(b"line\n" * 300)
    assert seen[-1].startswith("(100 lines dropped")


def test_the_last_line_is_kept_for_the_failure() -> None:
    output = Output(lambda text: None, lambda: 1.0)
    output.feed(b"line\n" * 500 + b"the reason\n\n")
    assert output.last == "the reason"


@given(st.lists(st.binary(max_size=400), max_size=20))
def test_pieces_make_no_difference(chunks: list[bytes]) -> None:
    assert lines_of(*chunks) == lines_of(b"".join(chunks))
