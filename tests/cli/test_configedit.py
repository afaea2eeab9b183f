"""`koi config set`: one key changes, every comment and everything else stays as it was written."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from koi.configedit import change, edited
from koi.errors import ConfigError, Refused

SAMPLE = (Path(__file__).parents[2] / "conf/koi.conf").read_text()
WRITTEN = """\
# top
node: {name: a}  # flow
cluster:
  electors:   # who votes
    a: 1.2.3.4
    b: 1.2.3.5   # b
    c: 1.2.3.6

  # behind
  id: 13 # the id
  password: a password for tests
time:
  lease:

# last
"""


def steps(before: str, key: str, value: str) -> list[str]:
    """The lines that go and come."""
    lines = difflib.unified_diff(before.splitlines(), edited(before, key, value).splitlines(), lineterm="", n=0)
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize(("key", "value", "expected"), [
    ("node.rank", "3", ["-node: {name: a}  # flow", "+node: {name: a, rank: 3}  # flow"]),
    ("cluster.id", "14", ["-  id: 13 # the id", "+  id: 14 # the id"]),
    ("cluster.port", "5", ["+  port: 5"]),
    ("time.lease", "2s", ["-  lease:", "+  lease: 2s"]),
    ("time.failover", "4s", ["+  failover: 4s"]),
    ("service.stuck", "takeover", ["+service:", "+  stuck: takeover"]),
])
def test_only_what_is_meant_changes(key: str, value: str, expected: list[str]) -> None:
    assert steps(WRITTEN, key, value) == expected


@pytest.mark.parametrize(("key", "value"), [("time.failover", "5s"), ("cluster.quorum", "2"), ("node.name", "x")])
def test_in_the_sample_the_key_goes_below_its_explanation(key: str, value: str) -> None:
    name = key.partition(".")[2]
    lines = edited(SAMPLE, key, value).splitlines()
    at = lines.index(f"  {name}: {value}")
    assert lines[at - 1].startswith(f"  #{name}: ")
    assert steps(SAMPLE, key, value) == [f"+  {name}: {value}"]


@pytest.mark.parametrize("before", ["", "time:\n", "time: {}\n", "time: null\n", "time:\n  failover: 3s", "# only a comment"])
def test_sections_that_are_missing_or_empty(before: str) -> None:
    after = edited(before, "time.lease", "2s")
    assert after.endswith("  lease: 2s\n") and after.count("time:") == 1


@pytest.mark.parametrize("value", ["1 # x", "[1", "a: b", "x\ny"])
def test_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(Refused, match="cannot stand after"):
        edited(WRITTEN, "cluster.id", value)


def test_a_file_that_would_not_load_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "koi.conf"
    file.write_text(WRITTEN)
    file.chmod(0o640)
    for key, value, error in (
        ("time.failover", "soon", ConfigError), ("cluster.port", "0", ConfigError), ("cluster.quorum", "1", ConfigError),
        ("node.nam", "x", Refused), ("cluster.password", "new", Refused),
    ):
        with pytest.raises(error):
            change(str(file), key, value)
        assert file.read_text() == WRITTEN and [path.name for path in tmp_path.iterdir()] == ["koi.conf"]
    link = tmp_path / "link.conf"
    link.symlink_to(file)
    assert change(str(link), "cluster.id", "14").startswith(f"cluster.id: 13 -> 14 in {file}")
    assert change(str(link), "cluster.fence", "/bin/off").startswith(f"cluster.fence: null -> /bin/off in {file}; `koi reconf")
    electors = change(str(link), "cluster.electors", "{a: 10.0.0.1}")  # as it may stand in the file, not as Python writes it
    assert electors.startswith('cluster.electors: {')and '-> {"a": ["10.0.0.1:42012"]} in' in electors
    assert change(str(link), "node.rank", "3").endswith("; `koi reconfigure` or a restart of koinode makes it count")
    assert change(str(link), "node.watchdog", "/dev/dog").endswith("; a restart of koinode makes it count")
    assert link.is_symlink() and "id: 14 # the id" in file.read_text() and file.stat().st_mode & 0o777 == 0o640
