"""The node's voice: opens sockets with the cluster's key, and knows the electors by their addresses.

Rule (PROTOCOL.md section 10): an elector's datagrams count only from that elector's configured addresses.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Optional

from koi import log
from koi.config import Config
from koi.errors import KoiError
from koi.wire.seal import Opener, Sealer, cluster_key
from koi.wire.udp import Address, Endpoint, resolve

BOOT_BYTES = 16


@lru_cache(maxsize=1)
def _key(password: str, cluster_id: int) -> bytes:
    return cluster_key(password, cluster_id)


def prepare_key(config: Config) -> bytes:
    """The cluster's key; root asks first, so that its children inherit it (scrypt takes 50 ms and 16 MB)."""
    return _key(config.cluster.password, config.cluster.id)


def open_endpoint(config: Config, binds: tuple[str, ...], port: int, boot: bytes) -> Endpoint:
    """Sockets sealed under a fresh boot. KoiError when the port is in use."""
    key = prepare_key(config)
    endpoint = Endpoint(binds, port, Sealer(key, config.cluster.id, boot), Opener(key, config.cluster.id), config.node.name)
    for warning in endpoint.warnings:
        log.get().warning(warning)
    return endpoint


def new_boot() -> bytes:
    """The identity of a process: 16 random bytes."""
    return os.urandom(BOOT_BYTES)


class Electors:
    """Names and addresses of the electors."""

    def __init__(self, config: Config) -> None:
        self.addresses: dict[str, tuple[Address, ...]] = {}
        self.names: dict[Address, str] = {}
        for elector in config.cluster.electors:
            self.addresses[elector.name] = tuple(a for a in (_resolve(*address) for address in elector.addresses) if a is not None)
            for address in self.addresses[elector.name]:
                self.names[address] = elector.name

    def is_from(self, name: str, address: Address) -> bool:
        """Whether a datagram with this sender came from one of that elector's addresses."""
        return address in self.addresses.get(name, ())

    def first(self, name: Optional[str]) -> Optional[Address]:
        """Where clients are sent to reach this elector."""
        addresses = self.addresses.get(name, ()) if name is not None else ()
        return addresses[0] if addresses else None


def _resolve(host: str, port: int) -> Optional[Address]:
    try:
        return resolve(host, port)
    except KoiError as error:
        log.get().warning(f"{error}; this address of an elector is left out until koinode is started again")
        return None


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
