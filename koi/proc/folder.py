"""The folder of services while koinode runs: what is new in it, what has changed, what has vanished.

Rule: a folder that is being copied is not yet a service. What a scan finds counts once a second scan, SETTLE_S later, finds
the same. What is faulty is told once for as long as it lasts, stands in `koi status`, and changes nothing: a service goes on
with what was last seen of it.
"""

from __future__ import annotations

import os
from typing import Any, Optional

from koi import log
from koi.config import Config, override
from koi.core.data import dataclass
from koi.errors import ConfigError, KoiError
from koi.service import catalog
from koi.service.catalog import Definition

SETTLE_S = 1.0
MAX_TOLD = 200
"""Sentences of one scan; what is above that is not told."""


@dataclass(frozen=True)
class Look:
    """A service as one scan has found it; None: it was not there."""

    definition: Optional[Definition]
    settings: Any = None
    changed_at: int = 0
    """When the folder was last changed, as the file system says it."""

    def same(self, other: Look) -> bool:
        """Whether it is the same service with the same settings."""
        return (self.definition, self.settings) == (other.definition, other.settings)


NOTHING = Look(None)


class FolderWatch:
    """Scans the folder now and then. Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self, config: Config, definitions: tuple[Definition, ...], now: float) -> None:
        self.config = config
        self.told: dict[str, str] = {}
        """What the last scan found to tell, and its level."""
        self.known = {one.name: look for one in definitions if (look := self._look(one)) is not None}
        self._log_all_but({})
        self.pending: dict[str, Look] = {}
        self.due = now + config.time.status_interval

    def reconfigured(self, config: Config, now: float) -> None:
        """Another configuration: look at once."""
        self.config, self.due = config, now

    @property
    def fault(self) -> str:
        """What is to be mended in the folder, in a sentence; empty when all is well."""
        faults = [text for text, level in self.told.items() if level == "error"]
        more = f" (and {len(faults) - 1} more, see the log)" if len(faults) > 1 else ""
        return f"{faults[0]}{more}" if faults else ""

    def changes(self, now: float) -> dict[str, Optional[Definition]]:
        """Scan: name -> how the service is now, or None: it has vanished."""
        before, self.told = self.told, {}
        seen = self._scan()
        self._log_all_but(before)
        pending: dict[str, Look] = {}
        found: dict[str, Optional[Definition]] = {}
        for name in sorted({*self.known, *seen} if seen is not None else ()):
            look = (seen or {}).get(name, NOTHING)
            if look is None or look.same(self.known.get(name, NOTHING)):
                continue
            if self.pending.get(name) != look:
                pending[name] = look
                continue
            found[name] = look.definition
            if look.definition is None:
                del self.known[name]
            else:
                self.known[name] = look
        self.pending = pending
        wait = self.config.time.status_interval
        self.due = now + (min(SETTLE_S, wait) if pending else wait)
        return found

    def _scan(self) -> Optional[dict[str, Optional[Look]]]:
        """What is there; None for one that is faulty; None in all when the folder cannot be read."""
        try:
            found = catalog.scan(self.config.service.folder)
        except KoiError as error:
            self._tell(f"{error}; the services go on as they are")
            return None
        for fault in found.faults:
            self._tell(fault)
        looks = {one.name: self._look(one) for one in found.definitions}
        for name, why in found.ignored:
            path, service = os.path.join(found.folder, name), catalog.split(name)[0]
            known = self.known.get(service, NOTHING).definition
            if known is not None and known.path == path:
                looks.setdefault(service, None)
                self._tell(f"{path}: {why}; {self._goes_on(service)}")
            else:
                self._tell(f"{path} is ignored: {why}", "warning")
        return looks

    def _look(self, definition: Definition) -> Optional[Look]:
        try:
            own = catalog.settings(definition, self.config.service, override)
            faults = list(definition.faults)
            changed_at = os.stat(definition.path).st_mtime_ns
        except ConfigError as error:
            own, faults, changed_at = None, [*definition.faults, *error.faults], 0
        except OSError as error:
            own, faults, changed_at = None, [f"{definition.path}: {error.strerror}"], 0
        for fault in faults:
            self._tell(f"{fault}; {self._goes_on(definition.name)}")
        return None if faults else Look(definition, own, changed_at)

    def _goes_on(self, service: str) -> str:
        return f"until that is mended {service} goes on with what was last seen of it"

    def _log_all_but(self, known: dict[str, str]) -> None:
        for text, level in self.told.items():
            if text not in known:
                log.write(level, text)

    def _tell(self, text: str, level: str = "error") -> None:
        if len(self.told) < MAX_TOLD:
            self.told[text] = level
