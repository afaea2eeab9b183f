"""The style that matters, as a test: the core stays pure, everything stays small, the sample configuration stays true.

The rules are in docs/design.md; each test here holds one of them.
"""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from koi.config import load, loads
from koi.configkeys import SECTIONS

TOP = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
TOP_LEVEL = {"setup.py", "koi", "tests", "conf", "init", "docs", "README.md", "LICENSE"}
LEFT_BY_BUILDS = {"build", "dist"}
"""And *.egg-info: what pip leaves beside setup.py. Only looked at where there is no git to ask."""

PURE = {"__future__", "dataclasses", "typing", "collections", "enum", "math", "functools", "itertools", "bisect"}
IMPURE = {"socket", "os", "time", "random", "logging", "multiprocessing"}
WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("time", "gmtime"), ("datetime", "now"),
              ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"), ("time", "CLOCK_REALTIME")}
MAY_READ_WALL_CLOCK = re.compile(r"koi/(log|demo\w*|cli\w*|client\w*|view\w*|(\w+/)*\w*(journal|failures)\w*)\.py")


def sources(*folders: str) -> list[Path]:
    """All Python files under these folders."""
    return sorted(path for folder in folders for path in (TOP / folder).rglob("*.py"))


@lru_cache(maxsize=None)
def tree(path: Path) -> ast.Module:
    """The file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def short(path: Path) -> str:
    """The path as people write it."""
    return path.relative_to(TOP).as_posix()


def imports(module: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, full name) of each import, inside functions too; names taken out of a module count with it."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def is_pure(name: str) -> bool:
    """Whether the core may import this module."""
    return name == "koi.core" or name.startswith("koi.core.") or name.partition(".")[0] in PURE


def core_faults(path: Path) -> list[str]:
    """Imports of the core that are not pure."""
    return [f"{short(path)}:{line}: imports {name}" for line, name in imports(tree(path)) if not is_pure(name)]


def test_the_core_imports_only_itself_and_what_is_pure():
    assert not any(is_pure(name) for name in IMPURE | {"koi", "koi.config", "koi.corentin", "threading", "yaml"})
    assert sources("koi/core")
    assert [fault for path in sources("koi/core") for fault in core_faults(path)] == []


def dotted(module: ast.AST) -> Iterator[tuple[int, tuple[str, str]]]:
    """(line, (owner, attribute)) of each `owner.attribute`, and of each name imported out of a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            yield node.lineno, (owner, node.attr)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, (node.module or "", alias.name)) for alias in node.names)


def uses(path: Path, banned: set[tuple[str, str]]) -> list[str]:
    """Where the file uses one of these."""
    return [f"{short(path)}:{line}: {'.'.join(name)}" for line, name in dotted(tree(path)) if name in banned]


def test_the_search_for_calls_finds_them():
    text = "import time\nfrom time import sleep\ntime.sleep(1)\nx = time.time\ndatetime.datetime.now()\ny.sleep(1)\n"
    assert {line for line, name in dotted(ast.parse(text)) if name in WALL_CLOCK | {("time", "sleep")}} == {2, 3, 4, 5}


def test_the_product_never_sleeps():
    assert [fault for path in sources("koi") for fault in uses(path, {("time", "sleep")})] == []


def test_the_wall_clock_is_read_only_for_people():
    judged = [path for path in sources("koi") if not MAY_READ_WALL_CLOCK.fullmatch(short(path))]
    assert set(sources("koi/core")) <= set(judged)
    assert [fault for path in judged for fault in uses(path, WALL_CLOCK)] == []


def swallows(handler: ast.ExceptHandler) -> bool:
    """Whether it is a bare except, or catches everything and does nothing about it."""
    everything = isinstance(handler.type, ast.Name) and handler.type.id in ("Exception", "BaseException")
    return handler.type is None or everything and all(isinstance(line, ast.Pass) for line in handler.body)


def test_no_exception_is_swallowed():
    found = [
        f"{short(path)}:{node.lineno}"
        for path in sources("koi", "tests") for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    assert found == []


def test_files_are_small():
    lengths = {short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources("koi", "tests")}
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_are_small():
    lengths = {
        f"{short(path)}:{node.lineno}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in sources("koi", "tests") for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_every_file_says_what_it_is_for():
    assert [short(path) for path in [TOP / "setup.py", *sources("koi", "tests")] if not ast.get_docstring(tree(path))] == []


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public functions and classes without a docstring."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{prefix}{node.name}.")


def test_every_public_function_of_the_product_says_what_it_does():
    assert [f"{short(path)}: {name}" for path in sources("koi") for name in undocumented(tree(path).body)] == []


def top_level() -> set[str]:
    """What stands at the top: tracked by git, or new and not ignored."""
    command = ["git", "-C", str(TOP), "ls-files", "--cached", "--others", "--exclude-standard"]
    if (TOP / ".git").exists():
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return {line.partition("/")[0] for line in listed if (TOP / line).exists()}
    return {name for name in os.listdir(TOP) if name not in LEFT_BY_BUILDS and not name.endswith(".egg-info")}


def test_nothing_else_stands_at_the_top():
    assert {name for name in top_level() if not name.startswith(".")} == TOP_LEVEL


def test_programs_of_the_repository_are_executable():
    programs = [TOP / ".ci/run", *(p for p in (TOP / "koi/share").rglob("*") if p.is_file() and p.read_bytes()[:2] == b"#!")]
    assert [short(path) for path in programs if not path.stat().st_mode & stat.S_IXUSR] == []


# --- conf/koi.conf and the examples -----------------------------------------------------------

CONF = TOP / "conf/koi.conf"
EXAMPLES = sorted((TOP / "conf/examples").glob("*.conf"))
KEY = re.compile(r"  #([a-z_]+): (.*)")


def conf_keys() -> list[tuple[str, str, str, str]]:
    """(section, key, value, the line before) of each key in conf/koi.conf, in order."""
    found, section, before = [], "", ""
    for line in CONF.read_text().splitlines():
        if re.fullmatch(r"[a-z]+:", line):
            section = line[:-1]
        elif match := KEY.fullmatch(line):
            found.append((section, match[1], match[2], before))
        before = line
    return found


def test_conf_has_every_key_once_in_its_section_and_in_order():
    assert [(section, key) for section, key, _, _ in conf_keys()] == [(s, key) for s, keys in SECTIONS.items() for key in keys]


def test_conf_explains_every_key():
    assert [key for _, key, _, before in conf_keys() if not before.startswith("  # ")] == []


def test_the_defaults_written_in_conf_are_the_built_in_ones():
    uncommented = re.sub(KEY, r"  \1: \2", CONF.read_text())
    assert uncommented.count("\n  ") > 50 and "  failover: 3s" in uncommented
    stated = loads(uncommented.encode(), str(CONF), "a", "password1234")
    assert stated == loads(b"", str(CONF), "a", "password1234") == load(str(CONF), "a", "password1234")
    written_as_null = {key for _, key, value, _ in conf_keys() if value == "null"}
    assert written_as_null == {name for keys in SECTIONS.values() for name, key in keys.items() if key.default is None}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_load_on_each_of_their_nodes(path: Path):
    electors = load(str(path), "x", "password1234").cluster.electors
    assert len(electors) == 3
    for name in electors.names:
        config = load(str(path), name, "password1234")
        assert config.node.elector and config.node.name == name


def test_there_are_the_examples_that_the_guide_names():
    assert [path.stem for path in EXAMPLES] == ["fast-lan", "two-runners-and-witness", "virtual-ip"]
