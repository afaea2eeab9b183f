"""The seal: each datagram is encrypted and authenticated, opens once, and only in its own cluster (PROTOCOL.md 10).

    magic "koi" | version 1 | cluster id 4 | boot 16 | seq 8 | cookie 8 | ChaCha20-Poly1305 of the body | tag 16

The header is authenticated with the body. The key is the sender's own: HKDF(cluster key, boot), so seq serves as nonce.
Rule kept: what is not authentic changes nothing here; no state is made, moved or dropped before a seal has opened.
scrypt and HKDF come from `cryptography` too: hashlib and hmac would load a second OpenSSL (0.6 MB private, 3 ms).
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from koi.wire.codec import MAX_BODY

MAGIC = b"koi"
VERSION = 1
HEADER = struct.Struct(">3sBI16sQ8s")
TAG = 16
MAX_DATAGRAM = HEADER.size + MAX_BODY + TAG
BOOT = 16
"""Bytes of a boot, drawn at random when a process starts."""
NO_COOKIE = bytes(8)
"""The only cookie of this version: the field is kept for the proof that an unknown boot is alive."""
WINDOW = 4096
"""How far behind the newest seq of its boot a datagram may come. A sender counts over all its receivers, so this is wide."""
MAX_BOOTS = 4096
"""Boots remembered; the one that was silent longest is forgotten first."""

_KEY = 32
_WINDOW_MASK = (1 << WINDOW) - 1


class Noise(Exception):
    """A datagram that is not for us, or not from us. `kind` is one word to count by; the text says more."""

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(text or kind)
        self.kind = kind


class Opened(NamedTuple):
    """What was under a seal that opened."""

    boot: bytes
    seq: int
    body: bytes


def cluster_key(password: str, cluster_id: int) -> bytes:
    """The key that all nodes of a cluster share. Slow on purpose (50 ms, 16 MB): once a process, before it forks."""
    salt = b"koi" + str(cluster_id).encode()
    return Scrypt(salt=salt, length=_KEY, n=2**14, r=8, p=1).derive(password.encode())


def _sender_cipher(key: bytes, boot: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(algorithm=SHA256(), length=_KEY, salt=None, info=boot).derive(key))


def _nonce(seq: int) -> bytes:
    return seq.to_bytes(12, "big")


class Sealer:
    """Seals what one process sends. No seq is ever used twice under a boot, so it belongs to the process that made it."""

    def __init__(self, key: bytes, cluster_id: int, boot: bytes) -> None:
        if len(boot) != BOOT or not 0 <= cluster_id < 2**32:
            raise ValueError(f"a boot has {BOOT} bytes, a cluster id lies between 0 and {2**32 - 1}")
        self.boot = boot
        self._cluster_id = cluster_id
        self._cipher = _sender_cipher(key, boot)
        self._seq = 0
        self._pid = os.getpid()

    def seal(self, body: bytes) -> bytes:
        """One datagram of the body; each call takes a seq of its own, so that every copy can be told from a replay."""
        if len(body) > MAX_BODY:
            raise ValueError(f"a body of {len(body)} bytes; at most {MAX_BODY} fit a datagram")
        if os.getpid() != self._pid:
            raise RuntimeError("this Sealer was made before the fork: a second process would repeat its nonces")
        self._seq += 1
        header = HEADER.pack(MAGIC, VERSION, self._cluster_id, self.boot, self._seq, NO_COOKIE)
        return header + self._cipher.encrypt(_nonce(self._seq), body, header)


class _Peer:
    """A boot that has sealed something: its cipher, and which of its last WINDOW seqs were seen (bit i: newest - i)."""

    __slots__ = ("cipher", "newest", "seen")

    def __init__(self, cipher: ChaCha20Poly1305, seq: int) -> None:
        self.cipher = cipher
        self.newest = seq
        self.seen = 1

    def take(self, seq: int) -> bool:
        """Whether the seq is new; it counts as seen from now on. Older than the window is not new."""
        ahead = seq - self.newest
        if ahead > 0:
            self.seen = ((self.seen << ahead) & _WINDOW_MASK | 1) if ahead < WINDOW else 1
            self.newest = seq
            return True
        bit = 1 << -ahead if -ahead < WINDOW else 0
        if not bit or self.seen & bit:
            return False
        self.seen |= bit
        return True


class Opener:
    """Opens what the processes of one cluster sealed, each datagram once."""

    def __init__(self, key: bytes, cluster_id: int) -> None:
        self._key = key
        self._cluster_id = cluster_id
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()

    def open(self, datagram: bytes) -> Opened:
        """What is sealed; Noise of kind short, long, magic, version, cluster, cookie, seal or replay."""
        boot, seq = self._header(datagram)
        peer = self._peers.get(boot)
        cipher = peer.cipher if peer else _sender_cipher(self._key, boot)
        try:
            body = cipher.decrypt(_nonce(seq), datagram[HEADER.size :], datagram[: HEADER.size])
        except InvalidTag:
            raise Noise("seal", "the seal does not open: another password, or not from this cluster") from None
        if peer is None:
            self._remember(boot, _Peer(cipher, seq))
        elif not peer.take(seq):
            raise Noise("replay", "seen before, or older than the window")
        self._peers.move_to_end(boot)
        return Opened(boot, seq, body)

    def _header(self, datagram: bytes) -> tuple[bytes, int]:
        if not HEADER.size + TAG <= len(datagram) <= MAX_DATAGRAM:
            raise Noise("short" if len(datagram) < MAX_DATAGRAM else "long", f"a datagram of {len(datagram)} bytes")
        magic, version, cluster_id, boot, seq, cookie = HEADER.unpack_from(datagram)
        if magic != MAGIC:
            raise Noise("magic", "not a datagram of Koi")
        if version != VERSION:
            raise Noise("version", f"speaks version {version} of the protocol, this node speaks {VERSION}")
        if cluster_id != self._cluster_id:
            raise Noise("cluster", f"of cluster {cluster_id}, this node belongs to {self._cluster_id}")
        if cookie != NO_COOKIE:
            raise Noise("cookie", "carries a cookie; this version gives none")
        return boot, seq

    def _remember(self, boot: bytes, peer: _Peer) -> None:
        self._peers[boot] = peer
        if len(self._peers) > MAX_BOOTS:
            self._peers.popitem(last=False)
