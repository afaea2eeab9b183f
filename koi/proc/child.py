"""What a forked child of root has in its hands, and how it begins and ends.

Rule: a child keeps nothing of root's but its own pipe end, the lease cell and the log (a worker also the node's lock);
signals meant for root do not touch it; it ends when root's pipe ends. Its main function is called with a `Context`,
sets its callbacks and calls `run`; signs of life are shown, and pings answered, from the same loop that does the work,
so that a process that hangs does neither.
"""

from __future__ import annotations

import os
import signal
import traceback
from dataclasses import field
from functools import partial
from typing import Any, Callable, NoReturn, Optional

from setproctitle import setproctitle

from koi import __version__, log
from koi.core.data import dataclass
from koi.core.facts import Debt
from koi.core.pipe import Heritage, Ping, Pong, ServiceState
from koi.errors import KoiError
from koi.proc.cell import LeaseCell, LifeSigns
from koi.proc.link import Link, loads
from koi.proc.loop import Loop, disregard, now
from koi.proc.reload import Reconfigured

ROOT, ELECTOR, RUNNER, SERVICE = "root", "elector", "runner", "service"
"""The kinds of processes; the address of a worker is "service:NAME"."""
BEAT = "beat"
SIGNING = (ROOT, ELECTOR, RUNNER, BEAT)
"""The kinds that show signs of life; and when the elector last sent or heard a heartbeat, which it shows its runner."""

DISREGARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP)
"""Root's business: a terminal or an init sends them to the whole group; root then tells each child what to do."""

CRASHED = 70
"""Exit code of a child that ended by a fault of ours."""
REFUSED = 1
"""Exit code of a child that cannot work here; its Reason says why."""

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Reason:
    """A child tells root why it ends: something that an administrator can mend."""

    text: str


def worker_name(service: str) -> str:
    """The address of a service's worker."""
    return f"{SERVICE}:{service}"


def kind_of(name: str) -> str:
    """The kind of the process with this address."""
    return name.partition(":")[0]


@dataclass
class Context:
    """All that a child's main function gets."""

    config: Any
    """The koi.config.Config of this node."""
    name: str
    """The own address: "elector", "runner" or "service:NAME"."""
    link: Link
    loop: Loop
    cell: LeaseCell
    signs: LifeSigns = field(default_factory=lambda: LifeSigns(SIGNING))
    definitions: tuple[Any, ...] = ()
    """The koi.service.catalog.Definition of every service of this node."""
    definition: Any = None
    """A worker's own Definition."""
    heritage: Heritage = field(default_factory=Heritage)
    """For a runner: what its predecessors held."""
    respawned: bool = False
    """Root has replaced an earlier process of this address."""
    unclean: bool = False
    """A dead tree left services that have not been demoted and stopped yet; for a worker: its own service."""
    debt: Optional[Debt] = None
    """For a worker: the lease under which a dead tree left its service, so that it is demoted in time (rule 6.4)."""
    last: Optional[ServiceState] = None
    """A replaced worker, or one that takes over in maintenance: the last that its predecessor said of its service."""
    frozen: Optional[bool] = None
    """For a worker: whether there is maintenance; None: its runner will say."""
    release: str = __version__
    _message: Optional[Callable[[Any], None]] = None
    _end: Optional[Callable[[], None]] = None
    _seen: float = field(default_factory=now)
    _dropped: bool = False

    def __post_init__(self) -> None:
        self.link.attach(self.loop, self._frame, self._ended)

    @property
    def node(self) -> str:
        """The name of this node."""
        return str(self.config.node.name)

    @property
    def kind(self) -> str:
        """elector, runner or service."""
        return kind_of(self.name)

    @property
    def service(self) -> str:
        """A worker: the name of its service."""
        return self.name.partition(":")[2]

    def title(self, state: Optional[str] = None) -> None:
        """Show the state in the process list: `koinode: runner [a: Master]`."""
        setproctitle(title(self.name, self.node, state))

    def send(self, to: str, message: Any) -> None:
        """Send a message to "root", "elector", "runner" or "service:NAME"; never blocks.

        Root keeps each ServiceState too, for tree.json and for the worker's successor. What root has not taken for so
        long that the bound is reached is dropped, which is logged.
        """
        if isinstance(message, ServiceState) and to != ROOT:
            self.link.send_both(to, ROOT, message)
        else:
            self.link.send(to, message)
        if self.link.overflowed and not self._dropped:
            self._dropped = True
            log.get().error(f"root does not read its pipe; what {self.name} says to {to} is dropped from now on")

    def on_message(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(message)` for each message to this process, pings excepted."""
        self._message = callback

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback()` once root's pipe has ended; without one the process then exits with 0."""
        self._end = callback

    def root_seen(self) -> float:
        """When root was last known to work (CLOCK_BOOTTIME, seconds), by its sign of life or its last ping (rule 6.6)."""
        return max(self._seen, self.signs.seen(ROOT))

    def beat_at(self) -> Optional[float]:
        """When this node's elector last sent or heard a leader's heartbeat (CLOCK_BOOTTIME, seconds); None: not yet."""
        return self.signs.seen(BEAT) or None

    def run(self, deadline: Callable[[], Optional[float]], on_deadline: Callable[[float], None]) -> None:
        """Run the loop; see Loop.run. Returns after `loop.stop()`."""
        if self.signs.has(self.kind):
            self.loop.on_turn = partial(self.signs.show, self.kind)
        self.loop.run(deadline, on_deadline)

    def exit(self, code: int) -> NoReturn:
        """End this process with the exit code, after what was sent has been handed over as far as root takes it."""
        self.link.flush()
        raise SystemExit(code)

    def _frame(self, to: str, body: bytes) -> None:
        message = loads(body)
        if isinstance(message, Ping):
            self._seen = max(self._seen, message.number / NANO)
            self.link.send(ROOT, Pong(self.name, message.number))
            return
        if isinstance(message, Reconfigured):
            self._reconfigured(message.config)
        if self._message is not None:
            self._message(message)

    def _reconfigured(self, config: Any) -> None:
        """What every process takes over by itself; its main function sees the message too."""
        self.config = config
        log.hide(config.cluster.password)
        log.set_level(config.node.loglevel)

    def _ended(self) -> None:
        if self._end is None:
            raise SystemExit(0)
        self._end()


def title(name: str, node: str, state: Optional[str] = None) -> str:
    """The title of a process: `koinode: service vip [a: Promoted]`."""
    where = node if state is None else f"{node}: {state}"
    return f"koinode: {name.replace(':', ' ')} [{where}]"


def reset_signals() -> None:
    """Forget root's handlers; called with them blocked, after root's loop was closed."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for signum in DISREGARDED:
        signal.signal(signum, disregard)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def live(context: Context, main: Callable[[Context], None]) -> NoReturn:
    """The whole life of a forked child: run its main function, then end the process without touching root's affairs."""
    code = CRASHED
    try:
        log.rename(context.name.replace(":", " "))
        context.title()
        main(context)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except KoiError as error:
        code = REFUSED
        log.get().error(str(error))
        context.send(ROOT, Reason(str(error)))
    except BaseException:
        log.get().critical(f"{context.name} ends by a fault of its own; root starts it again: {traceback.format_exc()}")
    finally:
        os._exit(code)
