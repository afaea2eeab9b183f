"""The whole suite: `python -m tests`, two halves side by side, since most of it waits: half the time of `python -m pytest`.

What the first half prints is shown as it comes, the second's once both have ended. Exit 1 if either has failed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TREE = "tests/proc"
"""What takes half of the time: the tests of a node's processes."""


def main() -> int:
    """Run both halves."""
    pytest, checkout = [sys.executable, "-m", "pytest"], Path(__file__).parent.parent
    rest = [*pytest, "tests", f"--ignore={TREE}"]
    with tempfile.TemporaryFile("w+") as shown_later:
        second = subprocess.Popen(rest, cwd=checkout, stdout=shown_later, stderr=subprocess.STDOUT)
        try:
            first = subprocess.run([*pytest, TREE], cwd=checkout).returncode
            second.wait()
        finally:
            second.terminate()
        shown_later.seek(0)
        sys.stdout.write(shown_later.read())
    return int(bool(first or second.returncode))


if __name__ == "__main__":
    sys.exit(main())
