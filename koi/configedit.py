"""`koi config set KEY VALUE`: changes one key of the file and leaves every other character of it as it was.

PyYAML cannot write a file back with its comments, and the libraries that can (ruamel.yaml) would be one more thing to
install on every node for one command. So PyYAML says where a value stands (its node marks), that piece of the text is
replaced, and the rule holds: the new text must mean the old one with this one key changed, and must load as a
configuration, before it takes the old file's place, atomically.
"""

from __future__ import annotations

import os
import re

import yaml

from koi.config import DEFAULT_PATHS, Config, loads
from koi.configfile import Faults, compose, is_null, read_bytes
from koi.configkeys import SECTIONS
from koi.errors import KoiError, Refused
from koi.proc.reload import FIXED
from koi.view_config import setting, setting_text, settings

SECRET = ("cluster.password",)
INDENT = "  "
SHARED = ("cluster", "time")
"""Sections that must be the same on every node, but for these keys:"""
NODES_OWN = ("cluster.bind", "cluster.password_file", "time.status_interval", "time.auto_recover_time", "time.failcount_reset")


def change(path: str | None, key: str, value: str, password: str | None = None) -> str:
    """Sets the key in the file (default: this machine's); what was done, in a sentence. Raises Refused or ConfigError.

    `password` stands in for the file's, as in `config.load`.
    """
    file = os.path.realpath(path if path is not None else next(filter(os.path.exists, DEFAULT_PATHS), DEFAULT_PATHS[0]))
    content = read_bytes(file)
    before = loads(content, file, password=password)
    _known(key)
    text = edited(content.decode("utf-8"), key, value)
    after = loads(text.encode(), file, password=password)
    _compare(content, text, key, file)
    _replace(file, text)
    old, new = _shown(before, content, key), _shown(after, text.encode(), key)
    then = f"{'' if key in FIXED else '`koi reconfigure` or '}a restart of koinode makes it count"
    shared = key.partition(".")[0] in SHARED and key not in NODES_OWN
    everywhere = "; it must be the same on every node" if shared else ""
    return f"{key}: {old} -> {new} in {file}; {then}{everywhere}"


def edited(text: str, key: str, value: str) -> str:
    """The text with this one key set, comments and order kept. Raises Refused for a value that is not one line of YAML."""
    _one_value(key, value)
    section, name = key.split(".", 1)
    root = compose(text.encode(), Faults(""))
    part = _child(root, section)
    if part is None:
        return _with_section(text, section, f"{name}: {value}")
    old = _child(part, name)
    if old is not None and not (is_null(old) and old.start_mark.index == old.end_mark.index):
        return text[: old.start_mark.index] + value + text[_end(text, old):]
    if old is not None:
        return text[: old.start_mark.index] + _gap(text, old.start_mark.index) + value + text[old.start_mark.index:]
    return _with_key(text, part, section, name, value)


def _known(key: str) -> None:
    if key in SECRET:
        raise Refused("a password is never given on the command line; write it into cluster.password_file (see `koi keygen`)")
    known = [f"{section}.{name}" for section, keys in SECTIONS.items() for name in keys]
    setting({name: None for name in known}, key)


def _one_value(key: str, value: str) -> None:
    try:
        good = "\n" not in value and isinstance(yaml.safe_load(f"a: {value}\nb: 1\n"), dict) and not re.search(r"(^|\s)#", value)
    except yaml.YAMLError:
        good = False
    if not good:
        raise Refused(f"{value!r} cannot stand after `{key.rpartition('.')[2]}:` in YAML; put quotes around it: '\"...\"'")


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for found, value in node.value if found.value == name), None)


def _end(text: str, node: yaml.Node) -> int:
    """Where a value ends, without the blank lines and comments that a block has behind it."""
    end = int(node.end_mark.index)
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return end
    return max(_end(text, value) for value in (pair[-1] for pair in _pairs(node)))


def _pairs(node: yaml.CollectionNode) -> list[tuple[yaml.Node, ...]]:
    return [pair if isinstance(pair, tuple) else (pair,) for pair in node.value]


def _gap(text: str, index: int) -> str:
    return "" if text[index - 1: index] in (" ", "\n") else " "


def _with_section(text: str, section: str, line: str) -> str:
    """A section that is missing or empty: the key goes below its name, else to the end of the file."""
    found = re.search(rf"^{section}:[ \t]*(null|~|\{{\}})?[ \t]*(#.*)?(\n|$)", text, re.MULTILINE)
    if found is not None:
        at = _below_comment(text, found.end(), line.partition(":")[0])
        return text[:at] + _ended(text[:at]) + f"{INDENT}{line}\n" + text[at:] if not found[1] else (
            text[: found.start()] + f"{section}:\n{INDENT}{line}\n" + text[found.end():])
    return text + _ended(text) + f"{section}:\n{INDENT}{line}\n"


def _ended(text: str) -> str:
    return "" if not text or text.endswith("\n") else "\n"


def _below_comment(text: str, start: int, name: str) -> int:
    """Behind the line that has this key as a comment, if there is one in this section; else `start`."""
    ends = re.compile(r"^\S", re.MULTILINE)
    stop = next((m.start() for m in ends.finditer(text, start) if text[m.start()] != "#"), len(text))
    found = re.compile(rf"^[ \t]+#[ \t]?{name}:.*(\n|$)", re.MULTILINE).search(text, start, stop)
    return found.end() if found is not None else start


def _with_key(text: str, part: yaml.Node, section: str, name: str, value: str) -> str:
    """The key in a section that lacks it: where it stands as a comment, else behind the section's last key."""
    if not isinstance(part, yaml.MappingNode) or not part.value:
        return _with_section(text, section, f"{name}: {value}")
    last = part.value[-1][1]
    if part.flow_style:
        return text[: last.end_mark.index] + f", {name}: {value}" + text[last.end_mark.index:]
    header = re.search(rf"^{section}:.*\n", text, re.MULTILINE)
    start = header.end() if header else 0
    at = _below_comment(text, start, name)
    if at == start:
        at = text.find("\n", _end(text, last)) + 1 or len(text)
    indent = " " * part.value[0][0].start_mark.column
    return text[:at] + _ended(text[:at]) + f"{indent}{name}: {value}\n" + text[at:]


def _compare(content: bytes, text: str, key: str, file: str) -> None:
    """The rule of this file: all but the key means what it meant."""
    plain = [yaml.safe_load(part) or {} for part in (content.decode(), text)]
    section, name = key.split(".", 1)
    for tree in plain:
        (tree.get(section) or {}).pop(name, None)
    old, new = ({k: v for k, v in tree.items() if v} for tree in plain)
    if old != new:
        raise KoiError(f"{file} is written in a way that `koi config set` cannot change safely; set {key} with an editor")


def _replace(file: str, text: str) -> None:
    """The new file in the old one's place, with its mode and owner. Raises Refused; the old file is then untouched."""
    temporary = f"{file}.new"
    try:
        known = os.stat(file)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8", newline="") as out:
            out.write(text)
            os.fchmod(out.fileno(), known.st_mode & 0o7777)
            if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(out.fileno(), known.st_uid, known.st_gid)
            out.flush()
            os.fsync(out.fileno())
        os.rename(temporary, file)
    except OSError as error:
        raise Refused(f"{file} cannot be replaced: {error.strerror}; run koi as its owner") from None


def _shown(config: Config, content: bytes, key: str) -> str:
    return setting_text(key, settings(config, content)[key])
