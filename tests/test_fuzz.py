"""A short run of the long fuzzing, and each thing that it has found."""

from __future__ import annotations

import json

import pytest

from koi.core.ledger import Record
from koi.proc import files
from tests.fuzz import run


def test_ten_thousand_mutated_inputs_find_nothing() -> None:
    assert run(10_000, 60.0, seed=7) == 10_000


@pytest.mark.parametrize(("key", "value"), [
    ("promised", float("inf")), ("promised", "1"), ("promised", -1), ("top", None), ("span", "x"), ("version", [1, 2.5]),
    ("electors", [1]), ("promised_to", 7), ("ledger", {"epoch": "x"}), ("ledger", {"reason": None}), ("ledger", {"passive": [1]}),
])
def test_a_state_file_of_wrong_types_is_refused_whole(key: str, value: object) -> None:
    """Found: 1e999 in a number ended the elector at its start, and a text where a number belongs came through."""
    content = json.loads(json.dumps(files.dump_record(Record())))
    assert files.parse_record(content) == Record()
    content[key] = {**content[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError):
        files.parse_record(content)
