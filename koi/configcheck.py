"""What only several keys together can tell: electors, roles, quorum, intervals, the password and its file.

Each check resolves something, notes faults at the line of the key concerned, and always returns something usable, so
that the later checks can find their faults too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

import yaml

from koi import configvalues as take
from koi.configfile import MAX_SHOWN_PATH, Faults, Read, Wrong, is_null, pairs, shown
from koi.core.timing import Timing, derive
from koi.core.timing import faults as broken_inequalities

MAX_PASSWORD_FILE_BYTES = 4096
FOLDERS = ("node.state_dir", "node.run_dir", "service.folder", "service.workingdir")


def node_name(read: Read, given: str | None, faults: Faults) -> str:
    """The node's name: from the command line, else node.name, else the host name; empty when it is faulty."""
    if given is None and read.given("node.name"):
        return read.values["node.name"] or ""
    name = os.uname().nodename if given is None else given
    try:
        return take.valid_name(name)
    except Wrong as wrong:
        if given is None:
            faults.add(read.line("node.name"), "node.name", f"is not set, and the host name {wrong}")
        else:
            faults.add(None, "node.name", f"from the command line {wrong}")
        return ""


def electors(node: yaml.Node, port: int, faults: Faults) -> list[tuple[str, tuple[take.Address, ...]]]:
    """(name, addresses) of each elector under cluster.electors; `port` stands in for one that is not given."""
    found = []
    taken: dict[take.Address, str] = {}
    entries = pairs(node, "cluster.electors", faults)
    if isinstance(node, yaml.MappingNode) and not 1 <= len(node.value) <= take.MAX_ITEMS:
        faults.add(node.start_mark.line + 1, "cluster.electors", f"must name 1 to {take.MAX_ITEMS} electors; "
                   "leave the key out for a single node")
    for name, line, value in entries[: take.MAX_ITEMS]:
        try:
            found.append((take.valid_name(name), _addresses(value, name, port, taken)))
        except Wrong as wrong:
            faults.add(line, f"cluster.electors.{shown(name)}", str(wrong))
    return found


def _addresses(node: yaml.Node, name: str, port: int, taken: dict[take.Address, str]) -> tuple[take.Address, ...]:
    if is_null(node):
        raise Wrong(f"has no address; {take.ADDRESS_FORM}")
    found = []
    for item in take.items(node):
        address = take.address(take.scalar(item), port)
        if address in taken:
            raise Wrong(f"has the address {address}, which {taken[address]} has already; every elector needs its own")
        taken[address] = name
        found.append(address)
    if len({address.port for address in found}) > 1:
        raise Wrong("has addresses with different ports; an elector listens on one port on all of its addresses")
    return tuple(found)


def _listed(read: Read) -> list[str] | None:
    """The names under cluster.electors, those of faulty entries too; None when the key is absent."""
    node = read.nodes.get("cluster.electors")
    if node is None:
        return None
    entries = node.value if isinstance(node, yaml.MappingNode) else []
    return list(dict.fromkeys(str(key.value) for key, _ in entries if isinstance(key, yaml.ScalarNode)))


def roles(read: Read, name: str, faults: Faults) -> tuple[bool, bool]:
    """Whether this node is an elector, and a runner."""
    names = _listed(read)
    wanted, runner = read.values["node.elector"], bool(read.values["node.runner"])
    stands = names is None or name in names
    elector = stands if wanted is None else bool(wanted)
    listing = ", ".join(shown(n) for n in names or [])
    if wanted and not stands and name:
        faults.add(read.line("node.elector"), "node.elector",
                   f"is true, but {name} is not under cluster.electors ({listing}); add it there, on every node")
    if wanted is False and names is None:
        faults.add(read.line("node.elector"), "node.elector",
                   "is false, but this node would be its own cluster's only elector; name the electors under cluster.electors")
    elif not runner and not elector and name:
        faults.add(read.line("node.runner"), "node.runner",
                   f"is false, and {name} is no elector either ({listing}): the node would do nothing; "
                   "let it run services or vote, or set node.name right")
    return elector, runner


def quorum(read: Read, faults: Faults) -> int:
    """How many electors must agree."""
    names = _listed(read)
    count = 1 if names is None else len(names)
    wanted, majority = read.values["cluster.quorum"], count // 2 + 1
    if wanted == "majority":
        return majority
    if count and wanted > count:
        faults.add(read.line("cluster.quorum"), "cluster.quorum",
                   f"is {wanted}, more than there are electors ({count}); must be majority or from {majority} to {count}")
    if wanted < majority and not read.values["cluster.unsafe_quorum"]:
        faults.add(read.line("cluster.quorum"), "cluster.quorum",
                   f"is {wanted}, less than a majority of {count} electors ({majority}): two masters become possible; "
                   "use majority, or set unsafe_quorum: true if that is what you want")
    return int(wanted)


def timing(read: Read, faults: Faults) -> Timing:
    """The intervals; each broken inequality of docs/protocol.md section 8 is a fault of the key that it names."""
    value = read.values
    found = derive(
        value["time.failover"], value["time.heartbeat"], value["time.lease"], value["time.demote_grace"],
        value["time.leader_timeout"], forget_runner=value["time.forget_runner"],
    )
    for name, wrong in broken_inequalities(found):
        key = f"time.{name}"
        if read.given(key):
            faults.add(read.line(key), key, wrong)
            continue
        others = [k for k in ("time.failover", "time.heartbeat", "time.lease", "time.demote_grace") if read.given(k)]
        at = others[0] if others else "time.failover"
        derived = "by default" if name == "forget_runner" else "as it derives from the other intervals"
        faults.add(read.line(at), at, f"does not fit: {name}, {derived}, {wrong}")
    return found


def folders(values: Mapping[str, Any], base: str) -> dict[str, str]:
    """The folders of the configuration made absolute; a relative one starts at the configuration file's folder."""
    return {key: os.path.normpath(os.path.join(base, values[key])) for key in FOLDERS if values[key] is not None}


def password(read: Read, given: str | None, base: str, faults: Faults) -> str:
    """The cluster's password: given from outside, else cluster.password, else the content of password_file."""
    try:
        if given is not None:
            return take.secret(given)
    except Wrong as wrong:
        faults.add(None, "the password given", str(wrong))
        return ""
    inline, named = read.given("cluster.password"), read.given("cluster.password_file")
    if inline and named:
        faults.add(read.line("cluster.password"), "cluster.password", "and password_file are both set; keep one")
    if inline:
        return read.values["cluster.password"] or ""
    path = os.path.join(base, read.values["cluster.password_file"])
    key = "cluster.password_file" if named else "cluster.password"
    try:
        return _password_in(path)
    except Wrong as wrong:
        prefix = "" if named else "is required; set it, or password_file, which by default "
        faults.add(read.line(key), key, f"{prefix}{wrong}")
        return ""


def _password_in(path: str) -> str:
    """The password in the file, which only its owner may read."""
    place = shown(path, MAX_SHOWN_PATH)
    try:
        mode, content = _mode_and_content(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no path"
        raise Wrong(f"is {place}: {reason}; write one with `umask 077; koi keygen > {place}`") from None
    if not stat.S_ISREG(mode):
        raise Wrong(f"is {place}, which is no file")
    if mode & 0o077:
        raise Wrong(f"is {place}, which others than its owner can read or change; run: chmod 600 {place}")
    try:
        return take.secret(content.decode().rstrip("\r\n"))
    except (UnicodeDecodeError, Wrong):
        raise Wrong(f"is {place}, which must hold one line of {take.MIN_PASSWORD} to {take.MAX_TEXT} characters; "
                    "`koi keygen` prints one") from None


def _mode_and_content(path: str) -> tuple[int, bytes]:
    """The mode of what is there, and its content if it is a file; never waits for a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        return mode, os.read(descriptor, MAX_PASSWORD_FILE_BYTES) if stat.S_ISREG(mode) else b""
    finally:
        os.close(descriptor)


def warnings(read: Read, file: str, given: str | None, count: int, need: int, intervals: Timing) -> tuple[str, ...]:
    """What is allowed and yet not well."""
    found = []
    if given is None and read.given("cluster.password") and _readable_by_others(file):
        found.append(f"{file} holds the password and can be read by others; run: chmod 600 {file}, or use password_file")
    if need < count // 2 + 1:
        found.append(f"quorum {need} of {count} electors is less than a majority: two masters are possible (unsafe_quorum)")
    if intervals.broken_promise:
        found.append(intervals.broken_promise)
    return tuple(found)


def _readable_by_others(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & 0o044)
    except (OSError, ValueError):
        return False
