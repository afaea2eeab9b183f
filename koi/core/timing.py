"""The four intervals of the protocol, derived from one, and the inequalities that keep them safe.

docs/protocol.md sections 1 and 8. All values are seconds; the rates of two clocks may differ by RHO.
"""

from __future__ import annotations

from koi.core.data import dataclass

RHO = 0.01
"""Largest difference between the rates of two clocks."""

MIN_HEARTBEAT_S = 0.02
LEASE_SLACK_S = 0.05
LEADER_SLACK_S = 0.2
MAX_ANSWER_WAIT_S = 0.05
LATE_BEATS = 0.125
"""What is done each H, and was done so many H late at most, is due again H after it was due, not after it was done."""
AHEAD_S = 0.0005
"""So long before a heartbeat is taken up, what is to reach the electors with it is begun: a process needs as long to wake and to
speak. A report that came after the heartbeat had been answered would wake each elector once more."""


@dataclass(frozen=True)
class Timing:
    """Intervals in seconds that every node of a cluster shares."""

    heartbeat: float
    """H: how often the leader and the master speak."""
    lease: float
    """M: how long a vouch stands, counted from the sending of the report."""
    grace: float
    """G: how long a demote may take after the lease has ended."""
    leader_timeout: float
    """E: silence after which the leader counts as lost."""
    failover: float = 3.0
    """F: from which the others derive."""
    bully_delay: float = 10.0
    blank_wait: float = 60.0
    failure_promotion_timeout: float = 60.0
    forget_runner: float = 1800.0
    promote_timeout: float = 30.0
    demote_timeout: float = 30.0

    @property
    def span(self) -> float:
        """How long a guard stands after a report was vouched for (rule 5.4)."""
        return guard_span(self.lease, self.grace)

    @property
    def replaces_within(self) -> float:
        """When a lost master's guard is down and a leader, lost with it, has been replaced and has heard the runners."""
        return max(self.span, self.leader_timeout + 2 * self.heartbeat)

    @property
    def broken_promise(self) -> str:
        """What to tell when the four intervals, each allowed, cannot keep `failover` together; else empty."""
        took = self.replaces_within
        if took <= self.failover:
            return ""
        return (
            f"time.failover: {self.failover:g} s does not hold: with lease {self.lease:g} s, demote_grace {self.grace:g} s,"
            f" leader_timeout {self.leader_timeout:g} s and heartbeat {self.heartbeat:g} s a lost master is replaced after"
            f" {took:.2f} s; leave these four out so that they derive from failover, or raise failover until it holds"
        )

    @property
    def usable_lease(self) -> float:
        """What a runner may count of M, from the sending of its report (rule 6.1)."""
        return usable(self.lease)

    def next_beat(self, due: float, now: float) -> float:
        """When what was due then, and is done now, is due again."""
        return (due if 0 <= now - due <= LATE_BEATS * self.heartbeat else now) + self.heartbeat

    def on_beat(self, due: float, beat: float | None) -> float:
        """`due`, or up to one H earlier, AHEAD_S before a heartbeat comes: then both wake an elector once.

        `beat` is when the last one came, None: not known. What is due just before one stays so: none comes to the millisecond.
        """
        if beat is None:
            return due
        late = (due + AHEAD_S - beat) % self.heartbeat
        return due if late > (1 - LATE_BEATS) * self.heartbeat else due - late

    @property
    def answer_wait(self) -> float:
        """How long a candidate waits for an Answer before it leads (rule 3.3)."""
        return min(self.heartbeat / 2, MAX_ANSWER_WAIT_S)


def guard_span(lease: float, grace: float) -> float:
    """(M + G)(1 + 2 rho): longer than any lease and grace on another clock."""
    return (lease + grace) * (1 + 2 * RHO)


def usable(lease: float) -> float:
    """M (1 - 2 rho): shorter than M on any other clock."""
    return lease * (1 - 2 * RHO)


def derive(
    failover: float = 3.0,
    heartbeat: float | None = None,
    lease: float | None = None,
    grace: float | None = None,
    leader_timeout: float | None = None,
    **others: float,
) -> Timing:
    """Timing from `failover`; each of the four can be given alone (docs/protocol.md section 1)."""
    h = failover / 10 if heartbeat is None else heartbeat
    return Timing(
        heartbeat=h,
        lease=0.52 * failover if lease is None else lease,
        grace=0.38 * failover if grace is None else grace,
        leader_timeout=3 * h if leader_timeout is None else leader_timeout,
        failover=failover,
        **others,
    )


def faults(t: Timing) -> list[tuple[str, str]]:
    """Every broken inequality of docs/protocol.md section 8, as (key under `time:`, what would be right)."""
    h, m, g, e = t.heartbeat, t.lease, t.grace, t.leader_timeout
    need = (3 * h + LEASE_SLACK_S) / (1 - 2 * RHO)
    close = 1e-9  # 3 x 0.1 is a little more than 0.3
    span, wait = m + g, e + LEADER_SLACK_S
    checks = (
        (h < MIN_HEARTBEAT_S, "heartbeat", f"is {h:g} s; must be at least {MIN_HEARTBEAT_S:g} s"),
        (need > m + close, "lease", f"is {m:g} s; must be at least {need:.3f} s (3 x heartbeat + 50 ms <= lease x 0.98)"),
        (e < 3 * h - close, "leader_timeout", f"is {e:g} s; must be at least 3 x heartbeat = {3 * h:g} s"),
        (wait > span + close, "leader_timeout", f"is {e:g} s; plus 200 ms it must be within lease + demote_grace = {span:g} s"),
        (t.forget_runner <= span, "forget_runner", f"is {t.forget_runner:g} s; must be above lease + demote_grace = {span:g} s"),
    )
    return [(key, right) for broken, key, right in checks if broken]
