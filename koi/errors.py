"""The errors that Koi shows to people.

Every one carries a message that says what happened, to what, and what to do; programs print it without a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class KoiError(Exception):
    """Something went wrong that a person can put right; the message says how."""

    @property
    def message(self) -> str:
        """What happened and what to do, in words."""
        return str(self)


class ConfigError(KoiError):
    """The configuration is wrong; `faults` holds every fault, one line each."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults: list[str] = list(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return ConfigError, (self.faults,)


class Refused(KoiError):
    """A node refused the command or failed to carry it out; the message is its reason."""


class NoAnswer(KoiError):
    """No node answered in time; whether the command was carried out is not known."""
