"""One cluster key for all tests of the wire: scrypt is slow on purpose. And an Opener for tests without cookies."""

from __future__ import annotations

from typing import Hashable

import pytest

from koi.wire.seal import NO_COOKIE, Opener, cluster_key

CLUSTER = 13


class Credulous(Opener):
    """Handles what carries no cookie."""

    def cookie(self, boot: bytes, source: Hashable) -> bytes:
        """The one that stands in a first datagram."""
        return NO_COOKIE


@pytest.fixture(scope="session")
def key() -> bytes:
    """The key of cluster 13 with the password "secret"."""
    return cluster_key("secret", CLUSTER)
