"""What README.md tells people to write works as written: its commands, its configurations, its scripts."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from koi import cli
from koi.config import loads

TEXT = (Path(cli.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    (koi .*)$", TEXT, re.MULTILINE)


def blocks(kind: str) -> list[str]:
    """The code blocks of one language."""
    return [text for language, text in BLOCKS if language == kind]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    words = shlex.split(command.partition(" > ")[0])[1:]
    arguments = cli.parse(words)
    assert arguments[words[0]] is True


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("name", "runner"), [("a", True), ("b", True), ("c", False)])
def test_the_configurations_load(name: str, runner: bool) -> None:
    common, witness = blocks("yaml")
    content = common if runner else witness + common
    config = loads(content.encode(), "README.md", name, password="a password for the tests")
    assert (config.node.runner, config.node.elector, config.cluster.quorum) == (runner, True, 2)


@pytest.mark.parametrize("script", blocks("sh"))
def test_the_scripts_are_shell(script: str) -> None:
    assert script.startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=10)


@pytest.mark.parametrize("program", blocks("python"))
def test_the_programs_are_python(program: str) -> None:
    compile(program, "README.md", "exec")
