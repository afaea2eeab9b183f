"""The UDP sockets of one process: messages out, messages in, and whatever else arrives is counted and dropped.

An address is (host, port) in one form only: IPv4 as such, never mapped into IPv6; IPv6 compressed.
Rule kept: nothing that the network does raises an exception here, and nothing here blocks; only what this machine cannot do
when the sockets are opened is a KoiError, in words that say what to do.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from functools import lru_cache
from typing import Any, Callable, Iterable, NamedTuple, Optional

from koi.errors import KoiError
from koi.wire import refusals
from koi.wire.codec import Malformed, decode, encode
from koi.wire.purse import MAX_TRIES, Purse
from koi.wire.seal import COOKIE_MAGIC, MAX_DATAGRAM, Noise, Opener, Sealer, Unproven

Address = tuple[str, int]

BUFFER = 4 << 20
"""Bytes asked for each socket's buffers; the kernel may grant less (net.core.rmem_max)."""
MAX_TARGETS = 4096
"""Addresses for which the way out is remembered; above that it is found anew."""
MAX_PORT_TRIES = 16
"""How often a free port is sought that is free on every bind address."""

NETWORK_BYTES = 8
"""Of an IPv6 address: its network."""

MAX_MEANINGS = 4
"""Addresses that one name may mean."""

_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)


class Received(NamedTuple):
    """A message from the network: who says so, from which address, and the boot (16 bytes) that sealed it."""

    address: Address
    sender: str
    message: Any
    boot: bytes


class Target(NamedTuple):
    """How an address is reached: the socket, the address as this socket wants it, and what says from which own one."""

    sock: socket.socket
    sockaddr: Any
    source: list[tuple[int, int, bytes]]


class Endpoint:
    """Non-blocking UDP sockets, one for each bind address, all on one port. Port 0: any free one; `port` is the real one.

    `noise` counts what was dropped by kind, `noise_text` holds the last words of each kind, `noise_from` the host it came from,
    `errors` counts what could not be sent by name of errno, `unsent` says why of each address to which the last could not be,
    `unproven` the datagrams that were answered with a cookie, `warnings` says what differs from what was asked.
    """

    def __init__(self, binds: tuple[str, ...], port: int, sealer: Sealer, opener: Opener, name: str) -> None:
        self.name = name
        self.noise: Counter[str] = Counter()
        self.noise_text: dict[str, str] = {}
        self.noise_from: dict[str, str] = {}
        self.errors: Counter[str] = Counter()
        self.unsent: dict[Address, str] = {}
        self.warnings: list[str] = []
        self.unproven = 0
        self._sealer = sealer
        self._opener = opener
        self._purse = Purse()
        self._sockets: list[socket.socket] = []
        self._targets: dict[Address, Target] = {}
        self._encoded: tuple[object, bytes] = (object(), b"")
        """The last message and its body, for the same one often goes to several in turn."""
        self.home: Optional[Callable[[], Iterable[str]]] = None
        """The addresses at which others know this node, if they do: of IPv6 it speaks from no other of their networks."""
        self._open(binds, port)
        self.port: int = self._sockets[0].getsockname()[1]

    def filenos(self) -> list[int]:
        """The descriptors to wait on for reading."""
        return [sock.fileno() for sock in self._sockets]

    def close(self) -> None:
        """Close the sockets; a second time does nothing."""
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        self._targets = {}

    def hear_refusals(self) -> None:
        """Keep what the network says of closed ports, for `refusals`."""
        for sock in self._sockets:
            refusals.ask_for(sock)

    def refusals(self) -> list[Address]:
        """Where nobody listens, of what was sent since the last call."""
        return [normalise(target) for sock in self._sockets for target in refusals.read(sock)]

    # --- out ----------------------------------------------------------------------------------

    def send(self, address: Address, message: object) -> None:
        """Seal the message and send it; the address must be numeric. What the network refuses is counted in `errors`."""
        self._send_body(address, self._body(message))

    def send_all(self, addresses: Iterable[Address], message: object) -> None:
        """Send the message to each address, every copy under a seal of its own."""
        body = self._body(message)
        for address in addresses:
            self._send_body(address, body)

    def _body(self, message: object) -> bytes:
        if message is not self._encoded[0]:
            self._encoded = (message, encode(self.name, message))
        return self._encoded[1]

    def _send_body(self, address: Address, body: bytes, tries: int = 1) -> None:
        try:
            sock, target, source = self._targets.get(address) or self._find_target(address)
            datagram = self._sealer.seal(body, self._purse.cookie(address))
            refusals.send(sock, datagram, source, target)
            self._purse.keep(self._sealer.seq, address, body, tries)
            if self.unsent:
                self.unsent.pop(address, None)
        except OSError as error:
            self._targets.pop(address, None)
            self._count_error(error)
            if len(self.unsent) >= MAX_TARGETS:
                self.unsent.clear()
            self.unsent[address] = error.strerror or str(error)

    def _count_error(self, error: OSError) -> None:
        self.errors["EADDR" if isinstance(error, socket.gaierror) else errno.errorcode.get(error.errno or 0, "unknown")] += 1

    def _find_target(self, address: Address) -> Target:
        """How an address is reached; OSError if it is not."""
        family, sockaddr = _numeric(*address)
        sockets = [sock for sock in self._sockets if sock.family == family]
        if not sockets and family == socket.AF_INET:
            sockets = [sock for sock in self._sockets if _is_dual(sock)]
            sockaddr = ("::ffff:" + sockaddr[0], sockaddr[1])
        if not sockets:
            raise OSError(errno.EAFNOSUPPORT, "no socket of this family")
        return self._keep_target(address, sockets[0] if len(sockets) == 1 else _on_route(sockets, sockaddr), sockaddr)

    def _keep_target(self, address: Address, sock: socket.socket, sockaddr: Any) -> Target:
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        home = () if self.home is None else tuple(self.home())
        target = Target(sock, sockaddr, _from_home(sock, sockaddr, home))
        if home or self.home is None:  # else the own name means nothing yet
            self._targets[address] = target
        return target

    # --- in -----------------------------------------------------------------------------------

    def receive(self, limit: int = 64) -> list[Received]:
        """What has arrived; reads at most `limit` datagrams, noise included, shared among the sockets."""
        received: list[Received] = []
        for sock in self._sockets:
            for _ in range(max(1, limit // len(self._sockets))):
                try:
                    datagram, sockaddr = sock.recvfrom(MAX_DATAGRAM + 1)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError as error:  # an ICMP answer to something sent earlier
                    self._count_error(error)
                    continue
                self._take(sock, datagram, sockaddr, received)
        return received

    def _take(self, sock: socket.socket, datagram: bytes, sockaddr: Any, received: list[Received]) -> None:
        try:
            if datagram[: len(COOKIE_MAGIC)] == COOKIE_MAGIC:
                self._take_cookie(sock, datagram, sockaddr)
                return
            opened = self._opener.open(datagram, sockaddr)
            sender, message = decode(opened.body)
        except Unproven as unproven:
            self.unproven += 1
            cookie = self._sealer.seal_cookie(unproven.cookie, unproven.boot, unproven.seq)
            self._give_cookie(sock, sockaddr, cookie, len(datagram))
        except Noise as noise:
            self._count_noise(noise.kind, str(noise), sockaddr)
        except Malformed as fault:
            self._count_noise("malformed", str(fault), sockaddr)
        else:
            address = normalise(sockaddr)
            known = self._targets.get(address)
            if len(self._sockets) > 1 and (known is None or known.sock is not sock):  # the answer leaves where was asked
                self._keep_target(address, sock, sockaddr)
            received.append(Received(address, sender, message, opened.boot))

    def _give_cookie(self, sock: socket.socket, sockaddr: Any, cookie: bytes, size: int) -> None:
        """Send a sealed Cookie datagram: never more bytes than came, for where they came from is not proven."""
        if len(cookie) > size:
            self._count_noise("short", f"a datagram of {size} bytes without a cookie", sockaddr)
            return
        try:
            sock.sendto(cookie, sockaddr)
            self._purse.keep_given(self._sealer.seq, normalise(sockaddr))
        except OSError as error:
            self._count_error(error)

    def _take_cookie(self, sock: socket.socket, datagram: bytes, sockaddr: Any) -> None:
        """The receiver of what was just sent wants to see this cookie: send again, with it, and give the own for its answer."""
        given = self._opener.open_cookie(datagram, self._sealer.boot)
        sent = self._purse.refused(given.refused)
        if sent is None:
            raise Noise("echo", "a Cookie datagram for nothing that was sent lately")
        self._purse.put(sent.address, given.cookie)
        if sent.tries < MAX_TRIES:
            cookie = self._opener.cookie(given.boot, sockaddr)
            self._give_cookie(sock, sockaddr, self._sealer.seal_cookie(cookie, given.boot, given.seq), len(datagram))
            self._send_body(sent.address, sent.body, sent.tries + 1)

    def _count_noise(self, kind: str, text: str, sockaddr: Any) -> None:
        host, port = normalise(sockaddr)
        self.noise[kind] += 1
        self.noise_from[kind] = host
        self.noise_text[kind] = f"a datagram from {host} port {port} was dropped: {text}"

    # --- opening ------------------------------------------------------------------------------

    def _open(self, binds: tuple[str, ...], port: int) -> None:
        """Bind every address to one port; with port 0 another free port is tried while one of them has it in use."""
        tries = MAX_PORT_TRIES if port == 0 and len(binds) > 1 else 1
        for left in reversed(range(tries)):
            try:
                self._bind_all(binds, port)
                return
            except OSError as error:
                self.close()
                if not left or error.errno != errno.EADDRINUSE:
                    raise KoiError(_bind_fault(error, port)) from error

    def _bind_all(self, binds: tuple[str, ...], port: int) -> None:
        only = any(":" not in host for host in binds)
        for host in dict.fromkeys(binds):
            try:
                sock = _bound(host, port, only)
            except OSError as error:
                if host != "::" or error.errno not in _NO_IPV6:
                    error.filename = host
                    raise
                self._say_no_ipv6()
                if "0.0.0.0" in binds:
                    continue
                sock = _bound("0.0.0.0", port, only)
            self._sockets.append(sock)
            port = sock.getsockname()[1]

    def _say_no_ipv6(self) -> None:
        text = "IPv6 is off on this machine: listening on 0.0.0.0 instead of ::"
        if text not in self.warnings:
            self.warnings.append(text)


def normalise(sockaddr: Any) -> Address:
    """(host, port) of what the kernel calls an address: IPv4 in IPv6 unwrapped, a link-local scope kept as %number."""
    host: str = sockaddr[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    if len(sockaddr) > 3 and sockaddr[3]:
        host = f"{host.partition('%')[0]}%{sockaddr[3]}"
    return host, sockaddr[1]


def resolve(host: str, port: int) -> tuple[Address, ...]:
    """The addresses of a host. A name is looked up once for the life of the process (this may block); KoiError if unknown."""
    address = literal(host, port)
    return (address,) if address is not None else tuple((meaning, port) for meaning in _look_up_once(host))


def literal(host: str, port: int) -> Optional[Address]:
    """The address, in its one form, when the host is one; None when it is a name."""
    try:
        return normalise(_numeric(host, port)[1])
    except socket.gaierror:
        return None


def look_up(host: str) -> tuple[str, ...]:
    """What a name means, at most MAX_MEANINGS addresses; asks the system's resolver, so it may block. KoiError if unknown."""
    try:
        infos = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise KoiError(f"no address is known for {host!r} ({why}): write an IP address, or add the name to /etc/hosts") from error
    return tuple(dict.fromkeys(normalise(info[4])[0] for info in infos))[:MAX_MEANINGS]


_look_up_once = lru_cache(maxsize=1024)(look_up)


def _numeric(host: str, port: int) -> tuple[int, Any]:
    """Family and address of a literal; socket.gaierror (an OSError) for anything that would need a lookup."""
    try:
        plain = host.encode("ascii")  # a str would load the tables of international names, which takes 20 ms
        infos = socket.getaddrinfo(plain, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except (UnicodeError, ValueError, OverflowError) as error:
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from error
    return infos[0][0], infos[0][4]


def _bound(host: str, port: int, only: bool) -> socket.socket:
    """A socket bound to the address; `only`: IPv6 does not take IPv4's datagrams too, for IPv4 has a socket of its own."""
    family, sockaddr = _numeric(host, port)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only or host != "::")
        _enlarge(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _enlarge(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        sock.bind(sockaddr)
    except OSError:
        sock.close()
        raise
    return sock


def _enlarge(sock: socket.socket, force: int, option: int) -> None:
    """As large as asked with the right to force it (CAP_NET_ADMIN), else as large as the system allows."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)


def _is_dual(sock: socket.socket) -> bool:
    return sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _on_route(sockets: list[socket.socket], sockaddr: Any) -> socket.socket:
    """The socket bound to the address from which the kernel would send there, else the first. Sends nothing."""
    source = _usual_source(sockets[0].family, sockaddr)
    return next((sock for sock in sockets if sock.getsockname()[0] == source), sockets[0])


def _usual_source(family: int, sockaddr: Any) -> Optional[str]:
    """The address from which the kernel would send there; None if it would not. Sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(sockaddr)
            return str(probe.getsockname()[0])
        except OSError:
            return None


def _from_home(sock: socket.socket, sockaddr: Any, home: Iterable[str]) -> list[tuple[int, int, bytes]]:
    """Ancillary data for sending from a known address of the network in which the kernel would choose one.

    Of IPv6 it prefers the youngest address of a network, such as that of a service which has just been promoted.
    """
    if sock.family != socket.AF_INET6 or sockaddr[0].startswith("::ffff:") or sock.getsockname()[0] != "::":
        return []
    usual = _usual_source(sock.family, sockaddr)
    for host in home:
        if usual is not None and ":" in host and "%" not in host and _network(host) == _network(usual) and is_local(host):
            return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, host) + bytes(4))]
    return []


def _network(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:NETWORK_BYTES]


def is_local(host: str) -> bool:
    """Whether this machine has the address now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _bind_fault(error: OSError, port: int) -> str:
    host = error.filename or "::"
    if error.errno == errno.EADDRINUSE:
        return (
            f"UDP port {port} on {host} is in use: another koinode or program has it. "
            f"See which with: ss -lunp 'sport = :{port}'; end it, or set another cluster.port"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"UDP port {port} on {host} may not be opened by this user: run as root, or set a cluster.port above 1023"
    if isinstance(error, socket.gaierror):
        return f"{host!r} is not an IP address: cluster.bind lists addresses of this machine, such as :: or 192.168.1.4"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine (see: ip address): correct cluster.bind"
    return f"UDP port {port} on {host} cannot be opened: {error.strerror}"
