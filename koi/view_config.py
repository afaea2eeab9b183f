"""`koi config list` and `get`: the configuration in use, key by key, as it was resolved.

The rule it keeps: the password is never shown.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import Any

from koi.config import Config, Electors
from koi.errors import Refused
from koi.view import printable

SECTIONS = ("node", "cluster", "service", "time")
HIDDEN = "(not shown)"
NOT_A_KEY = ("service.env",)
"""Of a service's own service.yaml, not of koi.conf."""


def settings(config: Config) -> dict[str, Any]:
    """Every key with its value: durations in seconds, defaults and what is derived worked out."""
    found: dict[str, Any] = {}
    for section in SECTIONS:
        part = getattr(config, section)
        for field in dataclasses.fields(part):
            found[f"{section}.{field.name}"] = _plain(getattr(part, field.name))
    found["cluster.password"] = HIDDEN
    return {key: value for key, value in found.items() if key not in NOT_A_KEY}


def setting(found: dict[str, Any], key: str) -> Any:
    """The value of one key. Raises Refused with the nearest key that there is."""
    if key not in found:
        near = difflib.get_close_matches(key, list(found), 1)
        hint = f"did you mean {near[0]}?" if near else "'koi config list' shows all keys"
        raise Refused(f"there is no key {printable(key)}; {hint}")
    return found[key]


def setting_lines(found: dict[str, Any]) -> list[str]:
    """`key: value`, one a line."""
    return [f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in found.items()]


def _plain(value: Any) -> Any:
    if isinstance(value, Electors):
        return {elector.name: [str(address) for address in elector.addresses] for elector in value}
    if isinstance(value, float):
        return round(value, 6)
    return list(value) if isinstance(value, tuple) else value
