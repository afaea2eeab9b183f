"""The table of every key of koi.conf: what it takes and its default.

One place decides: conf/koi.conf, which explains each key, is held to this table by tests/test_tidy.py. Durations are
seconds here. A None means that the default is worked out from other keys (koi/config.py).
"""

from __future__ import annotations

from typing import Any

import yaml

from koi import configvalues as take
from koi.configfile import Key

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SHORTEST_TIMEOUT_S = 0.01


def _raw(node: yaml.Node) -> Any:
    """Left as it is: config.py reads it when the keys that it depends on are known."""
    return node


_timeout = take.duration(SHORTEST_TIMEOUT_S, DAY_S)
_wait = take.duration(0, DAY_S)
_interval = take.duration(SHORTEST_TIMEOUT_S, HOUR_S)
_order = take.whole(-1_000_000, 1_000_000)

NODE = {
    "name": Key(take.name),
    "elector": Key(take.flag),
    "runner": Key(take.flag, True),
    "mode": Key(take.choice("active", "passive"), "active"),
    "preference": Key(_order, 0),
    "rank": Key(_order, 0),
    "state_dir": Key(take.text, "/var/lib/koi"),
    "run_dir": Key(take.text, "/run/koi"),
    "loglevel": Key(take.choice("debug", "info", "warning", "error", "critical"), "info"),
    "watchdog": Key(take.text),
    "self_fence": Key(take.text),
}

CLUSTER = {
    "id": Key(take.whole(0, 65535), 13),
    "password": Key(take.password),
    "password_file": Key(take.text, "/etc/koi/password"),
    "port": Key(take.whole(1, 65535), 42012),
    "bind": Key(take.bind, ("::",)),
    "electors": Key(_raw),
    "quorum": Key(take.quorum, "majority"),
    "unsafe_quorum": Key(take.flag, False),
    "preempt": Key(take.flag, True),
    "bully_delay": Key(_wait, 10.0),
    "blank_wait": Key(_wait, 60.0),
    "fence": Key(take.text),
}

SCRIPTS = {
    "workingdir": Key(take.text),
    "start_timeout": Key(_timeout, 360.0),
    "stop_timeout": Key(_timeout, 360.0),
    "status_timeout": Key(_timeout, 120.0),
    "promote_timeout": Key(_timeout, 30.0),
    "demote_timeout": Key(_timeout, 30.0),
    "failed_timeout": Key(_timeout, 20.0),
    "restarts": Key(take.whole(0, 1000), 0),
}
"""The keys under `service:` that a service's own service.yaml may override."""

SERVICE = {
    "folder": Key(take.text, "/etc/koi/services"),
    **SCRIPTS,
    "auto_recover": Key(take.whole(0, 1_000_000), 120),
    "auto_recover_wait_factor": Key(take.number(1, 1000), 1.0),
    "stuck": Key(take.choice("hold", "takeover"), "hold"),
}

TIME = {
    "failover": Key(_interval, 3.0),
    "heartbeat": Key(_interval),
    "lease": Key(_interval),
    "demote_grace": Key(_interval),
    "leader_timeout": Key(_interval),
    "status_interval": Key(take.duration(0.05, DAY_S), 10.0),
    "auto_recover_time": Key(_wait, 10.0),
    "failcount_reset": Key(_wait, 1800.0),
    "failure_promotion_timeout": Key(_wait, 60.0),
    "forget_runner": Key(take.duration(SHORTEST_TIMEOUT_S, 30 * DAY_S), 1800.0),
}

SECTIONS = {"node": NODE, "cluster": CLUSTER, "service": SERVICE, "time": TIME}
