"""Reads a YAML file into keys, each with its line, and collects everything that is wrong with it.

The node tree is composed, never constructed: so every key's line is known, a key given twice is seen, and nothing in
the file is turned into an object. A fault never quotes a value on its own account: values may be secret.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

import yaml

from koi.core.data import dataclass
from koi.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
MAX_FAULTS = 100
MAX_SHOWN = 60
MAX_SHOWN_PATH = 300


class Wrong(Exception):
    """A value is not what its key takes; the text says what it is and what would be right."""


def shown(text: str, limit: int = MAX_SHOWN) -> str:
    """Text from the file, fit to stand in a message: one line, short, printable."""
    short = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


class Faults:
    """Every fault of one file, told in the order of their lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[tuple[int, str]] = []

    def add(self, line: int | None, key: str, text: str) -> None:
        """Note one fault; `line` is None where the file has none (a key from the command line)."""
        place = self.file if line is None else f"{self.file}:{line}"
        self._found.append((line or 0, f"{place}: {key}: {text}" if key else f"{place}: {text}"))

    def check(self) -> None:
        """Raises ConfigError with all faults, if there are any."""
        if not self._found:
            return
        lines = [text for _, text in sorted(self._found, key=lambda fault: fault[0])]
        more = [f"{self.file}: {len(lines) - MAX_FAULTS} more faults"] if len(lines) > MAX_FAULTS else []
        raise ConfigError(lines[:MAX_FAULTS] + more)


@dataclass(frozen=True)
class Key:
    """What one key takes: `parse` turns its node into a value or raises Wrong; null means `default`."""

    parse: Callable[[yaml.Node], Any]
    default: Any = None


@dataclass
class Read:
    """The values of a file by full key ("time.lease"); a key that is absent, null or faulty has its default."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    nodes: dict[str, yaml.Node] = field(default_factory=dict)
    """Only the keys that the file gives a value other than null, faulty ones too."""

    def line(self, *keys: str) -> int:
        """The line of the first of these keys that stands in the file, else of its section, else 1."""
        sections = [key.partition(".")[0] for key in keys]
        return next((self.lines[key] for key in [*keys, *sections] if key in self.lines), 1)

    def given(self, key: str) -> bool:
        """Whether the file gives this key a value other than null."""
        return key in self.nodes


def read_bytes(path: str) -> bytes:
    """The file's content; raises ConfigError where it cannot be read or is larger than MAX_FILE_BYTES."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([f"{shown(path, MAX_SHOWN_PATH)}: cannot be read: {reason}"]) from None
    return content


def compose(content: bytes, faults: Faults) -> yaml.Node | None:
    """The tree of the file, None when it is empty. Raises ConfigError, with the line, where it is not YAML."""
    if len(content) > MAX_FILE_BYTES:
        faults.add(None, "", f"is larger than {MAX_FILE_BYTES} bytes")
        faults.check()
    try:
        return yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        faults.add(content[: error.start].count(b"\n") + 1, "", "is not UTF-8 text")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        faults.add(mark.line + 1 if mark else None, "", f"is not YAML: {_problem(error)}")
    except yaml.reader.ReaderError as error:
        text = content.decode("utf-8-sig")
        faults.add(text.count("\n", 0, error.position) + 1, "", "is not YAML: it has a character that cannot be printed")
    except RecursionError:
        faults.add(None, "", "is nested too deep")
    except (ValueError, OverflowError):
        faults.add(None, "", r"is not YAML: a number or a \U escape in it is out of range")
    faults.check()
    raise AssertionError("unreachable: a fault was added")


def _problem(error: yaml.MarkedYAMLError) -> str:
    """What the parser says, without names from the file: a password that begins with & * or ! is taken for one."""
    problem = error.problem or "it cannot be read"
    if isinstance(error, yaml.composer.ComposerError) and "document" not in problem:
        return "an alias or anchor that fits nothing; put text that begins with * or & in quotes"
    if "'\\t'" in problem:
        return "a tab where only blanks may stand; indent with blanks"
    if "tag" in problem:
        return "a tag that is not known; put text that begins with ! in quotes"
    return problem


def pairs(node: yaml.Node, where: str, faults: Faults) -> list[tuple[str, int, yaml.Node]]:
    """(key, line, value) of a mapping; a key that is no plain word or is given twice is a fault and left out."""
    found: dict[str, tuple[str, int, yaml.Node]] = {}
    if not isinstance(node, yaml.MappingNode) or node.tag != "tag:yaml.org,2002:map":
        faults.add(_line(node), where, "must be a mapping of keys to values, one `key: value` on each line")
        return []
    for key_node, value in node.value:
        line = _line(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            faults.add(line, where, "a key must be one word")
            continue
        key = key_node.value
        if key in found:
            full = shown(f"{where}.{key}" if where else key)
            faults.add(line, full, f"is given twice (first in line {found[key][1]}); keep one")
            continue
        found[key] = (key, line, value)
    return list(found.values())


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def is_null(node: yaml.Node) -> bool:
    """Whether the value is null, written so or left empty."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def read_sections(content: bytes, sections: dict[str, dict[str, Key]], faults: Faults) -> Read:
    """Reads a file of sections of keys. Raises ConfigError at once only where the file is not YAML."""
    read = Read({f"{section}.{name}": key.default for section, keys in sections.items() for name, key in keys.items()})
    root = compose(content, faults)
    if root is None or is_null(root):
        return read
    for name, line, node in pairs(root, "", faults):
        if name not in sections:
            faults.add(line, shown(name), _unknown(name, {word: word for word in sections}, sections))
            continue
        read.lines[name] = line
        if not is_null(node):
            _read_keys(node, name, sections, faults, read)
    return read


def _read_keys(node: yaml.Node, section: str, sections: dict[str, dict[str, Key]], faults: Faults, read: Read) -> None:
    keys = sections[section]
    for name, line, value in pairs(node, section, faults):
        full = f"{section}.{name}"
        if name not in keys:
            faults.add(line, shown(full), _unknown(name, {word: f"{section}.{word}" for word in keys}, sections))
            continue
        read.lines[full] = line
        read_value(full, line, keys[name], value, faults, read)


def read_value(full: str, line: int, key: Key, node: yaml.Node, faults: Faults, read: Read) -> None:
    """Parse one value into `read`; a value that is wrong is a fault of this line and leaves the default."""
    if is_null(node):
        return
    read.nodes[full] = node
    try:
        read.values[full] = key.parse(node)
    except Wrong as wrong:
        faults.add(line, full, str(wrong))


def read_flat(content: bytes, keys: dict[str, Key], faults: Faults) -> Read:
    """Reads a file of keys without sections. Raises ConfigError at once only where the file is not YAML."""
    read = Read({name: key.default for name, key in keys.items()})
    root = compose(content, faults)
    if root is None or is_null(root):
        return read
    for name, line, node in pairs(root, "", faults):
        if name not in keys:
            faults.add(line, shown(name), _unknown(name, {word: word for word in keys}, {}))
            continue
        read.lines[name] = line
        read_value(name, line, keys[name], node, faults, read)
    return read


def _unknown(name: str, here: dict[str, str], sections: dict[str, dict[str, Key]]) -> str:
    """That a key is unknown, and the nearest that is known: here, else in any section."""
    from difflib import get_close_matches  # only a fault needs it

    elsewhere = {key: f"{section}.{key}" for section, keys in sections.items() for key in keys}
    word = name[:MAX_SHOWN]
    near = [full for known in (here, elsewhere) for full in (known[k] for k in get_close_matches(word, known, n=1))]
    return f"no such key; did you mean {near[0]}?" if near else f"no such key; known here: {', '.join(sorted(here))}"
