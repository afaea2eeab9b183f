"""The key of a cluster, made from its password; in a file of its own, for it needs nothing that takes long to import."""

from __future__ import annotations

import hashlib

KEY_BYTES = 32
COST, BLOCKS = 2**14, 8
MAX_MEMORY = 2 * 128 * COST * BLOCKS
"""Scrypt takes half of it."""


def cluster_key(password: str, cluster_id: int) -> bytes:
    """The key that all nodes of a cluster share. Slow on purpose (50 ms, 16 MB): once a process, before it forks."""
    salt = b"koi" + str(cluster_id).encode()
    return hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCKS, p=1, maxmem=MAX_MEMORY, dklen=KEY_BYTES)
