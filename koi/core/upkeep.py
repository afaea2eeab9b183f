"""A node whose services change while it runs: new folders, changed ones, vanished ones, and the file `disabled`.

Rule: a new service is started, and promoted in its place in the order; one that has vanished is demoted and stopped, alone,
and forgotten once that is done. In maintenance nothing of this is begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from koi.core import effects
from koi.core.commanding import Commanded
from koi.core.effects import Log, Tell
from koi.core.ordering import ENDED
from koi.core.pipe import Failure, Retire

if TYPE_CHECKING:
    from collections.abc import Callable

DISABLED = "a file named `disabled` has appeared in its folder"


class Upkept(Commanded):
    """A node whose services come and go."""

    if TYPE_CHECKING:
        _settle: Callable[[float], list[Any]]
        _fail_node: Callable[[str, float], None]

    def define(self, name: str, priority: Optional[int], disabled: bool, now: float) -> list[Any]:
        """A service is there: new, changed, or known since the start."""
        self.priorities[name] = priority
        self.retired.pop(name, None)
        appeared = disabled and name not in self.disabled
        (self.disabled.add if disabled else self.disabled.discard)(name)
        self._take_stock()
        if appeared and self._is_up(name):
            self._disable(name, now)
        return self._settle(now)

    def retire(self, name: str, now: float) -> list[Any]:
        """The folder of a service has vanished."""
        if name in self.priorities:
            self.retired[name] = self.priorities.pop(name)
            self.disabled.discard(name)
            self._take_stock()
            if self.failed == name:
                self.recover_at = now
        return self._settle(now)

    def _is_up(self, name: str) -> bool:
        state = self.services.get(name)
        return state is not None and state.info.state not in ENDED

    def _disable(self, name: str, now: float) -> None:
        """It is stopped, and with it the node fails: a master moves first (docs/guide.md, Services)."""
        if not self.failed:
            self._fail_node(name, now)
        self.last_failure = f"{name}: {DISABLED}"
        self.out.append(Log(effects.ERROR, f"{name} is disabled, and so the node fails: {DISABLED}"))
        self.out.append(Tell("failures", Failure(name, "disabled", None, 0.0, "", DISABLED)))

    def _let_retired_go(self) -> None:
        """Forget what has vanished once it is stopped."""
        for name in list(self.retired):
            state = self.services.get(name)
            if state is not None and (state.info.state not in ENDED or state.promoted or state.info.action):
                continue
            del self.retired[name]
            self.services.pop(name, None)
            self.forget_orders(name)
            self._take_stock()
            self.out.append(Log(effects.INFO, f"{name} is forgotten: its folder has vanished, and it is stopped"))
            self.out.append(Tell("root", Retire(name)))
