"""The journal: appended, rotated at its size with two old files kept, read over the rotation, and never a reason to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koi.core.effects import Become, Journal
from koi.proc import journal
from koi.proc.journal import JournalFile


def entry(number: int) -> Journal:
    """A change of master."""
    return Journal("master", "a", "b", number, f"reason {number}", f"master {number}")


def epochs(file: JournalFile, limit: int = journal.MAX_ENTRIES) -> list[int]:
    """The epochs of the newest entries."""
    return [found["epoch"] for found in file.newest(limit)]


def test_an_entry_has_all_that_why_shows(tmp_path: Path) -> None:
    JournalFile(str(tmp_path / "journal.jsonl"), "c").write(entry(7))
    (found,) = JournalFile(str(tmp_path / "journal.jsonl"), "c").newest()
    assert found.pop("time").endswith("+00:00")
    assert found == {"node": "c", "what": "master", "from": "a", "to": "b", "epoch": 7, "reason": "reason 7", "key": "master 7"}


def test_rotation_keeps_two_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 1000)
    file = JournalFile(str(tmp_path / "journal.jsonl"), "a")
    for number in range(60):
        file.write(entry(number))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [n for n in names if n != "journal.jsonl"] == ["journal.jsonl.1", "journal.jsonl.2"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4 * 1000
    found = epochs(file)
    assert found == list(range(found[0], 60)) and len(found) >= 10
    assert epochs(file, 3) == [57, 58, 59]


def test_lines_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    file = JournalFile(str(path), "a")
    file.write(entry(1))
    with open(path, "ab") as out:
        out.write(b'{"half": \n\xff\xfe\n[1]\n')
    file.write(entry(2))
    assert epochs(file) == [1, 2]
    assert json.loads(path.read_text(errors="replace").splitlines()[-1])["epoch"] == 2


def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    file = JournalFile(str(tmp_path / "gone" / "journal.jsonl"), "a")
    file.write(entry(1))
    file.write(entry(2))
    assert file.told and file.newest() == []


def test_changes_of_leader() -> None:
    from koi.proc.leaders import Leaders

    class Roles:
        """What is read of an elector's roles."""

        leader: str | None = None
        leader_term = 0
        acceptor = type("Acceptor", (), {"record": type("Record", (), {"ledger": type("Ledger", (), {"epoch": 5})})})

    roles, leaders = Roles(), Leaders("a")
    assert leaders.look(roles) is None  # type: ignore[arg-type]
    assert leaders.become(Become("elector", "follower", "candidate", "leader c not heard for 0.9 s"), roles) is None  # type: ignore[arg-type]
    leaders.become(Become("elector", "candidate", "leader", "votes of 2 of 3 electors in term 4"), roles)  # type: ignore[arg-type]
    roles.leader, roles.leader_term = "a", 4
    won = leaders.look(roles)  # type: ignore[arg-type]
    assert won == Journal("leader", None, "a", 5, "leader c not heard for 0.9 s; votes of 2 of 3 electors in term 4", "leader 4")
    assert leaders.look(roles) is None  # type: ignore[arg-type]
    lost = leaders.become(Become("elector", "leader", "follower", "koinode stops"), roles)  # type: ignore[arg-type]
    assert lost == Journal("leader", "a", None, 5, "koinode stops", "leader 4 ends")
