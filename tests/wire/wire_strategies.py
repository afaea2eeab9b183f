"""Hypothesis strategies for every datagram, built from the type hints, and one plain example of each class."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from koi.core.messages import DATAGRAMS, Ledger, Request
from koi.wire.codec import CHOICES, LIMIT, MAX_TEXT, NAMES, SIGNED, SPANS

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.floats(-LIMIT, LIMIT)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-LIMIT, LIMIT), NUMBERS, WORDS)


def of_hint(hint: Any, owner: str, field: str) -> st.SearchStrategy[Any]:
    """Values that the hint of Owner.field allows."""
    arguments = get_args(hint)
    if hint is Any:
        return SCALARS
    if get_origin(hint) is Union:
        return st.one_of(st.none(), of_hint(arguments[0], owner, field))
    if get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return st.lists(of_hint(arguments[0], owner, field), max_size=3).map(tuple)
    if get_origin(hint) is tuple:
        return st.tuples(*[of_hint(argument, owner, field) for argument in arguments])
    if is_dataclass(hint):
        return of_class(hint)
    return scalar(hint, owner, field)


def scalar(hint: Any, owner: str, field: str) -> st.SearchStrategy[Any]:
    """Values of bool, int, float and str within the bounds of the field."""
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(-LIMIT if field in SIGNED else 0, LIMIT)
    if hint is float:
        return st.floats(0 if field in SPANS else -LIMIT, LIMIT)
    choices = CHOICES.get(f"{owner}.{field}") or CHOICES.get(field)
    if choices:
        return st.sampled_from(choices)
    return st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z") if field in NAMES else WORDS


def of_class(kind: Any) -> st.SearchStrategy[Any]:
    """Instances of a message class."""
    hints = get_type_hints(kind)
    parts = {field.name: of_hint(hints[field.name], kind.__name__, field.name) for field in fields(kind)}
    if kind is Request:
        parts["arguments"] = st.dictionaries(WORDS, SCALARS, max_size=4).map(lambda pairs: tuple(pairs.items()))
    return st.builds(kind, **parts)


MESSAGES = st.one_of([of_class(kind) for kind in DATAGRAMS])

LONG_LEDGER = Ledger(7, "b", reason="a long tale " * (MAX_TEXT // 12), recent=tuple(f"{i:016x}" for i in range(8)))


def plain(hint: Any, owner: str, field: str) -> Any:
    """The smallest value a hint allows, so that each class has one fixed example."""
    arguments = get_args(hint)
    if get_origin(hint) is Union:
        return None
    if get_origin(hint) is tuple:
        return () if arguments[-1] is Ellipsis else tuple(plain(argument, owner, field) for argument in arguments)
    if is_dataclass(hint):
        return example(hint)
    if hint is str:
        choices = CHOICES.get(f"{owner}.{field}") or CHOICES.get(field)
        return choices[0] if choices else field
    return {bool: False, int: 1, float: 0.5}[hint]


def example(kind: Any) -> Any:
    """One instance of the class."""
    hints = get_type_hints(kind)
    return kind(**{field.name: plain(hints[field.name], kind.__name__, field.name) for field in fields(kind)})
