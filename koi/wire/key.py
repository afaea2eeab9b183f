"""The key that all nodes of a cluster share, derived from its password; slow on purpose, so that guessing is.

Rule: 50 ms and 16 MB, once a process. A client, whose whole life is not much longer, derives it in a thread beside its
imports; OpenSSL lets other threads run meanwhile. Nothing that is slow to import is imported here.
"""

from __future__ import annotations

import hashlib
from threading import Thread

KEY_BYTES = 32
COST, BLOCK, PARALLEL = 2**14, 8, 1


def cluster_key(password: str, cluster_id: int) -> bytes:
    """scrypt of the password, salted with the cluster's id (docs/protocol.md section 10)."""
    salt = b"koi" + str(cluster_id).encode()
    return hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCK, p=PARALLEL, dklen=KEY_BYTES)


class Derivation:
    """A key that is being derived since this object was made."""

    def __init__(self, password: str, cluster_id: int) -> None:
        self._password, self._id = password, cluster_id
        self._key = b""
        self._thread = Thread(target=self._derive, name="key", daemon=True)
        self._thread.start()

    def key(self) -> bytes:
        """The key, once it is there."""
        self._thread.join()
        return self._key

    def _derive(self) -> None:
        self._key = cluster_key(self._password, self._id)
