"""koinode as it is, except that SIGUSR2 makes its elector or runner spin for ever without being stopped: a busy loop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from koi import node
from koi.proc import elector, runner, worker
from koi.proc.child import Context


def spin() -> None:
    """Never come back."""
    while True:
        pass


def spinning(main: Callable[[Context], None]) -> Callable[[Context], None]:
    """A child's main function that can be told to spin."""

    def live(context: Context) -> None:
        context.loop.on_signal(signal.SIGUSR2, spin)
        main(context)

    return live


if __name__ == "__main__":
    MAINS = {"elector": spinning(elector.main), "runner": spinning(runner.main), "service": worker.main}
    sys.exit(node.main(sys.argv[1:], MAINS))
