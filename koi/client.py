"""The Python API: class Client offers the commands of `koi` as methods with the same results as dicts. The CLI uses it itself.

The rule it keeps: every method returns what happened, or raises Refused (nothing was done, and why) or NoAnswer (the
outcome is unknown); a question is carried out at most once however often its datagram is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from koi.client_exchange import TIME_UP, Exchange
from koi.client_history import merged, origin
from koi.client_line import Line, Question, literal, meanings, now, pause
from koi.core.messages import Request
from koi.errors import KoiError, NoAnswer, Refused
from koi.names import Address, unknown_node

if TYPE_CHECKING:
    from koi.config import Config

JSON = dict[str, Any]

DEFAULT_PORT, DEFAULT_ID = 42012, 13
ANYWHERE = ("", "::", "0.0.0.0")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_REASON, MAX_CONDITION = 500, 200
WAIT_RETRY_S = 0.5
LOOK_S = 0.5
"""What `wait` takes at the least, so that one question is answered: a timeout of 0 asks whether it is so now."""
MAX_AT_ONCE = 16
"""Nodes that are asked at the same time."""
WHY_ENTRIES = 50
"""How many entries `why` gives unless told otherwise."""


class Client:
    """Asks one node and follows redirects.

    `config` is a path or a Config, default this machine's; `timeout` is the longest silence in seconds, not the longest
    duration. `secret` and `cluster_id` stand in for the configuration's; with a secret no configuration is needed.
    `progress` is called with the words of a command under way, `trace` with every datagram.
    """

    def __init__(
        self,
        config: str | Config | None = None,
        host: str | None = None,
        port: int | None = None,
        timeout: float = 6,
        *,
        secret: str | None = None,
        cluster_id: int | None = None,
        progress: Callable[[str], None] | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        known = None if config is None and secret is not None and not _default_config() else _load(config, secret)
        self._known, self.timeout = known, timeout
        own = host is None and port is None and secret is None and cluster_id is None
        self._remedy, self._if_closed = _remedies(known if own else None)
        self.host, self.port = _address(known, host, port)
        self.id = cluster_id if cluster_id is not None else known.cluster.id if known else DEFAULT_ID
        trace = trace or (lambda text: None)
        password = secret if secret is not None else known.cluster.password if known else ""
        self._line = Line(password, self.id, self._ways, progress or (lambda text: None), trace)
        trace(f"cluster id {self.id}; configuration {known.path if known else 'none'};"
              f" the password is {'the one given' if secret is not None else 'the one of the configuration'}")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def turn(self) -> str | None:
        """Asks the next elector of the configuration from now on; its name, None when there is no other."""
        electors = self._known.cluster.electors if self._known else ()
        known = [(e.addresses[0].host, e.addresses[0].port, e.name) for e in electors]
        at = next((i for i, (host, port, _) in enumerate(known) if (host, port) == (self.host, self.port)), -1)
        if not known or len(known) == 1 and at == 0:
            return None
        self.host, self.port, name = known[(at + 1) % len(known)]
        self._remedy, self._if_closed = _remedies(None)
        return name

    def close(self) -> None:
        """Closes the socket; a later question opens a new one."""
        self._line.close()

    # --- looking ----------------------------------------------------------------------------

    def local(self) -> JSON:
        """The node asked, with `pids`."""
        return self.ask("local")

    def status(self, node: str | None = None) -> JSON:
        """The cluster and its nodes; with `node` that one alone. Raises Refused for a node that nobody knows."""
        found = self.ask("status")
        if node is None:
            return found
        nodes = [n for n in found["nodes"] if n["name"] == node]
        if not nodes:
            raise Refused(unknown_node(node, [n["name"] for n in found["nodes"]]))
        return {**found, "nodes": nodes}

    def tree(self) -> JSON:
        """The same as `status`."""
        return self.status()

    def failures(self) -> JSON:
        """`failures` of all nodes, newest last, and `missing`: the nodes that could not be asked, each with the reason."""
        missing: list[JSON] = []
        found = self._gather("failures", "failures", self._runners(missing), missing)
        return {"failures": sorted(found, key=lambda f: str(f["time"])), "missing": missing}

    def why(self, limit: int = WHY_ENTRIES) -> list[JSON]:
        """The last changes of master, leader and maintenance, and commands, newest last.

        Each has time (ISO 8601), node (whose journal has it), what, from, to, epoch and reason.
        """
        return list(self.history(limit)["entries"])

    def history(self, limit: int = WHY_ENTRIES) -> JSON:
        """`entries`, as `why` has them, and `missing`: the nodes whose journals could not be read, each with the reason."""
        missing: list[JSON] = []
        nodes = self.ask("status")["nodes"]
        silent = [n for n in nodes if n["state"] == "Disconnected" or n["elector"] == "disconnected"]
        missing += [{"node": n["name"], "why": "not heard"} for n in silent]
        found = self._gather("why", "entries", [n["name"] for n in nodes if n not in silent], missing, limit=limit)
        return {"entries": merged(found, limit), "missing": missing}

    def _gather(self, command: str, key: str, names: Iterable[str | None], missing: list[JSON], **more: Any) -> list[JSON]:
        """What each node says, in one list; a node that does not answer or refuses goes to `missing`."""
        found: list[JSON] = []
        asked = [(name, self._question(command, {"node": name, **more})) for name in names]
        for at in range(0, len(asked), MAX_AT_ONCE):
            self._line.ask([question for _, question in asked[at : at + MAX_AT_ONCE]])
        for name, question in asked:
            if isinstance(question.outcome, (NoAnswer, Refused)):
                missing.append({"node": name, "why": str(question.outcome)})
            elif isinstance(question.outcome, KoiError):
                raise question.outcome
            elif question.outcome is not None:
                found += question.outcome[key]
        return found

    def _runners(self, missing: list[JSON]) -> list[str | None]:
        """The nodes with services that can be asked; without a leader only the one at hand (None)."""
        status = self.ask("status")
        if status["cluster"]["leader"] is None:
            missing.append({"node": None, "why": "no leader: only this node was asked"})
            return [None]
        runners = [n for n in status["nodes"] if n["runner"]]
        missing += [{"node": n["name"], "why": "not heard"} for n in runners if n["state"] == "Disconnected"]
        return [n["name"] for n in runners if n["state"] != "Disconnected"]

    def wait(self, condition: str, timeout: float | None = None) -> JSON:
        """Until the condition is true, at most `timeout` seconds (None: for ever); raises NoAnswer at the end of them.

        With a timeout the node may be silent or not started yet; without one silence ends it as usual.
        """
        if timeout is None:
            return self.ask("wait", condition=condition, timeout=None)
        self._line.open()  # making the key is no part of the waiting
        until = now() + max(timeout, LOOK_S)
        while True:
            try:
                return self._ask("wait", {"condition": condition, "timeout": max(until - now(), 0.0)}, until)
            except NoAnswer as error:
                pause(min(WAIT_RETRY_S, max(until - now(), 0.0)))
                if now() >= until:
                    words = "" if str(error) == TIME_UP else f" ({error})"
                    raise NoAnswer(f"not true within {timeout:g} s: {condition}{words}") from None

    # --- changing ---------------------------------------------------------------------------

    def promote(self, node: str, reason: str = "", force: bool = False, no_wait: bool = False, dry_run: bool = False) -> JSON:
        """Makes NODE the master: a planned switchover. Waits until it is Master or has failed to become it.

        `dry_run` says what would happen, `done` False, and changes nothing.
        """
        if dry_run:
            return self.ask("plan", node=node, force=force)
        return self._change("promote", reason, no_wait, node=node, force=force)

    def demote(self, reason: str = "", force: bool = False, no_wait: bool = False) -> JSON:
        """Demotes the master of the cluster; no other is elected until `elect` (manual mode)."""
        return self._change("demote", reason, no_wait, force=force)

    def elect(self, reason: str = "", no_wait: bool = False) -> JSON:
        """Leaves manual mode."""
        return self._change("elect", reason, no_wait)

    def start(self, node: str | None = None, reason: str = "", force: bool = False, no_wait: bool = False) -> JSON:
        """Starts the services of a stopped node; None is the node asked."""
        return self._change("start", reason, no_wait, node=node, force=force)

    def stop(self, node: str | None = None, reason: str = "", force: bool = False, no_wait: bool = False) -> JSON:
        """Demotes and stops the services of a node; it stays so over restarts, until `start`.

        Raises Refused for a master that nobody can take over from, unless `force`.
        """
        if not force:
            self._check_stop(node)
        return self._change("stop", reason, no_wait, node=node, force=force)

    def recover(self, node: str | None = None, reason: str = "", force: bool = False, no_wait: bool = False) -> JSON:
        """Forgets the failures of NODE, or of each failed node in turn, and starts at once."""
        if node is not None:
            return self._change("recover", reason, no_wait, node=node, force=force)
        status = self.ask("status")
        failed = [n["name"] for n in status["nodes"] if n["runner"] and (n["failed"] or n["state"] == "Failed")]
        done = [self._change("recover", reason, no_wait, node=name, force=force) for name in failed]
        message = "; ".join(d["message"] for d in done) or "no node has failed"
        return {"done": True, "message": message, "epoch": status["cluster"]["epoch"]}

    def passive(self, node: str, reason: str = "", force: bool = False, no_wait: bool = False) -> JSON:
        """Excludes NODE from being promoted; a master is switched over first. `force` for the only one that can be."""
        return self._change("passive", reason, no_wait, node=node, force=force)

    def active(self, node: str, reason: str = "", no_wait: bool = False) -> JSON:
        """Includes NODE again."""
        return self._change("active", reason, no_wait, node=node)

    def restart(
        self, service: str, node: str | None = None, reason: str = "", force: bool = False, no_wait: bool = False
    ) -> JSON:
        """Stops and starts one service of a node (None: the node asked), promoted again if it was."""
        return self._change("restart", reason, no_wait, service=service, node=node, force=force)

    def maintenance(self, on: bool, reason: str = "", force: bool = False, no_wait: bool = False) -> JSON:
        """Freezes the whole cluster or ends that: no script is run, no master changed. `force` to leave it unheard."""
        return self._change("maintenance", reason, no_wait, on=on, force=force)

    def reconfigure(self, node: str | None = None, reason: str = "", no_wait: bool = False) -> JSON:
        """Makes a node (None: the node asked) read its configuration again."""
        return self._change("reconfigure", reason, no_wait, node=node)

    def _check_stop(self, node: str | None) -> None:
        _check_names({"node": node})
        status = self.ask("status")
        name = node if node is not None else self.ask("local")["name"]
        others = [n for n in status["nodes"] if n["runner"] and n["name"] != name]
        if status["cluster"]["master"] != name or any(n["promotable"] for n in others):
            return
        words = "; ".join(f"{n['name']} is {n['state']}" + (f" ({n['why']})" if n["why"] else "") for n in others)
        why = words or "there is no other"
        raise Refused(f"{name} is the master and nobody can take over: {why}; --force stops it all the same")

    def _change(self, command: str, reason: str | None, no_wait: bool, **arguments: Any) -> JSON:
        words = " ".join((reason or "").split())
        if len(words) > MAX_REASON:
            raise Refused(f"the reason has {len(words)} characters; {MAX_REASON} are allowed")
        try:
            return self.ask(command, **arguments, reason=words, no_wait=no_wait, origin=origin())
        except NoAnswer as error:
            raise NoAnswer(f"{error}. Whether `{command}` was carried out is not known: see `koi status`") from None

    # --- asking -----------------------------------------------------------------------------

    def ask(self, command: str, **arguments: Any) -> JSON:
        """Asks any command of the wire; returns the final answer. Raises Refused or NoAnswer."""
        return self._ask(command, arguments, None)

    def _ask(self, command: str, arguments: JSON, until: float | None) -> JSON:
        question = self._question(command, arguments, until)
        self._line.ask([question])
        if isinstance(question.outcome, KoiError):
            raise question.outcome
        assert question.outcome is not None
        return question.outcome

    def _question(self, command: str, arguments: JSON, until: float | None = None) -> Question:
        _check_names(arguments)
        request = Request(os.urandom(16).hex(), command, tuple(sorted(arguments.items())))
        first = (self.host, self.port)
        return Question(request, Exchange(request.id, first, self.timeout, now(), until, self._remedy, self._if_closed))

    def _ways(self, address: Address) -> tuple[Address, ...]:
        """All addresses of the elector that has this one, as far as they mean something; else what this one means."""
        for elector in self._known.cluster.electors if self._known else ():
            listed = [(own.host, own.port) for own in elector.addresses]
            if address in listed or address in [way for one in listed if (way := literal(*one))]:
                found = [way for one in listed for way in _known_meanings(one)]
                return tuple(dict.fromkeys(found)) or meanings(address)
        return meanings(address)


def _known_meanings(address: Address) -> tuple[Address, ...]:
    try:
        return meanings(address)
    except KoiError:
        return ()


def _check_names(arguments: JSON) -> None:
    """Raises Refused for a node that no node can be called: the other side would drop the datagram as noise."""
    for what in ("node", "service"):
        name = arguments.get(what)
        if name is not None and not NAME.fullmatch(name):
            raise Refused(f"{name[:80]!r} is not the name of a {what}: letters, digits, '.', '_' and '-', 63 at most")
    if len(arguments.get("condition") or "") > MAX_CONDITION:
        raise Refused("no such condition; there are: master, master=NODE, state NODE STATE, leader, quorum")


def _remedies(own: Config | None) -> tuple[str, str]:
    """What to do when nobody answers at all, and when it is known that nobody listens.

    `own` is the configuration when all that was asked comes from it.
    """
    if own is not None:
        start = f"start it with: koinode -f {own.path}"
        silent = f"{start} (if it runs, its password, id or port is not the one in this file)"
        return silent, f"{start} (nobody has that port open)"
    why = "nobody has that port open there; start koinode on that machine, or give the right host and port with -H and -p"
    return "see that it runs and is reachable there, with this password and this cluster id", why


def _default_config() -> bool:
    from koi.config import DEFAULT_PATHS

    return any(os.path.exists(path) for path in DEFAULT_PATHS)


def _load(config: str | Config | None, secret: str | None) -> Config:
    from koi.config import load

    return load(config, password=secret) if config is None or isinstance(config, str) else config


def _address(config: Config | None, host: str | None, port: int | None) -> Address:
    """Where to ask: as given (an elector's name is as good as its address), else this machine's own node."""
    own_port = config.cluster.port if config else DEFAULT_PORT
    if host is None:
        specific = [b for b in (config.cluster.bind if config else ()) if b not in ANYWHERE]
        return specific[0] if specific else "127.0.0.1", port or own_port
    elector = config.cluster.electors.get(host) if config else None
    if elector is None:
        return host, port or own_port
    return elector.addresses[0].host, port or elector.port
