"""What several tests of real processes start: lone workers, and clusters of services that stamp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.cluster import RealCluster
from tests.proc.lone_worker import Lone

MakeLone = Callable[..., Lone]
Begin = Callable[..., RealCluster]


@pytest.fixture
def make_lone(tmp_path: Path) -> Iterator[MakeLone]:
    """Makes a lone worker's surroundings, with these scripts."""
    made: list[Lone] = []

    def lone(*scripts: str, **more: Any) -> Lone:
        one = Lone(tmp_path, **more)
        made.append(one)
        one.scripts(*scripts)
        return one

    yield lone
    for one in made:
        one.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts a cluster with these services and waits for its master; `bodies` says what "SERVICE/ACTION" or "ACTION" does."""
    with ExitStack() as clusters:

        def start(services: tuple[str, ...], bodies: Mapping[str, str], **options: Any) -> RealCluster:
            cluster = clusters.enter_context(RealCluster(tmp_path, **options))
            for service in services:
                for action in ("start", "stop", "promote", "demote"):
                    cluster.script(service, action, bodies.get(f"{service}/{action}", bodies.get(action, "")))
            cluster.start()
            cluster.wait_master()
            return cluster

        yield start
