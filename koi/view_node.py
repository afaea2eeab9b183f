"""One node in full (`koi local`, `koi status NODE`) and the list of failures (`koi failures`).

The rule it keeps: every fact that the JSON has stands here too, with a name of its own.
"""

from __future__ import annotations

from typing import Optional, Sequence

from koi.view import JSON, NOTHING, Cell, Row, age, columns, last_script, local_time, printable, service_state, state_cell, table
from koi.view_status import heard

SERVICE_HEAD = ("SERVICE", "PRIO", "STATE", "PID", "LAST")
FAILURE_HEAD = ("TIME", "NODE", "SERVICE", "ACTION", "EXIT", "TOOK", "WHAT", "LAST LINE")


def node_lines(node: JSON, share: Optional[str] = None, colour: bool = False) -> list[str]:
    """A node, its services and its processes; `share` is the path of koi-service.sh on this machine."""
    facts: list[tuple[str, str | Cell]] = [
        ("node", Cell(printable(node["name"]), "head")),
        ("state", state_cell(node["state"]) if node["runner"] else "runs no services"),
        *_state_facts(node),
        ("elector", state_cell(node["elector"]) if node["elector"] else "no"),
        ("address", node["address"] or NOTHING),
        ("seen", f"{age(node['seen'])} ago" if node["seen"] is not None else "never"),
        ("up", age(node["uptime"])),
        *([("failures", _failures(node))] if node["runner"] else []),
        ("version", node["version"] or NOTHING),
        *((word, node[word]) for word in ("leader", "master") if node.get(word)),
        *_pid_facts(node.get("pids")),
    ]
    if share is not None:
        facts.append(("for scripts", share))
    lines = columns([(name + ":", value) for name, value in facts], colour)
    if node["services"]:
        lines += ["", *table(SERVICE_HEAD, [_service_row(s, heard(node)) for s in node["services"]], colour)]
    return lines


def failure_lines(failures: Sequence[JSON], colour: bool = False) -> list[str]:
    """The failures of services, newest last."""
    if not failures:
        return ["No failures."]
    return table(FAILURE_HEAD, [_failure_row(f) for f in failures], colour)


def _state_facts(node: JSON) -> list[tuple[str, str | Cell]]:
    facts: list[tuple[str, str | Cell]] = []
    if node["runner"]:
        facts.append(("mode", f"{node['mode']}, preference {node['preference']}"))
        facts.append(("promotable", "yes" if node["promotable"] else f"no{': ' + printable(node['why']) if node['why'] else ''}"))
    if node["stopped"]:
        facts.append(("stopped", "by hand, until `koi start`"))
    if node["stuck"]:
        facts.append(("stuck", Cell("demote and stop failed; it may still be active", "bad")))
    if node["recovers_in"] is not None:
        facts.append(("recovers in", age(node["recovers_in"])))
    elif node["failed"]:
        facts.append(("recovers", Cell(f"not by itself any more; mend it, then 'koi recover {printable(node['name'])}'", "bad")))
    return facts


def _failures(node: JSON) -> str:
    if not node["failcount"] and not node["last_failure"]:
        return "none"
    return f"{node['failcount']} counted" + (f"; the last: {printable(node['last_failure'])}" if node["last_failure"] else "")


def _pid_facts(pids: Optional[JSON]) -> list[tuple[str, str]]:
    if pids is None:
        return []
    processes = [("root", pids["root"]), ("elector", pids["elector"]), ("runner", pids["runner"]), *pids["services"].items()]
    return [("processes", ", ".join(f"{printable(name)} {pid}" for name, pid in processes if pid is not None))]


def _service_row(service: JSON, fresh: bool) -> Row:
    prio, pid = service["priority"], service["pid"]
    return [
        Cell(printable(service["name"]), "head"), NOTHING if prio is None else str(prio), service_state(service, fresh),
        NOTHING if pid is None else str(pid), last_script(service["last"]),
    ]


def _failure_row(failure: JSON) -> Row:
    code = failure["exit"]
    return [
        local_time(failure["time"]), Cell(printable(failure["node"]), "head"), failure["service"], failure["action"],
        NOTHING if code is None else str(code), age(failure["seconds"]), Cell(printable(failure["what"]), "bad"), failure["line"],
    ]
