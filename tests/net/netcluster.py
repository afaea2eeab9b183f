"""Real koinodes on hosts that are network namespaces, with services that stamp what they do.

The rule the tests hold it to: stamps of two hosts never overlap, a master is there in time whenever a majority sees a
promotable runner, and a healthy master is not moved.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

from koi.client import Client
from koi.errors import KoiError
from tests.cluster import PASSWORD, Node, RealCluster, until
from tests.net.hosts import Hosts

PORT = 42012
BULLY_DELAY = "1s"
"""The highest elector leads soon, where a test arranges that."""
SLACK_S = 1.5
"""Beyond time.failover: two cores run all hosts and the tests beside."""


class HostNode(Node):
    """A koinode on a host of its own."""

    def __init__(self, cluster: NetCluster, name: str, runner: bool, elector: bool) -> None:
        super().__init__(cluster, name, PORT, runner, elector)
        self.hosts = cluster.hosts
        self.kept: Optional[Client] = None

    def start(self) -> None:
        """Run koinode in the host's namespace."""
        command = self.hosts.command(self.name, sys.executable, "-m", "koi.node", "-f", str(self.config))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)

    def client(self, timeout: float = 6.0) -> Client:
        """A client on the same host."""
        client = Client(str(self.config), timeout=timeout)
        with self.hosts.inside(self.name):
            client._line.open()
        return client

    def ask(self, timeout: float = 1.0) -> dict[str, Any]:
        """`koi status` with a client that is kept, empty while nobody answers."""
        if self.kept is None:
            self.kept = self.client(timeout)
        try:
            return self.kept.status()
        except KoiError:
            return {}


class NetCluster(RealCluster):
    """`hosts` with a koinode each; `addresses` maps an elector to what stands for it in the configuration."""

    def __init__(
        self, hosts: Hosts, folder: Path, electors: Optional[str] = None, runners: Optional[str] = None, failover: str = "1s",
        extra: str = "", addresses: Optional[dict[str, str]] = None, bind: str = '["::"]',
        preferences: Optional[dict[str, int]] = None,
    ) -> None:
        self.hosts, self.folder = hosts, folder
        self.failover = float(failover.rstrip("s"))
        self._begin()
        electors = hosts.names if electors is None else electors
        runners = hosts.names if runners is None else runners
        listed = ", ".join(f"{n}: {(addresses or {}).get(n) or hosts.address(n)}" for n in electors)
        self.hosted = {n: HostNode(self, n, n in runners, n in electors) for n in hosts.names}
        self.nodes = dict(self.hosted)
        for node in self.nodes.values():
            node.config.write_text(
                f"node:\n  name: {node.name}\n  runner: {str(node.runner).lower()}\n  state_dir: {node.folder}/state\n"
                f"  run_dir: {node.folder}/run\n  preference: {(preferences or {}).get(node.name, 0)}\n"
                f"cluster:\n  password: {PASSWORD}\n  bind: {bind}\n  electors: {{{listed}}}\n"
                f"  bully_delay: {BULLY_DELAY}\n{extra}"
                f"service:\n  folder: {node.services}\n"
                f"time:\n  failover: {failover}\n  status_interval: 1s\n  auto_recover_time: 1s\n"
            )
            node.config.chmod(0o600)
        for action in ("promote", "demote", "stop"):
            self.script("web", action)

    def __exit__(self, *exception: object) -> None:
        for node in self.hosted.values():
            if node.kept is not None:
                node.kept.close()
        super().__exit__(*exception)

    def holder(self) -> Optional[str]:
        """The host whose service is promoted now, by the stamps alone: promoted last and not demoted since."""
        last = [s for s in self.read_stamps() if (s.action, s.edge) in (("promote", "end"), ("demote", "end"), ("stop", "end"))]
        return last[-1].node if last and last[-1].action == "promote" else None

    def wait_holder(self, patience: float, other_than: str = "") -> str:
        """The holder, once there is one."""
        return until(f"a service promoted elsewhere than on {other_than or 'no host'}",
                     lambda: (h := self.holder()) and h not in other_than and h or None, patience)

    def expect_failover(self, lost: str, since: float) -> str:
        """A holder among the others within time.failover; its name."""
        new = self.wait_holder(self.failover + SLACK_S, other_than=lost)
        stamp = self.first("promote", "end", since, new)
        assert stamp is not None and stamp.time - since <= self.failover + SLACK_S
        return new

    def leader(self, host: str) -> Optional[str]:
        """The leader, as the node on this host says."""
        return self.hosted[host].ask().get("cluster", {}).get("leader")

    def settled(self, host: Optional[str] = None) -> tuple[str, str]:
        """Master and leader, once every elector answers and the stamps agree."""
        def look() -> Optional[tuple[str, str]]:
            cluster = self.hosted[host or self.hosts.names[0]].ask().get("cluster", {})
            whole = cluster.get("quorum", {}).get("have") == cluster.get("quorum", {}).get("electors")
            agreed = cluster.get("master") and cluster["master"] == self.holder()
            return (cluster["master"], cluster["leader"]) if whole and agreed else None
        return until("a settled cluster", look)

    def arrange(self, master: str, leader: str) -> None:
        """These two are master and leader, whichever node was up first; a leader that outranks takes the lead after a while."""
        if self.settled()[0] != master:
            with self.hosted[master].client() as client:
                client.promote(master)
        until(f"{master} is master and {leader} leads", lambda: self.settled() == (master, leader))

    def promotions(self) -> int:
        """How often promote was begun."""
        return sum(1 for s in self.read_stamps() if (s.action, s.edge) == ("promote", "begin"))

    def check(self) -> None:
        """The rule above all."""
        assert self.overlaps() == []
