"""Drives the machine of one service by events alone, and keeps all that it asked for."""

from __future__ import annotations

from typing import Any, Callable, Optional

from koi.core.effects import RunScript, Tell
from koi.core.pipe import Failure, Order, ServiceState
from koi.core.service import Service
from koi.core.states import Settings

FAR = 1000.0
SETTINGS = Settings("db", node="a", cluster_id=13, folder="/srv/db", priority=20, pid=42, grace=1.0, status_interval=10.0)


def order(goal: str, failed: Optional[str] = None, recover: bool = False, epoch: Optional[int] = 7) -> Order:
    return Order("db", goal, epoch, "a", "Backup", failed, recover)


class Drive:
    """A service with its clock and its lease, and all that it asked for."""

    def __init__(self, service: Optional[Service] = None, begin: bool = True) -> None:
        self.service = service or Service(SETTINGS)
        self.now = 0.0
        self.lease: Optional[float] = None
        self.seen: list[Any] = []
        if begin:
            self.do(self.service.begin)

    def do(self, event: Callable[..., list[Any]], *arguments: Any) -> list[Any]:
        effects = event(*arguments, self.now, self.lease)
        self.seen += effects
        return effects

    def order(self, goal: str, **more: Any) -> list[Any]:
        return self.do(self.service.order, order(goal, **more))

    def ended(self, exit: Optional[int] = 0, action: Optional[str] = None, seconds: float = 0.01) -> list[Any]:
        action = action or self.service.action
        assert action is not None, "no script runs"
        return self.do(self.service.ended, action, exit, seconds, "said")

    def at(self, now: float) -> list[Any]:
        self.now = now
        return self.do(self.service.handle_timer)

    def all_end(self) -> None:
        """Let all scripts succeed until none runs."""
        for _ in range(10):
            if self.service.action is None:
                return
            self.ended(0)
        raise AssertionError("it never comes to rest")

    @property
    def state(self) -> str:
        return self.service.state

    def deadline(self) -> Optional[float]:
        return self.service.deadline(self.now, self.lease)


def scripts(effects: list[Any]) -> list[str]:
    return [one.action for one in effects if isinstance(one, RunScript)]


def has(effects: list[Any], kind: type) -> bool:
    return any(isinstance(one, kind) for one in effects)


def failures(effects: list[Any]) -> list[Failure]:
    return [one.message for one in effects if isinstance(one, Tell) and isinstance(one.message, Failure)]


def started() -> Drive:
    drive = Drive()
    drive.order("started")
    drive.ended()
    assert drive.state == "Started"
    return drive


def promoted(lease: float = FAR) -> Drive:
    drive = started()
    drive.lease = lease
    drive.order("promoted")
    drive.ended()
    assert drive.state == "Promoted"
    return drive


def in_state(state: str) -> Drive:
    """A service driven into the state by events alone."""
    if state in ("Stopped", "Starting", "Failing"):
        drive = Drive()
        if state != "Stopped":
            drive.order("started")
        if state == "Failing":
            drive.ended(1)
    elif state in ("Started", "Stopping", "Promoting"):
        drive = started()
        drive.lease = FAR
        if state != "Started":
            drive.order("stopped" if state == "Stopping" else "promoted")
    elif state in ("Promoted", "Demoting"):
        drive = promoted()
        if state == "Demoting":
            drive.order("started")
    else:
        drive = started()
        drive.order("stopped")
        drive.ended(1)
    assert drive.state == state
    return drive


def status_says(drive: Drive, exit: Optional[int]) -> list[Any]:
    at = drive.service.status_at
    assert at is not None and drive.deadline() is not None
    drive.at(at)
    assert drive.service.action == "status"
    return drive.ended(exit)


def adopt(drive: Drive, **more: Any) -> Drive:
    """The worker dies; its successor knows only what was told."""
    told = next(one.message for one in reversed(drive.seen) if isinstance(one, Tell) and isinstance(one.message, ServiceState))
    new = Drive(Service.adopted(SETTINGS, told, **more), begin=False)
    new.now, new.lease = drive.now, drive.lease
    new.do(new.service.begin)
    return new
