"""The sample services for real: three nodes in network namespaces, and a client that follows the address of the master."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import tree_of, until
from tests.net.hosts import Hosts, needs_namespaces

NODES, CLIENT = "abc", "d"
CALM = "3s"
"""A lease that a busy machine keeps: the address must stay where it was seen until this test moves it."""
IPV4, IPV6 = "10.77.0.100", "fd77::100"
pytestmark = needs_namespaces

FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=1).read().decode())"


class Site:
    """A koinode with the samples on each of three hosts, and a client on a fourth."""

    def __init__(self, hosts: Hosts, folder: Path, samples: Path) -> None:
        self.hosts, self.folder, self.samples = hosts, folder, samples
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        for name in NODES:
            self._configure(name)

    def _configure(self, name: str) -> None:
        folder = self.folder / name
        for service, address in (("10-address", f"{IPV4}/24"), ("10-address6", f"{IPV6}/64")):
            copy = folder / "services" / service
            shutil.copytree(self.samples / "10-address", copy)
            (copy / "service.yaml").write_text(f"env: {{ADDRESS: '{address}', DEVICE: {self.device(name)}}}\n")
        shutil.copytree(self.samples / "40-web", folder / "services/40-web")
        (folder / "www").mkdir()
        (folder / "www/index.html").write_text(name)
        (folder / "services/40-web/service.yaml").write_text(f"env: {{PORT: '8080', ROOT: '{folder}/www', LISTEN: '::'}}\n")
        config = folder / "koi.conf"
        electors = ", ".join(f"{n}: {self.hosts.address(n)}" for n in NODES)
        config.write_text(
            f"node: {{name: {name}, state_dir: {folder}/s, run_dir: {folder}/r}}\n"
            f"cluster:\n  password: 0123456789abcdef\n  electors: {{{electors}}}\n"
            f"service: {{folder: {folder}/services}}\ntime: {{failover: {CALM}, status_interval: 500ms}}\n")
        config.chmod(0o600)

    def device(self, host: str) -> str:
        """The host's network device."""
        lines = self.inside(host, "ip", "-o", "address", "show", "to", self.hosts.address(host)).split()
        return lines[1]

    def inside(self, host: str, *command: str) -> str:
        """What a command on a host prints."""
        return subprocess.run(self.hosts.command(host, *command), capture_output=True, text=True, check=False).stdout

    def start(self, name: str) -> None:
        """Run koinode on its host."""
        command = self.hosts.command(name, sys.executable, "-m", "koi.node", "-f", str(self.folder / name / "koi.conf"))
        with open(self.folder / name / "log", "ab") as log:
            self.nodes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def holders(self, address: str) -> list[str]:
        """The nodes whose device has the address."""
        return [name for name in NODES if f" {address}/" in self.inside(name, "ip", "-o", "address", "show")]

    def page(self, host: str) -> str:
        """The page that the client gets from the address."""
        return self.inside(CLIENT, sys.executable, "-c", FETCH, f"http://{host}:8080/").strip()

    def neighbours(self) -> set[str]:
        """The MAC addresses that the client knows for the two addresses."""
        words = [self.inside(CLIENT, "ip", "neighbour", "show", address).split() for address in (IPV4, IPV6)]
        return {found[found.index("lladdr") + 1] if "lladdr" in found else "" for found in words}

    def mac(self, name: str) -> str:
        """The MAC address of a node."""
        words = self.inside(name, "ip", "-o", "link", "show", "dev", self.device(name)).split()
        return words[words.index("link/ether") + 1]

    def close(self) -> None:
        """End all."""
        for process in self.nodes.values():
            for pid in reversed(tree_of(process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()


@pytest.fixture
def site(tmp_path: Path, repository: Path) -> Iterator[Site]:
    with Hosts(NODES + CLIENT) as hosts:
        made = Site(hosts, tmp_path, repository / "koi/share/samples")
        try:
            for name in NODES:
                made.start(name)
            yield made
        finally:
            made.close()


def only(holders: Callable[[], list[str]]) -> str:
    """The one holder, once there is one."""
    return until("one holder", lambda: (found := holders()) and len(found) == 1 and found[0] or None)


def test_the_address_moves_with_the_master_and_clients_follow(site: Site) -> None:
    first = only(lambda: site.holders(IPV4))
    until("both addresses are there", lambda: site.holders(IPV6) == [first])
    until("the client reaches the first", lambda: site.page(IPV4) == first and site.page(f"[{IPV6}]") == first)
    assert site.neighbours() == {site.mac(first)}
    site.hosts.cut(first)
    second = str(until("another has it", lambda: [n for n in site.holders(IPV4) if n != first])[0])
    assert site.holders(IPV4) == [second]
    until("the neighbours were told without asking", lambda: site.neighbours() == {site.mac(second)})
    until("the client reaches the second", lambda: site.page(IPV4) == second and site.page(f"[{IPV6}]") == second)
    site.hosts.heal()
    site.inside(second, "ip", "address", "del", f"{IPV4}/24", "dev", site.device(second))
    until("status has put it back", lambda: site.holders(IPV4) == [second])
