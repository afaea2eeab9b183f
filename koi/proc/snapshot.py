"""What one elector knows of the cluster, as the JSON of `koi status` (docs/guide.md, JSON). Reads the core, changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Optional

from koi import __version__
from koi.core import arbiter
from koi.core.arbiter import View
from koi.core.blank import Blank
from koi.core.messages import ENDING, MAINTENANCE, STUCK, Report, ServiceInfo, Witness
from koi.core.states import still_active
from koi.names import written

if TYPE_CHECKING:
    from koi.proc.elector import ElectorProcess

JSON = dict[str, Any]
DISCONNECTED = "Disconnected"


class Snapshot:
    """One look at everything, at the time `now` (seconds)."""

    def __init__(self, shell: ElectorProcess, now: float) -> None:
        self.shell, self.config, self.machine, self.now = shell, shell.config, shell.machine, now
        self.lead = self.machine.roles.lead
        self.view = self._view()

    def _view(self) -> View:
        if self.lead is not None:
            return self.machine.view(self.lead, self.now)
        record = self.machine.acceptor.record
        free = 1 if self.machine.acceptor.free(self.now) is not None else 0
        return View(
            record.ledger, record.version, record.top, self.now, self.now, self.machine.reports, free,
            self.machine.seat.majority, len(self.machine.seat.electors), self.machine.timing,
        )

    # --- the cluster ---

    def leader(self) -> Optional[str]:
        """The leader that this elector follows, or is."""
        roles = self.machine.roles
        fresh = self.lead is not None or self.now - roles.heard_at <= self.machine.timing.leader_timeout
        return roles.leader if fresh else None

    def master(self) -> Optional[str]:
        """The master of the present epoch; None when the post is vacant, or when neither a leader nor this elector hears it."""
        name = self.view.ledger.master
        if name is None or arbiter.vacancy(self.view):
            return None
        return name if self.lead is not None or arbiter.heard(self.view, name) is not None else None

    def cluster(self) -> JSON:
        """The object `cluster`."""
        ledger, timing, master = self.view.ledger, self.machine.timing, self.master()
        since = self.machine.acceptor.accepted_at
        return {
            "id": self.config.cluster.id, "leader": self.leader(), "term": self.machine.acceptor.record.promised,
            "epoch": ledger.epoch, "master": master, "target": ledger.target, "manual": ledger.manual,
            "maintenance": ledger.hold in (MAINTENANCE, ENDING), "passive": list(ledger.passive), "reason": ledger.reason,
            "quorum": {"need": self.machine.seat.majority, "have": self.have(), "electors": self.electors},
            "timing": {
                "heartbeat": rounded(timing.heartbeat), "lease": rounded(timing.lease), "demote_grace": rounded(timing.grace),
                "leader_timeout": rounded(timing.leader_timeout), "failover": rounded(timing.failover),
            },
            "warnings": self.warnings(), "hold": ledger.hold, "yielding": ledger.yielding,
            "nobody": "" if master and self.leader() and ledger.hold != STUCK else self.nobody(), "stale": self.stale(),
            "master_since": None if master is None or since is None else self.now - since,
        }

    @property
    def electors(self) -> int:
        """How many electors there are."""
        return len(self.machine.seat.electors)

    def have(self) -> int:
        """How many electors the leader hears, itself included; 1 when this one does not lead."""
        if self.lead is None:
            return 1
        return 1 + sum(1 for heard in self.lead.acks.values() if self._fresh(heard.at))

    def _fresh(self, at: float) -> bool:
        return self.now - at <= self.machine.timing.leader_timeout

    def stale(self) -> Optional[float]:
        """Seconds since a majority answered this leader; None while that is fresh."""
        if self.lead is None:
            return None
        age = self.now - self.lead.majority_at(self.now)
        return age if age > self.machine.timing.leader_timeout else None

    def nobody(self) -> str:
        """Why there is no master, in words."""
        if self.lead is None:
            return f"there is no leader: {self._why_no_leader()}" if self.leader() is None else ""
        if not self.lead.committed():
            return f"the ledger is accepted by {self.lead.accepted_by()} of {self.electors} electors so far"
        return self.machine.nobody or "a master is being chosen"

    def _why_no_leader(self) -> str:
        roles, name, need = self.machine.roles, self.config.node.name, self.machine.seat.majority
        if roles.blank is not None:
            answered = f"{len(roles.blank.known)} of the {roles.blank.need} that it needs have answered"
            return f"{name} has no state file and asks the other electors first ({answered}); {self._blank_ends(roles.blank)}"
        how = f"{need} of the {self.electors} electors must hear each other"
        hears = "hears no leader" if roles.leader_term else "has not heard a leader since it started"
        return f"{name} is {roles.role} and {hears}; to elect one, {how}"

    def _blank_ends(self, blank: Blank) -> str:
        if blank.complete():
            return f"it takes part in {max(blank.safe_at - self.now, 0.0):.1f} s"
        return f"it takes part in {max(blank.gives_up_at - self.now, 0.0):.0f} s at the latest"

    # --- warnings ---

    def warnings(self) -> list[str]:
        """Everything that an administrator should mend."""
        found = [*self._own_warnings(), *self._told_warnings(), *self._config_warnings(), *self._version_warnings()]
        found += self._place_warnings()
        return list(dict.fromkeys(found))

    def _own_warnings(self) -> list[str]:
        seat, roles = self.machine.seat, self.machine.roles
        found = [text for text in (self.machine.fencer.trouble, self.shell.electors.lost(seat.name)) if text]
        found += [f"elector {seat.name} {roles.blank_warning}"] if roles.blank_warning else []
        if seat.majority <= len(seat.electors) // 2:
            found.append(f"unsafe_quorum: {seat.majority} of {self.electors} electors decide; a partition can give two masters")
        found += [self.machine.timing.broken_promise] if self.machine.timing.broken_promise else []
        if self.view.ledger.hold == STUCK:
            found.append(f"hold: stuck: {still_active(str(self.view.ledger.master))}")
        found += [
            rivals.text
            for rivals in self.machine.rivals.values()
            if rivals.warned_at is not None and self.now - rivals.warned_at < 60
        ]
        found += [] if self.leader() else filter(None, map(self._why_silent, seat.others))
        return found + [f"elector {seat.name} {text}" for text in self.shell.warnings(self.now)]

    def _told_warnings(self) -> list[str]:
        found = [f"{name}: {text}" for name, seen in self.machine.reports.items() for text in seen.report.warnings]
        if self.lead is not None:
            found += [f"elector {name} {text}" for name, heard in self.lead.acks.items() for text in heard.ack.warnings]
            acks = self.lead.acks
            silent = [n for n in self.machine.seat.others if n not in acks or not self._fresh(acks[n].at)]
            found += [self._silent(name, acks[name].at if name in acks else self.view.leader_since) for name in silent]
        return found

    def _silent(self, name: str, since: float) -> str:
        """An elector whose disk takes nothing is silent too; its runner goes on."""
        seen = self.machine.reports.get(name)
        if why := self._why_silent(name):
            return why
        if seen is not None and seen.at > since + self.machine.timing.leader_timeout:
            return f"elector {name} does not answer, though its runner is heard; see its log: can it write its node.state_dir?"
        return f"elector {name} does not answer; see that koinode runs there and that UDP reaches {self._address(name) or 'it'}"

    def _why_silent(self, name: str) -> str:
        """An elector whose datagrams come and cannot be read, or to which this machine can send nothing."""
        electors = self.shell.electors
        if dropped := electors.dropped(name, self.now):
            return f"elector {name} is not heard, and {dropped}"
        faults = [self.shell.endpoint.unsent.get(address, "") for address in electors.addresses.get(name, ())]
        if not faults or not all(faults):
            return ""
        why = f"nothing can be sent to it from {self.config.node.name}: {', '.join(dict.fromkeys(faults))}"
        return f"elector {name} is not heard, and {why}; see links, routes and firewall of this machine"

    def _config_warnings(self) -> list[str]:
        told = {name: seen.report.config for name, seen in self.machine.reports.items() if arbiter.heard(self.view, name)}
        if self.lead is not None:
            told |= {name: heard.ack.config for name, heard in self.lead.acks.items() if self._fresh(heard.at)}
        other = sorted(name for name, digest in told.items() if digest != self.machine.seat.config)
        if not other:
            return []
        return [
            f"the configuration of {', '.join(other)} differs from that of {self.machine.seat.name} in electors, quorum, timings"
            " or id; make them equal, then 'koi reconfigure NODE' where it was changed"
        ]

    def _version_warnings(self) -> list[str]:
        """Nodes of another version than the one that answers: it may know other commands."""
        told = {name: seen.report.release for name, seen in self.machine.reports.items() if arbiter.heard(self.view, name)}
        witnesses = {name: self._witness(name) for name in self.machine.seat.others}
        told |= {name: witness.release for name, witness in witnesses.items() if witness is not None}
        other = [f"{name} runs version {release}" for name, release in sorted(told.items()) if release not in ("", __version__)]
        if not other:
            return []
        return [f"{', '.join(other)}, {self.config.node.name} runs {__version__}: end the upgrade before using what only one has"]

    def _place_warnings(self) -> list[str]:
        """A runner that is called like an elector on another machine: orders for one of them may reach the other."""
        found = []
        for name, seen in sorted(self.machine.reports.items()):
            hosts = sorted({host for host, _ in self.shell.electors.addresses.get(name, ())})
            origin = seen.origin[0] if isinstance(seen.origin, tuple) else None
            if hosts and origin not in hosts and arbiter.heard(self.view, name):
                found.append(
                    f"two machines are called {name}: its runner is at {origin}, its elector at {', '.join(hosts)};"
                    " give one of them another node.name, or correct cluster.electors"
                )
        return found

    # --- nodes ---

    def names(self) -> list[str]:
        """All nodes that are configured as electors or have reported."""
        return sorted({*self.machine.seat.electors, *self.machine.reports})

    def status(self) -> JSON:
        """The whole answer of `koi --json status`."""
        return {"cluster": self.cluster(), "nodes": [self.node(name) for name in self.names()]}

    def node(self, name: str) -> JSON:
        """One node's object."""
        seen = self.machine.reports.get(name)
        node: JSON = {"name": name, "address": self._address(name), "elector": self._role(name), "runner": seen is not None}
        if seen is None:
            return node | self._no_runner(name) | self._unheard(name)
        heard = arbiter.heard(self.view, name)
        return node | self._runner(seen.report, self.now - seen.at, heard is not None)

    def _no_runner(self, name: str) -> JSON:
        witness, age = self._witness(name), self._seen_elector(name)
        told: JSON = {"mode": None, "preference": None, "uptime": None, "version": None}
        if witness is not None:
            told["mode"], told["preference"] = self._mode(name, witness.mode), witness.preference
            told["uptime"], told["version"] = witness.uptime + (age or 0.0), witness.release
        return told | {
            "state": None, "promotable": False, "seen": age, "failcount": 0, "last_failure": None, "services": [], "why": "",
            "recovers_in": None, "failed_ago": None, "stopped": False, "failed": False, "stuck": False, "holding": None,
        }

    def _unheard(self, name: str) -> JSON:
        """What is known of this node's own runner while it has not reported here."""
        own = self.config.node
        if name != self.machine.seat.name or not own.runner:
            return {}
        return {"runner": True, "state": DISCONNECTED, "mode": own.mode, "preference": own.preference, "version": __version__}

    def _runner(self, report: Report, age: float, heard: bool) -> JSON:
        why = arbiter.why_not(self.view, report.name)
        recovers = None if report.recovers_in is None else max(0.0, report.recovers_in - age)
        return {
            "state": report.state if heard else DISCONNECTED, "mode": self._mode(report.name, report.mode), "promotable": not why,
            "preference": report.preference, "seen": age, "uptime": report.uptime + age,
            "failcount": report.failcount, "last_failure": report.last_failure, "version": report.release,
            "services": services(report.services or ()), "why": report.why or why, "recovers_in": recovers,
            "failed_ago": None if report.failed_ago is None else report.failed_ago + age,
            "stopped": report.stopped, "failed": report.failed, "stuck": report.stuck, "holding": report.holding,
        }

    def _mode(self, name: str, own: str) -> str:
        """Passive by its own configuration, or by an administrator's word."""
        return "passive" if name in self.view.ledger.passive else own

    def _role(self, name: str) -> Optional[str]:
        if name not in self.machine.seat.electors:
            return None
        if name == self.machine.seat.name:
            return self.machine.roles.role
        if name == self.leader():
            return "leader"
        if self.lead is None:
            return "unknown"
        heard = self.lead.acks.get(name)
        return "follower" if heard is not None and self._fresh(heard.at) else "disconnected"

    def _seen_elector(self, name: str) -> Optional[float]:
        if name == self.machine.seat.name:
            return 0.0
        heard = self.lead.acks.get(name) if self.lead is not None else None
        return None if heard is None else self.now - heard.at

    def _witness(self, name: str) -> Optional[Witness]:
        """What an elector without a runner said of itself; None when it runs services, or has not been heard by this leader."""
        if name == self.machine.seat.name:
            return self.machine.seat.witness_after(self.now - self.machine.roles.started_at)
        heard = self.lead.acks.get(name) if self.lead is not None else None
        return None if heard is None else heard.ack.witness

    def _address(self, name: str) -> Optional[str]:
        address = self.address(name)
        return None if address is None else written(address)

    def address(self, name: Optional[str]) -> Optional[tuple[str, int]]:
        """Where this node answers clients."""
        first = self.shell.electors.first(name)
        if first is not None or name is None:
            return first
        seen = self.machine.reports.get(name)
        if seen is None or not isinstance(seen.origin, tuple):
            return None
        return seen.origin[0], seen.report.port

    def pids(self) -> JSON:
        """The process ids of this node's tree."""
        pids = self.shell.pids
        return {"root": pids.root, "elector": pids.elector, "runner": pids.runner, "services": dict(pids.services)}


def rounded(seconds: float) -> float:
    """An interval as people write it: 3 x 0.3 is 0.9, not 0.8999999999999999."""
    return round(seconds, 6)


def services(infos: Iterable[ServiceInfo]) -> list[JSON]:
    """The services' objects, in the order in which they are promoted."""
    return [service(info) for info in sorted(infos, key=in_order)]


def in_order(info: ServiceInfo) -> tuple[bool, int, str]:
    """Ascending priority, those without one last."""
    return info.priority is None, info.priority or 0, info.name


def service(info: ServiceInfo) -> JSON:
    """A service's object."""
    return {
        "name": info.name, "priority": info.priority, "state": info.state, "action": info.action, "failed": info.failed,
        "pid": info.pid, "last": None if info.last is None else asdict(info.last),
    }
