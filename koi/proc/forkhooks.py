"""Keeps Python's own fork hooks out of koinode's children; `koi.node` calls it before it imports anything else.

threading, logging and random each register code that Python runs in every forked child: it renews locks that a thread
of the parent may have held, and reseeds a generator. Root has no threads, and nothing here draws from the shared generator
(random.SystemRandom only), so these hooks change nothing, but they write to a hundred pages of memory that would else be
shared: 0.4 MB for each child. setproctitle and multiprocessing need the modules.
"""

from __future__ import annotations

import importlib
import os

HOOKED = ("threading", "logging", "random")


def import_without() -> None:
    """Import the modules that have hooks, and let them register none. What was imported before is left as it is."""
    register = os.register_at_fork
    os.register_at_fork = _ignore
    try:
        for name in HOOKED:
            importlib.import_module(name)
    finally:
        os.register_at_fork = register


def _ignore(**hooks: object) -> None:
    """Takes the place of os.register_at_fork."""
