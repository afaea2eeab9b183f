"""A short run of the long fuzzing, and each thing that it has found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from koi.core.effects import Remember
from koi.core.ledger import Record
from koi.core.pipe import Failure
from koi.proc import files
from koi.proc.failures import Failures
from koi.proc.runner import remembered
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


def test_state_files_that_are_nested_too_deep_are_as_unreadable_as_any_other(tmp_path: Path) -> None:
    """A file of brackets only is a faulty file, not the end of the process that reads it."""
    path = tmp_path / "file.json"
    path.write_text("[" * 500_000)
    with pytest.raises(ValueError, match="nested too deep"):
        files.read_json(str(path))
    assert remembered(str(path)) == Remember(False, False)
    assert Failures(str(path), "a").entries == []


@pytest.mark.parametrize("change", [
    {"seconds": float("inf")}, {"seconds": float("nan")}, {"seconds": "1"}, {"seconds": None}, {"exit": 1.5}, {"exit": True},
    {"exit": 10**30}, {"time": 7}, {"what": None}, {"line": "x" * 100_000}, {"service": "\ud800"}, {"more": 1},
])
def test_a_failure_of_wrong_form_is_left_out_and_the_others_stay(tmp_path: Path, change: dict[str, Any]) -> None:
    """Found: an infinite or missing value came through to `koi failures`, as JSON that is none, for every node asked."""
    path = str(tmp_path / "failures.json")
    Failures(path, "a").add(Failure("s", "start", 1, 0.25, "no", "start exited 1"))
    [good] = Failures(path, "a").entries
    files.write_json(path, {"format": 1, "failures": [good, {**good, **change}, {"time": good["time"]}, 7]})
    assert Failures(path, "a").entries == [good]
