"""What root prepares for the processes that speak (koi/proc/speech.py)."""

from __future__ import annotations

from pathlib import Path

from koi import node
from koi.config import load
from koi.proc import speech


def test_the_key_is_made_before_root_forks(tmp_path: Path) -> None:
    """Found: each elector and runner made it anew, so that one which replaced another came 50 ms later."""
    path = tmp_path / "koi.conf"
    path.write_text(f"node: {{name: a}}\ncluster: {{password: of-this-test-alone}}\nservice: {{folder: {tmp_path}}}\n")
    path.chmod(0o600)
    config = load(str(path))
    speech._key.cache_clear()
    assert set(node._mains(config)) == {"elector", "runner", "service"}
    speech.open_endpoint(config, ("127.0.0.1",), 0, speech.new_boot()).close()
    assert (speech._key.cache_info().misses, speech._key.cache_info().hits) == (1, 1)
