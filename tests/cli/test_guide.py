"""What docs/guide.md tells people: its Python runs on a real cluster, its commands are understood, its files load."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from koi import cli
from koi.config import loads
from koi.core.fencing import Fencer
from koi.core.states import still_active
from koi.view_config import settings
from tests.cli.conftest import Koi

DOCS = Path(cli.__file__).parent.parent / "docs"
TEXT = (DOCS / "guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = sorted(set(re.findall(r"^ +[a-d]# (koi .*)$", TEXT, re.MULTILINE)))
QUOTED = sorted(set(re.findall(r"`(koi [a-z][^`]*)`", TEXT)) - {"koi switchover"})


def blocks(kind: str) -> list[str]:
    """The code blocks of one language."""
    return [text for language, text in BLOCKS if language == kind]


@pytest.mark.parametrize("command", [*COMMANDS, *QUOTED])
def test_every_command_is_understood(command: str) -> None:
    words = shlex.split(command.partition(" > ")[0])[1:]
    if words[-1] not in ("wait", "--json"):
        assert cli.parse(words)


def test_what_is_said_of_a_stuck_node_is_quoted_as_it_is() -> None:
    assert f"koi: begun, and goes on once this is mended: {still_active('b')}\n" in TEXT
    assert f"Warning: {Fencer.words('b', 'the command exited 1: b is still on', 2.0)}\n" in TEXT


@pytest.mark.parametrize("page", ["design.md"])
def test_every_file_of_the_core_has_its_place_on_the_map(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    files = [path for part in ("core", "wire", "service") for path in (DOCS.parent / "koi" / part).glob("[!_]*.py")]
    assert [str(path) for path in files if not re.search(rf"\b{path.stem}\b", text)] == []


def test_a_key_that_a_page_names_exists() -> None:
    content = b"cluster: {password: a password for the tests}"
    keys = set(settings(loads(content, "x", "a"), content))
    sections = "|".join({key.partition(".")[0] for key in keys})
    for path in [DOCS.parent / "README.md", *DOCS.glob("*.md")]:
        for key in re.findall(rf"`((?:{sections})\.[a-z_]+)`", path.read_text(encoding="utf-8")):
            assert key in keys or key == "cluster.password_file" or key.endswith((".py", ".json", ".yaml")), (path.name, key)


def test_every_key_of_the_json_is_told(koi: Koi) -> None:
    told = set(re.findall(r"[`\".]([a-z_]+)[`\"]", TEXT[TEXT.index("## JSON"):]))
    status, why, failures = koi.json("status"), koi.json("why"), koi.json("failures")
    node = status["nodes"][0]
    found = {*status, *status["cluster"], *node, *node["services"][0], *why[0], *failures, *koi.json("local")}
    assert sorted(found - told) == []


def test_the_examples_in_python_run(koi: Koi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(koi.cluster["a"].folder)
    known: dict[str, object] = {}
    for program in blocks("python"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(program, "guide.md", "exec"), known)
        assert out.getvalue() and "not known" not in out.getvalue() and "nothing was changed" not in out.getvalue()
    assert koi.json("why")[-1]["reason"]


def test_the_configurations_load() -> None:
    common, witness = blocks("yaml")
    for name in "abc":
        text = witness + common if name == "c" else common
        assert loads(text.encode(), "guide.md", name, password="a password for the tests").node.runner is (name != "c")


@pytest.mark.parametrize("script", blocks("sh"))
def test_the_scripts_are_shell(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=10)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))])
def test_links_lead_somewhere(page: str) -> None:
    path = DOCS.parent / page
    text = path.read_text(encoding="utf-8")
    anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), target
