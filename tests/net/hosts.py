"""Hosts as network namespaces on a bridge, and what can go wrong between them.

The bridge has a namespace of its own, so the machine's own network is not touched; what is cut, dropped or lost is
dropped there, in between, so that a host itself does not see it (except `pull`, which takes the link down). Everything is
removed when the `with` block ends, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

TOOLS = ("ip", "nft")
CLONE_NEWNET = 0x40000000
NETWORKS = ("10.77.0", "10.78.0")
"""A host's address is one of these with its number behind: the first network, and the second where there is one."""
IPV6 = "fd77::"
PREFIX = "koinet"
"""Namespaces are called koinet, the test's process id, and the host."""


def why_not() -> str:
    """Why tests in namespaces cannot run here; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)}: install iproute2 and nftables"
    name = f"koiprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "network namespaces cannot be made here (a container without the right?)"
    table = subprocess.run(["ip", "netns", "exec", name, "nft", "add", "table", "bridge", "koi"], capture_output=True)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return "" if table.returncode == 0 else "this kernel has no nftables for bridges"


_why_not = why_not()
needs_namespaces = pytest.mark.skipif(bool(_why_not), reason=_why_not or "namespaces work here")


def run(*command: str, given: str | None = None) -> str:
    """Run a command of the system; AssertionError with its words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, input=given)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


class Hosts:
    """`names` are single letters; each is a namespace with one address on each of `networks` networks, and one of IPv6."""

    def __init__(self, names: str, networks: int = 1) -> None:
        self.names, self.networks = names, networks
        self.prefix = f"{PREFIX}{os.getpid()}"
        self.switch = f"{self.prefix}sw"
        self._rules: dict[object, tuple[str, ...]] = {}

    def __enter__(self) -> Hosts:
        sweep()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove()

    def namespace(self, host: str) -> str:
        """The namespace of a host."""
        return f"{self.prefix}{host}"

    def address(self, host: str, network: int = 0) -> str:
        """A host's IPv4 address."""
        return f"{NETWORKS[network]}.{self.names.index(host) + 1}"

    def ipv6(self, host: str) -> str:
        """A host's IPv6 address."""
        return f"{IPV6}{self.names.index(host) + 1}"

    def command(self, host: str, *command: str) -> list[str]:
        """The command line that runs something on a host."""
        return ["ip", "netns", "exec", self.namespace(host), *command]

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Sockets that this thread opens meanwhile belong to the host."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace(host)}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)
            os.close(there)

    # --- what goes wrong ---

    def cut(self, host: str) -> None:
        """Nothing reaches the host or leaves it, and it does not notice."""
        self._set(("cut", host), *(f"{way} {self._ports(host)} drop" for way in ("iifname", "oifname")))

    def drop(self, source: str, target: str | None = None) -> None:
        """What `source` sends (to `target`, or to anybody) is lost; the other direction works."""
        towards = f" oifname {self._ports(target)}" if target else ""
        self._set(("drop", source, target), f"iifname {self._ports(source)}{towards} drop")

    def deafen(self, host: str) -> None:
        """What is sent to the host is lost; what it sends arrives."""
        self._set(("deaf", host), f"oifname {self._ports(host)} drop")

    def block(self, one: str, other: str) -> None:
        """These two cannot talk with each other; everybody else can."""
        pairs = ((one, other), (other, one))
        self._set(("block", one, other), *(f"iifname {self._ports(a)} oifname {self._ports(b)} drop" for a, b in pairs))

    def lose(self, percent: int) -> None:
        """Each datagram is lost with this chance."""
        self._set(("lose",), f"numgen random mod 100 < {percent} drop")

    def break_network(self, network: int) -> None:
        """One of the networks dies for everybody."""
        self._set(("network", network), f"ip saddr {NETWORKS[network]}.0/24 drop")

    def break_family(self, family: str) -> None:
        """IPv4 ("ip") or IPv6 ("ip6") dies for everybody."""
        self._set(("family", family), f"meta protocol {family} drop")

    def swallow(self, size: int) -> None:
        """Packets above this size are lost, without a word, as behind a router that drops fragments."""
        self._set(("size",), f"meta length > {size} drop")

    def forbid(self, host: str) -> None:
        """The host's own firewall lets none of its UDP out to the network; a sender is told so. `permit` ends it."""
        self._own_rules(host, 'chain out { type filter hook output priority 0; oifname "eth0" meta l4proto udp drop; }')

    def permit(self, host: str) -> None:
        """The host's own firewall lets everything out."""
        self._own_rules(host, "")

    def heal(self) -> None:
        """Everything works again."""
        self._rules.clear()
        self._apply()

    def pull(self, host: str) -> None:
        """The cable: the host sees its link go down."""
        run("ip", "-n", self.switch, "link", "set", f"{host}x0", "down")

    def plug(self, host: str) -> None:
        """The cable is back."""
        run("ip", "-n", self.switch, "link", "set", f"{host}x0", "up")

    def renumber(self, host: str, address: str) -> None:
        """The host gets another IPv4 address on the first network, and loses the old one."""
        run("ip", "-n", self.namespace(host), "addr", "del", f"{self.address(host)}/24", "dev", "eth0")
        run("ip", "-n", self.namespace(host), "addr", "add", f"{address}/24", "dev", "eth0")

    def name(self, addresses: dict[str, str]) -> None:
        """What host names mean from now on, on every host (each has an /etc/hosts of its own)."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items()), ""]
        for host in self.names:
            self._hosts_file(host).write_text("\n".join(lines))  # in place: the running programs see this very file

    def _hosts_file(self, host: str) -> Path:
        return Path("/etc/netns") / self.namespace(host) / "hosts"

    # --- how ---

    def _ports(self, host: str) -> str:
        return "{ " + ", ".join(f'"{host}x{network}"' for network in range(self.networks)) + " }"

    def _set(self, key: object, *rules: str) -> None:
        self._rules[key] = rules
        self._apply()

    def _own_rules(self, host: str, chain: str) -> None:
        body = f"table inet koi\ndelete table inet koi\ntable inet koi {{\n{chain}\n}}\n"
        run("ip", "netns", "exec", self.namespace(host), "nft", "-f", "-", given=body)

    def _apply(self) -> None:
        lines = [f"meta l4proto udp {rule}" for rules in self._rules.values() for rule in rules]
        body = "\n".join(["table bridge koi", "delete table bridge koi", "table bridge koi {", "chain forward {",
                          "type filter hook forward priority 0; policy accept;", *lines, "}", "}", ""])
        run("ip", "netns", "exec", self.switch, "nft", "-f", "-", given=body)

    def _build(self) -> None:
        run("ip", "netns", "add", self.switch)
        for network in range(self.networks):
            run("ip", "-n", self.switch, "link", "add", f"br{network}", "type", "bridge", "forward_delay", "0")
            run("ip", "-n", self.switch, "link", "set", f"br{network}", "up")
        for host in self.names:
            space = self.namespace(host)
            run("ip", "netns", "add", space)
            self._hosts_file(host).parent.mkdir(parents=True)
            run("ip", "-n", space, "link", "set", "lo", "up")
            for network in range(self.networks):
                self._wire(host, space, network)
        self.name({})
        self._apply()

    def _wire(self, host: str, space: str, network: int) -> None:
        link, port = f"eth{network}", f"{host}x{network}"
        run("ip", "-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", link, "netns", space)
        run("ip", "-n", self.switch, "link", "set", port, "master", f"br{network}", "up")
        run("ip", "-n", space, "addr", "add", f"{self.address(host, network)}/24", "dev", link)
        run("ip", "-n", space, "link", "set", link, "up")
        if network == 0 and os.path.exists("/proc/net/if_inet6"):
            run("ip", "-n", space, "addr", "add", f"{self.ipv6(host)}/64", "dev", "eth0", "nodad")

    def _remove(self) -> None:
        for space in [*map(self.namespace, self.names), self.switch]:
            remove(space)


def remove(space: str) -> None:
    """Kill what runs in a namespace of these tests, and remove it."""
    found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
    for pid in found.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    subprocess.run(["ip", "netns", "del", space], capture_output=True)
    shutil.rmtree(f"/etc/netns/{space}", ignore_errors=True)


def sweep() -> None:
    """Remove what tests that were killed have left: namespaces whose process id lives no more."""
    for line in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.splitlines():
        space = line.partition(" ")[0]
        owner = re.fullmatch(PREFIX + r"(\d+)[a-z]+", space)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            remove(space)


def _enter(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
