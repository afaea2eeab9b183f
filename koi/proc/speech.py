"""The node's voice: opens sockets with the cluster's key, and knows the electors by their addresses.

Rule (docs/protocol.md section 10): an elector's datagrams count only from that elector's configured addresses.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from typing import Any, Optional

from koi import log
from koi.config import Config
from koi.names import written
from koi.proc.loop import Loop, now
from koi.proc.names import Lookup, Name
from koi.wire import codec
from koi.wire.key import cluster_key
from koi.wire.seal import Noise, Opener, Sealer
from koi.wire.udp import Address, Endpoint, is_local, literal

BOOT_BYTES = 16
NEVER = float("inf")
FRESH_S = 3.0
"""An elector's address from which nothing has come for so long is not where clients are sent, if there is a better one."""

FOREIGN = ("version", "cluster", "seal")
"""Kinds of noise that a koinode sends whose configuration or release is another one."""
DROPPED_S = 10.0
"""So long what was dropped from an elector's machine explains why it is not heard."""


@lru_cache(maxsize=1)
def _key(password: str, cluster_id: int) -> bytes:
    return cluster_key(password, cluster_id)


def prepare(config: Config) -> None:
    """Root calls it before it forks, and elector and runner, and those that replace them, find ready what they need.

    That is the cluster's key (scrypt takes 50 ms), what the library sets up when it seals and opens first (1 MB), and the codec.
    """
    codec.prepare()
    key, cluster_id = _key(config.cluster.password, config.cluster.id), config.cluster.id
    with suppress(Noise):  # it carries no cookie
        Opener(key, cluster_id).open(Sealer(key, cluster_id, new_boot()).seal(b""), "")


def open_endpoint(config: Config, binds: tuple[str, ...], port: int, boot: bytes) -> Endpoint:
    """Sockets sealed under a fresh boot. KoiError when the port is in use."""
    key = _key(config.cluster.password, config.cluster.id)
    endpoint = Endpoint(binds, port, Sealer(key, config.cluster.id, boot), Opener(key, config.cluster.id), config.node.name)
    for warning in endpoint.warnings:
        log.get().warning(warning)
    return endpoint


def new_boot() -> bytes:
    """The identity of a process: 16 random bytes."""
    return os.urandom(BOOT_BYTES)


class Electors:
    """Names and addresses of the electors. What stands as a host name in the configuration is looked up beside the loop."""

    def __init__(self, config: Config) -> None:
        self._listed = {elector.name: elector.addresses for elector in config.cluster.electors}
        hosts = [(name, host, port) for name, listed in self._listed.items() for host, port in listed]
        named = [(name, host) for name, host, port in hosts if literal(host, port) is None]
        self._named = {name: tuple(host for owner, host in named if owner == name) for name, _ in named}
        self._names = {host: Name(host, now(), name == config.node.name) for name, host in named}
        self._lookup = Lookup(self._found) if self._names else None
        self.addresses: dict[str, tuple[Address, ...]] = {}
        self._heard: dict[Address, float] = {}
        """When something came from an address, in seconds."""
        self._noise: dict[str, int] = {}
        self._dropped: dict[str, tuple[str, float]] = {}
        """Host of an elector -> what was dropped from there last, and when."""
        self._strayed: dict[str, tuple[Address, float]] = {}
        """Elector -> from which address that is not its own something of it came last, and when."""
        self._spell_out()

    def is_from(self, name: str, address: Address) -> bool:
        """Whether a datagram with this sender came from one of that elector's addresses."""
        if address not in self.addresses.get(name, ()):
            if name in self._listed:
                self._strayed[name] = address, now()
            return False
        self._heard[address] = now()
        for host in self._named.get(name, ()):
            if address[0] in self._names[host].addresses:
                self._names[host].heard(now())
        return True

    def first(self, name: Optional[str]) -> Optional[Address]:
        """Where clients are sent to reach this elector: the first of its addresses that was heard of lately."""
        addresses = self.addresses.get(name, ()) if name is not None else ()
        since = now() - FRESH_S
        fresh = (address for address in addresses if self._heard.get(address, 0.0) >= since)
        return next(fresh, addresses[0] if addresses else None)

    def note_noise(self, endpoint: Endpoint, at: float) -> None:
        """Keep what was dropped of what an elector's machine sent since the last call; of each kind the last is known."""
        for kind in FOREIGN:
            if endpoint.noise[kind] > self._noise.get(kind, 0):
                self._noise[kind], host = endpoint.noise[kind], endpoint.noise_from[kind]
                if any(host == own for addresses in self.addresses.values() for own, _ in addresses):
                    self._dropped[host] = endpoint.noise_text[kind], at

    def dropped(self, name: str, at: float) -> str:
        """What was dropped lately of this elector, or from its machine, and what to do; empty when nothing was."""
        for host, _ in self.addresses.get(name, ()):
            text, since = self._dropped.get(host, ("", 0.0))
            if text and at < since + DROPPED_S:
                return f"{text}; see that koinode runs there, with the cluster.password, cluster.id and version of this node"
        if name in self._strayed and at < self._strayed[name][1] + DROPPED_S:
            where = f"what it sends comes from {written(self._strayed[name][0])}, which is none of its addresses"
            return f"{where} in cluster.electors; correct them on all nodes, or the node.name there"
        return ""

    def lost(self, node: str) -> str:
        """Whether the others look for this elector on another machine, in words; empty when not."""
        hosts = list(dict.fromkeys(host for host, _ in self.addresses.get(node, ())))
        if not hosts or any(map(is_local, hosts)):
            return ""
        where = f"cluster.electors has {node} at {', '.join(hosts)}, and this machine has no such address"
        return f"{where}: nobody hears this elector; correct node.name, or the address on all nodes"

    def speaks(self, endpoint: Endpoint, node: str) -> None:
        """What this node sends comes from where the others expect an elector, if it is one."""
        if node in self._listed:
            endpoint.home = lambda: [host for host, _ in self.addresses.get(node, ())]

    # --- names ---

    def attach(self, loop: Loop) -> None:
        """Let the loop hear of lookups that ended."""
        if self._lookup is not None:
            loop.add(self._lookup.fileno(), self._lookup.done)

    def deadline(self) -> float:
        """When handle_timer wants to be called, in seconds."""
        if self._lookup is None or self._lookup.busy:
            return NEVER
        return min(name.due for name in self._names.values())

    def handle_timer(self, at: float) -> None:
        """Look up what is due."""
        due = [name.host for name in self._names.values() if name.due <= at]
        if self._lookup is not None and not self._lookup.busy and due:
            self._lookup.start(due)

    def warnings(self) -> tuple[str, ...]:
        """Names that mean nothing."""
        return tuple(name.trouble for name in self._names.values() if name.trouble and not name.addresses)

    def _found(self, host: str, addresses: tuple[str, ...], trouble: str) -> None:
        name = self._names[host]
        if trouble and trouble != name.trouble:
            log.get().warning(f"cluster.electors: {trouble}. It is looked up again and again")
        if name.found(addresses, trouble, now()):
            log.get().info(f"cluster.electors: {host} is {', '.join(addresses)}")
            self._spell_out()

    def _spell_out(self) -> None:
        for name, listed in self._listed.items():
            self.addresses[name] = tuple(address for host, port in listed for address in self._meant(host, port))
        self._heard = {}

    def _meant(self, host: str, port: int) -> tuple[Address, ...]:
        if host in self._names:
            return tuple((address, port) for address in self._names[host].addresses)
        address = literal(host, port)
        return (address,) if address is not None else ()


def count_stranger(endpoint: Endpoint, address: Address, sender: str, message: Any) -> None:
    """A datagram that opened but does not belong here is noise too."""
    endpoint.noise["sender"] += 1
    kind = type(message).__name__
    endpoint.noise_text["sender"] = f"{kind} of {sender} from {address[0]}:{address[1]}, which is not where it should come from"


def count_noise(endpoint: Endpoint, told: dict[str, Any]) -> None:
    """Log the first of each kind of datagram that is dropped, and each time its number has grown tenfold."""
    for kind, number in endpoint.noise.items():
        if number >= 10 * int(told.get(kind, 0)) or kind not in told:
            told[kind] = number
            log.get().warning(f"dropped a datagram: {endpoint.noise_text.get(kind, kind)} ({number} of this kind so far)")
