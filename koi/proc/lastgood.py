"""run_dir/koi.conf.good: the configuration as it was read last, for a koinode that finds koi.conf faulty.

Rule: root writes it before anything is promoted and after each reload, and removes it with tree.json at an orderly end. It
is read only where koi.conf cannot be used and a dead tree is unclean, for what that left must be demoted (rule 6.5). It holds
the password: nobody but its owner may read it, and one that others can read or have written is not used. The first line
says of which file it is the copy, and the password that was found then; the file's own content follows.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any, Optional

from koi import config, log
from koi.config import Config
from koi.configfile import MAX_FILE_BYTES, Faults, read_bytes, read_sections, shown
from koi.configkeys import SECTIONS
from koi.core.data import dataclass
from koi.errors import ConfigError
from koi.proc import files

COPY_NAME = "koi.conf.good"
MAX_HEAD_BYTES = 20_000
MAX_TOLD = 400
"""Of the faults, in `koi status`; the log names each."""
_RUN_DIR = re.compile(rb"^[ \t]+run_dir:[ \t]+(\S[^\r\n#]*)", re.MULTILINE)


@dataclass(frozen=True)
class Copy:
    """A configuration file that could be used."""

    path: str
    content: bytes = field(repr=False)
    password: str = field(repr=False)
    """Also when it stood in password_file, which may be what is at fault next time."""


def read(path: Optional[str], name: Optional[str]) -> tuple[Config, Copy]:
    """As config.load, and what is to be kept of it."""
    file = config.locate(path)
    content = read_bytes(file)
    found = config.loads(content, file, name)
    return found, Copy(found.path, content, found.cluster.password)


def keep(run_dir: str, copy: Copy) -> None:
    """Replace the copy in one step, if it is another one; what cannot be written is logged, and leaves no older copy."""
    path = os.path.join(run_dir, COPY_NAME)
    kept = replace(copy, content=copy.content.removeprefix(b"\xef\xbb\xbf"))
    try:
        if _is_there(path, kept):
            return
        _write(path, kept)
    except OSError as error:
        log.get().error(f"{path} cannot be written: {error.strerror}{_forget(path)}; if koinode is killed as a whole and "
                        f"{copy.path} is faulty then, nobody demotes what it leaves before the file is mended. See that "
                        f"{run_dir} has room and can be written, then run 'koi reconfigure'")


def _is_there(path: str, copy: Copy) -> bool:
    try:
        return _read_copy(path) == copy
    except ConfigError:
        return False


def _write(path: str, copy: Copy) -> None:
    new, head = path + files.NEW, json.dumps({"path": copy.path, "password": copy.password})
    if os.path.lexists(new):
        os.unlink(new)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(b"# " + head.encode("ascii") + b"\n" + copy.content)
    os.rename(new, path)


def _forget(path: str) -> str:
    """Remove an older copy: a node would run as it was configured once. What became of it, for the log."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f" and the older one there not removed ({error.strerror}): remove it"
    return ", and the older one there is removed"


def remove(run_dir: str) -> None:
    """Nothing is left that would have to be demoted. Raises OSError."""
    files.remove(os.path.join(run_dir, COPY_NAME))


def run_dir(path: Optional[str]) -> str:
    """node.run_dir of a faulty file, as far as it can be read, else the default."""
    try:
        file = config.locate(path)
        content = read_bytes(file)
    except ConfigError:
        return str(SECTIONS["node"]["run_dir"].default)
    try:
        named = read_sections(content, SECTIONS, Faults(file)).values["node.run_dir"]
    except ConfigError:  # not YAML: a line may still say it
        line = _RUN_DIR.search(content)
        named = os.fsdecode(line[1]).strip().strip("'\"") if line else SECTIONS["node"]["run_dir"].default
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(file)), named))


def stand_in(folder: str, path: Optional[str], name: Optional[str], faults: Sequence[str]) -> Config:
    """The configuration of the copy in `folder` (a run_dir), in place of the file at `path`, which has these faults.

    It counts as read from that file: relative paths start there, and a reload reads it again. Where its electors may not
    follow on those on disk (rule 2.3), it could not be replaced: the node then neither votes nor is promoted. ConfigError
    says why the copy cannot be used.
    """
    found = _loads(os.path.join(folder, COPY_NAME), path, name)
    what = shown("; ".join(faults), MAX_TOLD)
    stale = files.electors_fault_on_disk(f"{found.node.state_dir}/elector.json", found.cluster.electors.names)
    if not (stale and found.node.elector):
        how = f"mend {found.path}, then run 'koi reconfigure': the node runs with the last good copy of it, for it is faulty: "
        return replace(found, stands_in=how + what)
    text = (f"mend {found.path}, then restart koinode: the node runs with an old copy of it, and neither votes nor is "
            f"promoted, for its electors have changed since; the file is faulty: {what}")
    bystander = replace(found.node, elector=False, mode="passive")
    return replace(found, node=bystander, stands_in=text, warnings=(*found.warnings, f"the old copy of {found.path}: {stale}"))


def _loads(place: str, path: Optional[str], name: Optional[str]) -> Config:
    copy = _read_copy(place)
    asked = (path,) if path is not None else config.DEFAULT_PATHS
    if copy.path not in map(os.path.abspath, asked):
        raise ConfigError([f"{place} is a copy of another file, {copy.path}"])
    try:
        return config.loads(copy.content, copy.path, name, copy.password)
    except ConfigError as error:
        raise ConfigError([f"{place}, the copy of {fault}" for fault in error.faults]) from None


def _read_copy(path: str) -> Copy:
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            head, content = file.readline(MAX_HEAD_BYTES), file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from None
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError([f"{path} is not used: others may have written it, or can read it"])
    try:
        words: Any = json.loads(head.removeprefix(b"# "))
        return Copy(str(words["path"]), content, str(words["password"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError([f"{path} cannot be used: its first line is spoilt"]) from None
