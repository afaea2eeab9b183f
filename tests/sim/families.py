"""Directed scenarios, each around one rule, with times drawn from the seed: what random faults hardly ever find.

All begin with a settled cluster whose master is known: the host with the highest preference.
"""

from __future__ import annotations

from typing import Callable

from tests.sim.host import Host
from tests.sim.judge import leader_of, master_of
from tests.sim.plan import FAULTS_UNTIL_S, RATES, Plan
from tests.sim.world import Clock

MASTER = "a"
"""A runner without an elector in the shape (3, 4): its electors are b, c and d."""

SHAPE = (3, 4)
ALL = (3, 3)
"""Every node is elector and runner."""

WIDE = (5, 6)
"""The same with five electors."""

LAST_KILL_S = FAULTS_UNTIL_S - 11.0
"""After that no family kills any more, so that what it did is over when everything is healed."""

SETTLED_S = 12.0
"""By then the cluster has a leader and a master."""


def _begin(plan: Plan, scenario: Callable[[], None]) -> None:
    """Start all nodes; the scenario begins once they have settled."""
    for host in plan.cluster.hosts.values():
        host.preference = 100 if host.name == MASTER else 0
        plan.world.at(plan.random.uniform(0.0, 0.3), host.start)
    plan.world.at(SETTLED_S + plan.random.random(), scenario)


def _others(plan: Plan, leader: Host) -> list[Host]:
    """The electors that do not lead, in an order drawn from the seed."""
    hosts = [plan.cluster.hosts[name] for name in plan.cluster.electors if name != leader.name]
    plan.random.shuffle(hosts)
    return hosts


def _ready(plan: Plan) -> Host:
    leader, master = leader_of(plan.cluster), master_of(plan.cluster)
    assert leader is not None and master is not None and master.name == MASTER, "the cluster has not settled before the scenario"
    return leader


def stale_free(plan: Plan) -> None:
    """The leader believes of one elector what is no longer true, while another really loses the master.

    The leader itself never hears the master. First one elector does not hear it either, and says so in acks that take long.
    While they are under way the master is heard there again, and lost by another one. For the shape WIDE.
    """
    span, network, random = plan.cluster.timing.span, plan.cluster.network, plan.random
    lag = span + random.uniform(1.5, 2.0)

    def scenario() -> None:
        leader = _ready(plan)
        first, second, *_ = _others(plan, leader)
        network.part((MASTER, leader.name), (MASTER, first.name))
        plan.world.after(span + random.uniform(0.5, 0.9), delay, leader, first, second)

    def delay(leader: Host, first: Host, second: Host) -> None:
        network.lag = {(first.name, leader.name): lag}
        plan.world.after(lag - 0.6, network.cut.difference_update, {(MASTER, first.name), (first.name, MASTER)})
        plan.world.after(lag - random.uniform(0.0, 0.2), network.part, (MASTER, second.name))
        plan.world.after(2.5 * lag, network.heal)

    _begin(plan, scenario)


def lost_link(plan: Plan) -> None:
    """Only the leader loses the master, for a long time: no reason to move it. Raises AssertionError when it is moved."""
    def scenario() -> None:
        leader = _ready(plan)
        plan.cluster.network.part((MASTER, leader.name))
        plan.world.after(4 * plan.cluster.timing.failover, check, len(plan.cluster.watch.begun))

    def check(begun: int) -> None:
        assert len(plan.cluster.watch.begun) == begun, f"the leader's lost link moved the master: {plan.cluster.watch.begun}"

    _begin(plan, scenario)


def late_answers(plan: Plan) -> None:
    """The electors' answers take longer and longer to reach the master; then its reports are lost."""
    network, timing = plan.cluster.network, plan.cluster.timing

    def scenario() -> None:
        _ready(plan)
        network.lag = {(name, MASTER): timing.grace * plan.random.uniform(1.0, 1.3) for name in plan.cluster.electors}
        plan.world.after(2 * timing.lease, cut)

    def cut() -> None:
        network.cut = {(MASTER, name) for name in plan.cluster.hosts if name != MASTER}
        plan.world.after(10.0, network.heal)

    _begin(plan, scenario)


def lost_promise(plan: Plan) -> None:
    """A candidate with a slow disk crashes soon after it has won; then another asks for the votes of the same term."""
    network, cluster = plan.cluster.network, plan.cluster
    low, middle, high = cluster.electors
    cluster.hosts[high].rank, cluster.hosts[middle].rank, cluster.hosts[low].rank = 30, 20, 10

    def scenario() -> None:
        leader = _ready(plan)
        if leader.name != high and plan.world.now < 25.0:  # it takes the lead after bully_delay
            plan.world.after(0.5, scenario)
            return
        cluster.hosts[middle].slow_disk = 3.0
        network.part((high, middle), (high, low))
        plan.world.after(cluster.timing.leader_timeout * plan.random.uniform(1.3, 2.2), crash)

    def crash() -> None:
        network.heal()
        network.part((low, middle), (low, high))
        cluster.hosts[middle].crash()
        cluster.hosts[middle].slow_disk = 0.0
        plan.world.after(0.05, cluster.hosts[middle].start)
        plan.world.after(4.0, network.heal)

    _begin(plan, scenario)


def lost_disk(plan: Plan) -> None:
    """The master is lost by the leader and then by an elector that crashes and loses its disk; it demotes slowly."""
    network, cluster = plan.cluster.network, plan.cluster

    def scenario() -> None:
        leader = _ready(plan)
        cluster.hosts[MASTER].scripts.seconds["demote"] = (cluster.timing.grace * 0.7, cluster.timing.grace * 0.9)
        network.part((MASTER, leader.name))
        plan.world.after(cluster.timing.span + plan.random.uniform(0.5, 1.0), crash, leader)

    def crash(leader: Host) -> None:
        lost, third = _others(plan, leader)
        network.part((third.name, leader.name), (third.name, lost.name), (MASTER, lost.name))
        lost.crash()
        lost.disk = None
        lost.start()
        plan.world.after(8.0, network.heal)

    _begin(plan, scenario)


def lost_ledgers(plan: Plan) -> None:
    """Leader after leader is cut off right after its choice of a master, so that electors hold different ledgers."""
    network, random, names = plan.cluster.network, plan.random, list(plan.cluster.hosts)

    def scenario() -> None:
        leader = leader_of(plan.cluster)
        sides: tuple[set[str], set[str]] = (set(), set())
        for name in names:
            sides[random.random() < 0.5].add(name)
        network.partition([sides[0], sides[1]])
        for host in plan.cluster.hosts.values():
            host.slow_disk = random.choice((0.0, 0.0, 0.05, 0.3))
        if leader is not None and random.random() < 0.5:
            random.choice((leader.crash, leader.kill_elector))()
            plan.world.after(0.1, leader.start)
        if plan.world.now < 36.0:
            plan.world.after(random.uniform(0.1, 1.2), scenario)

    for host in plan.cluster.hosts.values():
        plan.world.at(random.uniform(0.0, 0.3), host.start)
    plan.world.at(4.0, scenario)


def dead_trees(plan: Plan) -> None:
    """Faults of all kinds, and time and again everything of a node, mostly the master, is killed; its demote may hang."""
    timing, random = plan.cluster.timing, plan.random

    def kill() -> None:
        host = master_of(plan.cluster)
        if host is None or random.random() < 0.2:
            host = random.choice(list(plan.cluster.hosts.values()))
        if host.priorities and not (host.debts and host.lease_file):  # what was left once is not left alone past its guard
            if random.random() < 0.7:
                host.scripts.hanging["demote"] = 1.0
                host.scripts.failing["stop"] = random.choice((0.0, 1.0))
                plan.world.after(random.uniform(2.0, 6.0), host.scripts.hanging.clear)
                plan.world.after(random.uniform(2.0, 6.0), host.scripts.failing.clear)
            host.kill_tree(random.uniform(0.02, 0.5) * timing.grace)
            if random.random() < 0.3:
                again, back = random.uniform(0.6, 1.2), random.uniform(0.02, 0.2)
                plan.world.after(again * timing.grace, host.kill_tree, back * timing.grace)
        if plan.world.now < LAST_KILL_S:
            plan.world.after(random.uniform(3.0, 9.0), kill)

    plan.schedule()
    plan.world.at(SETTLED_S / 2 + random.random(), kill)


def left_under_hold(plan: Plan) -> None:
    """Everything of the master is killed, maintenance begins, and ends while what was left demotes slowly; then its node is cut
    off, or loses processes, and the hold is ended by force: the lease of what was left has an end.
    Maintenance may begin anew, and end, before that."""
    cluster, timing, random = plan.cluster, plan.cluster.timing, plan.random
    host = cluster.hosts[MASTER]

    def command(on: bool, force: bool = False) -> None:
        leader = leader_of(cluster)
        if leader is not None:
            plan.send(leader, "maintenance", None, force, on)

    def scenario() -> None:
        _ready(plan)
        host.scripts.seconds["demote"] = (timing.grace, 6 * timing.grace)
        host.kill_tree(random.uniform(0.3, 1.0) * timing.lease)
        plan.world.after(random.uniform(0.0, 0.3), command, True)
        plan.world.after(5.0, command, False)
        anew = random.choice((0.0, 0.0, random.uniform(0.1, 1.0)))
        if anew:
            plan.world.after(5.0 + anew, command, True)
            plan.world.after(5.0 + 2 * anew, command, False)
        plan.world.after(5.0 + 2 * anew + random.uniform(0.1, 1.5), disturb)

    def disturb() -> None:
        links = [(MASTER, name) for name in cluster.hosts if name != MASTER]
        fault = random.choice((host.kill_runner, lambda: host.kill_tree(0.3), lambda: host.kill_worker("vip"), lambda: None))
        if random.random() < 0.8:
            cluster.network.part(*links)
        fault()
        if random.random() < 0.3:
            cluster.hosts[random.choice(cluster.electors)].kill_elector()
        plan.world.after(random.uniform(0.0, 1.0), command, False, True)
        plan.world.after(12.0, cluster.network.heal)

    _begin(plan, scenario)


def _on_master(plan: Plan, then: Callable[[Host], None]) -> None:
    """Make the leader's node the master too; then comes the rest."""

    def scenario() -> None:
        leader = leader_of(plan.cluster)
        assert leader is not None, "the cluster has not settled before the scenario"
        plan.send(leader, "promote", leader.name)
        plan.world.after(4.0, then, leader)

    _begin(plan, scenario)


def _cut_off_with_hold(plan: Plan, host: Host) -> None:
    """Cut the leader's node off, and ask it for maintenance: nobody else hears of that."""
    network = plan.cluster.network
    network.part(*((host.name, name) for name in plan.cluster.hosts if name != host.name))
    plan.send(host, "maintenance", None, on=True)
    plan.world.after(12.0, network.heal)


def half_a_hold(plan: Plan) -> None:
    """The leader, whose node is the master too, is cut off, is asked for maintenance then, and everything of it is killed, or a
    worker once its lease has ended: what comes next hears of maintenance from its own elector alone. For the shape ALL."""
    timing, random = plan.cluster.timing, plan.random

    def cut(host: Host) -> None:
        _cut_off_with_hold(plan, host)
        if random.random() < 0.3:
            for name in host.priorities:
                plan.world.after(random.uniform(0.9, 1.2) * timing.lease, host.kill_worker, name)
            return
        plan.world.after(random.uniform(0.0, timing.lease), host.kill_tree, random.uniform(0.02, 0.6))
        if random.random() < 0.3:  # back within the grace: what is left longer is nobody's to demote
            plan.world.after(random.uniform(0.5, 1.3) * timing.lease, host.kill_tree, 0.1)

    _on_master(plan, cut)


def stale_hold(plan: Plan) -> None:
    """One elector and the master, which leads, do not hear each other while a maintenance ends; then the master is cut off and
    asked for another one: its elector says hold, and so did the other one last. For the shape ALL."""
    world, random, electors = plan.world, plan.random, plan.cluster.electors

    def maintain(host: Host) -> None:
        plan.send(host, "maintenance", None, on=True)
        deaf = random.choice([name for name in electors if name != host.name])
        world.after(1.5, plan.cluster.network.part, (host.name, deaf))
        world.after(1.5 + random.uniform(0.0, 0.5), plan.send, host, "maintenance", None)
        world.after(2.3 + random.random(), _cut_off_with_hold, plan, host)

    _on_master(plan, maintain)


def one_sided(plan: Plan) -> None:
    """Links that work in one direction only, others every moment; clocks as far apart as they may be; disks that fill up."""
    network, random, names = plan.cluster.network, plan.random, list(plan.cluster.hosts)
    pairs = [(one, other) for one in names for other in names if one != other]

    def scenario() -> None:
        if plan.world.now >= FAULTS_UNTIL_S:
            return
        network.cut = {pair for pair in pairs if random.random() < chance}
        network.loss = random.choice((0.0, 0.0, 0.2))
        leader = leader_of(plan.cluster)
        if leader is not None and random.random() < 0.3:
            plan.send(leader, random.choice(("promote", "promote", "elect")), random.choice(names))
        host = plan.cluster.hosts[random.choice(names)]
        host.full_disk = random.random() < 0.2
        plan.world.after(random.uniform(0.5, 6.0), setattr, host, "full_disk", False)
        plan.world.after(random.choice((0.2, 1.0, 3.0)) * random.random(), scenario)

    chance = random.choice((0.1, 0.3, 0.5))
    for host in plan.cluster.hosts.values():
        host.clock = Clock(plan.world, random.uniform(0, 1e5), random.choice(RATES))
        plan.world.at(random.uniform(0.0, 0.3), host.start)
    plan.world.at(4.0, scenario)


def stopped_clocks(plan: Plan) -> None:
    """Electors on machines without a runner stop, and their clocks with them, while the rest goes on under faults."""
    random = plan.random
    alone = [host for host in plan.cluster.hosts.values() if not host.priorities]
    plan.schedule()

    def stop() -> None:
        host = random.choice(alone)
        elector, seconds = host.elector, random.uniform(0.5, 8.0)
        if plan.world.now + seconds >= FAULTS_UNTIL_S:
            return
        plan.world.after(random.uniform(1.0, 10.0), stop)
        if elector is not None and elector.paused_until <= plan.world.now:
            plan.world.say(elector.name, f"stops with its clock for {seconds:.3f} s")
            elector.paused_until = plan.world.now + seconds
            plan.world.at(elector.paused_until, set_back, host, seconds)

    def set_back(host: Host, seconds: float) -> None:
        host.clock.offset -= host.clock.rate * seconds

    plan.world.at(5.0, stop)
