"""What the start alone has needed is given back, and nothing that was written is lost."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest

from koi.proc import pages

SIZE = 64 * mmap.PAGESIZE


def kb(path: Path, what: str) -> list[int]:
    """This field of /proc/self/smaps for each mapping of the file."""
    found, inside = [], False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = words[-1] == str(path)
        elif inside and words[0] == f"{what}:":
            found.append(int(words[1]))
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "library"
    path.write_bytes(b"koi." * (SIZE // 4))
    return path


def mapped(file: Path, access: int) -> mmap.mmap:
    """The file in memory, every page of it read."""
    with open(file, "rb") as opened:
        memory = mmap.mmap(opened.fileno(), SIZE, access=access)
    assert sum(memory[:: mmap.PAGESIZE]) > 0
    return memory


def test_a_file_that_was_only_read_is_given_back_and_can_be_read_again(file: Path) -> None:
    with mapped(file, mmap.ACCESS_READ) as memory:
        assert kb(file, "Rss") == [SIZE // 1024]
        assert pages.forget_files() > 0
        assert kb(file, "Rss") == [0]
        assert memory[:] == file.read_bytes()


def test_what_was_written_stays(file: Path) -> None:
    with mapped(file, mmap.ACCESS_COPY) as memory:
        memory[:8] = b"written!"
        pages.forget_files()
        assert memory[:8] == b"written!"


def test_what_was_written_before_it_became_read_only_stays(file: Path) -> None:
    """So the loader does with the addresses in a library: written first, protected after."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mapped(file, mmap.ACCESS_COPY) as memory:
        memory[:8] = b"written!"
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), 1) == 0  # PROT_READ
        pages.forget_files()
        assert memory[:8] == b"written!"


def test_without_proc_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SMAPS", "/proc/self/no-such-file")
    assert pages.forget_files() == 0
