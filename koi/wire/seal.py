"""The seal: each datagram is encrypted and authenticated, opens once, and only in its own cluster (docs/protocol.md 10).

    magic "koi" | version 1 | cluster id 4 | boot 16 | seq 8 | cookie 8 | ChaCha20-Poly1305 of the body | tag 16

The header is authenticated with the body. The key is the sender's own: HKDF(cluster key, boot), so seq serves as nonce.
Only what carries the cookie that this process gives to (boot, address) is handled, so nothing that was sealed before it
began. A Cookie datagram has the magic "koc", the cookie that it gives in the header, and the refused seq as its body; the
refused boot is authenticated with it.
Rule kept: what is not authentic changes nothing here, and what may be a replay of old traffic makes no state: a boot is
remembered only once it has proven that it is alive.
scrypt and HKDF come from `cryptography` too: hashlib and hmac would load a second OpenSSL (0.6 MB private, 3 ms).
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from typing import Hashable, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from koi.wire.codec import MAX_BODY
from koi.wire.key import KEY_BYTES
from koi.wire.key import cluster_key as cluster_key

MAGIC = b"koi"
COOKIE_MAGIC = b"koc"
VERSION = 1
HEADER = struct.Struct(">3sBI16sQ8s")
TAG = 16
MAX_DATAGRAM = HEADER.size + MAX_BODY + TAG
BOOT = 16
"""Bytes of a boot, drawn at random when a process starts."""
NO_COOKIE = bytes(8)
"""Stands in the header until the receiver has given one."""
ECHO = 8
"""Bytes of a Cookie datagram's body: the refused seq."""
WINDOW = 4096
"""How far behind the newest seq of its boot a datagram may come. A sender counts over all its receivers, so this is wide."""
MAX_BOOTS = 4096
"""Boots remembered; those that were silent longest are forgotten first, FORGET_AT_ONCE of them, and with them the secret
of the cookies: else what such a boot once sent could be replayed with its cookie."""
FORGET_AT_ONCE = MAX_BOOTS // 4
MAX_SOURCES = 16
"""Addresses of one boot whose cookie is remembered; a cookie that is not is worked out again."""

_WINDOW_MASK = (1 << WINDOW) - 1


class Noise(Exception):
    """A datagram that is not for us, or not from us. `kind` is one word to count by; the text says more."""

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(text or kind)
        self.kind = kind


class Unproven(Noise):
    """A datagram without the cookie that its boot must show from its address; that cookie is to be given to it."""

    def __init__(self, boot: bytes, seq: int, cookie: bytes) -> None:
        super().__init__("cookie", "without the cookie that its boot must show from this address; it was given it")
        self.boot, self.seq, self.cookie = boot, seq, cookie


class Opened(NamedTuple):
    """What was under a seal that opened."""

    boot: bytes
    seq: int
    body: bytes


class Given(NamedTuple):
    """What a Cookie datagram says: the boot and seq that sealed it, the own seq that it refuses, and the cookie."""

    boot: bytes
    seq: int
    refused: int
    cookie: bytes


def _sender_cipher(key: bytes, boot: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=boot).derive(key))


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

    @property
    def seq(self) -> int:
        """The seq of the last datagram."""
        return self._seq

    def seal(self, body: bytes, cookie: bytes = NO_COOKIE) -> bytes:
        """One datagram of the body; each call takes a seq of its own, so that every copy can be told from a replay."""
        if len(body) > MAX_BODY:
            raise ValueError(f"a body of {len(body)} bytes; at most {MAX_BODY} fit a datagram")
        return self._seal(MAGIC, cookie, body, b"")

    def seal_cookie(self, cookie: bytes, boot: bytes, seq: int) -> bytes:
        """The Cookie datagram that refuses (boot, seq) and says with which cookie it would be handled."""
        return self._seal(COOKIE_MAGIC, cookie, seq.to_bytes(ECHO, "big"), boot)

    def _seal(self, magic: bytes, cookie: bytes, body: bytes, beside: bytes) -> bytes:
        if os.getpid() != self._pid:
            raise RuntimeError("this Sealer was made before the fork: a second process would repeat its nonces")
        self._seq += 1
        header = HEADER.pack(magic, VERSION, self._cluster_id, self.boot, self._seq, cookie)
        return header + self._cipher.encrypt(_nonce(self._seq), body, header + beside)


class _Peer:
    """A boot that is alive: its cipher, which of its last WINDOW seqs were seen (bit i: newest - i), and its cookies."""

    __slots__ = ("cipher", "cookies", "newest", "seen")

    def __init__(self, cipher: ChaCha20Poly1305, seq: int) -> None:
        self.cipher = cipher
        self.newest = seq
        self.seen = 1
        self.cookies: dict[Hashable, bytes] = {}

    def is_new(self, seq: int) -> bool:
        """Whether the seq was not seen yet; older than the window is not new."""
        behind = self.newest - seq
        return behind < 0 or (behind < WINDOW and not self.seen >> behind & 1)

    def take(self, seq: int) -> bool:
        """Whether the seq is new; it counts as seen from now on."""
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

    def settle_at(self, source: Hashable, cookie: bytes) -> None:
        """It has shown the right cookie from this address."""
        if len(self.cookies) >= MAX_SOURCES:
            self.cookies.clear()
        self.cookies[source] = cookie


class Opener:
    """Opens what the processes of one cluster sealed, each datagram once."""

    def __init__(self, key: bytes, cluster_id: int) -> None:
        self._key = key
        self._cluster_id = cluster_id
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()
        self._secret = os.urandom(KEY_BYTES)

    def open(self, datagram: bytes, source: Hashable) -> Opened:
        """What is sealed; Noise of kind short, long, magic, version, cluster, seal, replay or cookie (Unproven).

        `source` is where it came from, in any hashable form that has one text.
        """
        boot, seq, cookie = self._header(datagram, MAGIC)
        peer = self._peers.get(boot)
        cipher = peer.cipher if peer else _sender_cipher(self._key, boot)
        body = _decrypt(cipher, seq, datagram, b"")
        if peer is None or peer.cookies.get(source) != cookie:
            self._admit(boot, seq, cookie, source, cipher)
        elif not peer.take(seq):
            raise Noise("replay", "seen before, or older than the window")
        self._peers.move_to_end(boot)
        return Opened(boot, seq, body)

    def open_cookie(self, datagram: bytes, own_boot: bytes) -> Given:
        """What a Cookie datagram for this boot says; Noise as above. Nothing is remembered."""
        boot, seq, cookie = self._header(datagram, COOKIE_MAGIC)
        peer = self._peers.get(boot)
        body = _decrypt(peer.cipher if peer else _sender_cipher(self._key, boot), seq, datagram, own_boot)
        if len(body) != ECHO:
            raise Noise("malformed", f"a Cookie datagram that echoes {len(body)} bytes; right is {ECHO}")
        return Given(boot, seq, int.from_bytes(body, "big"), cookie)

    def cookie(self, boot: bytes, source: Hashable) -> bytes:
        """What this boot must show from this address: a keyed hash, so nothing need be remembered of who was given one."""
        hashed = HMAC(self._secret, SHA256())
        hashed.update(boot + repr(source).encode())
        return hashed.finalize()[: len(NO_COOKIE)]

    def _header(self, datagram: bytes, right: bytes) -> tuple[bytes, int, bytes]:
        if not HEADER.size + TAG <= len(datagram) <= MAX_DATAGRAM:
            raise Noise("short" if len(datagram) < MAX_DATAGRAM else "long", f"a datagram of {len(datagram)} bytes")
        magic, version, cluster_id, boot, seq, cookie = HEADER.unpack_from(datagram)
        if magic != right:
            raise Noise("magic", "not a datagram of Koi")
        if version != VERSION:
            raise Noise("version", f"speaks version {version} of the protocol, this node speaks {VERSION}")
        if cluster_id != self._cluster_id:
            raise Noise("cluster", f"of cluster {cluster_id}, this node belongs to {self._cluster_id}")
        return boot, seq, cookie

    def _admit(self, boot: bytes, seq: int, cookie: bytes, source: Hashable, cipher: ChaCha20Poly1305) -> None:
        """A boot that is new, or new at this address, or shows another cookie than the last time."""
        peer = self._peers.get(boot)
        if peer is not None and not peer.is_new(seq):
            raise Noise("replay", "seen before, or older than the window, and not as it was seen")
        right = self.cookie(boot, source)
        if cookie != right:
            raise Unproven(boot, seq, right)
        if peer is None:
            peer = self._remember(boot, _Peer(cipher, seq))
        else:
            peer.take(seq)
        peer.settle_at(source, cookie)

    def _remember(self, boot: bytes, peer: _Peer) -> _Peer:
        if len(self._peers) >= MAX_BOOTS:
            for _ in range(FORGET_AT_ONCE):
                self._peers.popitem(last=False)
            self._secret = os.urandom(KEY_BYTES)
        self._peers[boot] = peer
        return peer


def _decrypt(cipher: ChaCha20Poly1305, seq: int, datagram: bytes, beside: bytes) -> bytes:
    try:
        return cipher.decrypt(_nonce(seq), datagram[HEADER.size :], datagram[: HEADER.size] + beside)
    except InvalidTag:
        raise Noise("seal", "the seal does not open: another password, or not from this cluster") from None
