"""Random kills and stops of random processes of a three-node cluster, from a fixed seed: never two hosts promoted, always
a master again, nothing left at the end. `KOI_SEED=n` takes another seed; the long form is `-m long`."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster import Node, RealCluster, beneath, send, until

SEED = int(os.environ.get("KOI_SEED", "20261122"))
LEASE_AND_GRACE_S = 0.9
MAX_PAUSE_S = 0.3
EVERY = 10
"""After so many kills in a row the cluster is left alone until it is whole again."""


class Killer:
    """Hurts one process after the other, and starts roots again as init would."""

    def __init__(self, cluster: RealCluster, seed: int) -> None:
        self.cluster, self.dice = cluster, random.Random(seed)
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """One random harm to one random process, then a random pause."""
        self.revive()
        node = self.cluster[self.dice.choice("abc")]
        processes = sorted(node.processes().items())
        harm = self.dice.choices(("SIGKILL", "SIGSTOP", "everything"), (60, 30, 10))[0]
        name, pid = self.dice.choice(processes) if processes else ("", 0)
        if harm == "everything":
            node.kill_all()
            name = "node"
        elif name == "root" and harm == "SIGSTOP":
            self._stop_root(node)
        elif name:
            send([pid], signal.Signals[harm])
        self.done[f"{harm} {name}"] += 1
        time.sleep(self.dice.uniform(0.0, MAX_PAUSE_S))

    def _stop_root(self, node: Node) -> None:
        """Stopped for a while; past a lease or two somebody replaces it, as systemd's watchdog would."""
        os.kill(node.pid, signal.SIGSTOP)
        time.sleep(self.dice.choice((0.05, 0.3, 1.5)))
        os.kill(node.pid, self.dice.choice((signal.SIGCONT, signal.SIGKILL)))

    def revive(self) -> None:
        """Start what has no root any more; workers of the dead tree may still demote."""
        for node in self.cluster.nodes.values():
            if node.process is None or node.process.poll() is not None:
                node.start()
                until(f"the root of {node.name}", lambda node=node: node.process.poll() is not None or "root" in node.processes())

    def rest(self) -> None:
        """No more harm: there must be a master, and every node must be well again."""
        def whole() -> bool:
            self.revive()
            states = sorted(str(n["state"]) for n in self.cluster.status()["nodes"])
            return states == ["Backup", "Backup", "Master"]

        until("a master and two backups", whole, 60.0)


def kill(tmp_path: Path, count: int, seed: int) -> Counter[str]:
    """So many kills; what was done, by kind."""
    with RealCluster(tmp_path) as cluster:
        for service in ("10-vip", "20-db"):
            for action in ("start", "stop", "promote", "demote", "status"):
                cluster.script(service, action)
        killer = Killer(cluster, seed)
        killer.rest()
        for number in range(count):
            killer.strike()
            if number % EVERY == EVERY - 1:
                killer.rest()
                assert cluster.overlaps(cluster.killed) == [], f"seed {seed}, kill {number + 1}"
        killer.rest()
        assert cluster.overlaps(cluster.killed) == [], f"seed {seed}"
        for node in cluster.nodes.values():
            assert node.stop() == 0
        assert beneath(tmp_path) == {}
    return killer.done


def test_thirty_random_kills(tmp_path: Path) -> None:
    done = kill(tmp_path, 30, SEED)
    assert done.total() == 30


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_two_hundred_random_kills(tmp_path: Path) -> None:
    print(kill(tmp_path, 200, SEED + 1))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_two_thousand_random_kills(tmp_path: Path) -> None:
    print(kill(tmp_path, 2000, SEED + 2))
