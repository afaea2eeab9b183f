"""The project's `dataclass` behaves as the standard library's, which is why it may take its place."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, Optional

import pytest

from koi.core.data import dataclass


@dataclass(frozen=True, slots=True)
class Ours:
    """A class of ours."""

    name: str
    votes: tuple[str, ...] = ()
    term: Optional[int] = None


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """The same of the library's."""

    name: str
    votes: tuple[str, ...] = ()
    term: Optional[int] = None


@dataclass(frozen=True)
class Wide:
    """Without slots, with a secret and with a default that is made anew."""

    name: str
    password: str = dataclasses.field(repr=False)
    numbers: list[int] = dataclasses.field(default_factory=list)


@dataclass(slots=True)
class Open:
    """One that changes."""

    count: int = 0


@dataclass
class After:
    """One that completes itself."""

    count: int
    twice: int = 0

    def __post_init__(self) -> None:
        self.twice = 2 * self.count


@dataclass(frozen=True, slots=True)
class Empty:
    """One without fields."""


CALLS: list[dict[str, Any]] = [
    {"name": "a"}, {"name": "a", "votes": ("b",)}, {"name": "a", "term": 3}, {"name": "b", "votes": ("b",), "term": None},
]


def behaviour(cls: Any) -> list[Any]:
    """What is seen of the class from outside."""
    made = [cls(**call) for call in CALLS] + [cls("a", ("b",), 3)]
    return [
        [[one == other for other in made] for one in made],
        [[hash(one) == hash(other) for other in made] for one in made],
        [repr(one).replace(cls.__name__, "X") for one in made],
        [dataclasses.asdict(one) for one in made],
        [dataclasses.astuple(dataclasses.replace(one, term=9)) for one in made],
        [(one.name, one.type, one.default) for one in dataclasses.fields(cls)],
        (cls.__slots__, cls.__match_args__, cls.__doc__ is not None, hasattr(made[0], "__dict__")),
        [pickle.loads(pickle.dumps(one)) == one and copy.deepcopy(one) == one for one in made],
    ]


def faults(cls: Any) -> list[str]:
    """The words of what is refused."""
    made = cls("a")
    found = []
    for refused in (
        lambda: cls(), lambda: cls("a", (), 1, 2), lambda: cls(nome="a"),
        lambda: setattr(made, "name", "b"), lambda: delattr(made, "name"), lambda: dataclasses.replace(made, nome="b"),
    ):
        with pytest.raises((TypeError, AttributeError)) as caught:
            refused()
        found.append(f"{caught.type.__name__}: {caught.value}".replace(cls.__name__, "X"))
    return found


def test_it_behaves_as_the_library_s_does() -> None:
    assert behaviour(Ours) == behaviour(Theirs)


def test_it_refuses_what_the_library_s_does_in_the_same_words() -> None:
    assert faults(Ours) == faults(Theirs)


def test_two_classes_are_never_equal() -> None:
    others: list[object] = [Theirs("a"), ("a", (), None), Empty(), Open()]
    assert Ours("a") not in others and Empty() in others and others.count(Empty()) == 1


def test_what_is_not_to_be_shown_is_not() -> None:
    assert repr(Wide("a", "secret")) == "Wide(name='a', numbers=[])"


def test_a_default_that_is_made_is_made_each_time() -> None:
    one, other = Wide("a", "b"), Wide("a", "b")
    one.numbers.append(1)
    assert other.numbers == [] and Wide("a", "b", [1]) == one == pickle.loads(pickle.dumps(one))


def test_one_that_changes_can_be_set_and_pickled_but_not_hashed() -> None:
    one = Open()
    one.count = 2
    assert one == Open(2) == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) and one != Open()
    with pytest.raises(TypeError):
        hash(one)


def test_what_follows_the_making_is_called() -> None:
    assert After(3).twice == 6 and repr(After(3)) == "After(count=3, twice=6)"


def test_a_trace_names_the_class() -> None:
    with pytest.raises(TypeError, match=r"Ours\.__init__\(\) missing 1 required positional argument: 'name'"):
        Ours()  # type: ignore[call-arg]
    assert Ours.__init__.__code__.co_filename == "<dataclass Ours>"


@pytest.mark.parametrize("unknown", [{"init": False, "default": 1}, {"compare": False}, {"hash": True}])
def test_a_field_that_it_does_not_know_is_refused(unknown: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="Wrong.count"):
        dataclass(frozen=True)(type("Wrong", (), {"__annotations__": {"count": int}, "count": dataclasses.field(**unknown)}))
