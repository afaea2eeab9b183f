"""`koi status`: one sentence that says how the cluster is, a table of nodes and services, the warnings.

The rule it keeps: the first sentence never says "all well" while anything is not, and when there is no master it says why.
"""

from __future__ import annotations

from typing import Optional

from koi.view import JSON, NOTHING, Cell, age, count, last_script, paint, printable, service_state, state_cell, table

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
STUCK = "stuck"
"""The hold under which the ledger still names a master that may be active, and is none."""
NAGIOS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

HEAD = ("NODE", "STATE", "ELECTOR", "ADDRESS", "SEEN", "UP", "SERVICE", "PRIO", "STATE", "LAST")


GIVEN_UP = ("ADDRESS", "UP", "SEEN", "PRIO", "LAST")
"""What a terminal that is too narrow for the whole table goes without, in this order; `koi status NODE` shows it."""


def status_lines(status: JSON, colour: bool = False, width: Optional[int] = None) -> list[str]:
    """The text of `koi status`; `width`: of the terminal."""
    style = ("good", "odd", "bad")[verdict(status)]
    lines = [paint(headline(status), style, colour)]
    if status["nodes"]:
        lines += ["", *_table([row for node in status["nodes"] for row in _node_rows(node)], colour, width)]
    warnings = status["cluster"]["warnings"]
    if warnings:
        lines += ["", *(paint(f"Warning: {printable(w)}", "odd", colour) for w in warnings)]
    return lines


def _table(rows: list[list[str | Cell]], colour: bool, width: Optional[int]) -> list[str]:
    """The table with as many columns as the terminal has room for."""
    head = list(HEAD)
    given_up = list(GIVEN_UP)
    while width and given_up and max(map(len, table(head, rows, colour=False))) > width:
        at = head.index(given_up.pop(0))
        head.pop(at)
        rows = [row[:at] + row[at + 1 :] for row in rows]
    return table(head, rows, colour)


def check_line(status: JSON) -> tuple[str, int]:
    """One line and the exit code of a Nagios check of the whole cluster."""
    code = verdict(status)
    return f"KOI {NAGIOS[code]} - {headline(status)}", code


def check_node_line(node: JSON) -> tuple[str, int]:
    """One line and the exit code of a Nagios check of one node."""
    trouble = node_trouble(node)
    if trouble is None:
        state = node["state"] or f"{node['elector'] or 'heard'}, runs no services"
        return f"KOI OK - {printable(node['name'])} is {printable(state)}", OK
    code = CRITICAL if node["failed"] or node["state"] in ("Failed", "Disconnected") or not heard(node) else WARNING
    return f"KOI {NAGIOS[code]} - {trouble}", code


def verdict(status: JSON) -> int:
    """OK: a master and nothing amiss; WARNING: a master, but; CRITICAL: no master, or none that is known for sure."""
    cluster = status["cluster"]
    master = master_node(status)
    if cluster["leader"] is None or master is None or master["state"] != "Master":
        return CRITICAL
    return WARNING if troubles(status) or not _complete(cluster) else OK


def headline(status: JSON) -> str:
    """The first sentence: who is master, how many electors agree, what is amiss or why there is no master."""
    cluster = status["cluster"]
    if cluster["leader"] is None:
        return f"No leader: {_why_no_leader(cluster)}{_last_known_master(cluster)}."
    if cluster["master"] is None or cluster.get("hold") == STUCK:
        return f"No master: {_ended(why_nobody(status))}"
    found = troubles(status)
    if not found and _complete(cluster):
        found = ["all well"]
    return "; ".join([_master_clause(status), _quorum_clause(cluster), *found]) + "."


def master_node(status: JSON) -> Optional[JSON]:
    """The node that the ledger names master, None when it names none or that node is not known."""
    return next((n for n in status["nodes"] if n["name"] == status["cluster"]["master"]), None)


def heard(node: JSON) -> bool:
    """Whether the leader hears the node."""
    if not node["runner"] and node["elector"] == "disconnected":
        return False
    return node["state"] != "Disconnected" and node["seen"] is not None


def troubles(status: JSON) -> list[str]:
    """All that is amiss beside a master, each in a few words."""
    cluster, nodes = status["cluster"], status["nodes"]
    found = []
    if cluster.get("stale") is not None:
        found.append(f"stale, no majority has agreed for {age(cluster['stale'])}")
    if cluster["maintenance"]:
        found.append("maintenance is on")
    if cluster["manual"]:
        found.append("manual mode until `koi elect`")
    if cluster["target"] is not None and cluster["target"] != cluster["master"]:
        found.append(f"switching over to {printable(cluster['target'])}")
    found += [text for n in nodes if (text := node_trouble(n)) is not None]
    others = [n for n in nodes if n["runner"] and n["name"] != cluster["master"]]
    if others and not cluster["maintenance"] and not any(n["promotable"] for n in others):
        found.append(f"nobody could take over{_because(_untold_reasons(others))}")
    if cluster["warnings"]:
        found.append(f"{count(len(cluster['warnings']), 'warning')} below")
    return found


def _untold_reasons(nodes: list[JSON]) -> str:
    """Why nodes that have no trouble of their own cannot be promoted: `b is passive`."""
    found = [(n["name"], n["why"]) for n in nodes if n["why"] and node_trouble(n) is None]
    return "; ".join(why if name in why.split() else f"{name}: {why}" for name, why in found)


def node_trouble(node: JSON) -> Optional[str]:
    """What is amiss with one node: `b failed (vip: start exited 1), recovers in 12 s`; None when nothing is."""
    name = printable(node["name"])
    if not heard(node):
        return f"{name} is not heard" if node["seen"] is None else f"{name} is not heard for {age(node['seen'])}"
    if node["stuck"]:
        return f"{name} is stuck: demote and stop failed{_because(node['last_failure'])}"
    if node["failed"] or node["state"] == "Failed":
        return f"{name} failed{_because(node['last_failure'])}{_recovery(node)}"
    if node["stopped"]:
        return f"{name} is stopped by hand"
    if node["state"] == "Stopped":
        return f"{name} is stopped{_because(node['why'])}"
    if node["state"] == "Live":
        return f"{name} is Live{_because(node['why'])}"
    return None


def why_nobody(status: JSON) -> str:
    """Why nobody is master: the leader's own words, else what each node says of itself."""
    cluster = status["cluster"]
    if cluster.get("nobody"):
        return printable(cluster["nobody"])
    found = [text for n in status["nodes"] if n["runner"] and (text := node_trouble(n)) is not None]
    if cluster["manual"]:
        found.insert(0, "manual mode until `koi elect`")
    if found:
        return ", ".join(found)
    return printable(cluster["reason"]) or "no node that runs services is heard"


def _because(text: Optional[str]) -> str:
    return f" ({printable(text)})" if text else ""


def _recovery(node: JSON) -> str:
    if node["recovers_in"] is None:
        return f", does not recover by itself any more: mend it, then 'koi recover {printable(node['name'])}'"
    return f", recovers in {age(node['recovers_in'])}"


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def _why_no_leader(cluster: JSON) -> str:
    quorum = cluster["quorum"]
    heard_of = f"{quorum['have']} of {quorum['electors']} electors heard, {quorum['need']} needed"
    why = printable(cluster.get("nobody") or "").rstrip(".").removeprefix("there is no leader: ")
    return why or heard_of


def _last_known_master(cluster: JSON) -> str:
    if cluster["master"] is None:
        return ""
    return f"; the last known master is {printable(cluster['master'])} (epoch {cluster['epoch']})"


def _complete(cluster: JSON) -> bool:
    return bool(cluster["quorum"]["have"] == cluster["quorum"]["electors"])


def _master_clause(status: JSON) -> str:
    cluster, node = status["cluster"], master_node(status)
    name, epoch = printable(cluster["master"]), cluster["epoch"]
    if node is None or not heard(node):
        return f"{name} is named master (epoch {epoch}) but not heard"
    if node["state"] != "Master":
        becoming = node["state"] == "Backup" and not cluster.get("yielding") and not node["why"]
        words = f"is becoming master (epoch {epoch}), still" if becoming else f"is named master (epoch {epoch}), but is"
        return f"{name} {words} {printable(node['state'])}{_because(_not_promoted(node))}"
    since = cluster.get("master_since")
    return f"{name} is master (epoch {epoch})" + ("" if since is None else f" for {age(since)}")


def _not_promoted(node: JSON) -> str:
    return ", ".join(f"{s['name']} {s['state']}" for s in node["services"] if s["state"] != "Promoted")


def _quorum_clause(cluster: JSON) -> str:
    have, electors = cluster["quorum"]["have"], cluster["quorum"]["electors"]
    return f"{have} of {count(electors, 'elector')} {'agrees' if have == 1 else 'agree'}"


def _node_rows(node: JSON) -> list[list[str | Cell]]:
    """One row for each service; only the first names the node."""
    state = state_cell(node["state"])
    if node["stuck"]:
        state = Cell(f"{state.text} (stuck)", "bad")
    elif node["mode"] == "passive" and node["runner"]:
        state = Cell(f"{state.text} (passive)", state.style)
    first: list[str | Cell] = [
        Cell(printable(node["name"]), "head"), state, state_cell(node["elector"]), node["address"] or NOTHING,
        age(node["seen"]), age(node["uptime"]),
    ]
    rows = [_service_cells(s, heard(node)) for s in node["services"]] or [[NOTHING]]
    blank: list[str | Cell] = [""] * len(first)
    return [first + rows[0], *(blank + row for row in rows[1:])]


def _service_cells(service: JSON, fresh: bool) -> list[str | Cell]:
    prio = service["priority"]
    return [service["name"], NOTHING if prio is None else str(prio), service_state(service, fresh), last_script(service["last"])]
