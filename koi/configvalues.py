"""Turns one value of a configuration file into what it means, or says what would be right.

A parser takes the value's node and raises Wrong; it quotes the value, so a secret has a parser of its own. Text is taken
as written (`name: 0123` is "0123", not 83).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from koi.configfile import Wrong, shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
NAME_FORM = "a name is 1 to 63 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
DURATION_FORM = "a duration is 250ms, 3s, 2m, 1h, or a number of seconds"
ADDRESS_FORM = 'an address is "host", "host:port", "[IPv6]:port" or a bare IPv6'
MIN_PASSWORD = 8
MAX_TEXT = 1000
MAX_ITEMS = 32

_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?(ms|s|m|h)?\Z", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,14})\Z", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?\Z", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\Z")
_PORT = re.compile(r"[1-9]\d{0,4}\Z", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

Parser = Callable[[yaml.Node], Any]


class Address(NamedTuple):
    """Where an elector can be reached: a host name or IP address, and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def scalar(node: yaml.Node) -> str:
    """The text of a single value, as written."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
        raise Wrong("must be one value, not a list, a mapping or something with a tag")
    if len(node.value) > MAX_TEXT:
        raise Wrong(f"has {len(node.value)} characters; at most {MAX_TEXT} are allowed")
    if not node.value.isprintable():
        raise Wrong("has a character that cannot be printed; leave it out")
    return str(node.value)


def text(node: yaml.Node) -> str:
    """Any text but the empty one."""
    value = scalar(node)
    if not value.strip():
        raise Wrong("is empty; give a value or leave the key out")
    return value


def password(node: yaml.Node) -> str:
    """The password; neither it nor its length is ever quoted."""
    try:
        return secret(scalar(node))
    except Wrong:
        raise Wrong(f"must be one line of {MIN_PASSWORD} to {MAX_TEXT} characters, in quotes where it has any of"
                    " : # & * ! ' \" ; `koi keygen` prints one") from None


def secret(value: str) -> str:
    """Checks a password from any source."""
    if not MIN_PASSWORD <= len(value) <= MAX_TEXT or not value.isprintable():
        raise Wrong(f"must be one line of {MIN_PASSWORD} to {MAX_TEXT} characters; `koi keygen` prints one")
    return value


def name(node: yaml.Node) -> str:
    """The name of a node."""
    return valid_name(scalar(node))


def valid_name(value: str) -> str:
    """Checks a name from any source."""
    if not NAME.match(value):
        raise Wrong(f"is '{shown(value)}'; {NAME_FORM}")
    return value


def flag(node: yaml.Node) -> bool:
    """true or false."""
    value = scalar(node)
    plain = node.tag == "tag:yaml.org,2002:bool"
    if not plain or value.lower() not in _FLAGS:
        raise Wrong(f"is '{shown(value)}'; must be true or false, without quotes")
    return _FLAGS[value.lower()]


def whole(low: int, high: int) -> Parser:
    """A parser of whole numbers from `low` to `high`."""

    def parse(node: yaml.Node) -> int:
        value = scalar(node)
        if not _is_plain(node) or not _WHOLE.match(value) or not low <= int(value) <= high:
            raise Wrong(f"is '{shown(value)}'; must be a whole number from {low} to {high}{_unquoted(node)}")
        return int(value)

    return parse


def number(low: float, high: float) -> Parser:
    """A parser of numbers from `low` to `high`."""

    def parse(node: yaml.Node) -> float:
        value = scalar(node)
        if not _is_plain(node) or not _NUMBER.match(value) or not low <= float(value) <= high:
            raise Wrong(f"is '{shown(value)}'; must be a number from {low:g} to {high:g}{_unquoted(node)}")
        return float(value)

    return parse


def _is_plain(node: yaml.Node) -> bool:
    """Whether YAML takes it for a number: "3" in quotes is text."""
    return node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _unquoted(node: yaml.Node) -> str:
    return ", without quotes" if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') else ""


def duration(low: float, high: float) -> Parser:
    """A parser of durations from `low` to `high` seconds; the value is in seconds."""

    def parse(node: yaml.Node) -> float:
        value = scalar(node)
        match = _DURATION.match(value)
        if not match:
            raise Wrong(f"is '{shown(value)}'; {DURATION_FORM}")
        amount, unit = match.groups()
        seconds = float(amount) / 1000 if unit == "ms" else float(amount) * _UNITS[unit]
        if not low <= seconds <= high:
            raise Wrong(f"is {shown(value)}; must be from {readable(low)} to {readable(high)}")
        return seconds

    return parse


def readable(seconds: float) -> str:
    """A duration as it is written in the file: 250ms, 3s, 2m, 1h."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds * 1000:g}ms" if 0 < seconds < 1 else f"{seconds:g}s"


def choice(*words: str) -> Parser:
    """A parser of one word of these."""

    def parse(node: yaml.Node) -> str:
        value = scalar(node)
        if value not in words:
            raise Wrong(f"is '{shown(value)}'; must be {', '.join(words[:-1])} or {words[-1]}")
        return value

    return parse


def quorum(node: yaml.Node) -> str | int:
    """`majority`, or a number that is checked against the electors later."""
    value = scalar(node)
    if value == "majority":
        return value
    if not _is_plain(node) or not _WHOLE.match(value) or int(value) < 1:
        raise Wrong(f"is '{shown(value)}'; must be majority or a number of electors{_unquoted(node)}")
    return int(value)


def items(node: yaml.Node) -> list[yaml.Node]:
    """The values of a list; one value alone is a list of one."""
    found = list(node.value) if isinstance(node, yaml.SequenceNode) else [node]
    if not 1 <= len(found) <= MAX_ITEMS:
        raise Wrong(f"has {len(found)} items; must have 1 to {MAX_ITEMS}")
    return found


def bind(node: yaml.Node) -> tuple[str, ...]:
    """The addresses to listen on: IPv4 or IPv6, none twice."""
    found: list[str] = []
    for item in items(node):
        value = scalar(item)
        host = ip(value)
        if host is None:
            raise Wrong(f"'{shown(value)}' is no IP address; give addresses of this machine, \"::\" or 0.0.0.0 for all")
        if host in found:
            raise Wrong(f"has {host} twice; keep one")
        found.append(host)
    return tuple(found)


def ip(value: str) -> str | None:
    """The IP address in its usual form (IPv4 in IPv6 becomes plain IPv4), or None if the text is none."""
    bare, percent, zone = value.partition("%")
    try:
        if "." in value and ":" not in value:
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, value))
        packed = socket.inet_pton(socket.AF_INET6, bare)
    except (OSError, ValueError):
        return None
    if packed[:12] == bytes(10) + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    if percent and not NAME.match(zone):
        return None
    return socket.inet_ntop(socket.AF_INET6, packed) + percent + zone


def address(value: str, port: int) -> Address:
    """Reads "host", "host:port", "[IPv6]:port" or a bare IPv6; `port` stands in for one that is not given."""
    if value.startswith("["):
        inner, closed, rest = value[1:].partition("]")
        host = ip(inner) if closed and ":" in inner and (not rest or rest[0] == ":") else None
        tail = rest[1:] if rest else None
    elif value.count(":") > 1:
        host, tail = ip(value), None
    else:
        before, colon, after = value.partition(":")
        host, tail = _host(before), after if colon else None
    if host is None:
        raise Wrong(f"'{shown(value)}' is no address; {ADDRESS_FORM}")
    if host in ("0.0.0.0", "::"):
        raise Wrong(f"'{shown(value)}' is no address that others can send to; give one of the node's own")
    if tail is None:
        return Address(host, port)
    if not _PORT.match(tail) or int(tail) > 65535:
        raise Wrong(f"'{shown(value)}' has a port that is no number from 1 to 65535; {ADDRESS_FORM}")
    return Address(host, int(tail))


def _host(value: str) -> str | None:
    if re.fullmatch(r"[0-9.]+", value):
        return ip(value)
    return value if len(value) <= 253 and _HOST.match(value) else None


def variable(name_: str, node: yaml.Node) -> tuple[str, str]:
    """One environment variable for scripts; Koi's own (KOI_...) cannot be set."""
    if not _VARIABLE.match(name_) or name_.startswith("KOI_"):
        raise Wrong("is no name of a variable: letters, digits and _, not beginning with a digit or with KOI_")
    return name_, scalar(node)
