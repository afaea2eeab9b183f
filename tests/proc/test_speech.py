"""What root prepares for the processes that speak (koi/proc/speech.py)."""

from __future__ import annotations

from pathlib import Path

from koi import node
from koi.config import Config, load
from koi.core import messages
from koi.proc import speech
from koi.wire import codec


def config_of(tmp_path: Path) -> Config:
    """Of a node with elector and runner."""
    path = tmp_path / "koi.conf"
    path.write_text(f"node: {{name: a}}\ncluster: {{password: of-this-test-alone}}\nservice: {{folder: {tmp_path}}}\n")
    path.chmod(0o600)
    return load(str(path))


def test_the_key_is_made_before_root_forks(tmp_path: Path) -> None:
    """Found: each elector and runner made it anew, so that one which replaced another came 50 ms later."""
    config = config_of(tmp_path)
    speech._key.cache_clear()
    assert set(node._mains(config)) == {"elector", "runner", "service"}
    speech.open_endpoint(config, ("127.0.0.1",), 0, speech.new_boot()).close()
    assert (speech._key.cache_info().misses, speech._key.cache_info().hits) == (1, 1)


def test_every_datagram_is_compiled_before_root_forks(tmp_path: Path) -> None:
    """Found: the first vouch of a process's life, for which a failover waits, took a millisecond to learn how to read it."""
    codec._packer.cache_clear()
    codec._unpacker.cache_clear()
    node._mains(config_of(tmp_path))
    misses = codec._packer.cache_info().misses, codec._unpacker.cache_info().misses
    for kind in messages.DATAGRAMS:
        codec._packer(kind)
        codec._unpacker(kind)
    assert (codec._packer.cache_info().misses, codec._unpacker.cache_info().misses) == misses
