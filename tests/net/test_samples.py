"""The sample services for real: three nodes in network namespaces on one bridge, and a client that follows the address."""

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

NAMES = "abc"
IPV4, IPV6 = "10.77.0.100", "fd77::100"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2",
)


def run(command: str, check: bool = True) -> str:
    return subprocess.run(command, shell=True, check=check, capture_output=True, text=True).stdout


def space(name: str) -> str:
    return f"koi{os.getpid() % 10000}{name}"


class Net:
    """Namespaces a, b, c and client, joined by a bridge in a namespace of its own; a koinode in each of the first."""

    def __init__(self, folder: Path, samples: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        run(f"ip netns add {space('hub')}")
        self.inside("hub", "ip link add br type bridge; ip link set br up")
        for number, name in enumerate([*NAMES, "client"], 1):
            run(f"ip netns add {space(name)}; ip link add veth0 netns {space(name)} type veth peer name p{name} netns {space('hub')}")
            self.inside("hub", f"ip link set p{name} master br up")
            self.inside(name, f"ip link set lo up; ip link set veth0 up; ip address add 10.77.0.{number}/24 dev veth0;"
                              f" ip -6 address add fd77::{number}/64 dev veth0 nodad")
        for name in NAMES:
            self._configure(name, samples)

    def inside(self, name: str, command: str, check: bool = True) -> str:
        """Run in a namespace."""
        return run(f"ip netns exec {space(name)} sh -c '{command}'", check)

    def _configure(self, name: str, samples: Path) -> None:
        folder = self.folder / name
        for service, address in (("10-address", f"{IPV4}/24"), ("10-address6", f"{IPV6}/64")):
            copy = folder / "services" / service
            shutil.copytree(samples / "10-address", copy)
            (copy / "service.yaml").write_text(f"env: {{ADDRESS: '{address}', DEVICE: veth0}}\n")
        web = folder / "services/40-web"
        shutil.copytree(samples / "40-web", web)
        (folder / "www").mkdir()
        (folder / "www/index.html").write_text(name)
        (web / "service.yaml").write_text(f"env: {{PORT: '8080', ROOT: '{folder}/www', LISTEN: '::'}}\n")
        config = folder / "koi.conf"
        electors = ", ".join(f"{n}: 10.77.0.{i}" for i, n in enumerate(NAMES, 1))
        config.write_text(
            f"node: {{name: {name}, state_dir: {folder}/s, run_dir: {folder}/r}}\n"
            f"cluster:\n  password: 0123456789abcdef\n  electors: {{{electors}}}\n"
            f"service: {{folder: {folder}/services}}\ntime: {{failover: 1s, status_interval: 500ms}}\n")
        config.chmod(0o600)

    def start(self, name: str) -> None:
        """Run koinode in its namespace."""
        command = ["ip", "netns", "exec", space(name), sys.executable, "-m", "koi.node", "-f", str(self.folder / name / "koi.conf")]
        with open(self.folder / name / "log", "ab") as log:
            self.nodes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def holders(self, address: str) -> list[str]:
        """The nodes whose device has the address."""
        return [name for name in NAMES if address in self.inside(name, "ip -o address show dev veth0")]

    def reached(self, host: str) -> str:
        """The page that the client gets from the address."""
        command = f'wget -q -T 1 -t 1 -O - "http://{host}:8080/"' if shutil.which("wget") else (
            f'{sys.executable} -c "import urllib.request as u; print(u.urlopen(\\"http://{host}:8080/\\", timeout=1).read().decode())"')
        return self.inside("client", command, check=False).strip()

    def neighbour(self, address: str) -> str:
        """The MAC address that the client knows for the address."""
        words = self.inside("client", f"ip neighbour show {address} dev veth0").split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""

    def mac(self, name: str) -> str:
        """The MAC address of a node."""
        return self.inside(name, "cat /sys/class/net/veth0/address").strip()

    def close(self) -> None:
        """End all."""
        for process in self.nodes.values():
            for pid in reversed(tree_of(process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()
        for name in [*NAMES, "client", "hub"]:
            run(f"ip netns del {space(name)}", check=False)


@pytest.fixture
def net(tmp_path: Path, repository: Path) -> Iterator[Net]:
    made = Net(tmp_path, repository / "koi/share/samples")
    try:
        for name in NAMES:
            made.start(name)
        yield made
    finally:
        made.close()


def only(holders: Callable[[], list[str]], other_than: str = "") -> str:
    """The one holder, once there is one."""
    return until("one holder", lambda: (found := holders()) and len(found) == 1 and found[0] != other_than and found[0] or None)


def test_the_address_moves_with_the_master_and_clients_follow(net: Net) -> None:
    first = only(lambda: net.holders(IPV4))
    assert only(lambda: net.holders(IPV6)) == first
    until("the client reaches the first", lambda: net.reached(IPV4) == first and net.reached(f"[{IPV6}]") == first)
    assert net.neighbour(IPV4) == net.neighbour(IPV6) == net.mac(first)
    net.inside("hub", f"ip link set p{first} down")
    both = until("the old master has let go, the new one has it", lambda: [n for n in net.holders(IPV4) if n != first])
    second = both[0]
    assert net.holders(IPV4) == [second]
    until("the neighbours were told, without being asked", lambda: net.neighbour(IPV4) == net.neighbour(IPV6) == net.mac(second))
    until("the client reaches the second", lambda: net.reached(IPV4) == second and net.reached(f"[{IPV6}]") == second)
    net.inside("hub", f"ip link set p{first} up")
    net.inside(second, f"ip address del {IPV4}/24 dev veth0")
    until("status has put it back", lambda: net.holders(IPV4) == [second])
