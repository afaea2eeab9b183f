"""A koinode that says that it is of an older version, for tests of what an upgrade looks like."""

from __future__ import annotations

import sys

import koi

koi.__version__ = "0.9.0"

if __name__ == "__main__":
    from koi.node import main

    sys.exit(main())
