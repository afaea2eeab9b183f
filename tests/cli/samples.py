"""Clusters as JSON, in the shape of `koi --json status`, for the tests of the views and of the client.

Each call makes a fresh one, so that a test may change it.
"""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]


def service(name: str, priority: int | None, state: str, **more: Any) -> JSON:
    """One service, healthy unless `more` says otherwise."""
    base = {
        "name": name, "priority": priority, "state": state, "action": None, "failed": False, "pid": 4711,
        "last": {"action": "status", "exit": 0, "seconds": 0.004},
    }
    return {**base, **more}


def node(name: str, state: str | None, elector: str | None = "follower", **more: Any) -> JSON:
    """One node with the services vip and db, as its state lets expect."""
    inner = {"Master": "Promoted", "Backup": "Started", "Live": "Started"}.get(state or "", "Stopped")
    base = {
        "name": name, "address": f"127.0.0.1:500{ord(name[0]) - 96}", "elector": elector, "runner": state is not None,
        "state": state, "mode": "active", "promotable": state in ("Master", "Backup"), "preference": 0, "seen": 0.12,
        "uptime": 10800.0, "failcount": 0, "last_failure": None, "version": "1.0.0", "why": "", "recovers_in": None,
        "stopped": False, "failed": False, "stuck": False,
        "services": [] if state is None else [service("vip", 10, inner), service("db", 20, inner)],
    }
    return {**base, **more}


def failed_node(name: str) -> JSON:
    """A node that failed and recovers by itself."""
    more = {"failed": True, "failcount": 1, "last_failure": "vip: start exited 1", "recovers_in": 12.2, "why": "failed"}
    return node(name, "Failed", **more)


def status(*nodes: JSON, **cluster: Any) -> JSON:
    """A cluster: by default a healthy one of a, b (master) and the leader c that only votes."""
    base = {
        "id": 13, "leader": "c", "term": 4, "epoch": 7, "master": "b", "target": None, "manual": False,
        "maintenance": False, "passive": [], "reason": "b chosen: ready", "quorum": {"need": 2, "have": 3, "electors": 3},
        "timing": {"heartbeat": 0.3, "lease": 1.56, "demote_grace": 1.14, "leader_timeout": 0.9, "failover": 3.0},
        "warnings": [], "nobody": "", "master_since": 10800.0, "stale": None,
    }
    members = list(nodes) or [node("a", "Backup"), node("b", "Master"), node("c", None, "leader")]
    return {"cluster": {**base, **cluster}, "nodes": members}
