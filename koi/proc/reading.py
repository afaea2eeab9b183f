"""What koinode starts with, and reads again when it is asked to: the configuration and the services, or each fault of them.

Rule: a fault keeps koinode from starting, unless a koinode that was killed as a whole left something promoted.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

from koi.config import Config, ServiceDefaults, override, place, services_at_least
from koi.errors import ConfigError, KoiError
from koi.proc import lastgood
from koi.proc.lastgood import Copy

if TYPE_CHECKING:
    from koi.service.catalog import Catalog


def read(path: Optional[str], name: Optional[str]) -> tuple[Config, tuple[Any, ...], tuple[str, ...], Copy]:
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
    """A warning for what the configuration names and this machine does not have; of a command only a path can be looked for."""
    wanted = (("cluster.fence", config.cluster.fence, config.node.elector), ("node.self_fence", config.node.self_fence, True))
    found = []
    for key, command, used in wanted:
        program = (command or "").strip().partition(" ")[0]
        if used and program.startswith("/") and not os.access(program, os.X_OK):
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


def to_start(path: Optional[str], name: Optional[str]) -> tuple[Config, tuple[Any, ...], Optional[Copy]]:
    """As `read`; but faults keep koinode from starting only where nothing is left that must be demoted.

    A node whose koinode was killed as a whole may be promoted still, while another one is made master (rule 6.5). Where
    koi.conf itself is at fault, the last good copy of it counts, and there is nothing new to keep.
    """
    try:
        config, definitions, _, copy = read(path, name)
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
