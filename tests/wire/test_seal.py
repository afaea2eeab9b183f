"""The seal: each datagram opens once, in its own cluster, unchanged; and strangers cannot touch what is remembered."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koi.core.messages import Report
from koi.wire.codec import MAX_BODY, encode
from koi.wire.seal import (
    HEADER,
    MAX_BOOTS,
    MAX_DATAGRAM,
    TAG,
    WINDOW,
    Noise,
    Opened,
    Opener,
    Sealer,
    cluster_key,
)
from tests.wire.conftest import CLUSTER, Credulous

BOOT = bytes(range(16))
HEADER_PARTS = [(3, "magic"), (4, "version"), (8, "cluster")]
HERE = ("10.0.0.1", 42012)
"""End of each part of the header, and the noise that a change in it makes."""


def opened(opener: Opener, datagram: bytes) -> Opened:
    """Open what comes from HERE."""
    return opener.open(datagram, HERE)


def kind_of(opener: Opener, datagram: bytes) -> str:
    """The kind of noise that the datagram is; "opened" when it opens."""
    try:
        opened(opener, datagram)
    except Noise as noise:
        return noise.kind
    return "opened"


def report_datagram(key: bytes) -> bytes:
    """A sealed report."""
    return Sealer(key, CLUSTER, BOOT).seal(encode("a", Report("a", BOOT.hex(), 1)))


def test_what_is_sealed_opens_with_boot_and_seq(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, BOOT), Credulous(key, CLUSTER)
    assert opened(opener, sealer.seal(b"one")) == (BOOT, 1, b"one")
    assert opened(opener, sealer.seal(b"")) == (BOOT, 2, b"")


def test_two_copies_of_one_body_differ_and_both_open(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, BOOT), Credulous(key, CLUSTER)
    first, second = sealer.seal(b"body"), sealer.seal(b"body")
    assert first[HEADER.size :] != second[HEADER.size :]
    assert opened(opener, second).body == opened(opener, first).body == b"body"


def test_the_body_cannot_be_read_from_outside(key: bytes) -> None:
    assert b"secret words" not in Sealer(key, CLUSTER, BOOT).seal(b"secret words")


def test_the_cluster_key_is_scrypt_of_password_and_id(key: bytes) -> None:
    assert key == hashlib.scrypt(b"secret", salt=b"koi13", n=2**14, r=8, p=1, dklen=32, maxmem=2**26)
    assert cluster_key("secret", 14) != key != cluster_key("Secret", 13)


def test_the_sender_key_is_hkdf_of_the_boot(key: bytes) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    extracted = hmac.digest(bytes(32), key, "sha256")
    expanded = hmac.digest(extracted, BOOT + b"\x01", "sha256")
    datagram = Sealer(key, CLUSTER, BOOT).seal(b"body")
    nonce = bytes(4) + datagram[24:32]
    assert ChaCha20Poly1305(expanded).decrypt(nonce, datagram[40:], datagram[:40]) == b"body"


def test_every_truncation_is_noise(key: bytes) -> None:
    datagram, opener = report_datagram(key), Credulous(key, CLUSTER)
    for end in range(len(datagram)):
        assert kind_of(opener, datagram[:end]) == ("short" if end < HEADER.size + TAG else "seal")
    assert kind_of(opener, datagram + b"x") == "seal"
    assert kind_of(opener, datagram) == "opened"


def test_every_flipped_bit_is_noise_and_changes_nothing(key: bytes) -> None:
    datagram, opener = report_datagram(key), Credulous(key, CLUSTER)
    for bit in range(8 * len(datagram)):
        flipped = bytearray(datagram)
        flipped[bit // 8] ^= 1 << bit % 8
        kind = next((kind for end, kind in HEADER_PARTS if bit // 8 < end), "seal")
        assert kind_of(opener, bytes(flipped)) == kind
    assert not opener._peers
    assert kind_of(opener, datagram) == "opened"


def test_a_flipped_bit_after_the_boot_is_known_moves_no_window(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, BOOT), Credulous(key, CLUSTER)
    opened(opener, sealer.seal(b"x"))
    genuine = sealer.seal(b"y")
    ahead = bytearray(genuine)
    ahead[24] ^= 0x7F  # a seq far ahead
    assert kind_of(opener, bytes(ahead)) == "seal"
    assert kind_of(opener, genuine) == "opened"


def test_sizes_are_bounded(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, BOOT), Credulous(key, CLUSTER)
    largest = sealer.seal(bytes(MAX_BODY))
    assert len(largest) == MAX_DATAGRAM and kind_of(opener, largest) == "opened"
    assert kind_of(opener, largest + b"x") == "long"
    with pytest.raises(ValueError, match="60001"):
        sealer.seal(bytes(MAX_BODY + 1))


def test_another_version_is_refused_and_both_are_named(key: bytes) -> None:
    datagram = bytearray(report_datagram(key))
    datagram[3] = 2
    with pytest.raises(Noise, match="version 2 .* speaks 1") as caught:
        opened(Credulous(key, CLUSTER), bytes(datagram))
    assert caught.value.kind == "version"


def test_another_cluster_and_another_password_are_refused(key: bytes) -> None:
    with pytest.raises(Noise, match="cluster 13, this node belongs to 14") as caught:
        opened(Credulous(key, 14), report_datagram(key))
    assert caught.value.kind == "cluster"
    assert kind_of(Credulous(cluster_key("other", CLUSTER), CLUSTER), report_datagram(key)) == "seal"


def test_the_key_of_one_cluster_does_not_open_anothers_under_its_id(key: bytes) -> None:
    datagram = Sealer(key, 14, BOOT).seal(b"body")
    renamed = datagram[:4] + CLUSTER.to_bytes(4, "big") + datagram[8:]
    assert kind_of(Credulous(key, CLUSTER), renamed) == "seal"


def test_a_datagram_of_one_boot_does_not_open_under_another(key: bytes) -> None:
    datagram = Sealer(key, CLUSTER, BOOT).seal(b"body")
    assert kind_of(Credulous(key, CLUSTER), datagram[:8] + bytes(16) + datagram[24:]) == "seal"


def test_a_replay_is_refused_at_once_and_later(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, BOOT), Credulous(key, CLUSTER)
    datagrams = [sealer.seal(b"x") for _ in range(50)]
    assert {kind_of(opener, datagram) for datagram in datagrams} == {"opened"}
    assert {kind_of(opener, datagram) for datagram in datagrams} == {"replay"}


def test_out_of_order_inside_the_window_opens_behind_it_not(key: bytes) -> None:
    sealer, opener = Sealer(key, CLUSTER, BOOT), Credulous(key, CLUSTER)
    datagrams = [sealer.seal(b"x") for _ in range(WINDOW + 3)]
    kinds = [kind_of(opener, datagram) for datagram in reversed(datagrams)]
    assert kinds == ["opened"] * WINDOW + ["replay"] * 3


def test_the_window_does_not_grow(key: bytes, sealed: list[bytes]) -> None:
    opener = Credulous(key, CLUSTER)
    for datagram in sealed:
        opened(opener, datagram)
    assert opener._peers[BOOT].seen.bit_length() == WINDOW


@pytest.fixture(scope="module")
def sealed(key: bytes) -> list[bytes]:
    """Datagrams of seq 1 and up, over three windows."""
    sealer = Sealer(key, CLUSTER, BOOT)
    return [sealer.seal(b"x") for _ in range(3 * WINDOW)]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_window_against_a_plain_set(key: bytes, sealed: list[bytes], data: st.DataObject) -> None:
    places = st.one_of(st.integers(0, 3 * WINDOW - 1), st.sampled_from([0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW]))
    opener, seen, newest = Credulous(key, CLUSTER), set(), -1
    for place in data.draw(st.lists(places, max_size=30)):
        new = place not in seen and place > newest - WINDOW
        assert kind_of(opener, sealed[place]) == ("opened" if new else "replay")
        seen.add(place)
        newest = max(newest, place)


def test_strangers_evict_no_boot(key: bytes) -> None:
    genuine, opener = report_datagram(key), Credulous(key, CLUSTER)
    opened(opener, genuine)
    forger = Sealer(os.urandom(32), CLUSTER, BOOT).seal(b"forged")
    for number in range(MAX_BOOTS + 10):
        datagram = forger[:8] + number.to_bytes(16, "big") + forger[24:]
        assert kind_of(opener, datagram) == "seal"
    assert list(opener._peers) == [BOOT]
    assert kind_of(opener, genuine) == "replay"


def test_the_boots_remembered_are_bounded_and_the_silent_go_first(key: bytes) -> None:
    opener, busy = Credulous(key, CLUSTER), Sealer(key, CLUSTER, BOOT)
    first = busy.seal(b"x")
    opened(opener, first)
    for number in range(MAX_BOOTS + 10):
        opened(opener, Sealer(key, CLUSTER, (1 << 100 | number).to_bytes(16, "big")).seal(b"x"))
        if number % 100 == 0:
            opened(opener, busy.seal(b"x"))
    assert MAX_BOOTS * 3 // 4 <= len(opener._peers) <= MAX_BOOTS
    assert kind_of(opener, first) == "replay"


def test_replays_keep_no_boot_alive(key: bytes) -> None:
    opener = Credulous(key, CLUSTER)
    quiet = report_datagram(key)
    opened(opener, quiet)
    opened(opener, Sealer(key, CLUSTER, bytes(16)).seal(b"x"))
    assert kind_of(opener, quiet) == "replay"
    assert list(opener._peers) == [BOOT, bytes(16)]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_noise(key: bytes, datagram: bytes) -> None:
    assert kind_of(Credulous(key, CLUSTER), datagram) != "opened"
    assert kind_of(Credulous(key, CLUSTER), report_datagram(key)[:40] + datagram) == ("short" if len(datagram) < TAG else "seal")


def test_wrong_boots_and_ids_are_errors_of_the_caller(key: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Sealer(key, CLUSTER, b"short")
    with pytest.raises(ValueError, match="cluster id"):
        Sealer(key, 2**32, BOOT)


def test_a_sealer_does_not_survive_a_fork(key: bytes) -> None:
    sealer = Sealer(key, CLUSTER, BOOT)
    child = os.fork()
    if child == 0:
        try:
            sealer.seal(b"x")
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
