"""koinode, the daemon of a Koi node.

Usage:
  koinode [-f FILE] [-n NAME] [--log TARGETS] [--daemonize PIDFILE] [-C] [-d]
  koinode --check [-f FILE]
  koinode --help | --version

Options:
  -f FILE              configuration (default: /etc/koi/koi.conf, else ./koi.conf)
  -n NAME              name of this node (default: node.name of the configuration, else the host name)
  --log TARGETS        comma list of console, syslog, file:PATH (default: console, in the background syslog)
  --daemonize PIDFILE  run in the background; returns 0 only once the node is up, 1 with the reason if it fails
  -C                   no colour (also when not a terminal or NO_COLOR is set)
  -d                   debug
  --check              check configuration and services; exit 0, or 2 with every fault named
  --help               this text
  --version            the version

SIGTERM or SIGINT: orderly stop (demote, stop, resign); a second one does not wait any longer.
SIGHUP or SIGUSR1: read the configuration again; a faulty one changes nothing.
Over services that a killed koinode left, a faulty configuration is replaced by its last good copy, with a warning.

Exit codes: 0 stopped in order; 1 failed, with the reason; 2 usage or configuration.
"""

# The text above is the grammar (docopt). Rule kept here: nothing is forked or written before the configuration and all
# services are known to be right; what every child shares is imported before root forks the first.

from __future__ import annotations

# ruff: noqa: E402, I001 (what has fork hooks is imported before all else)
from koi.proc import forkhooks

forkhooks.import_without()

import json
import os
import pwd
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

from docopt import DocoptExit, docopt

from koi import __version__, log
from koi.config import Config, override
from koi.errors import KoiError
from koi.proc import daemon, reading
from koi.proc.lastgood import Copy
from koi.proc.lock import ToldToEnd

if TYPE_CHECKING:
    from koi.proc.child import Context

STOPPED, FAILED, USAGE = 0, 1, 2
CONSOLE, SYSLOG = "console", "syslog"

Mains = Mapping[str, Callable[["Context"], None]]


def main(argv: Optional[Sequence[str]] = None, mains: Optional[Mains] = None) -> int:
    """The whole of koinode; the exit code. `mains` replaces the main functions of the children."""
    try:
        args = docopt(__doc__, argv=None if argv is None else list(argv), version=f"koinode {__version__}")
    except DocoptExit as fault:
        print(fault, file=sys.stderr)
        return USAGE
    if args["--check"]:
        return check(args["-f"])
    try:
        config, definitions, copy = reading.to_start(args["-f"], args["-n"])
        config = _loud(config, args["-d"])
        targets = _set_up_log(args, config)
    except KoiError as fault:
        print(fault, file=sys.stderr)
        return USAGE
    pid_file = args["--daemonize"]
    if pid_file and config.stands_in:  # whoever starts it so does not see the log
        print(f"koinode: {config.stands_in}", file=sys.stderr)
    serve = _server(
        config, definitions, mains, os.path.abspath(pid_file) if pid_file else None, CONSOLE in targets, args["-d"], copy,
    )
    if pid_file:
        return daemon.start(serve, keep_stderr=CONSOLE in targets)
    return serve(daemon.Report())


def check(path: Optional[str], as_json: bool = False) -> int:
    """Say on stderr what is wrong with the configuration and the services, each fault; 0 if nothing, else 2."""
    try:
        config, definitions, ignored, _ = reading.read(path, None)
    except KoiError as fault:
        print(fault, file=sys.stderr)
        return USAGE
    for text in (*config.warnings, *ignored):
        print(f"warning: {text}", file=sys.stderr)
    roles = " and ".join(role for role, has in (("elector", config.node.elector), ("runner", config.node.runner)) if has)
    names = ", ".join(one.name for one in definitions)
    message = f"{config.path}: all right. Node {config.node.name} is {roles}; services: {names or 'none'}."
    print(json.dumps({"done": True, "message": message}) if as_json else message)
    return 0


def _loud(config: Config, debug: bool) -> Config:
    """With -d, whatever the file says."""
    return replace(config, node=replace(config.node, loglevel="debug")) if debug else config


def _set_up_log(args: Mapping[str, Any], config: Config) -> list[str]:
    """Start logging as the command line says; the targets."""
    targets = args["--log"] or (SYSLOG if args["--daemonize"] else CONSOLE)
    colour = not args["-C"] and not os.environ.get("NO_COLOR")
    log.setup(targets, "root", config.node.name, config.node.loglevel, colour)
    log.hide(config.cluster.password)
    found = [word.strip() for word in targets.split(",")]
    fault = log.syslog_fault() if SYSLOG in found else ""
    if fault:
        how = "start one, or log to a file with --log file:PATH"
        print(f"koinode: no syslog takes its lines ({fault}), so they are lost: {how}", file=sys.stderr)
    return found


def _server(
    config: Config, definitions: tuple[Any, ...], mains: Optional[Mains], pid_file: Optional[str], console: bool,
    debug: bool, copy: Optional[Copy],
) -> daemon.Serve:
    """What runs the node, here or in the background, and gives its exit code."""

    def serve(report: daemon.Report) -> int:
        try:
            return _serve(config, definitions, mains, pid_file, report, debug, copy)
        except ToldToEnd as told:
            log.get().info(str(told))
            report.failed(str(told))
            return STOPPED
        except KoiError as fault:
            log.get().error(str(fault))
            report.failed(str(fault))
            if not console and not pid_file:
                print(f"koinode: {fault}", file=sys.stderr)
        except Exception as fault:
            log.get().critical(f"root ends by a fault of its own; its workers demote and stop: {traceback.format_exc()}")
            report.failed(f"a fault of koinode itself: {fault!r}")
        return FAILED

    return serve


def _serve(
    config: Config, definitions: tuple[Any, ...], mains: Optional[Mains], pid_file: Optional[str], report: daemon.Report,
    debug: bool, copy: Optional[Copy],
) -> int:
    from koi.proc import root

    for text in config.warnings:
        log.get().warning(text)
    if os.geteuid() != 0:
        log.get().info(f"runs as {_user()}, not as root: what scripts do is limited to what that user may")
    def reread() -> tuple[Config, float, Copy]:
        """The file as it is now; what the command line said still counts."""
        new, found, _, copy = reading.read(config.path, config.node.name)
        return _loud(new, debug), _end_s(new, found), copy

    pid_files = (os.path.join(config.node.run_dir, "koinode.pid"), *([pid_file] if pid_file else []))
    end_s = _end_s(config, definitions)
    return root.run(config, definitions, mains or _mains(config), report.up, end_s, pid_files, (report.close,), reread, copy)


def _end_s(config: Config, definitions: tuple[Any, ...]) -> float:
    """Seconds that an orderly demote and stop of all services may take."""
    from koi.proc.shutdown import end_bound
    from koi.service import catalog

    settings = [(one.priority, catalog.settings(one, config.service, override)) for one in definitions]
    return end_bound((priority, s.demote_timeout + s.stop_timeout + s.failed_timeout) for priority, s in settings)


def _mains(config: Config) -> Mains:
    """The main functions of this node's children, imported and prepared here so that all children share the pages."""
    from koi.proc import speech

    speech.prepare(config)
    found: dict[str, Callable[[Context], None]] = {}
    if config.node.elector:
        from koi.proc import elector

        found["elector"] = elector.main
    if config.node.runner:
        from koi.proc import rehearsal, runner, worker

        rehearsal.play(config, worker.main)
        found["runner"] = runner.main
        found["service"] = worker.main
    return found


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


if __name__ == "__main__":
    sys.exit(main())
