"""koi, the client of a Koi cluster.

Usage:
  koi [options] local
  koi [options] status [NODE] [--check]
  koi [options] tree
  koi [options] watch
  koi [options] promote NODE [--dry-run]
  koi [options] demote
  koi [options] elect
  koi [options] passive NODE
  koi [options] active NODE
  koi [options] start [NODE]
  koi [options] stop [NODE]
  koi [options] restart SERVICE [NODE]
  koi [options] recover [NODE]
  koi [options] maintenance (on|off)
  koi [options] reconfigure [NODE]
  koi [options] failures
  koi [options] why
  koi [options] wait CONDITION... [--timeout SECONDS]
  koi [options] config (list | get KEY | set KEY VALUE)
  koi [options] check
  koi [options] keygen
  koi [options] demo [--nodes N] [--once]
  koi --help
  koi --version

Commands:
  local         this node
  status        the cluster, or one node; --check: one line and a Nagios exit code
                (0 ok, 1 warning, 2 critical, 3 unknown)
  tree          the cluster as a tree
  watch         the tree, live, until Ctrl-C
  promote       make NODE the master (a planned switchover; also leaves manual mode)
  demote        demote the master of the cluster, elect no other (manual mode, until `koi elect`)
  elect         leave manual mode
  passive       exclude NODE from being promoted
  active        include it again
  start         start the services of a stopped node (this node without NODE)
  stop          demote and stop them (this node without NODE; lasts over restarts)
  restart       stop and start one service of a node, promoted again if it was
  recover       forget failures of NODE, or of all failed nodes, and start at once; does not undo `stop`
  maintenance   freeze the whole cluster: no script is run, no master changed
  reconfigure   re-read the configuration
  failures      recent service failures, newest last
  why           the last changes of master and leader, each with its reason
  wait          until CONDITION is true: master, master=NODE, state NODE STATE, leader, quorum
  config        read or change the configuration file, e.g. cluster.quorum
  check         check configuration and services, as `koinode --check`
  keygen        print a fresh cluster password
  demo          a real cluster on this machine, with sample services

Options:
  -H HOST             the node to ask: an address (default: this node)
  -p PORT             its UDP port (default: this node's)
  -f FILE             configuration (default: /etc/koi/koi.conf, else ./koi.conf)
  --secret-file FILE  file with the cluster password (or the password in KOI_SECRET; default: the configuration's)
  --id N              cluster id (default: the configuration's)
  -t SECONDS          the longest silence, not the longest duration [default: 6]
  -c                  colour always
  -d                  debug: show every datagram on stderr
  --json              machine-readable
  --reason TEXT       kept with the change and shown by `why`
  --force             do it all the same, where a refusal says that this would help
  --no-wait           do not wait until the effect is there
  --check             one line and a Nagios exit code
  --dry-run           say what would happen
  --timeout SECONDS   end the waiting with exit code 3
  --nodes N           nodes of the demo [default: 3]
  --once              kill the master, switch over, print how long each took, end
  --help              this text
  --version           the version

Exit codes: 0 done; 1 refused or failed, the reason is on stderr; 2 usage; 3 no answer in time, outcome unknown.
"""

# The text above is the grammar (docopt). Rule kept here: one small function a command, and every failure ends as one
# sentence on stderr and one of the four exit codes. What a command needs is imported when it runs: `koi` starts fast.

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from koi import __version__
from koi.cli_call import DONE, JSON, Call, UsageError
from koi.errors import ConfigError, KoiError, NoAnswer

FAILED, USAGE, SILENCE, INTERRUPTED = 1, 2, 3, 130
MIN_NODES_ONCE, MAX_NODES = 3, 9
NEGATIVE = re.compile(r"-\d[\d.]*")
"""`koi config set node.preference -5`: docopt would take the number for an option."""
ASCII = {"├": "|", "└": "`", "│": "|", "─": "-"}

# --- commands -----------------------------------------------------------------------------------


def do_local(call: Call) -> int:
    """This node, and where the words for scripts are."""
    from koi.view_node import node_lines

    node = call.client.local()
    return call.show(node, lambda: node_lines(node, _share(), call.colour))


def do_status(call: Call) -> int:
    """The cluster, one node, or a Nagios check of either."""
    if call["--check"]:
        return _check_status(call)
    from koi.view_node import node_lines
    from koi.view_status import status_lines

    if call["NODE"] is None:
        status = call.client.status()
        return call.show(status, lambda: status_lines(status, call.colour, call.width))
    one = call.client.status(call["NODE"])
    return call.show(one, lambda: node_lines(one["nodes"][0], None, call.colour))


def do_tree(call: Call) -> int:
    """The cluster as a tree."""
    from koi.view_tree import tree_lines

    status = call.client.tree()
    return call.show(status, lambda: tree_lines(status, call.colour))


def do_watch(call: Call) -> int:
    """The tree, live, until Ctrl-C."""
    from koi.view_live import watch

    return watch(call.client, call.colour, call.json)


def do_promote(call: Call) -> int:
    """Makes NODE the master."""
    return call.report(call.client.promote(call["NODE"], force=call["--force"], dry_run=call["--dry-run"], **call.change))


def do_demote(call: Call) -> int:
    """Demotes the master of the cluster."""
    return call.report(call.client.demote(force=call["--force"], **call.change))


def do_elect(call: Call) -> int:
    """Leaves manual mode."""
    return call.report(call.client.elect(**call.change))


def do_start(call: Call) -> int:
    """Starts the services of a stopped node."""
    return call.report(call.client.start(call["NODE"], force=call["--force"], **call.change))


def do_stop(call: Call) -> int:
    """Demotes and stops the services of a node."""
    return call.report(call.client.stop(call["NODE"], force=call["--force"], **call.change))


def do_recover(call: Call) -> int:
    """Forgets the failures of a node, or of all failed ones."""
    return call.report(call.client.recover(call["NODE"], force=call["--force"], **call.change))


def do_failures(call: Call) -> int:
    """Recent failures of services."""
    from koi.view_node import failure_lines

    found = call.client.failures()
    _complain_of(found["missing"])
    return call.show(found, lambda: failure_lines(found["failures"], call.colour))


def do_wait(call: Call) -> int:
    """Until a condition is true."""
    from koi.proc.conditions import parse as condition

    words = " ".join(call["CONDITION"])
    if isinstance(wrong := condition(words), str):
        raise UsageError(wrong)
    return call.report(call.client.wait(words, call.number("--timeout", 0, 1e7, float)))


def do_passive(call: Call) -> int:
    """Excludes a node from being promoted."""
    return call.report(call.client.passive(call["NODE"], force=call["--force"], **call.change))


def do_active(call: Call) -> int:
    """Includes it again."""
    return call.report(call.client.active(call["NODE"], **call.change))


def do_restart(call: Call) -> int:
    """Stops and starts one service."""
    return call.report(call.client.restart(call["SERVICE"], call["NODE"], force=call["--force"], **call.change))


def do_maintenance(call: Call) -> int:
    """Freezes the cluster, or ends that."""
    return call.report(call.client.maintenance(call["on"], force=call["--force"], **call.change))


def do_reconfigure(call: Call) -> int:
    """Re-reads the configuration of a node."""
    return call.report(call.client.reconfigure(call["NODE"], **call.change))


def do_why(call: Call) -> int:
    """The last changes, each with its reason."""
    from koi.view_why import why_lines

    found = call.client.history()
    _complain_of(found["missing"])
    return call.show(found["entries"], lambda: why_lines(found["entries"], call.colour))


def do_config(call: Call) -> int:
    """Shows the configuration in use, or changes a key of its file."""
    from koi.configfile import read_bytes
    from koi.view_config import setting, setting_text, settings

    if call["set"]:
        from koi.configedit import change

        message = change(call["-f"], call["KEY"], call["VALUE"].strip(), call.secret)
        return call.show({"done": True, "message": message}, lambda: [message])
    config = call.config()
    found = settings(config, read_bytes(config.path))
    if call["get"]:
        value = setting(found, call["KEY"])
        return call.show({call["KEY"]: value}, lambda: [setting_text(call["KEY"], value)])
    return call.show(found, lambda: [f"{key}: {setting_text(key, value)}" for key, value in found.items()])


def do_check(call: Call) -> int:
    """Checks configuration and services."""
    from koi.node import check

    return check(call["-f"], call.json)


def do_keygen(call: Call) -> int:
    """A fresh cluster password."""
    from koi.config import keygen

    password = keygen()
    return call.show({"password": password}, lambda: [password])


def do_demo(call: Call) -> int:
    """A real cluster on this machine."""
    nodes, once = call.number("--nodes", 1, MAX_NODES, int), call["--once"] or not sys.stdout.isatty()
    if once and nodes < MIN_NODES_ONCE:
        raise UsageError(f"--nodes {nodes}: --once needs at least {MIN_NODES_ONCE}: one is killed, two are left to agree")
    from koi.demo import run

    return run(nodes, once, call.colour)


COMMANDS: dict[str, Callable[[Call], int]] = {
    "local": do_local, "status": do_status, "tree": do_tree, "watch": do_watch,
    "promote": do_promote, "demote": do_demote, "elect": do_elect,
    "start": do_start, "stop": do_stop, "recover": do_recover,
    "failures": do_failures, "wait": do_wait, "config": do_config, "check": do_check, "keygen": do_keygen, "demo": do_demo,
    "passive": do_passive, "active": do_active, "restart": do_restart, "maintenance": do_maintenance,
    "reconfigure": do_reconfigure, "why": do_why,
}


def _check_status(call: Call) -> int:
    """One line on stdout whatever happens: that is what a monitor shows."""
    from koi.view_status import UNKNOWN, check_line, check_node_line

    try:
        status = call.client.status(call["NODE"])
        line, code = check_line(status) if call["NODE"] is None else check_node_line(status["nodes"][0])
    except KoiError as error:
        line, code = f"KOI UNKNOWN - {'; '.join(str(error).splitlines())}", UNKNOWN
    call.show({"code": code, "message": line}, lambda: [line])
    return code


def _share() -> str:
    import koi

    return os.path.join(os.path.dirname(os.path.abspath(koi.__file__)), "share", "koi-service.sh")


def _complain(text: str) -> None:
    print(f"koi: {text}", file=sys.stderr)


def _complain_of(missing: Sequence[JSON]) -> None:
    """Says which nodes could not be asked."""
    for one in missing:
        _complain(f"what {one['node']} knows is missing here: {one['why']}" if one["node"] else one["why"])


def parse(argv: Sequence[str]) -> JSON:
    """The arguments by name. Raises UsageError with a hint; --help and --version print and end the program."""
    from docopt import DocoptExit, docopt

    words = [f" {word}" if NEGATIVE.fullmatch(word) else word for word in argv]
    try:
        found: JSON = docopt(__doc__, words, version=f"koi {__version__}")
    except DocoptExit:
        from koi.cli_hints import hint

        raise UsageError(hint(argv, COMMANDS, __doc__)) from None
    return found


def run(argv: Sequence[str]) -> int:
    """Carries out a command line; every failure becomes a sentence on stderr and an exit code."""
    try:
        arguments = parse(argv)
        name = next(name for name in COMMANDS if arguments[name])
        return COMMANDS[name](Call(arguments))
    except (UsageError, ConfigError) as error:
        _complain(str(error))
        return USAGE
    except NoAnswer as error:
        _complain(str(error))
        return SILENCE
    except KoiError as error:
        _complain(str(error))
        return FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """The program `koi`; returns its exit code."""
    try:
        if sys.stdout is None:  # `koi status >&-`
            sys.stdout = open(os.devnull, "w", encoding="utf-8")
        if sys.stderr is None:  # `koi status 2>&-`
            sys.stderr = open(os.devnull, "w", encoding="utf-8")
        draw_in_ascii(sys.stdout)
        code = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `koi status | head -1`: nobody reads the rest
        _drop_output()
        return DONE
    except OSError as error:  # `koi status > /dev/full`
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
            raise
        _drop_output()
        print(f"koi: the output cannot be written: {error.strerror}", file=sys.stderr)
        return FAILED


def draw_in_ascii(out: Any) -> None:
    """Where the output cannot carry a character (LC_ALL=POSIX without UTF-8), another stands for it."""
    codecs.register_error("drawn", lambda error: (_plainer(error), error.end))  # type: ignore[attr-defined]
    if isinstance(out, io.TextIOWrapper) and out.errors in ("strict", "surrogateescape"):
        out.reconfigure(errors="drawn")


def _plainer(error: UnicodeError) -> str:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(ASCII.get(c, "?") for c in error.object[error.start : error.end])


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that the end of the program does not try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
