"""`koi config list` and `get`: the configuration in use, key by key, as it was resolved.

The rules it keeps: the password is never shown, and what is shown may be given to `koi config set` as it stands.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from koi.config import Config, Electors
from koi.configfile import Faults, read_sections
from koi.configkeys import SECTIONS
from koi.configvalues import readable
from koi.errors import Refused
from koi.view import printable

HIDDEN = "(not shown)"
AS_WRITTEN = ("cluster.quorum", "cluster.password_file")
"""Keys whose word in the file says more than what it was resolved to."""
PLAIN_NUMBERS = ("service.auto_recover_wait_factor",)
"""Numbers with a fraction that are no durations."""


def settings(config: Config, content: bytes) -> dict[str, Any]:
    """Every key with its value: durations in seconds, defaults and what is derived worked out; `content`: of its file."""
    read = read_sections(content, SECTIONS, Faults(config.path))
    found: dict[str, Any] = {}
    for section, keys in SECTIONS.items():
        for name in keys:
            key = f"{section}.{name}"
            value = read.values[key] if key in AS_WRITTEN else getattr(getattr(config, section), name)
            found[key] = _plain(value)
    found["cluster.password"] = HIDDEN
    return found


def setting(found: dict[str, Any], key: str) -> Any:
    """The value of one key. Raises Refused with the nearest key that there is."""
    if key not in found:
        near = difflib.get_close_matches(key, list(found), 1)
        hint = f"did you mean {near[0]}?" if near else "'koi config list' shows all keys"
        raise Refused(f"there is no key {printable(key)}; {hint}")
    return found[key]


def setting_text(key: str, value: Any) -> str:
    """A value as it is written in the file: 3s, majority, true."""
    if isinstance(value, float):
        return f"{value:g}" if key in PLAIN_NUMBERS else readable(value)
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Electors):
        return {elector.name: [str(address) for address in elector.addresses] for elector in value}
    if isinstance(value, float):
        return round(value, 6)
    return list(value) if isinstance(value, tuple) else value
