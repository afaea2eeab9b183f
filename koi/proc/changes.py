"""Services that come, change and vanish while koinode runs: what root does with their workers.

Rule: the runner decides; root only forks a worker for a new service, passes a changed definition on, and does not replace
the worker of one that has vanished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from koi import log
from koi.core.pipe import Redefine, Retire, Stop
from koi.proc.child import SERVICE, worker_name
from koi.proc.loop import now
from koi.proc.supervise import Child

if TYPE_CHECKING:
    from koi.proc.root import Root


def apply(root: Root, message: Union[Redefine, Retire]) -> None:
    """The runner's word about a service's folder."""
    if isinstance(message, Redefine):
        _define(root, message)
    else:
        _retire(root, message.service)


def _define(root: Root, message: Redefine) -> None:
    definition = message.definition
    others = tuple(one for one in root.definitions if one.name != definition.name)
    root.definitions = tuple(sorted((*others, definition), key=lambda one: str(one.name)))
    name = worker_name(definition.name)
    child = root.family.get(name)
    if child is None:
        root.family.add(Child(name, SERVICE, definition, due=now()))
        log.get().info(f"{definition.path} is new: it gets a worker")
        return
    child.definition, child.retired = definition, False
    root.family.tell(name, message)


def _retire(root: Root, service: str) -> None:
    root.definitions = tuple(one for one in root.definitions if one.name != service)
    child = root.family.get(worker_name(service))
    if child is None:
        return
    child.retired = True
    if child.pid is None:
        forget(root, child)
    else:
        root.family.tell(child.name, Stop())


def forget(root: Root, child: Child) -> None:
    """The worker of a vanished service has ended."""
    root.family.remove(child.name)
    root.tree.services.pop(child.definition.name, None)
    root.tree_changed()
