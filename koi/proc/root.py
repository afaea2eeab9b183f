"""Root: forks the other processes of the node, passes their messages on, and replaces each one that ends.

Rule: root does nothing else, so that it outlives everything else. It decides nothing about services or mastership; it
never blocks on a child; what it must remember for the successor of a child or of itself is in tree.json (treefile.py).
The processes and their pipes are in family.py, their pings in heart.py, the end of the node in shutdown.py.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Optional

from setproctitle import setproctitle

from koi import __version__, log
from koi.config import Config
from koi.core.pipe import Announce, Held, NodeResult, Pids, Pong, Redefine, Retire, ServiceState, Stopped
from koi.errors import KoiError
from koi.proc import changes, lastgood, lock, pages, reload, treefile
from koi.proc.child import ELECTOR, ROOT, RUNNER, SERVICE, Reason, title, worker_name
from koi.proc.family import Family, Main, how_it_ended
from koi.proc.heart import Heart
from koi.proc.lastgood import Copy
from koi.proc.link import loads
from koi.proc.loop import Loop, disregard, now
from koi.proc.reload import Outcome, Reconfigure, Reconfigured, Reread
from koi.proc.shutdown import RUNNING, Shutdown
from koi.proc.supervise import Child
from koi.proc.system import Notifier, become_subreaper
from koi.proc.treefile import Tree

RELOADS = (signal.SIGHUP, signal.SIGUSR1)
SAVE_S = 0.02
"""So long the services' new states may wait for tree.json, outside of maintenance: several often follow each other, and
scripts wait for none of them. A successor that finds an older state demotes and stops all the same; in maintenance it
takes over what the file says."""


def run(
    config: Any,
    definitions: Sequence[Any],
    mains: Mapping[str, Main],
    on_up: Callable[[], None],
    end_s: float,
    pid_files: Sequence[str] = (),
    inherited: Sequence[Callable[[], None]] = (),
    reread: Optional[Reread] = None,
    copy: Optional[Copy] = None,
) -> int:
    """Be the root of this node until it is told to stop. The exit code: 0 after an orderly end, else 1.

    `mains` are the main functions of the kinds elector, runner and service. `on_up()` is called once elector and runner
    work. `end_s`: how long an orderly demote and stop of all services may take, also of a dead tree's. `inherited` are
    called in every child to close what it must not keep. `reread()` reads the configuration again; `copy` is what is kept of
    it. Raises KoiError when the node cannot start: another koinode runs, the port is in use, run_dir cannot be written.
    """
    node = config.node
    signal.pthread_sigmask(signal.SIG_BLOCK, RELOADS)  # they wait, however long the lock is waited for
    held = lock.acquire(node.run_dir, node.name, end_s, log.get().warning)
    try:
        setproctitle(title(ROOT, node.name))  # who reads the pid may look whose it is
        lock.write_pid(pid_files)
        found, fault = treefile.find(node.run_dir, now())
        if fault is not None:
            log.get().warning(fault)
        root = Root(config, tuple(definitions), mains, held, found, end_s, on_up)
        root.family.inherited.extend(inherited)
        root.reread = reread
        if found.clean:
            treefile.begin(node.run_dir, root.tree)
        if copy is not None:
            lastgood.keep(node.run_dir, copy)
        root.live()
        if root.tree.clean:
            lock.remove(held, node.run_dir)
    finally:
        lock.remove_pid(pid_files)
        os.close(held)
    if root.cannot_start is not None:
        raise KoiError(root.cannot_start)
    return root.code


class Root:
    """The hub of a node."""

    def __init__(
        self,
        config: Any,
        definitions: tuple[Any, ...],
        mains: Mapping[str, Main],
        held: int,
        found: Tree,
        end_s: float,
        on_up: Callable[[], None],
    ) -> None:
        self.config = config
        self.definitions = definitions
        self.tree = treefile.adopt(found)
        self.loop = Loop()
        self.notifier = Notifier()
        self.family = Family(self.loop, mains, self._on_frame, held)
        self.family.inherited.append(self.notifier.close)
        self.heart = Heart(self.family, self.notifier, config.timing, now(), lambda: self.tree.holding is not None)
        self.shutdown = Shutdown(self.family, bool(config.node.runner), end_s, config.timing.grace, self._finish)
        self.frozen: Optional[bool] = None
        """Whether there is maintenance, by the runner's word; None: it has not said yet."""
        self.reread: Optional[Reread] = None
        self.code = 1
        self.cannot_start: Optional[str] = None
        """Why the node could not start, in an elector's or runner's words."""
        self._on_up: Optional[Callable[[], None]] = on_up
        self._pids_changed = False
        self._save_at: Optional[float] = now()
        """When tree.json is to be written; None: it says all that is known."""
        self._tree_fault = ""
        self._gather(unclean=not found.clean)
        if not found.clean:
            tell = log.get().info if found.maintenance else log.get().warning
            tell(_left(found, definitions))

    # --- the loop -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Take up root's duties. The first deadline starts the children."""
        if not become_subreaper():
            log.get().warning("prctl(PR_SET_CHILD_SUBREAPER) failed: programs of a killed worker are not seen by root")
        self.loop.on_signal(signal.SIGTERM, lambda: self._stop("SIGTERM"))
        self.loop.on_signal(signal.SIGINT, lambda: self._stop("SIGINT"))
        for one in RELOADS:
            self.loop.on_signal(one, partial(self._reload, one.name))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, RELOADS)
        signal.signal(signal.SIGUSR2, disregard)
        self.loop.on_signal(signal.SIGCHLD, self._reap)
        self.loop.on_turn = partial(self.family.signs.show, ROOT)
        gc.collect()
        gc.freeze()
        pages.forget_files()

    def _stop(self, why: str) -> None:
        self.notifier.tell("STOPPING=1")
        self.shutdown.begin(now(), why)

    def live(self) -> None:
        """All of root's life."""
        try:
            self.begin()
            self.loop.run(self.deadline, self.on_deadline)
        finally:
            self.close()

    def deadline(self) -> Optional[float]:
        """When root has to do something by itself (CLOCK_BOOTTIME, seconds)."""
        if self._pids_changed:
            return now()
        dues = [self.heart.due(), self.family.drain_due(), self.shutdown.deadline, self._save_at]
        dues.extend(child.due for child in self.family.all())
        return min((due for due in dues if due is not None), default=None)

    def on_deadline(self, time: float) -> None:
        """Start children that are due, ping, kill those that hang or do not drain, go on with the end of the node."""
        self._start_due(time)
        self.heart.beat(time)
        self.family.kill_blocked(time)
        self.shutdown.check(time)
        self._check_up()
        self._tell_pids()
        if self._save_at is not None and self._save_at <= time:
            self._save()

    def close(self) -> None:
        """Leave in the run folder what a successor must know; nothing after an orderly end."""
        if self.tree.clean:
            self._leave_nothing()
        else:
            self._save()
        self.notifier.close()
        self.loop.close()

    # --- children -----------------------------------------------------------------------------

    def _gather(self, unclean: bool) -> None:
        first = now()
        if self.config.node.elector:
            self.family.add(Child(ELECTOR, ELECTOR, due=first))
        if self.config.node.runner:
            self.family.add(Child(RUNNER, RUNNER, due=first))
            for one in self.definitions:
                told = self.tree.told(one.name)
                debt = self.tree.owed(one.name)
                self.family.add(Child(worker_name(one.name), SERVICE, one, due=first, unclean=unclean, debt=debt, last=told))

    def _start_due(self, time: float) -> None:
        due = [child for child in self.family.all() if child.due is not None and child.due <= time]
        if not self.shutdown.replaces:
            for child in self.family.all():
                child.due = None
        elif due:
            for child in self.family.fork(due, self.heart.hang_s, self._outfit):
                self._started(child)
            for child in due:
                if child.pid is None and child.kind != SERVICE:
                    self._give_up_start(child.not_born)

    def _started(self, child: Child) -> None:
        self._pids_changed = True
        self.heart.ping(child, now())
        if child.kind == RUNNER and child.starts > 1:
            for name in self.family.alive(SERVICE):
                self.family.tell(name, Announce())
        self.shutdown.started(child.name)

    def _outfit(self, child: Child) -> dict[str, Any]:
        """The Context of a child, beside its pipe."""
        unclean = any(one.unclean for one in self.family.all())
        owes = any(one.debt is not None for one in self.family.all())
        return {
            "config": self.config,
            "definitions": self.definitions,
            "definition": child.definition,
            "heritage": self.tree.heritage(self.family.cell.read(), unclean, owes),
            "respawned": child.starts > 0,
            "unclean": child.unclean if child.kind == SERVICE else unclean,
            "last": child.last,
            "debt": child.debt,
            "frozen": self.frozen,
            "release": __version__,
        }

    def _reap(self) -> None:
        for child, pid, status in self.family.reap():
            self._ended(child, pid, status)

    def _ended(self, child: Child, pid: int, status: int) -> None:
        name, how, reason, planned = child.name, how_it_ended(child, status), child.reason, child.planned
        self._pids_changed = True
        if reason is not None and child.kind != SERVICE:
            self._give_up_start(reason)
        again = self.shutdown.replaces and not child.retired
        wait = child.gone(now(), again)
        if again and planned:
            log.get().info(f"{name} (pid {pid}) is replaced for the new configuration")
        elif again:
            log.get().warning(f"{name} (pid {pid}) {how}; it is started again {f'in {wait:g} s' if wait else 'at once'}")
        else:
            log.get().debug(f"{name} (pid {pid}) {how}")
            if child.retired:
                changes.forget(self, child)
            self.shutdown.ended(now())

    def _give_up_start(self, why: str) -> None:
        """Elector or runner cannot work here: a node that has not been up yet ends, so that who started it learns why."""
        if self._on_up is not None and self.shutdown.replaces:
            self.cannot_start = why
            self.shutdown.abort(now())

    def _check_up(self) -> None:
        """Up is when elector and runner have answered for the first time."""
        needed = [child for child in self.family.all() if child.kind != SERVICE]
        if self._on_up is None or not all(child.pulse is not None and child.pulse.answered for child in needed):
            return
        on_up, self._on_up = self._on_up, None
        many = len(self.definitions)
        log.get().info(f"koinode {__version__} is up with {many} service{'' if many == 1 else 's'}")
        self.notifier.tell("READY=1")
        on_up()

    # --- messages -----------------------------------------------------------------------------

    def _on_frame(self, child: Child, to: str, body: bytes) -> None:
        if to == ROOT:
            self._hear(child, loads(body))
        else:
            self.family.forward(to, body)

    def _hear(self, child: Child, message: object) -> None:
        if isinstance(message, Pong):
            if child.pulse is not None:
                child.pulse.answer(message.number)
            self._check_up()
        elif isinstance(message, ServiceState):
            child.last = message
            child.unclean = not message.clean
            child.debt = None if message.clean else child.debt  # paid: what is left unclean later has another lease
            self.tree.service(message)
            self.tree_changed(SAVE_S if self.frozen is False else 0.0)
        elif isinstance(message, Held):
            self.tree.held(message)
            self.frozen = self.frozen if message.maintenance is None else message.maintenance
            self.tree_changed()
        elif isinstance(message, Stopped):
            self.shutdown.detached = message.detached
            self.shutdown.runner_stopped(now())
        elif isinstance(message, (Redefine, Retire)):
            changes.apply(self, message)
            self._pids_changed = True
        elif isinstance(message, Reconfigure):
            self._reload("koi reconfigure", message)
        elif isinstance(message, Reason):
            child.reason = message.text
        else:
            raise AssertionError(f"root has no use for a {type(message).__name__}")

    def _tell_pids(self) -> None:
        if not self._pids_changed:
            return
        self._pids_changed = False
        pid = {child.name: child.pid for child in self.family.all()}
        services = tuple((one.name, pid.get(worker_name(one.name))) for one in self.definitions)
        pids = Pids(os.getpid(), pid.get(ELECTOR), pid.get(RUNNER), services)
        for name in self.family.alive(ELECTOR) + self.family.alive(RUNNER):
            self.family.tell(name, pids)

    # --- reload -------------------------------------------------------------------------------

    def _reload(self, why: str, asked: Optional[Reconfigure] = None) -> None:
        """Read the configuration again, apply what can be applied, and tell who asked."""
        if self.reread is None or self.shutdown.step != RUNNING:
            outcome = Outcome("the configuration is not read any more: koinode ends", ok=False)
        else:
            outcome = reload.read(self.reread, self.config)
        log.get().write("info" if outcome.ok else "error", f"{why}: {outcome.message}")
        if asked is not None:
            self.family.tell(asked.asker, NodeResult(asked.id, outcome.ok, f"{self.config.node.name}: {outcome.message}"))
        if outcome.config is not None:
            self._take(outcome.config, outcome)

    def _take(self, config: Config, outcome: Outcome) -> None:
        self.config = config
        log.hide(config.cluster.password)
        log.set_level(config.node.loglevel)
        if outcome.copy is not None:
            lastgood.keep(config.node.run_dir, outcome.copy)
        self.heart.retime(config.timing)
        self.shutdown.retime(outcome.end_s, config.timing.grace)
        for name in self.family.alive():
            self.family.tell(name, Reconfigured(config))
        for kind in outcome.restarts:
            self.family.replace(kind)

    # --- tree.json ----------------------------------------------------------------------------

    def _save(self) -> None:
        """Write tree.json. A full disk costs the successor its knowledge, not this root its life."""
        self._save_at = None
        try:
            treefile.write(self.config.node.run_dir, self.tree)
            self._tree_fault = ""
        except OSError as error:
            if self._tree_fault != str(error):
                self._tree_fault = str(error)
                log.get().error(f"tree.json cannot be written: {error}; if root dies, its successor knows less of what it left. "
                                f"See that {self.config.node.run_dir} has room and can be written")

    def _leave_nothing(self) -> None:
        try:
            treefile.remove(self.config.node.run_dir)
        except OSError as error:
            self.tree.clean = False
            log.get().error(f"{error.filename} cannot be removed: {error.strerror}; the next koinode will demote and stop the "
                            "services first, as if this one had been killed")

    def tree_changed(self, within: float = 0.0) -> None:
        """tree.json is to be written, at the latest so many seconds from now."""
        at = now() + within
        self._save_at = at if self._save_at is None else min(at, self._save_at)

    def _finish(self, code: int) -> None:
        """The node has ended. Clean is only what surely left nothing promoted."""
        active = [name for name, service in self.tree.services.items() if service["promoted"]]
        unclean = [child.name for child in self.family.all() if child.unclean]
        self.tree.clean = code == 0 and not active and not unclean and not self.shutdown.detached
        self.code = code
        self.loop.stop()


def _left(found: Tree, definitions: Sequence[Any]) -> str:
    """What the tree before this one left and what is done about it, for the log."""
    known = {one.name for one in definitions}
    lost = sorted(set(found.services) - known)
    states = ", ".join(f"{name} {service.get('state')}" for name, service in sorted(found.services.items()) if name in known)
    if found.maintenance:
        how, then = "ended in maintenance", "its services stay as they are until it is known whether there still is"
    else:
        how, then = "did not end in order", "demoting and stopping its services first"
    text = f"the koinode before this one {how}; {then} ({states or 'their states are not known'})"
    if lost:
        text += f"; no service folder is left for {', '.join(lost)}: make sure yourself that they are not active"
    return text
