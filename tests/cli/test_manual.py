"""The manual pages and completions are in step with the programs, and of good form."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from koi import cli

TOP = Path(cli.__file__).parent.parent
PAGES = sorted((TOP / "docs/man").iterdir())


def test_pages_and_completions_are_what_docs_make_would_write() -> None:
    command = [sys.executable, str(TOP / "docs/make.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr


@pytest.mark.parametrize("page", ["docs/man/koinode.8", "docs/guide.md"])
def test_what_scripts_find_in_their_environment_is_told(page: str) -> None:
    code = "".join((TOP / "koi" / path).read_text() for path in ("core/states.py", "proc/worker.py"))
    names = set(re.findall(r"\bKOI_[A-Z_]+", code)) - {"KOI_SECRET"}  # which is kept from them
    text = (TOP / page).read_text(encoding="utf-8")
    assert len(names) > 8 and [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_have_no_faults(page: Path) -> None:
    lint = ["mandoc", "-Tlint", str(page)] if shutil.which("mandoc") else ["man", "--warnings", "-l", str(page)]
    if not shutil.which(lint[0]):
        pytest.skip("neither mandoc nor man is installed")
    environment = {"MANPAGER": "cat", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(lint, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert lint[0] == "man" or done.stdout == ""


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    asked = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
    script = f". {TOP}/docs/completion/koi; {asked}; _koi; echo ${{COMPREPLY[*]}}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout.split()


def test_bash_completes() -> None:
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    assert completed("koi", "pro") == ["promote"]
    assert completed("koi", "-H", "x", "ma") == ["maintenance"]
    assert completed("koi", "maintenance", "o") == ["on", "off"]
    assert completed("koi", "promote", "--dr") == ["--dry-run"]
    assert set(completed("koi", '""')) == set(cli.COMMANDS)


@pytest.mark.parametrize(("shell", "file"), [("bash", "koi"), ("zsh", "_koi")])
def test_the_completions_are_shell(shell: str, file: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(TOP / "docs/completion" / file)], check=True, timeout=60)
