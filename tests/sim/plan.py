"""What goes wrong in one simulation, all drawn from its seed: a phase of faults, then everything is healed."""

from __future__ import annotations

from random import Random
from typing import Any, Callable

from koi.core import timing
from koi.core.commands import Command
from tests.sim.host import Cluster, Host
from tests.sim.watch import Watch
from tests.sim.worker import Scripts
from tests.sim.world import Clock, Network, World

FAULTS_UNTIL_S = 38.0
LONGEST_S = 60.0
RATES = (0.9951, 1.0049)
"""Clock rates: any two differ by less than 1 %."""

SHAPES = (
    (3, 3), (3, 3), (3, 3), (3, 2), (5, 5), (5, 2), (1, 1), (4, 3), (2, 2),
)
"""(electors, runners): the usual set-ups more often."""


def build(world: World, random: Random, switch: Callable[[str, Any], None], blank_rule: bool = True, quorum: int | None = None,
          shape: tuple[int, int] | None = None) -> Cluster:
    """A cluster of a random shape with random clocks, ranks, preferences and services."""
    electors, runners = shape or random.choice(SHAPES)
    t = timing.derive(
        random.choice((3.0, 3.0, 3.0, 2.0, 5.0)), bully_delay=5.0, blank_wait=20.0, promote_timeout=5.0, demote_timeout=5.0,
        failure_promotion_timeout=5.0,
    )
    names = tuple(chr(ord("a") + i) for i in range(max(electors, runners)))
    stuck = random.choice(("hold", "hold", "takeover"))
    cluster = Cluster(world, Network(world), Watch(world), t, names[-electors:], switch, quorum, blank_rule)
    for index, name in enumerate(names):
        services = _services(random) if index < runners else {}
        host = Host(cluster, name, services, random.choice((0, 0, 0, 5)), random.choice((0, 0, 0, 10)))
        host.stuck = stuck
        host.clock = Clock(world, random.uniform(0, 1e5), random.uniform(*RATES))
        host.scripts = Scripts({
            "start": (0.01, 0.5), "promote": (0.01, 0.3), "demote": (0.005, 0.3), "stop": (0.01, 0.2), "failed": (0.001, 0.002),
        })
    return cluster


def _services(random: Random) -> dict[str, int | None]:
    kinds: tuple[dict[str, int | None], ...] = ({"vip": 10}, {"vip": 10, "db": 20}, {"db": None, "vip": 10})
    return random.choice(kinds)


class Plan:
    """Draws faults and puts them into the queue."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self.cluster, self.random, self.world = cluster, random, cluster.world
        self.issued: list[str] = []
        self.wiped_at = -1e9

    def schedule(self) -> None:
        """Start all nodes, then faults until they end."""
        for host in self.cluster.hosts.values():
            self.world.at(self.random.uniform(0.0, 0.5), host.start)
        time = self.random.uniform(2.0, 6.0)
        while time < FAULTS_UNTIL_S:
            self.world.at(time, self._fault)
            time += self.random.expovariate(1 / 2.5)

    def _fault(self) -> None:
        faults = (
            self._crash, self._crash, self._kill_elector, self._kill_runner, self._kill_runner, self._partition,
            self._partition, self._one_way, self._pair, self._noise, self._pause, self._pause, self._command, self._command,
            self._bad_scripts, self._slow_disk, self._restart_all, self._hang_demote, self._stuck, self._kill_root,
            self._kill_worker, self._stop_orderly, self._node_command, self._maintenance,
        )
        self.random.choice(faults)()

    def _host(self) -> Host:
        return self.random.choice(list(self.cluster.hosts.values()))

    def _likely_master(self) -> Host:
        """Any host, but the one whose services are active more often."""
        active = [name for name, services in self.cluster.watch.active.items() if services]
        return self.cluster.hosts[active[0]] if active and self.random.random() < 0.5 else self._host()

    def _leader(self) -> Host | None:
        for host in self.cluster.hosts.values():
            if host.elector is not None and host.elector.machine.roles.lead is not None:
                return host
        return None

    def _crash(self) -> None:
        host = self._host()
        if host.up:
            host.crash()
            self._maybe_wipe(host)
            self.world.after(self.random.choice((0.05, 1.0, 4.0, 10.0)), host.start)

    def _maybe_wipe(self, host: Host) -> None:
        """A disk is lost only while every other elector has its own."""
        others = [h for n, h in self.cluster.hosts.items() if n in self.cluster.electors and h is not host]
        whole = all(h.disk is not None and (h.elector is None or h.elector.machine.roles.blank is None) for h in others)
        if whole and others and self.random.random() < 0.3 and self.world.now > self.wiped_at + 10:
            self.wiped_at = self.world.now
            host.disk = None
            self.world.say(host.name, "its disk is lost")

    def _restart_all(self) -> None:
        for host in self.cluster.hosts.values():
            host.crash()
            self.world.after(self.random.uniform(0.05, 2.0), host.start)

    def _kill_elector(self) -> None:
        self._host().kill_elector()

    def _kill_runner(self) -> None:
        self._host().kill_runner()

    def _kill_worker(self) -> None:
        host = self._host()
        host.kill_worker(self.random.choice(list(host.priorities) or [""]))

    def _kill_root(self) -> None:
        self._host().kill_root(self.random.choice((0.1, 1.0, 3.0)))

    def _stop_orderly(self) -> None:
        host = self._host()
        host.stop_orderly()
        for delay in (2.0, 6.0, 12.0):
            self.world.after(delay + self.random.random(), host.start)

    def _node_command(self) -> None:
        host, verb = self._host(), self.random.choice(("stop", "start", "recover"))
        if host.runner is not None:
            self.world.say("command", f"{verb} of {host.name}")
            host.runner.deliver(host.runner.command, verb)
        if verb == "stop":
            self.world.after(self.random.uniform(1.0, 6.0), self._start_by_hand, host)

    def _start_by_hand(self, host: Host) -> None:
        if host.runner is not None:
            host.runner.deliver(host.runner.command, "start")

    def _maintenance(self) -> None:
        leader = self._leader()
        if leader is not None:
            self.send(leader, "maintenance", None, on=self.random.random() < 0.7)
            self.world.after(self.random.uniform(1.0, 8.0), self._end_maintenance)

    def _end_maintenance(self) -> None:
        leader = self._leader()
        if leader is not None:
            self.send(leader, "maintenance", None)

    def _pause(self) -> None:
        host, until = self._host(), self.world.now + self.random.choice((0.1, 0.5, 1.5, 4.0))
        for process in self.random.choice(((host.elector,), (host.runner,), (host.elector, host.runner))):
            if process is not None:
                self.world.say(process.name, f"paused until {until:.3f}")
                process.paused_until = until

    def _partition(self) -> None:
        names = list(self.cluster.hosts)
        self.random.shuffle(names)
        at = self.random.randint(1, max(1, len(names) - 1))
        self.cluster.network.partition([set(names[:at]), set(names[at:])])
        self._end_network(f"partition {names[:at]} | {names[at:]}")

    def _one_way(self) -> None:
        lost = self._host().name
        pairs = {(lost, other) for other in self.cluster.hosts if other != lost}
        if self.random.random() < 0.5:
            pairs = {(b, a) for a, b in pairs}
        self.cluster.network.cut |= pairs
        self._end_network(f"one way: {sorted(pairs)}")

    def _pair(self) -> None:
        a, b = self._host().name, self._host().name
        self.cluster.network.cut |= {(a, b), (b, a)} if a != b else set()
        self._end_network(f"pair: {a} {b}")

    def _noise(self) -> None:
        network = self.cluster.network
        network.loss, network.repeat, network.slow = (self.random.choice((0.0, 0.05, 0.3)) for _ in range(3))
        self._end_network(f"loss {network.loss} repeat {network.repeat} slow {network.slow}")

    def _end_network(self, what: str) -> None:
        self.world.say("network", what)
        self.world.after(self.random.choice((0.3, 1.5, 4.0, 8.0)), self._heal_network)

    def _heal_network(self) -> None:
        self.world.say("network", "whole again")
        self.cluster.network.heal()

    def _slow_disk(self) -> None:
        host = self._host()
        host.slow_disk = self.random.choice((0.05, 0.3, 1.0))
        host.full_disk = self.random.random() < 0.3
        self.world.say(host.name, "its disk is full" if host.full_disk else "its disk is slow")
        self.world.after(3.0, setattr, host, "slow_disk", 0.0)
        self.world.after(self.random.uniform(0.5, 8.0), setattr, host, "full_disk", False)

    def _bad_scripts(self) -> None:
        host, action = self._likely_master(), self.random.choice(("start", "promote", "demote", "stop", "promote"))
        host.scripts.failing[action] = 0.7
        self.world.after(self.random.uniform(1.0, 6.0), host.scripts.failing.clear)

    def _stuck(self) -> None:
        """Neither demote nor stop works for a while."""
        host = self._likely_master()
        host.scripts.failing.update(demote=1.0, stop=1.0)
        self.world.after(self.random.uniform(1.0, 6.0), host.scripts.failing.clear)

    def _hang_demote(self) -> None:
        host = self._likely_master()
        host.scripts.hanging["demote"] = 0.8
        self.world.after(self.random.uniform(1.0, 6.0), host.scripts.hanging.clear)

    def _command(self) -> None:
        leader = self._leader()
        if leader is None or leader.elector is None:
            return
        node = self._host().name
        verb = self.random.choice(("promote", "promote", "promote", "demote", "elect", "passive", "active"))
        self.send(leader, verb, node)

    def send(self, leader: Host, verb: str, node: str | None, force: bool = False, on: bool = False) -> None:
        """One administrator's command."""
        assert leader.elector is not None
        command = Command(f"c{len(self.issued)}", verb, node, on=on, force=force, origin="simulation")
        self.issued.append(command.id)
        self.world.say("command", f"{verb} {'on' if on else node or ''} {'--force' if force else ''} to {leader.name}")
        leader.elector.deliver(leader.elector.command, command)

    def heal(self) -> None:
        """The end of all faults."""
        self.world.say("plan", "everything is healed")
        self.cluster.network.heal()
        for host in self.cluster.hosts.values():
            host.slow_disk, host.full_disk = 0.0, False
            host.scripts.failing.clear()
            host.scripts.hanging.clear()
            for process in (host.elector, host.runner):
                if process is not None:
                    process.resume()
            if host.stopping:
                host.crash()
            host.start()
            if host.runner is not None and host.remembered.stopped:
                host.runner.deliver(host.runner.command, "start")
