"""Virtual time and a network that loses, repeats, delays, reorders and partitions, all from one seed."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random
from typing import Any, Callable, Optional

QUICK_S = (0.0002, 0.002)
"""Transit on a quiet network, in seconds."""

MAX_BURST = 20_000
"""Events within a millisecond."""

SLOW_S = (0.05, 0.6)
"""Transit of a datagram that is delayed."""


class World:
    """The queue of events; `now` is true time in seconds, which no node sees."""

    def __init__(self, seed: int, tracing: bool = False) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.events = 0
        self.quiet_at, self.burst = 0.0, 0
        self.tracing = tracing
        self.trace: list[str] = []

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call at this time."""
        self.events += 1
        heapq.heappush(self.queue, (time, self.events, call, arguments))

    def after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call after a delay."""
        self.at(self.now + delay, call, *arguments)

    def run(self, until: float) -> None:
        """Let time pass."""
        queue = self.queue
        while queue and queue[0][0] <= until:
            time, _, call, arguments = heapq.heappop(queue)
            self.now = time
            call(*arguments)
            self._count(time)
        self.now = until

    def _count(self, time: float) -> None:
        """Something that asks to be woken again and again at the same time would spin in the product as well."""
        if time > self.quiet_at + 0.001:
            self.quiet_at, self.burst = time, 0
        self.burst += 1
        assert self.burst < MAX_BURST, f"more than {MAX_BURST} events within a millisecond"

    def say(self, who: str, text: str) -> None:
        """One line of the trace."""
        if self.tracing:
            self.trace.append(f"{self.now:9.4f} {who:10} {text}")


@dataclass
class Network:
    """Links between hosts, each direction for itself."""

    world: World
    cut: set[tuple[str, str]] = field(default_factory=set)
    loss: float = 0.0
    repeat: float = 0.0
    slow: float = 0.0
    lost: int = 0
    lag: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds that every datagram of a link takes longer."""

    def send(self, source: str, to: str, deliver: Callable[..., None], *arguments: Any) -> None:
        """One datagram; it comes never, once or twice."""
        random = self.world.random
        if (source, to) in self.cut or (self.loss and random.random() < self.loss):
            self.lost += 1
            return
        self.world.after(self._transit(source == to) + self.lag.get((source, to), 0.0), deliver, *arguments)
        if self.repeat and random.random() < self.repeat:
            self.world.after(self._transit(False) * 3, deliver, *arguments)

    def _transit(self, local: bool) -> float:
        random = self.world.random
        if self.slow and not local and random.random() < self.slow:
            return random.uniform(*SLOW_S)
        return random.uniform(*QUICK_S)

    def partition(self, sides: list[set[str]]) -> None:
        """Cut all links between the sides."""
        self.cut = {(a, b) for one in sides for other in sides if one is not other for a in one for b in other}

    def part(self, *pairs: tuple[str, str]) -> None:
        """Cut these links in both directions."""
        self.cut |= {(a, b) for a, b in pairs} | {(b, a) for a, b in pairs}

    def heal(self) -> None:
        """A quiet network again."""
        self.cut = set()
        self.lag = {}
        self.loss = self.repeat = self.slow = 0.0


@dataclass
class Clock:
    """A node's own clock: it starts anywhere and runs at its own rate."""

    world: World
    offset: float
    rate: float

    def read(self) -> float:
        """Seconds since it started."""
        return self.offset + self.rate * self.world.now

    def true(self, local: float) -> float:
        """The true time at which this clock will show `local`, never before it."""
        return (local - self.offset) / self.rate + 1e-9


class Process:
    """Something with a clock, a deadline, and events that wait while it is paused; its next life ignores what was sent to it."""

    def __init__(self, world: World, clock: Clock, name: str) -> None:
        self.world, self.clock, self.name = world, clock, name
        self.alive = True
        self.paused_until = 0.0
        self.waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        """Events that came during a pause."""
        self.wakes_at: Optional[float] = None

    def deliver(self, handle: Callable[..., None], *arguments: Any) -> None:
        """Handle an event now, or when the pause is over, or never."""
        if not self.alive:
            return
        if self.waiting or self.world.now < self.paused_until:
            if not self.waiting:
                self.world.at(max(self.world.now, self.paused_until), self._go_on)
            self.waiting.append((handle, arguments))
            return
        handle(*arguments)
        self.arm()

    def _go_on(self) -> None:
        """The pause is over: what came meanwhile, in its order."""
        if self.alive and self.world.now < self.paused_until:
            self.world.at(self.paused_until, self._go_on)
            return
        waiting, self.waiting = self.waiting, []
        for handle, arguments in waiting:
            self.deliver(handle, *arguments)

    def deadline(self) -> Optional[float]:
        """In seconds of its own clock."""
        raise NotImplementedError

    def wake(self) -> None:
        """The deadline has come."""
        raise NotImplementedError

    def arm(self) -> None:
        """Set the alarm to the deadline; an earlier alarm that is set already stays and is ignored when it rings."""
        local = self.deadline()
        if local is None or local == float("inf"):
            return
        at = max(self.clock.true(local), self.world.now)
        if self.wakes_at is None or at < self.wakes_at:
            self.wakes_at = at
            self.world.at(at, self._ring, at)

    def resume(self) -> None:
        """End a pause early."""
        self.paused_until = self.world.now
        self.wakes_at = None
        self._go_on()
        self.arm()

    def _ring(self, at: float) -> None:
        if not self.alive or self.wakes_at != at:
            return
        if self.world.now < self.paused_until:
            self.wakes_at = self.paused_until
            self.world.at(self.paused_until, self._ring, self.paused_until)
            return
        self.wakes_at = None
        local = self.deadline()
        if local is not None and self.clock.read() >= local:
            self.wake()
        self.arm()
