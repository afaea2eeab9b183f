"""Small JSON files in the state folder, written so that a crash leaves the old or the new one, never half.

elector.json (docs/protocol.md section 2), node.json (stopped by hand, maintenance last heard), failures.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Optional

from koi.core.ledger import Record
from koi.core.messages import Fenced, Ledger
from koi.errors import KoiError
from koi.wire import codec

FORMAT = 1
NEW = ".new"
"""Ending of a file that is being written."""
MAX_FILE_BYTES = 1 << 20


def prepare_folder(path: str, what: str) -> None:
    """Make the folder if it is missing. KoiError when it cannot be written."""
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise KoiError(f"{what} {path} cannot be made: {error.strerror}; make it, or set another one in koi.conf") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise KoiError(f"{what} {path} cannot be written; mend its owner, mode or file system, or set another one in koi.conf")


def electors_fault(path: str, record: Optional[Record], electors: Sequence[str]) -> str:
    """Why this list of electors may not follow on the one of the record at `path` (rule 2.3); empty when it may."""
    if record is None or not record.electors or len(set(record.electors) ^ set(electors)) <= 1:
        return ""
    return (
        f"cluster.electors is {', '.join(electors)}, but this node last ran with {', '.join(sorted(record.electors))}:"
        " more than one name differs, which could give two masters. Add or remove one elector at a time on all nodes (to"
        f" exchange one, add first), or, with the whole cluster stopped, remove {path} on every node"
    )


def electors_fault_on_disk(path: str, electors: Sequence[str]) -> str:
    """As electors_fault; a record that cannot be read forbids nothing: its elector starts blank."""
    try:
        content = read_json(path)
        record = None if content is None else parse_record(content)
    except (OSError, ValueError):
        return ""
    return electors_fault(path, record, electors)


def write_json(path: str, content: Any, sync: bool = True) -> None:
    """Replace the file atomically: temporary file, fsync, rename, fsync of the folder. OSError when the disk refuses."""
    temporary = path + NEW
    try:
        _write_whole(temporary, (json.dumps(content) + "\n").encode(), sync)
    except OSError:
        _forget(temporary)
        raise
    os.rename(temporary, path)
    if sync:
        _sync_folder(os.path.dirname(path))


def _write_whole(path: str, data: bytes, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        _write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _forget(path: str) -> None:
    """What a full disk has no room for; why it could not be written is told by who wanted it."""
    try:
        os.unlink(path)
    except OSError:
        return


def remove(path: str) -> None:
    """The file and what was begun of a new one, as far as they are there. Raises OSError."""
    for name in (path, path + NEW):
        try:
            os.unlink(name)
        except FileNotFoundError:
            continue


def _write_all(fd: int, data: bytes) -> None:
    """A disk that fills up takes a part without an error; only the next write says so."""
    while data:
        data = data[os.write(fd, data) :]


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(path: str) -> Optional[Any]:
    """The content; None when there is no such file. ValueError or OSError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def dump_record(record: Record) -> dict[str, Any]:
    """An elector's record as JSON."""
    return {"format": FORMAT, **asdict(record)}


def parse_record(content: Any) -> Record:
    """The record from JSON. ValueError when it is not one."""
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is not known to this version")
        ledger = dict(content["ledger"])
        for name in ("fenced", "fencing"):
            value = ledger.get(name)
            ledger[name] = None if value is None else Fenced(**value)
        ledger["passive"], ledger["recent"] = tuple(ledger["passive"]), tuple(ledger["recent"])
        term, n = content["version"]
        record = Record(
            content["promised"], content["promised_to"], (term, n), Ledger(**ledger), content["top"], content["span"],
            tuple(content["electors"]),
        )
        codec.check(record)
        return record
    except (KeyError, TypeError, codec.Malformed) as error:
        raise ValueError(f"it lacks or mistakes {error}") from error
