"""A long run of mutated inputs against everything that reads bytes:

    python -m tests.fuzz [--inputs N] [--seconds S] [--seed N] [--only TARGET]...

Each target takes bytes and may only raise what it promises for bad input; anything else is a finding, which is printed
with the input and ends the run with exit code 1. A plain mutation loop: no tools, and a seed replays it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

from koi import log
from koi.client_exchange import Exchange
from koi.client_history import merged
from koi.config import loads
from koi.core.ledger import Record
from koi.core.messages import DATAGRAMS, Last, Report, Response, ServiceInfo
from koi.core.pipe import ServiceState
from koi.errors import ConfigError, KoiError
from koi.proc import files, memory, treefile
from koi.proc.failures import Failures
from koi.proc.journal import JournalFile
from koi.proc.runner import remembered
from koi.wire.codec import Malformed, decode, encode
from koi.wire.seal import Noise, Opener, Sealer
from tests.wire.wire_strategies import example

KEY, CLUSTER, BOOT, HERE = bytes(32), 13, bytes(range(16)), ("10.0.0.1", 1)
INTERESTING = (
    b"9" * 400,
    b"", b"0", b"-1", b"null", b"true", b"[]", b"{}", b'"', b"\\ud800", b"1e999", b"NaN", b"[" * 300, b"\xff", b"\x00",
)
MAX_INPUT = 4_000
CONFIGS = [
    b"cluster:\n  id: 7\n  password: x\n  electors:\n    a: 10.0.0.1\n    b: [10.0.0.2, '[::1]:6000']\n    c: host:1\n",
    b"node:\n  name: a\n  preference: -5\n  mode: passive\ncluster: {password: x, quorum: 1, unsafe_quorum: true}\n",
    b"service:\n  restarts: 3\n  stuck: takeover\n  promote_timeout: 250ms\ntime:\n  failover: 3s\n  lease: 2m\n",
]
FAILURES = (
    b'{"format": 1, "failures": [{"time": "2026-11-22T10:00:00.000+00:00", "node": "a", "service": "s", "action": "start",'
    b' "exit": 1, "seconds": 0.25, "line": "no", "what": "start exited 1"}]}'
)
Target = Callable[[bytes], None]


def read_body(data: bytes) -> None:
    """A body that opened; what comes back can be said again."""
    try:
        sender, message = decode(data)
    except Malformed:
        return
    assert decode(encode(sender, message)) == (sender, message)


class Seals:
    """Datagrams against an Opener that knows one boot."""

    def __init__(self) -> None:
        self.opener = Opener(KEY, CLUSTER)
        self.cookie = self.opener.cookie(BOOT, HERE)

    def open(self, data: bytes) -> None:
        """Any bytes at all."""
        try:
            self.opener.open(data, HERE)
        except Noise:
            return

    def open_cookie(self, data: bytes) -> None:
        """Any bytes as a Cookie datagram."""
        try:
            self.opener.open_cookie(data, BOOT)
        except Noise:
            return


def read_record(data: bytes) -> None:
    """The elector's state file: what is refused makes the elector blank."""
    try:
        files.parse_record(json.loads(data))
    except (ValueError, RecursionError):
        return


def read_answer(data: bytes) -> None:
    """A node's answer to a client."""
    exchange = Exchange("id", ("127.0.0.1", 1), 6.0, 0.0)
    kind = ("answer", "progress", "redirect", "refused")[len(data) % 4]
    try:
        exchange.receive(Response("id", kind, 0, 1, data.decode("utf-8", "replace")), 1.0)
    except KoiError:
        return


def read_config(data: bytes) -> None:
    """koi.conf: every fault is told in words, and what is accepted has a digest."""
    try:
        config = loads(data, "koi.conf", "a", "password")
    except ConfigError as error:
        assert error.faults and all(fault.startswith("koi.conf") for fault in error.faults), error.faults
        return
    assert len(config.digest) == 12


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines that say what could not be read."""
    outlets, log.get().outlets = log.get().outlets, []
    try:
        yield
    finally:
        log.get().outlets = outlets


class Folder:
    """A state folder whose files are anything at all: a runner starts with what can be read of them."""

    def __init__(self) -> None:
        self.kept = tempfile.TemporaryDirectory()

    def _file(self, name: str, data: bytes) -> str:
        path = Path(self.kept.name, name)
        path.write_bytes(data)
        return str(path)

    def read_node(self, data: bytes) -> None:
        """node.json."""
        with quiet():
            kept = remembered(self._file("node.json", data))
        assert (type(kept.stopped), type(kept.maintenance)) == (bool, bool)

    def read_failures(self, data: bytes) -> None:
        """failures.json; what was read goes out to clients as JSON, and the next failure is kept beside it."""
        with quiet():
            failures = Failures(self._file("failures.json", data), "a")
        assert json.loads(json.dumps(failures.entries, allow_nan=False)) == failures.entries

    def read_tree(self, data: bytes) -> None:
        """tree.json; what it says of earlier runners goes into reports, and what workers said to their successors."""
        self._file(treefile.TREE_NAME, data)
        found, _ = treefile.read(self.kept.name)
        for tree in (found, treefile.adopt(found)):
            heritage = tree.heritage(None, not tree.clean, not tree.clean)
            encode("a", Report("a", "0b", 1, heritage.lineage, heritage.holding, heritage.renounced))
            for word in filter(None, map(tree.told, tree.services)):
                assert memory.parse(json.loads(json.dumps(memory.dump(word), allow_nan=False))) == word

    def read_journal(self, data: bytes) -> None:
        """journal.jsonl; `koi why` merges what all nodes have read."""
        with quiet():
            entries = JournalFile(self._file("journal.jsonl", data), "a").newest()
        assert json.loads(json.dumps(entries, allow_nan=False)) == entries
        assert len(merged(entries, 10)) <= 10


def corpus() -> dict[str, tuple[Target, list[bytes]]]:
    """Every target with the good inputs that are mutated."""
    seals, sealer = Seals(), Sealer(KEY, CLUSTER, BOOT)
    bodies = [encode("a", example(kind)) for kind in DATAGRAMS]
    records = [json.dumps(files.dump_record(Record())).encode()]
    answers = [b'{"done":true}', b'{"host":"a","port":1}', b'{"message":"x"}', b"[]", b'{"host":1,"port":"x"}']
    folder = Folder()
    info = ServiceInfo("s", 10, "Promoted", "status", False, 4711, Last("status", 0, 0.25))
    tree = {
        "boots": ["0a", "0b"], "holding": 3, "renounced": 2, "clean": False, "maintenance": True, "detached": None,
        "services": {"s": {"state": "Promoted", "pid": 7, "told": memory.dump(ServiceState(info, True))}},
    }
    journal = [
        b'{"time": "2026-11-22T10:00:00.000+00:00", "node": "a", "what": "master", "from": null, "to": "a", "epoch": 1,'
        b' "reason": "x", "key": "m1"}\n' * 2,
        b'{"time": "2026-11-22T10:00:01.000+00:00", "node": "b", "what": "leader", "from": "a", "to": "b", "epoch": 1,'
        b' "reason": "x", "key": "l2"}\n',
    ]
    nodes = [b'{"format": 1, "stopped": true, "maintenance": false}', b'{"format": 1, "stopped": false, "maintenance": true}']
    return {
        "config": (read_config, CONFIGS), "node": (folder.read_node, nodes), "failures": (folder.read_failures, [FAILURES]),
        "body": (read_body, bodies), "datagram": (seals.open, [sealer.seal(body, seals.cookie) for body in bodies]),
        "cookie": (seals.open_cookie, [sealer.seal_cookie(b"12345678", BOOT, 5)]),
        "record": (read_record, records), "answer": (read_answer, answers),
        "tree": (folder.read_tree, [json.dumps(tree).encode()]), "journal": (folder.read_journal, journal),
    }


def mutate(chance: random.Random, seeds: list[bytes]) -> bytes:
    """One of them with a few changes: bits, cuts, repeats, splices, interesting words."""
    data = bytearray(chance.choice(seeds))
    for _ in range(1 + int(chance.expovariate(0.7))):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.randrange(1, 9))
        what = chance.randrange(6)
        if what == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif what == 1:
            del data[at:to]
        elif what == 2:
            data[at:at] = chance.choice(INTERESTING)
        elif what == 3:
            data[at:to] = chance.choice(INTERESTING)
        elif what == 4:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other) + 1) :]
        else:
            data[at:at] = data[at:to] * chance.randrange(1, 20)
    return bytes(data[:MAX_INPUT])


def run(inputs: int, seconds: float, seed: int, say: Callable[[str], Any] = print, only: tuple[str, ...] = ()) -> int:
    """How many inputs were tried, of all targets or some; stops at the first finding, which is raised."""
    chance, targets = random.Random(seed), [(name, one) for name, one in corpus().items() if not only or name in only]
    ends, tried = time.monotonic() + seconds, 0
    while tried < inputs and (tried % 1000 or time.monotonic() < ends):
        name, (target, seeds) = targets[tried % len(targets)]
        data = mutate(chance, seeds)
        try:
            target(data)
        except BaseException:
            say(f"FINDING: target {name}, seed {seed}, input {tried}: {data!r}")
            raise
        tried += 1
    return tried


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--only", action="append", default=[], choices=list(corpus()), help="a target; may be repeated")
    options = parser.parse_args()
    began = time.monotonic()
    tried = run(options.inputs, options.seconds, options.seed, only=tuple(options.only))
    print(f"{tried} inputs in {time.monotonic() - began:.0f} s, seed {options.seed}: no finding")
    sys.exit(0)


if __name__ == "__main__":
    main()
