"""`koi demo`: a real cluster on this machine, to look at or (`--once`) to watch it lose its master and get another.

The rule it keeps: whatever happens, at the end no process and no folder of it is left; every wait has a bound and says
what it waited for.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from types import FrameType

from koi.client import JSON
from koi.client_line import now, pause
from koi.demo_cluster import Cluster, Node
from koi.errors import KoiError, NoAnswer, Refused
from koi.view import age, paint
from koi.view_live import Screen
from koi.view_status import headline, master_node
from koi.view_tree import tree_lines

LOOK_S = 0.1
"""Pause between two looks at the cluster while something is waited for."""
PICTURE_S = 0.5
START_S, FAILOVER_BOUND_S, SWITCH_S = 60.0, 30.0, 30.0
RESTART_S = 5.0
"""The demo starts a koinode that was killed again after this, as init would."""
INTERRUPTED = 130


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP end the demo, but never while it makes its processes or ends them."""

    def __enter__(self) -> Interrupts:
        self._held, self._pending = True, False
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on nothing interrupts."""
        self._held = True

    def release(self) -> None:
        """From now on a signal raises KeyboardInterrupt; one that came meanwhile does so now."""
        self._held = False
        if self._pending:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        if not self._held:
            raise KeyboardInterrupt


def run(size: int, once: bool, colour: bool) -> int:
    """The demo with `size` nodes; the exit code. `once` tells the story by itself and needs three nodes. Raises KoiError."""
    with Interrupts() as interrupts:
        cluster = Cluster(size)
        try:
            cluster.prepare()
            for node in cluster.nodes:
                cluster.start(node)
            interrupts.release()
            tell(cluster, colour) if once else picture(cluster, colour, interrupts)
            return 0
        except KeyboardInterrupt:
            print()
            return INTERRUPTED if once else 0
        finally:
            interrupts.hold()
            cluster.close()


# --- the story ----------------------------------------------------------------------------------


def tell(cluster: Cluster, colour: bool) -> None:
    """A master, its end, the next master, a switchover; each with how long it took."""
    _say(f"{len(cluster.nodes)} nodes on 127.0.0.1, {len(cluster.electors)} of them vote; files in {cluster.folder}")
    start = now()
    first = _wait_for_master(cluster, cluster.nodes, START_S, "the first master")
    _say(f"{first.name} is master {age(now() - start)} after the start")

    rest = [node for node in cluster.nodes if node is not first]
    killed_at = now()
    killed = cluster.kill(first)
    second = _wait_for_master(cluster, rest, FAILOVER_BOUND_S, "the next master")
    took = _holder(cluster)[1] - killed_at
    _say(f"failover: all {killed} processes of {first.name} killed by SIGKILL; {second.name} took over in {took:.2f} s")

    third = next(node for node in rest if node is not second)
    asked_at = now()
    _switch_over(third)
    _wait_for_master(cluster, [third], SWITCH_S, f"{third.name} as master")
    took = _holder(cluster)[1] - asked_at
    _say(f"switchover: {third.name} took over from {second.name} in {took:.2f} s")
    _say("")
    _say("\n".join(tree_lines(third.koi.status(), colour)))


def _wait_for_master(cluster: Cluster, among: list[Node], seconds: float, what: str) -> Node:
    """The first of these nodes that is wholly Master and holds the sample address. Raises KoiError after `seconds`."""
    until = now() + seconds
    while now() < until:
        cluster.check()
        master = _master(_status(among))
        found = next((n for n in among if n.name == master), None)
        if found is not None and _holder(cluster)[0] == found.name:
            return found
        pause(LOOK_S)
    raise KoiError(f"{what} did not come within {seconds:g} s: {_last_words(among)}")


def _switch_over(node: Node) -> None:
    """Promotes a node as soon as it may be, and waits for the effect. Raises KoiError after SWITCH_S."""
    until = now() + SWITCH_S
    while True:
        try:
            node.koi.promote(node.name, reason="the switchover of the demo")
            return
        except Refused as error:
            if now() >= until:
                raise KoiError(f"{node.name} could not be promoted within {SWITCH_S:g} s: {error}") from None
            pause(LOOK_S)


def _status(among: list[Node]) -> JSON | None:
    """What the first of the nodes that answers says of the cluster."""
    for node in (n for n in among if n.running):
        try:
            return node.koi.status()
        except (NoAnswer, Refused):
            continue
    return None


def _master(status: JSON | None) -> str | None:
    """The node that is wholly Master."""
    master = master_node(status) if status else None
    return str(master["name"]) if master is not None and master["state"] == "Master" else None


def _holder(cluster: Cluster) -> tuple[str, float]:
    """Who holds the sample address, and since when; an empty name when nobody does.

    The file's age is a moment's worth of wall clock: setting the clock between kill and takeover changes no figure.
    """
    try:
        with open(cluster.holder, encoding="utf-8") as file:
            name, written_at = file.read().strip(), os.fstat(file.fileno()).st_mtime
        return name, now() - (time.time() - written_at)
    except FileNotFoundError:
        return "", 0.0


def _last_words(among: list[Node]) -> str:
    status = _status(among)
    return headline(status) if status else "no node answers"


def _say(text: str) -> None:
    print(text, flush=True)


# --- the picture --------------------------------------------------------------------------------


def picture(cluster: Cluster, colour: bool, interrupts: Interrupts) -> None:
    """The tree as it changes, until Ctrl-C. A koinode that was killed is started again, as init would."""
    screen = Screen(sys.stdout, redraw=True)
    ended: dict[str, float] = {}
    while True:
        living = [node for node in cluster.nodes if node.running]
        status = _status(living)
        tree = tree_lines(status, colour) if status else ["The cluster is starting: no node answers yet."]
        screen.show([*tree, "", *_notes(cluster, ended), *_advice(cluster, colour)])
        for node in cluster.nodes:
            if not node.running and now() - ended.setdefault(node.name, now()) >= RESTART_S:
                interrupts.hold()
                cluster.start(node)
                interrupts.release()
                del ended[node.name]
        pause(PICTURE_S)


def _notes(cluster: Cluster, ended: dict[str, float]) -> list[str]:
    return [f"The koinode of {name} has ended; it is started again {RESTART_S:g} s after its end." for name in ended]


def _advice(cluster: Cluster, colour: bool) -> list[str]:
    """What to try in another terminal."""
    first, last = cluster.nodes[0], cluster.nodes[-1]
    others = f"promote {last.name}, demote, elect, stop {last.name}, start {last.name}, failures, why, watch"
    return [
        paint("To try in another terminal (Ctrl-C here ends the demo and removes everything):", "head", colour),
        f"  {_program()} -f {first.config} status",
        f"      and in the place of status: {others}",
        f"  kill -9 $(cat {os.path.join(first.folder, 'run', 'koinode.pid')})",
        f"  curl http://127.0.0.1:{first.web_port}/",
        f"  tail -f {os.path.join(cluster.folder, '*', 'log')}",
    ]


def _program() -> str:
    """How to call koi from another terminal."""
    if os.path.basename(sys.argv[0]) == "koi":
        return shlex.quote(os.path.abspath(sys.argv[0]))
    if shutil.which("koi"):
        return "koi"
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return f"PYTHONPATH={shlex.quote(package)} {shlex.quote(sys.executable)} -m koi.cli"
