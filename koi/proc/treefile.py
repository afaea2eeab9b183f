"""run_dir/tree.json: what root keeps for its successor of a tree that may die.

Rule: an orderly end removes the file. A koinode that finds one that is not `clean` demotes and stops what the dead tree
left before its runner claims anything (rule 6.5), and names the dead runners' boots as its lineage (rule 5.1). Workers that
outlived their root say by files of their own what they have demoted; what they have not is demoted in time (rule 6.4).
"""

from __future__ import annotations

import os
import re
from dataclasses import field, replace
from typing import Any, Optional

from koi.core.data import dataclass
from koi.core.facts import Debt
from koi.core.pipe import Held, Heritage, ServiceState
from koi.core.states import STOPPED
from koi.errors import KoiError
from koi.proc import files, lastgood, leasefile, memory
from koi.wire.codec import LIMIT

TREE_NAME = "tree.json"
DEMOTED = ".demoted"
"""Ending of the empty file by which a worker says, after root's death, that its service is not promoted."""
MAX_BOOTS = 32
"""Boots of earlier runners that are kept; guards of older ones have run out long ago."""
BOOT = re.compile(r"[0-9A-Za-z]{1,64}")


@dataclass
class Tree:
    """The runners that were, what the last one held, and the services as their workers told."""

    boots: list[str] = field(default_factory=list)
    holding: Optional[int] = None
    renounced: Optional[int] = None
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    clean: bool = True
    maintenance: bool = False
    """There was maintenance: what is there stays as it is, until it is known whether there still is."""
    detached: Optional[int] = None
    """What a tree before this one held in maintenance, which this one has not taken up yet."""
    debt: Optional[Debt] = None
    """The lease of the tree before this one; not in the file."""
    demoted: frozenset[str] = frozenset()
    """What its workers have demoted after the death of their root; not in the file."""

    @property
    def may_hold(self) -> bool:
        """Whether it may have left something promoted, as far as the file knows."""
        return self.holding is not None or any(service.get("promoted") for service in self.services.values())

    def owed(self, service: str) -> Optional[Debt]:
        """What counts for a service that the tree before this one may have left promoted."""
        return None if service in self.demoted else self.debt

    def held(self, word: Held) -> None:
        """The runner says what it holds and has renounced."""
        if word.boot in self.boots:
            self.boots.remove(word.boot)
        self.boots = [*self.boots, word.boot][-MAX_BOOTS:]
        self.holding = word.holding
        if word.maintenance is not None:
            self.maintenance, self.detached = word.maintenance, None
        self.renounced = highest(self.renounced, word.renounced)

    def service(self, word: ServiceState) -> None:
        """A worker tells the state of its service. In maintenance a new one that has not begun takes nothing from the file.

        What the one before it told is what it is about to take over, and so is its successor if it is killed meanwhile.
        """
        begins = not word.clean and word.info.state == STOPPED
        if self.maintenance and begins and word.info.name in self.services:
            return
        self.services[word.info.name] = {
            "state": word.info.state,
            "promoted": word.promoted,
            "pid": word.info.pid,
            "told": memory.dump(word),
        }

    def heritage(self, lease_end: Optional[float], unclean: bool, owes: bool) -> Heritage:
        """What a new runner of this tree is told."""
        covered = self.debt is not None and self.debt.covered
        return Heritage(tuple(self.boots), self.holding, self.renounced, lease_end, unclean, self.detached, owes, covered)

    def told(self, service: str) -> Optional[ServiceState]:
        """What a worker said last of its service before a tree ended in maintenance."""
        return memory.parse(self.services.get(service, {}).get("told")) if self.maintenance else None


def highest(*epochs: Optional[int]) -> Optional[int]:
    """The highest of the epochs that are not None."""
    return max((e for e in epochs if e is not None), default=None)


def adopt(found: Tree) -> Tree:
    """The tree of a starting koinode: what the tree before it held counts as renounced, for it is demoted before any report."""
    if found.maintenance:
        return replace(found, holding=None, detached=highest(found.holding, found.detached), clean=False)
    return replace(found, holding=None, renounced=highest(found.renounced, found.holding), services={}, clean=False)


def find(run_dir: str, now: float) -> tuple[Tree, Optional[str]]:
    """The tree that was left with all that is known of it; see `read`."""
    found, fault = read(run_dir)
    found.demoted = _take_demoted(run_dir)
    if not found.clean:
        found.debt = leasefile.debt(run_dir, found.may_hold, now)
    return found, fault


def note_demoted(run_dir: str, service: str) -> None:
    """A worker that outlived its root: the service is not promoted any more. Raises OSError."""
    with open(os.path.join(run_dir, service + DEMOTED), "w", encoding="utf-8"):
        pass


def _take_demoted(run_dir: str) -> frozenset[str]:
    """What workers have noted; it holds for the koinode that follows, and for no later one."""
    names = [name for name in os.listdir(run_dir) if name.endswith(DEMOTED)]
    for name in names:
        os.unlink(os.path.join(run_dir, name))
    return frozenset(name.removesuffix(DEMOTED) for name in names)


def read(run_dir: str) -> tuple[Tree, Optional[str]]:
    """The tree that was left, and what is wrong with the file if it cannot be used; it then counts as unclean."""
    path = os.path.join(run_dir, TREE_NAME)
    try:
        content = files.read_json(path)
        return (Tree() if content is None else _parse(content)), None
    except (OSError, ValueError) as error:
        return Tree(clean=False), f"{path} cannot be used ({error}); taken as left by a dead koinode"


def begin(run_dir: str, tree: Tree) -> None:
    """The first file, before anything is started: without one a successor would take this tree for clean. Raises KoiError.

    After a dead tree there is one, and what that tree left must be demoted, whether it can be written anew or not.
    """
    try:
        write(run_dir, tree)
    except OSError as error:
        path = os.path.join(run_dir, TREE_NAME)
        raise KoiError(f"{path} cannot be written: {error.strerror}; make room or set another node.run_dir") from error


def write(run_dir: str, tree: Tree) -> None:
    """Replace the file in one step. Raises OSError."""
    path = os.path.join(run_dir, TREE_NAME)
    content = {
        "boots": tree.boots,
        "holding": tree.holding,
        "renounced": tree.renounced,
        "services": tree.services,
        "clean": tree.clean,
        "maintenance": tree.maintenance,
        "detached": tree.detached,
    }
    files.write_json(path, content, sync=False)


def remove(run_dir: str) -> None:
    """Nothing is left of this tree that a successor would have to know. Raises OSError; the tree then counts as unclean still."""
    leasefile.remove(run_dir)
    lastgood.remove(run_dir)
    files.remove(os.path.join(run_dir, TREE_NAME))


def _parse(content: Any) -> Tree:
    if not isinstance(content, dict):
        raise ValueError("not an object")
    boots = content.get("boots")
    services = content.get("services")
    if not isinstance(boots, list) or not all(isinstance(boot, str) and BOOT.fullmatch(boot) for boot in boots):
        raise ValueError("boots is not a list of boots")
    if not isinstance(services, dict) or not all(isinstance(one, dict) for one in services.values()):
        raise ValueError("services is not an object of objects")
    return Tree(
        boots=boots[-MAX_BOOTS:],
        holding=_epoch(content, "holding"),
        renounced=_epoch(content, "renounced"),
        services=services,
        clean=content.get("clean") is True,
        maintenance=content.get("maintenance") is True,
        detached=_epoch(content, "detached"),
    )


def _epoch(content: dict[str, Any], key: str) -> Optional[int]:
    value = content.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LIMIT):
        return value
    raise ValueError(f"{key} is neither an epoch nor null")
