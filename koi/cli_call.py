"""One call of `koi`: its options checked, the client they describe, and how a result is printed.

The rule it keeps: a wrong value is a UsageError that names the option; a password is never taken from the command line.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from koi.errors import KoiError, Refused

if TYPE_CHECKING:
    from koi.client import Client
    from koi.config import Config

JSON = dict[str, Any]

DONE = 0
WITH_PORT = re.compile(r"\[.*|[^:]*:\d*")
"""What is no host: [::1], [::1]:5, a:5."""
BEGAN = time.monotonic()


class UsageError(KoiError):
    """The command line is wrong; exit code 2."""


class Call:
    """One call of `koi`: its arguments, and what the commands share."""

    def __init__(self, arguments: JSON) -> None:
        self.arguments = arguments
        self.json: bool = arguments["--json"]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @cached_property
    def colour(self) -> bool:
        """Whether to write in colour."""
        from koi.view import colour_wanted

        return colour_wanted(self["-c"], sys.stdout.isatty(), os.environ)

    @property
    def width(self) -> int | None:
        """Of the terminal that the output goes to; None when it goes elsewhere."""
        import shutil

        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    @cached_property
    def client(self) -> Client:
        """The client, as the options say."""
        from koi.client import Client

        if self["-H"] and WITH_PORT.fullmatch(self["-H"]):
            raise UsageError(f"-H {self['-H']}: must be a host or an IP address alone, without brackets; its port goes to -p")
        return Client(
            self["-f"], self["-H"], self.number("-p", 1, 65535, int), self.number("-t", 0.05, 86400, float),
            secret=self.secret, cluster_id=self.number("--id", 0, 65535, int),
            progress=_show_progress if sys.stderr.isatty() else None, trace=_trace if self["-d"] else None,
        )

    def config(self) -> Config:
        """The configuration that -f names, or this machine's. Raises ConfigError."""
        from koi.config import load

        return load(self["-f"], password=self.secret)

    @property
    def secret(self) -> str | None:
        """The password from --secret-file or the environment; None: the configuration's."""
        return _secret(self["--secret-file"])

    @cached_property
    def change(self) -> JSON:
        """The options that all changing commands take."""
        return {"reason": self["--reason"] or "", "no_wait": self["--no-wait"]}

    def number(self, option: str, low: float, high: float, kind: type) -> Any:
        """The number of an option, None when it is not given. Raises UsageError."""
        text = self[option]
        if text is None:
            return None
        text = text.strip()
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise UsageError(f"{option} {text}: must be a {'whole ' if kind is int else ''}number from {low:g} to {high:g}")
        return value

    def show(self, data: Any, lines: Callable[[], Sequence[str]]) -> int:
        """Prints the data as JSON, or the lines."""
        print(json.dumps(data, indent=2 if sys.stdout.isatty() else None) if self.json else "\n".join(lines()))
        return DONE

    def report(self, result: JSON) -> int:
        """Prints the outcome of a changing command."""
        if not result["done"] and not result.get("dry_run"):
            raise Refused(result["message"])
        return self.show(result, lambda: [result["message"]])


def _secret(path: str | None) -> str | None:
    """The password from --secret-file, else from KOI_SECRET, else None: the configuration's."""
    if path is None:
        return os.environ.get("KOI_SECRET") or None
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077 and os.path.isfile(path):
                raise UsageError(f"--secret-file {path}: others than its owner can read or change it; run: chmod 600 {path}")
            secret = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--secret-file {path}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not secret:
        raise UsageError(f"--secret-file {path}: is empty; it must hold the cluster password")
    return secret


def _show_progress(text: str) -> None:
    from koi.view import printable

    print(printable(text), file=sys.stderr, flush=True)


def _trace(text: str) -> None:
    """One line on stderr, with the time since this program began to ask: where the waiting goes shows at once."""
    from koi.view import printable

    print(f"debug: {time.monotonic() - BEGAN:.3f} s: {printable(text)}", file=sys.stderr, flush=True)
