"""One cluster key for all tests of the wire: scrypt is slow on purpose."""

from __future__ import annotations

import pytest

from koi.wire.seal import cluster_key

CLUSTER = 13


@pytest.fixture(scope="session")
def key() -> bytes:
    """The key of cluster 13 with the password "secret"."""
    return cluster_key("secret", CLUSTER)
