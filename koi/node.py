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
from koi.config import Config, ServiceDefaults, override, place, services_at_least
from koi.errors import ConfigError, KoiError
from koi.proc import daemon, lastgood
from koi.proc.lastgood import Copy

if TYPE_CHECKING:
    from koi.proc.child import Context
    from koi.service.catalog import Catalog

FAILED, USAGE = 1, 2
CONSOLE = "console"

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
        config, definitions, copy = _read_to_start(args["-f"], args["-n"])
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
        config, definitions, ignored, _ = _read(path, None)
    except KoiError as fault:
        print(fault, file=sys.stderr)
        return USAGE
    for text in (*config.warnings, *_not_there(config), *ignored):
        print(f"warning: {text}", file=sys.stderr)
    roles = " and ".join(role for role, has in (("elector", config.node.elector), ("runner", config.node.runner)) if has)
    names = ", ".join(one.name for one in definitions)
    message = f"{config.path}: all right. Node {config.node.name} is {roles}; services: {names or 'none'}."
    print(json.dumps({"done": True, "message": message}) if as_json else message)
    return 0


def _not_there(config: Config) -> list[str]:
    """A warning for each command of the configuration that this machine does not have. Only a path can be looked for."""
    wanted = (("cluster.fence", config.cluster.fence, config.node.elector), ("node.self_fence", config.node.self_fence, True))
    found = []
    for key, command, used in wanted:
        program = (command or "").strip().partition(" ")[0]
        if used and program.startswith("/") and not os.access(program, os.X_OK):
            found.append(f"{key}: {program} is not there or cannot be executed; without it the command fails when it is needed")
    if config.node.watchdog and not os.path.exists(config.node.watchdog):
        found.append(f"node.watchdog: {config.node.watchdog} is not there; without it this node is never promoted")
    return found


def _read(path: Optional[str], name: Optional[str]) -> tuple[Config, tuple[Any, ...], tuple[str, ...], Copy]:
    """The configuration, the services, a sentence for each name that is ignored, and what is kept of the file.

    Raises ConfigError with all faults.
    """
    try:
        config, copy = _read_file(path, name)
    except ConfigError as error:
        known = services_at_least(path)
        raise ConfigError(error.faults + (_services(*known)[1] if known else [])) from None
    config = replace(config, warnings=(*config.warnings, *_absent(config)))
    if not config.node.runner:
        return config, (), (), copy
    found, faults = _services(config.path, config.service)
    if found is None or faults:
        raise ConfigError(faults)
    ignored = tuple(f"{os.path.join(config.service.folder, entry)} is ignored: {why}" for entry, why in found.ignored)
    return config, tuple(found.definitions), ignored, copy


def _read_file(path: Optional[str], name: Optional[str]) -> tuple[Config, Copy]:
    """The configuration and what is kept of it. Raises ConfigError, also where its electors may not follow on those before."""
    from koi.proc import files

    config, copy = lastgood.read(path, name)
    fault = files.electors_fault_on_disk(f"{config.node.state_dir}/elector.json", config.cluster.electors.names)
    if fault and config.node.elector:
        raise ConfigError([f"{config.path}: {fault}"])
    return config, copy


def _absent(config: Config) -> list[str]:
    """What the configuration names and is not on this machine: it would be missed only when it is needed."""
    found = []
    for key, command in (("cluster.fence", config.cluster.fence), ("node.self_fence", config.node.self_fence)):
        program = command.split()[0] if command else ""
        if program.startswith("/") and not os.access(program, os.X_OK):
            found.append(f"{key}: {program} is not there or not executable: it would fail when it is needed")
    folder, watchdog = config.service.workingdir, config.node.watchdog
    if folder and not os.path.isdir(folder):
        found.append(f"service.workingdir: {folder} is no folder: services of a single file cannot be run; create it")
    if watchdog and not os.path.exists(watchdog):
        found.append(f"node.watchdog: {watchdog} is not there: without it this node is not promoted")
    return found


def _services(file: str, service: ServiceDefaults) -> tuple[Optional[Catalog], list[str]]:
    """What stands in the folder of services, None where it cannot be read; and every fault of it."""
    from koi.service import catalog

    try:
        found = catalog.scan(service.folder)
    except KoiError as fault:
        return None, [f"{place(file, 'service.folder')}: {fault}"]
    return found, catalog.check(found, service, override)


def _read_to_start(path: Optional[str], name: Optional[str]) -> tuple[Config, tuple[Any, ...], Optional[Copy]]:
    """As `_read`; but faults keep koinode from starting only where nothing is left that must be demoted.

    A node whose koinode was killed as a whole may be promoted still, while another one is made master (rule 6.5). Where
    koi.conf itself is at fault, the last good copy of it counts, and there is nothing new to keep.
    """
    try:
        config, definitions, _, copy = _read(path, name)
        return config, definitions, copy
    except ConfigError as error:
        from koi.proc import treefile
        from koi.service import catalog

        config, copied = _usable(path, name, error)
        if not config.node.runner or treefile.read(config.node.run_dir)[0].clean:
            raise
        found = catalog.scan(config.service.folder)
        faults = dict.fromkeys([*error.faults, *(catalog.check(found, config.service, override) if copied is None else ())])
        warnings = [f"started all the same, to demote and stop what a dead koinode left: {fault}" for fault in faults]
        warnings += [config.stands_in] if config.stands_in else []
        definitions = catalog.usable(found, config.service, override)
        return replace(config, warnings=(*config.warnings, *warnings)), tuple(definitions), copied


def _usable(path: Optional[str], name: Optional[str], error: ConfigError) -> tuple[Config, Optional[Copy]]:
    """The configuration in the file and what is kept of it; over what a dead koinode left, else its last good copy."""
    from koi.proc import treefile

    try:
        return _read_file(path, name)
    except ConfigError:
        run_dir = lastgood.run_dir(path)
        if treefile.read(run_dir)[0].clean:
            raise
    try:
        return lastgood.stand_in(run_dir, path, name, error.faults), None
    except ConfigError as second:
        why = f"{run_dir} says that a koinode which is dead left something, which only a good configuration could demote now"
        raise ConfigError([*error.faults, *second.faults, f"{why}; mend the configuration at once and start koinode"]) from None


def _loud(config: Config, debug: bool) -> Config:
    """With -d, whatever the file says."""
    return replace(config, node=replace(config.node, loglevel="debug")) if debug else config


def _set_up_log(args: Mapping[str, Any], config: Config) -> list[str]:
    """Start logging as the command line says; the targets."""
    targets = args["--log"] or ("syslog" if args["--daemonize"] else CONSOLE)
    colour = not args["-C"] and not os.environ.get("NO_COLOR")
    log.setup(targets, "root", config.node.name, config.node.loglevel, colour)
    log.hide(config.cluster.password)
    return [word.strip() for word in targets.split(",")]


def _server(
    config: Config, definitions: tuple[Any, ...], mains: Optional[Mains], pid_file: Optional[str], console: bool,
    debug: bool, copy: Optional[Copy],
) -> daemon.Serve:
    """What runs the node, here or in the background, and gives its exit code."""

    def serve(report: daemon.Report) -> int:
        try:
            return _serve(config, definitions, mains, pid_file, report, debug, copy)
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
        new, found, _, copy = _read(config.path, config.node.name)
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
    """The main functions of this node's children, imported here so that all children share the pages."""
    found: dict[str, Callable[[Context], None]] = {}
    if config.node.elector:
        from koi.proc import elector

        found["elector"] = elector.main
    if config.node.runner:
        from koi.proc import runner, worker

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
