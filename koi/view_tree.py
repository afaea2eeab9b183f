"""`koi tree`, `koi watch` and `koi demo`: the cluster as a tree of nodes and their services.

The rule it keeps: what belongs together stands in one column, whatever the depth.
"""

from __future__ import annotations

from koi.view import JSON, Cell, age, columns, count, paint, printable, service_state, state_cell
from koi.view_status import OK, headline, heard, verdict

FORK, CORNER, BAR, BLANK = "├── ", "└── ", "│   ", "    "


def tree_lines(status: JSON, colour: bool = False) -> list[str]:
    """The text of `koi tree`: the cluster, its nodes, their services, warnings below."""
    cluster = status["cluster"]
    rows: list[list[str | Cell]] = []
    for i, node in enumerate(status["nodes"]):
        rows += _branch(node, last=i == len(status["nodes"]) - 1, master=node["name"] == cluster["master"])
    lines = [_root(cluster, colour), *columns(rows, colour)]
    code = verdict(status)
    lines += ["", paint(headline(status), "good" if code == OK else ("odd", "bad")[code - 1], colour)]
    return lines + [paint(f"Warning: {printable(w)}", "odd", colour) for w in cluster["warnings"]]


def _root(cluster: JSON, colour: bool) -> str:
    quorum = cluster["quorum"]
    leader = f"leader {printable(cluster['leader'])}" if cluster["leader"] else "no leader"
    parts = [
        leader, f"term {cluster['term']}", f"epoch {cluster['epoch']}",
        f"{quorum['have']} of {count(quorum['electors'], 'elector')}",
    ]
    return paint(f"cluster {cluster['id']}", "head", colour) + ": " + ", ".join(parts)


def _branch(node: JSON, last: bool, master: bool) -> list[list[str | Cell]]:
    """The rows of one node: itself, then its services."""
    stem = BLANK if last else BAR
    services = node["services"]
    rows: list[list[str | Cell]] = [_node_row(node, CORNER if last else FORK, master)]
    for i, service in enumerate(services):
        rows.append(_service_row(service, stem + (CORNER if i == len(services) - 1 else FORK), heard(node)))
    return rows


def _node_row(node: JSON, stem: str, master: bool) -> list[str | Cell]:
    state = state_cell(node["state"]) if node["runner"] else Cell("runs no services", "dim")
    role = f"elector: {node['elector']}" if node["elector"] else "no elector"
    notes = [role, *_notes(node)]
    return [Cell(stem + printable(node["name"]), "good" if master else "head"), state, ", ".join(notes)]


def _notes(node: JSON) -> list[str]:
    notes = []
    if not heard(node):
        notes.append("not heard" if node["seen"] is None else f"not heard for {age(node['seen'])}")
    if node["mode"] == "passive":
        notes.append("passive")
    if node["stopped"]:
        notes.append("stopped by hand")
    if node["stuck"]:
        notes.append("stuck")
    if node["why"] and node["runner"] and heard(node) and not node["stopped"]:
        notes.append(printable(node["why"]))
    if node["recovers_in"] is not None:
        notes.append(f"recovers in {age(node['recovers_in'])}")
    return notes


def _service_row(service: JSON, stem: str, fresh: bool) -> list[str | Cell]:
    prio = "" if service["priority"] is None else f"priority {service['priority']}"
    return [f"{stem}{service['name']}", service_state(service, fresh), prio]
