"""The folder of services: what is a service, which scripts it has, and what is wrong with it.

Rule: what is ignored is told with its reason, and what is not built is refused by name; nothing is passed over in
silence. Names and files are those of docs/guide.md, Services.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any, Callable, Optional

from koi.core.data import dataclass
from koi.errors import ConfigError, KoiError

ACTIONS = ("start", "stop", "promote", "demote", "status", "failed")
RUN = "run"
SETTINGS_FILE = "service.yaml"
WATCH, DISABLED = "watch", "disabled"
FOLDER, FILE = "folder", "file"
MAX_SERVICES = 100
MAX_SETTINGS_BYTES = 16_384
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
PRIORITY = re.compile(r"([0-9]{1,2})-(.+)")


@dataclass(frozen=True)
class Definition:
    """One service as it stands in the folder."""

    name: str
    priority: Optional[int]
    """0 to 99, or None: independent of all others."""
    path: str
    """Absolute: the service's folder, or its single file."""
    kind: str
    """FOLDER or FILE."""
    scripts: frozenset[str]
    """The actions that have a script; all of them when the service is one file."""
    is_run: bool = False
    """`run` is a program that takes the place of start and stop."""
    has_watch: bool = False
    """`watch` is a monitor that runs beside the service."""
    disabled: bool = False
    """A file of that name stands in its folder: it is not started."""
    settings: Optional[str] = None
    """The path of its service.yaml."""
    content: bytes = b""
    """What stood in it when the folder was read: a worker that is replaced later must not find another, or a faulty one."""
    faults: tuple[str, ...] = ()
    """Why it cannot be used."""

    @property
    def directory(self) -> str:
        """The service's folder; of a single file the one that it lies in."""
        return self.path if self.kind == FOLDER else os.path.dirname(self.path)

    def command(self, action: str) -> list[str]:
        """What is executed for an action or for `run`; the file need not exist."""
        return [os.path.join(self.path, action)] if self.kind == FOLDER else [self.path, action]


@dataclass(frozen=True)
class Catalog:
    """All services of a folder, by name, and what in it is none."""

    folder: str
    definitions: tuple[Definition, ...]
    ignored: tuple[tuple[str, str], ...] = ()
    """(file name, why)."""
    faults: tuple[str, ...] = ()
    """What makes the folder as a whole unusable."""


def scan(folder: str) -> Catalog:
    """Read the folder. KoiError: it cannot be read. Faults of single services stand in their definitions."""
    folder = os.path.abspath(folder)
    found: dict[str, Definition] = {}
    ignored: list[tuple[str, str]] = []
    faults: list[str] = []
    for entry in _entries(folder):
        why = _no_service(entry)
        if why is not None:
            ignored.append((entry.name, why))
            continue
        definition = _define(entry)
        other = found.setdefault(definition.name, definition)
        if other is not definition:
            faults.append(f"{entry.path}: there is a service {definition.name} already, {other.path}; give one another name")
    if len(found) > MAX_SERVICES:
        faults.append(f"{folder}: has {len(found)} services; at most {MAX_SERVICES} are run")
    return Catalog(folder, tuple(found[name] for name in sorted(found)), tuple(ignored), tuple(faults))


def check(catalog: Catalog, defaults: Any, override: Callable[[Any, bytes, str], Any]) -> list[str]:
    """Every fault of the folder and of its services, one line each; service.yaml is read with koi.config.override."""
    faults = list(catalog.faults)
    for definition in catalog.definitions:
        faults += definition.faults
        try:
            settings(definition, defaults, override)
        except ConfigError as error:
            faults += error.faults
    return faults


def usable(catalog: Catalog, defaults: Any, override: Callable[[Any, bytes, str], Any]) -> tuple[Definition, ...]:
    """The services with what can be used of them: where service.yaml is faulty, the node's settings count."""
    found = []
    for definition in catalog.definitions:
        try:
            settings(definition, defaults, override)
            found.append(definition)
        except ConfigError:
            found.append(replace(definition, settings=None, content=b""))
    return tuple(found)


def settings(definition: Definition, defaults: Any, override: Callable[[Any, bytes, str], Any]) -> Any:
    """The settings of a service: the defaults, changed by its service.yaml. Raises ConfigError."""
    if definition.settings is None:
        return defaults
    return override(defaults, definition.content, definition.settings)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise KoiError(
            f"the folder of services {folder} cannot be read: {error.strerror}; create it or set service.folder"
        ) from None


def _no_service(entry: os.DirEntry[str]) -> Optional[str]:
    """Why the entry is no service, or None."""
    if "." in entry.name:
        return "its name has a period"
    if entry.name.endswith("~"):
        return "its name ends in ~"
    if entry.name.startswith("#") and entry.name.endswith("#"):
        return "its name is that of an editor's copy"
    if not NAME.fullmatch(split(entry.name)[0]):
        return "a service's name has letters, digits, - and _ only, 63 at most, and begins with a letter or digit"
    if entry.is_dir():
        return None
    if not entry.is_file():
        return "it is neither a folder nor a file"
    return None if os.access(entry.path, os.X_OK) else "it is not executable (chmod +x makes it a service)"


def split(name: str) -> tuple[str, Optional[int]]:
    """The name of a service and its priority, from that of its folder or file."""
    match = PRIORITY.fullmatch(name)
    return (match[2], int(match[1])) if match else (name, None)


def _define(entry: os.DirEntry[str]) -> Definition:
    name, priority = split(entry.name)
    if not entry.is_dir():
        return Definition(name, priority, entry.path, FILE, frozenset(ACTIONS))
    try:
        present = set(os.listdir(entry.path))
    except OSError as error:
        fault = f"{entry.path}: cannot be read: {error.strerror}"
        return Definition(name, priority, entry.path, FOLDER, frozenset(), faults=(fault,))
    faults = _faults(entry.path, present)
    path = os.path.join(entry.path, SETTINGS_FILE) if SETTINGS_FILE in present else None
    return Definition(
        name, priority, entry.path, FOLDER, frozenset(present.intersection(ACTIONS)), RUN in present, WATCH in present,
        DISABLED in present, path, _content(path, faults), tuple(faults),
    )


def _content(path: Optional[str], faults: list[str]) -> bytes:
    """What stands in service.yaml; a fault is added when it cannot be read or is none."""
    if path is None:
        return b""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror}")
        return b""
    if len(content) > MAX_SETTINGS_BYTES:
        faults.append(f"{path}: is larger than {MAX_SETTINGS_BYTES} bytes")
        return b""
    return content


def _faults(path: str, present: set[str]) -> list[str]:
    faults: list[str] = []
    for name in (*ACTIONS, RUN, WATCH):
        script = os.path.join(path, name)
        if name in present and not os.path.isfile(script):
            what = "a link to what is not there" if os.path.islink(script) and not os.path.exists(script) else "no file"
            faults.append(f"{script}: is {what}; mend or remove it")
        elif name in present and not os.access(script, os.X_OK):
            faults.append(f"{script}: is not executable; chmod +x {script}, or remove it")
    for name in present.intersection(("start", "stop")) if RUN in present else ():
        faults.append(f"{path}/{name}: `run` takes the place of start and stop; remove one of them")
    return faults
