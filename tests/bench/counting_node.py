"""koinode as it is, except that elector, runner and workers say after a while how many modules they have imported themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from koi import node
from koi.proc.child import Context
from koi.proc.system import BootTimer

AFTER_S = 3.0
WORD = "IMPORTED"


def counting(kind: str, main: Callable[[Context], None]) -> Callable[[Context], None]:
    """A child's main function that tells once, on stderr."""

    def run(context: Context) -> None:
        before, timer = set(sys.modules), BootTimer()

        def tell() -> None:
            context.loop.remove(timer.fd)
            os.write(2, f"{WORD} {kind} {len(set(sys.modules) - before)}\n".encode())

        timer.arm(context.loop.now() + AFTER_S)
        context.loop.add(timer.fd, tell)
        main(context)

    return run


if __name__ == "__main__":
    from koi.proc import elector, runner, worker

    MAINS = {"elector": elector.main, "runner": runner.main, "service": worker.main}
    sys.exit(node.main(mains={kind: counting(kind, main) for kind, main in MAINS.items()}))
