"""What a healed cluster owes: a master in bounded time, then none moved without cause, and no acknowledged command lost."""

from __future__ import annotations

from typing import Optional

from koi.core.leadership import Leadership
from koi.core.messages import STUCK
from tests.sim.host import Cluster, Host
from tests.sim.plan import FAULTS_UNTIL_S, LONGEST_S, Plan

CALM_S = 1.0
"""How long a cluster must be settled without a break."""

GIVE_UP_S = FAULTS_UNTIL_S + 40.0
"""By then no command is necessary any more."""

PATIENCE_S = 3.0
"""How long an administrator waits for a hold to end by itself."""


class Administrator:
    """Does after the faults what a person would: ends manual mode, maintenance, passive nodes and stuck ones."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self.cluster, self.plan = cluster, plan
        self.held_since: Optional[float] = None
        self.restarted: Optional[str] = None
        self.acted_at = plan.world.now

    def look(self) -> None:
        """One deed at most."""
        leader, lead = leader_of(self.cluster), lead_of(self.cluster)
        if leader is None or lead is None:
            return
        ledger, now = lead.ledger, self.plan.world.now
        if ledger.hold is None:
            self.held_since = None
        elif self.held_since is None:
            self.held_since = now
        if ledger.hold is not None and self.held_since is not None and now > self.held_since + PATIENCE_S:
            self._by_force(leader, ledger.master, "release" if ledger.hold == STUCK else "maintenance")
        elif ledger.hold == "maintenance":
            self._send(leader, "maintenance", None)
        elif ledger.hold is None and self._start_by_hand():
            return
        elif ledger.hold is None and ledger.manual:
            self._send(leader, "elect", leader.name)
        elif ledger.hold is None and ledger.passive:
            self._send(leader, "active", ledger.passive[0])

    def _start_by_hand(self) -> bool:
        """Start a node that was stopped by hand and that nobody could start during maintenance."""
        for host in self.cluster.hosts.values():
            if host.runner is not None and host.runner.machine.stopped:
                host.runner.deliver(host.runner.command, "start")
                return True
        return False

    def _by_force(self, leader: Host, master: Optional[str], verb: str) -> None:
        """Makes sure that the master is off, and then says so."""
        if master is not None and self.restarted != master:
            self.cluster.hosts[master].crash()
            self.cluster.hosts[master].start()
            self.restarted, self.acted_at = master, self.plan.world.now
        else:
            self._send(leader, verb, master, force=True)
            self.held_since = self.restarted = None

    def _send(self, leader: Host, verb: str, node: Optional[str], force: bool = False) -> None:
        self.plan.send(leader, verb, node, force)
        self.acted_at = self.plan.world.now


def heal(cluster: Cluster, plan: Plan) -> None:
    """End all faults and hold the cluster to its promises. Raises AssertionError."""
    world = cluster.world
    plan.heal()
    administrator = Administrator(cluster, plan)
    blank = any(h.elector is not None and h.elector.machine.roles.blank is not None for h in cluster.hosts.values())
    allowed = 2 * cluster.timing.failover + 5.0 + (cluster.timing.span if blank else 0.0)
    next_look, settled_since = world.now + 0.5, None
    while settled_since is None or world.now < settled_since + CALM_S:
        assert settled_since or world.now < min(administrator.acted_at + allowed, GIVE_UP_S), _late(cluster, administrator)
        world.run(world.now + 0.1)
        settled_since = (settled_since or world.now) if settled(cluster) else None
        if world.now >= next_look:
            administrator.look()
            next_look = world.now + 1.0
    _calm(cluster)


def _late(cluster: Cluster, administrator: Administrator) -> str:
    now = cluster.world.now
    since = f"{now - FAULTS_UNTIL_S:.1f} s after healing, {now - administrator.acted_at:.1f} s after the last command"
    return f"no master {since}: {describe(cluster)}"


def _calm(cluster: Cluster) -> None:
    """From now on nothing moves, and what was acknowledged is there."""
    begun = len(cluster.watch.begun)
    cluster.world.run(max(LONGEST_S, cluster.world.now + 5.0))
    assert len(cluster.watch.begun) == begun, f"master moved without cause: {cluster.watch.begun[begun - 1:]}"
    assert settled(cluster), f"master lost without cause: {describe(cluster)}"
    lead = lead_of(cluster)
    assert lead is not None
    lost = [i for i in cluster.watch.changed[-16:] if i not in lead.ledger.recent]
    assert not lost, f"acknowledged commands are lost: {lost}; recent {lead.ledger.recent}"


def leader_of(cluster: Cluster) -> Optional[Host]:
    """The host whose elector leads the highest term."""
    leading = [h for h in cluster.hosts.values() if h.elector is not None and h.elector.machine.roles.lead is not None]
    return max(leading, key=lambda h: h.elector.machine.roles.lead.term, default=None)  # type: ignore[union-attr]


def lead_of(cluster: Cluster) -> Optional[Leadership]:
    """The leadership of that host."""
    leader = leader_of(cluster)
    return None if leader is None or leader.elector is None else leader.elector.machine.roles.lead


def master_of(cluster: Cluster) -> Optional[Host]:
    """The host that is Master."""
    masters = [h for h in cluster.hosts.values() if h.runner is not None and h.runner.machine.state == "Master"]
    return masters[0] if masters else None


def settled(cluster: Cluster) -> bool:
    """One leader, one master, nothing to be done."""
    leader, lead, master = leader_of(cluster), lead_of(cluster), master_of(cluster)
    if leader is None or lead is None or master is None or leader.elector is None:
        return False
    ledger = lead.ledger
    calm = not ledger.yielding and ledger.hold is None and not ledger.manual and not ledger.passive and ledger.target is None
    return calm and lead.committed() and ledger.master == master.name and not leader.elector.machine.queue


def describe(cluster: Cluster) -> str:
    """The state of all hosts, in a line."""
    leader, lead = leader_of(cluster), lead_of(cluster)
    words = []
    for host in cluster.hosts.values():
        role = host.elector.machine.roles.role if host.elector is not None else None
        state = host.runner.machine.state if host.runner is not None else None
        words.append(f"{host.name}: {role}/{state}")
    if leader is not None and lead is not None and leader.elector is not None:
        words.append(f"ledger {lead.ledger}; nobody: {leader.elector.machine.nobody}")
    return "; ".join(words)
