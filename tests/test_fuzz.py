"""A short run of the long fuzzing, and each thing that it has found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from koi.core.effects import Journal, Remember
from koi.core.ledger import Record
from koi.core.messages import ServiceInfo
from koi.core.pipe import Failure, ServiceState
from koi.proc import files, memory, treefile
from koi.proc.failures import Failures
from koi.proc.journal import JournalFile
from koi.proc.runner import remembered
from koi.proc.treefile import Tree
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
    path.rename(tmp_path / treefile.TREE_NAME)
    tree, fault = treefile.read(str(tmp_path))
    assert tree == Tree(clean=False) and fault is not None and "nested too deep" in fault
    journal = tmp_path / "journal.jsonl"
    journal.write_text("[" * 200_000 + "\n")
    assert JournalFile(str(journal), "a").newest() == []


@pytest.mark.parametrize("change", [
    {"boots": ["\ud800"]}, {"boots": ["x" * 100_000]}, {"boots": [""]}, {"holding": -1}, {"holding": 10**30}, {"renounced": True},
])
def test_a_tree_that_no_report_could_carry_counts_as_left_by_a_dead_koinode(tmp_path: Path, change: dict[str, Any]) -> None:
    """Found: what stood there came into the runner's reports, which it could not say, and ended it at each start."""
    treefile.write(str(tmp_path), Tree(["0a"], 3, 2))
    assert treefile.read(str(tmp_path)) == (Tree(["0a"], 3, 2), None)
    content = {**files.read_json(str(tmp_path / treefile.TREE_NAME)), **change}  # type: ignore[dict-item]
    files.write_json(str(tmp_path / treefile.TREE_NAME), content)
    tree, fault = treefile.read(str(tmp_path))
    assert tree == Tree(clean=False) and fault is not None


@pytest.mark.parametrize("change", [{"priority": "x"}, {"state": 7}, {"pid": 1.5}, {"last": {"action": "status", "exit": "x"}}])
def test_a_workers_word_of_wrong_form_is_not_known(change: dict[str, Any]) -> None:
    word = memory.dump(ServiceState(ServiceInfo("s", 10, "Promoted"), True))
    assert memory.parse(word) is not None
    assert memory.parse({**word, "info": {**word["info"], **change}}) is None


@pytest.mark.parametrize("change", [
    {"epoch": float("nan")}, {"epoch": "1"}, {"reason": None}, {"what": 7}, {"key": ["x"]}, {"time": None}, {"more": 1e999},
])
def test_a_journal_entry_of_wrong_form_is_left_out_and_what_else_stands_in_it(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "journal.jsonl"
    JournalFile(str(path), "a").write(Journal("master", None, "a", 1, "x", "m1"))
    [good] = JournalFile(str(path), "a").newest()
    path.write_text(json.dumps({**good, **change}) + "\n" + json.dumps(good) + "\n")
    assert JournalFile(str(path), "a").newest() == ([good, good] if "more" in change else [good])


@pytest.mark.parametrize("change", [
    {"seconds": float("inf")}, {"seconds": float("nan")}, {"seconds": "1"}, {"seconds": None}, {"exit": 1.5}, {"exit": True},
    {"exit": 10**30}, {"time": 7}, {"what": None}, {"line": "x" * 100_000}, {"service": "\ud800"}, {"more": 1},
])
def test_a_failure_of_wrong_form_is_left_out_and_the_others_stay(tmp_path: Path, change: dict[str, Any]) -> None:
    """Found: an infinite or missing value came through to `koi failures`, as JSON that is none, for every node asked."""
    path = str(tmp_path / "failures.json")
    kept = Failures(path, "a")
    kept.add(Failure("s", "start", 1, 0.25, "no", "start exited 1"), 0.0)
    kept.save()
    [good] = Failures(path, "a").entries
    files.write_json(path, {"format": 1, "failures": [good, {**good, **change}, {"time": good["time"]}, 7]})
    assert Failures(path, "a").entries == [good]
