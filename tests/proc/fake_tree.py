"""A real root with real children whose main functions are small, told by a JSON object what to do.

Run as `python -m tests.proc.fake_tree FOLDER`; FOLDER/options.json says what. Every process appends what it sees to
FOLDER/events, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Optional

from koi import log
from koi.core.messages import ServiceInfo
from koi.core.pipe import Announce, Held, Order, Pids, ServiceState, Stop, Stopped
from koi.core.timing import derive
from koi.errors import KoiError
from koi.proc import family, root, shutdown
from koi.proc.child import Context, worker_name


class Fake:
    """What all fakes do: note events, keep their loop running."""

    def __init__(self, context: Context, options: dict[str, Any]) -> None:
        self.context = context
        self.options = options
        context.on_message(self.message)
        if context.kind == "service":
            context.on_end(self.ended)
        context.loop.on_signal(signal.SIGUSR2, self.hang)
        context.loop.on_signal(signal.SIGALRM, self.flood)
        fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
        heritage = {name: getattr(context.heritage, name) for name in context.heritage.__slots__}
        self.note("starts", heritage=heritage, respawned=context.respawned, unclean=context.unclean, fds=len(fds),
                  owes=context.debt is not None,
                  last=context.last.info.state if context.last else None, title=context.name)

    def hang(self) -> None:
        """Not read the pipe any more although nobody has stopped this process."""
        self.note("hangs")
        signal.sigwait([signal.SIGTTOU])

    def note(self, what: str, **more: Any) -> None:
        line = json.dumps({"who": self.context.name, "pid": os.getpid(), "what": what, **more}) + "\n"
        fd = os.open(os.path.join(self.options["folder"], "events"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, line.encode())
        os.close(fd)

    def message(self, message: Any) -> None:
        self.note(type(message).__name__)

    def flood(self) -> None:
        """Say more to one worker than its pipe takes, and less than this process may say at once."""
        for _ in range(20):
            self.context.send("service:vip", "x" * 90_000)

    def ended(self) -> None:
        self.note("root is gone")
        self.context.exit(0)

    def run(self) -> None:
        self.context.run(lambda: None, lambda at: None)


class FakeElector(Fake):
    def message(self, message: Any) -> None:
        super().message(message)
        if isinstance(message, Stop):
            if self.options.get("elector") == "does not end":
                return
            self.context.exit(0)


class FakeRunner(Fake):
    """Orders every worker promoted, and stopped after Stop; holds the epoch that the options give."""

    def __init__(self, context: Context, options: dict[str, Any]) -> None:
        super().__init__(context, options)
        self.goal = "promoted"
        self.states: dict[str, str] = {}
        self.boot = f"boot{os.getpid()}"
        held = Held(self.boot, options.get("holding"), context.heritage.renounced, maintenance=options.get("maintenance"))
        context.send("root", held)
        context.title("Master")
        context.cell.write(4711.0)

    def message(self, message: Any) -> None:
        if isinstance(message, ServiceState):
            self.states[message.info.name] = message.info.state
            self.note("state", service=message.info.name, state=message.info.state)
            self.order(message.info.name)
            self.check()
        elif isinstance(message, Pids):
            self.note("Pids", elector=message.elector, runner=message.runner, services=dict(message.services), root=message.root)
        else:
            super().message(message)
        if isinstance(message, Stop):
            self.goal = "stopped"
            for name in self.states:
                self.order(name)
            self.check()

    def order(self, name: str) -> None:
        self.context.send(worker_name(name), Order(name, self.goal, 7, "a", "Master"))

    def check(self) -> None:
        if self.options.get("runner") == "does not stop":
            return
        if self.goal == "stopped" and all(state == "Stopped" for state in self.states.values()):
            self.context.send("root", Held(self.boot, None, self.options.get("holding")))
            self.context.send("root", Stopped())


class FakeWorker(Fake):
    def __init__(self, context: Context, options: dict[str, Any]) -> None:
        super().__init__(context, options)
        if "program" in options.get("worker", "") and not context.respawned:
            program = os.posix_spawn("/bin/sh", ["sh", "-c", "exec sleep 1000"], dict(os.environ), setsid=True)
            self.note("program", program=program)
        self.become("Started")

    def become(self, state: str) -> None:
        self.state = state
        self.context.title(state)
        self.tell()

    def tell(self) -> None:
        info = ServiceInfo(self.context.service, None, self.state, pid=os.getpid())
        self.context.send("runner", ServiceState(info, promoted=self.state == "Promoted"))

    def message(self, message: Any) -> None:
        super().message(message)
        if isinstance(message, Announce):
            self.tell()
        elif isinstance(message, Order):
            goal = {"promoted": "Promoted", "started": "Started", "stopped": "Stopped"}[message.goal]
            if goal != self.state:
                self.become(goal)
        elif isinstance(message, Stop):
            self.context.exit(0)

    def ended(self) -> None:
        if "lingers" in self.options.get("worker", ""):
            self.note("lingers")
            return
        super().ended()


FAKES = {"elector": FakeElector, "runner": FakeRunner, "service": FakeWorker}


def fakes(folder: str) -> tuple[dict[str, Any], dict[str, Callable[[Context], None]]]:
    """The options of the folder, and the main functions of the three kinds of children."""
    with open(os.path.join(folder, "options.json"), encoding="utf-8") as file:
        options: dict[str, Any] = json.load(file)
    options["folder"] = folder

    def born(kind: str) -> Callable[[Context], None]:
        def live(context: Context) -> None:
            fault: Optional[str] = options.get("refuses", {}).get(kind)
            if fault is not None:
                raise KoiError(fault)
            if options.get("silent") == kind:  # works, and never answers
                Fake(context, options).hang()
            if options.get("crashes") == context.name:
                Fake(context, options).note("crashes")
                os._exit(3)
            FAKES[kind](context, options).run()

        return live

    return options, {kind: born(kind) for kind in FAKES}


def main(folder: str) -> int:
    """Run the tree of this folder."""
    options, mains = fakes(folder)
    shutdown.STEP_S = options.get("step_s", shutdown.STEP_S)
    root.SAVE_S = options.get("save_s", root.SAVE_S)
    family.DRAIN_S = options.get("drain_s", family.DRAIN_S)
    log.setup(f"file:{folder}/log", "root", "a", "debug", False)
    config = SimpleNamespace(
        node=SimpleNamespace(
            name="a", elector=options.get("has_elector", True), runner=options.get("has_runner", True), run_dir=folder
        ),
        timing=derive(options.get("failover", 3.0)),
    )
    definitions = [SimpleNamespace(name=name, priority=None) for name in options.get("services", ["db", "vip"])]
    try:
        return root.run(config, definitions, mains, lambda: print("up", flush=True), options.get("end_s", 10.0))
    except KoiError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
