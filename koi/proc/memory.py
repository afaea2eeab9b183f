"""What a worker said last, as plain JSON in tree.json, for the worker that takes over in maintenance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Optional

from koi.core.messages import Last, ServiceInfo
from koi.core.pipe import ServiceState
from koi.wire import codec


def dump(state: ServiceState) -> dict[str, Any]:
    """The state as JSON."""
    return asdict(state)


def parse(content: Any) -> Optional[ServiceState]:
    """The state from JSON; None when there is none or it is of another version, which counts as not known."""
    try:
        info = dict(content["info"])
        last = info.pop("last")
        more = {name: value for name, value in content.items() if name != "info"}
        state = ServiceState(ServiceInfo(**info, last=None if last is None else Last(**last)), **more)
        codec.check(state)
        return state
    except (TypeError, KeyError, AttributeError, ValueError, codec.Malformed):
        return None
