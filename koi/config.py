"""The configuration of one node: koi.conf read, checked and resolved, once and for all, before anything starts.

Every fault is told at once, with file, line, key and what would be right; what loads is whole and safe. Each key is
explained in conf/koi.conf. The password shows nowhere: not in repr, errors or logs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from functools import cached_property
from typing import Any

import yaml

from koi import configcheck as check
from koi.configfile import Faults, Key, Read, Wrong, pairs, read_bytes, read_flat, read_sections, shown
from koi.configkeys import SCRIPTS, SECTIONS
from koi.configvalues import Address, variable
from koi.core.data import dataclass
from koi.core.timing import Timing, derive
from koi.errors import ConfigError

__all__ = ["Address", "Config", "ClusterConfig", "Elector", "Electors", "NodeConfig", "ServiceDefaults", "TimeConfig",
           "DEFAULT_PATHS", "keygen", "load", "loads", "locate", "override", "place", "services_at_least"]

DEFAULT_PATHS = ("/etc/koi/koi.conf", "koi.conf")
MAX_VARIABLES = 100


@dataclass(frozen=True)
class Elector:
    """One that votes: its name and where it can be reached, one address or more, all with the same port."""

    name: str
    addresses: tuple[Address, ...]

    @property
    def port(self) -> int:
        """The UDP port that it listens on."""
        return self.addresses[0].port


class Electors(tuple[Elector, ...]):
    """The electors of the cluster, ordered by name; `get` finds one by its name."""

    __slots__ = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(elector.name for elector in self)

    def get(self, name: str) -> Elector | None:
        """The elector of this name, or None."""
        return next((elector for elector in self if elector.name == name), None)


@dataclass(frozen=True)
class NodeConfig:
    """`node:` of this node, resolved; folders are absolute."""

    name: str
    elector: bool
    runner: bool
    mode: str
    preference: int
    rank: int
    state_dir: str
    run_dir: str
    loglevel: str
    watchdog: str | None
    self_fence: str | None


@dataclass(frozen=True)
class ClusterConfig:
    """`cluster:`, resolved: `port` is this node's own, `quorum` a number of electors."""

    id: int
    password: str = field(repr=False)
    port: int
    bind: tuple[str, ...]
    electors: Electors
    quorum: int
    unsafe_quorum: bool
    preempt: bool
    bully_delay: float
    blank_wait: float
    fence: str | None


@dataclass(frozen=True)
class ServiceDefaults:
    """`service:`, or the settings of one service (see `override`); timeouts in seconds, folders absolute."""

    folder: str
    workingdir: str | None
    start_timeout: float
    stop_timeout: float
    status_timeout: float
    promote_timeout: float
    demote_timeout: float
    failed_timeout: float
    restarts: int
    auto_recover: int
    auto_recover_wait_factor: float
    stuck: str
    env: tuple[tuple[str, str], ...] = ()
    """Only from a service's own service.yaml: variables for its scripts."""

    def timeout(self, action: str) -> float:
        """How long the script of this action may run, in seconds."""
        return float(getattr(self, f"{action}_timeout"))


@dataclass(frozen=True)
class TimeConfig:
    """`time:` in seconds; the intervals that derive from failover are worked out."""

    failover: float
    heartbeat: float
    lease: float
    demote_grace: float
    leader_timeout: float
    status_interval: float
    auto_recover_time: float
    failcount_reset: float
    failure_promotion_timeout: float
    forget_runner: float


@dataclass(frozen=True)
class Config:
    """All of a node's configuration; `warnings` are for the log and for `koi check`."""

    path: str
    node: NodeConfig
    cluster: ClusterConfig
    service: ServiceDefaults
    time: TimeConfig
    warnings: tuple[str, ...] = ()
    stands_in: str = ""
    """Not the file's present content, which is faulty: what `koi status` warns of until the file is mended."""

    @cached_property
    def timing(self) -> Timing:
        """The intervals of the protocol (docs/protocol.md sections 1 and 8)."""
        time, cluster, service = self.time, self.cluster, self.service
        return derive(
            time.failover, time.heartbeat, time.lease, time.demote_grace, time.leader_timeout,
            bully_delay=cluster.bully_delay, blank_wait=cluster.blank_wait,
            failure_promotion_timeout=time.failure_promotion_timeout, forget_runner=time.forget_runner,
            promote_timeout=service.promote_timeout, demote_timeout=service.demote_timeout,
        )

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits of what must be equal on all nodes: id, electors, quorum and intervals; no secrets."""
        shared = replace(self.timing, promote_timeout=0.0, demote_timeout=0.0)
        electors = [(e.name, sorted(map(str, e.addresses))) for e in self.cluster.electors]
        text = repr((self.cluster.id, electors, self.cluster.quorum, self.cluster.preempt, shared))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load(path: str | None = None, name: str | None = None, password: str | None = None) -> Config:
    """The configuration in the file (default: /etc/koi/koi.conf, else ./koi.conf).

    `name` and `password` come from the command line or environment and win over the file's; with a password given,
    password_file is not read. Raises ConfigError with every fault.
    """
    file = locate(path)
    return loads(read_bytes(file), file, name, password)


def loads(content: bytes, file: str, name: str | None = None, password: str | None = None) -> Config:
    """As `load`, from the content of a file; `file` names it in faults and is the base of relative paths."""
    faults = Faults(file)
    read = read_sections(content, SECTIONS, faults)
    node_name = check.node_name(read, name, faults)
    port, electors = _electors(read, node_name, faults)
    elector, runner = check.roles(read, node_name, faults)
    quorum = check.quorum(read, faults)
    timing = check.timing(read, faults)
    base = os.path.dirname(os.path.abspath(file))
    secret = check.password(read, password, base, faults)
    faults.check()
    values = {**read.values, **check.folders(read.values, base)}
    values |= {"node.name": node_name, "node.elector": elector, "node.runner": runner}
    values |= {"cluster.password": secret, "cluster.port": port, "cluster.electors": electors, "cluster.quorum": quorum}
    values |= {"time.heartbeat": timing.heartbeat, "time.lease": timing.lease}
    values |= {"time.demote_grace": timing.grace, "time.leader_timeout": timing.leader_timeout}
    return Config(
        path=os.path.abspath(file),
        node=NodeConfig(**_section(values, "node")),
        cluster=ClusterConfig(**_section(values, "cluster", without=["password_file"])),
        service=ServiceDefaults(**_section(values, "service")),
        time=TimeConfig(**_section(values, "time")),
        warnings=check.warnings(read, file, password, len(electors), quorum, timing),
    )


def place(path: str, key: str) -> str:
    """`FILE:LINE: key` for a fault that shows only after a file was loaded."""
    return f"{path}:{read_sections(read_bytes(path), SECTIONS, Faults(path)).line(key)}: {key}"


def services_at_least(path: str | None) -> tuple[str, ServiceDefaults] | None:
    """The file, and what it says of services for all its faults; None where it runs none, or says not where they are."""
    try:
        file = locate(path)
        read = read_sections(read_bytes(file), SECTIONS, Faults(file))
    except ConfigError:
        return None
    faulty = read.given("service.folder") and read.values["service.folder"] == SECTIONS["service"]["folder"].default
    if not read.values["node.runner"] or faulty:
        return None
    folders = check.folders(read.values, os.path.dirname(os.path.abspath(file)))
    return file, ServiceDefaults(**_section({**read.values, **folders}, "service"))


def locate(path: str | None = None) -> str:
    """The file itself, or the first of the default ones that is there. Raises ConfigError where none is."""
    if path is not None:
        return path
    for path in DEFAULT_PATHS:
        if os.path.exists(path):
            return path
    raise ConfigError([f"{DEFAULT_PATHS[0]}: is not there, nor is ./{DEFAULT_PATHS[1]}; write one, or name another with -f"])


def _section(values: Mapping[str, Any], section: str, without: Iterable[str] = ()) -> dict[str, Any]:
    return {name: values[f"{section}.{name}"] for name in SECTIONS[section] if name not in without}


def _electors(read: Read, node_name: str, faults: Faults) -> tuple[int, Electors]:
    """This node's own port and all electors; without any, this node is its cluster's only one."""
    port = read.values["cluster.port"]
    node = read.nodes.get("cluster.electors")
    if node is None:
        return port, Electors([Elector(node_name, (Address("127.0.0.1", port),))])
    found = [Elector(name, addresses) for name, addresses in check.electors(node, port, faults)]
    electors = Electors(sorted(found, key=lambda elector: elector.name))
    own = electors.get(node_name)
    return own.port if own else port, electors


def override(defaults: ServiceDefaults, source: Mapping[str, Any] | bytes, file: str) -> ServiceDefaults:
    """The settings of one service: `defaults` with what its service.yaml says (timeouts, workingdir, restarts, env).

    `source` is the file's content, or what was read from it (faults then carry no true lines). A relative workingdir
    starts at the file's folder. Raises ConfigError with every fault.
    """
    content = source if isinstance(source, bytes) else yaml.safe_dump(dict(source)).encode()
    faults = Faults(file)
    read = read_flat(content, {**SCRIPTS, "env": Key(lambda node: node)}, faults)
    changes = {name: read.values[name] for name in SCRIPTS if read.given(name)}
    if read.given("env"):
        changes["env"] = _variables(read.nodes["env"], faults)
    faults.check()
    if "workingdir" in changes:
        changes["workingdir"] = os.path.join(os.path.dirname(os.path.abspath(file)), changes["workingdir"])
    return replace(defaults, **changes)


def _variables(node: yaml.Node, faults: Faults) -> tuple[tuple[str, str], ...]:
    found = []
    for name, line, value in pairs(node, "env", faults)[:MAX_VARIABLES]:
        try:
            found.append(variable(name, value))
        except Wrong as wrong:
            faults.add(line, f"env.{shown(name)}", str(wrong))
    return tuple(found)


def keygen() -> str:
    """A fresh cluster password: 44 random characters that need no quotes in YAML."""
    from secrets import token_urlsafe  # only who makes a password pays for it

    return "k" + token_urlsafe(32)
