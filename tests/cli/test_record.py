"""docs/failover.svg: a picture that any viewer can read, made of what `koi watch` shows; README shows it."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from koi import cli
from koi.view_tree import tree_lines
from tests.cli.samples import node, status

TOP = Path(cli.__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def record() -> ModuleType:
    """docs/record.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("record", TOP / "docs/record.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(picture: str) -> list[list[str]]:
    """The lines of each frame, as they are read."""
    frames = ElementTree.fromstring(picture).iter(f"{SVG}g")
    return [["".join(line.itertext()).replace("\u00a0", " ") for line in frame.iter(f"{SVG}text")] for frame in frames]


def test_a_frame_has_the_lines_of_the_tree(record: ModuleType) -> None:
    first, second = status(), status(node("a", "Master"), node("b<&>", "Failed"), node("c", None, "leader"), master="a")
    picture = record.svg([(0.0, tree_lines(first, colour=True)), (1.5, tree_lines(second, colour=True))])
    assert texts(picture) == [[line for line in tree_lines(s) if line] for s in (first, second)]
    assert "@keyframes f0 { 0.000% { visibility: visible } 42.857% { visibility: hidden } }" in picture


def test_the_recording_is_a_failover_and_readme_shows_it() -> None:
    frames = texts((TOP / "docs/failover.svg").read_text(encoding="utf-8"))
    masters = [re.search(r"^(\w) is master", "\n".join(frame), re.MULTILINE) for frame in frames]
    names = [match[1] for match in masters if match]
    assert names[0] != names[-1] and frames[-1][-1].endswith("all well.")
    assert any("kill -9 to every process of " + names[0] in frame[0] for frame in frames)
    assert "docs/failover.svg" in (TOP / "README.md").read_text(encoding="utf-8")
