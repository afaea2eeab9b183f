"""Gives back memory that only the start of koinode has needed; root calls it before it forks.

Root reads programs and libraries while it imports and prepares what its children share: some 11 MB that it hardly touches
again. The kernel would leave them mapped; given back, what is needed after all is there again at its next use, from the file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

SMAPS = "/proc/self/smaps"
MADV_DONTNEED = 4

_libc = ctypes.CDLL(None, use_errno=True)


def forget_files() -> int:
    """Give back every mapped file to which nothing was written; how many were. Without /proc nothing is given back.

    What was written to is left alone, for instance addresses that the loader has filled in: the file does not have that.
    """
    try:
        with open(SMAPS, encoding="utf-8", errors="replace") as file:
            found = _unwritten(file)
    except OSError:
        return 0
    return sum(_libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED) == 0 for begin, end in found)


def _unwritten(smaps: Iterable[str]) -> list[tuple[int, int]]:
    """(begin, end) of each mapping of a file that is not writable and has no page of its own.

    A mapping is a line `7f01000-7f02000 r-xp 00000000 fe:00 1234  /usr/lib/x.so`, then lines such as `Anonymous:  0 kB`.
    """
    found: list[tuple[int, int]] = []
    about: list[str] = []
    for line in smaps:
        words = line.rstrip().split(maxsplit=5)
        if not line[:1].isupper():
            about = words
        elif words[:2] == ["Anonymous:", "0"] and len(about) > 5 and about[5].startswith("/") and about[1][1] != "w":
            begin, _, end = about[0].partition("-")
            found.append((int(begin, 16), int(end, 16)))
    return found
