"""When a worker may end in maintenance and leave its service as it is."""

from __future__ import annotations

import math
from typing import Optional

import pytest

from koi.core.service import Service
from koi.core.states import Settings


@pytest.mark.parametrize(
    ("frozen", "promoted", "guarded", "lease", "may"),
    [
        (False, False, True, None, False),
        (False, True, True, math.inf, False),
        (True, False, True, None, True),
        (True, True, True, math.inf, True),
        (True, True, True, 100.0, False),
        (True, True, True, None, False),
        (True, True, False, None, True),
    ],
)
def test_a_promoted_service_is_left_only_under_a_lease_without_end(
    frozen: bool, promoted: bool, guarded: bool, lease: Optional[float], may: bool
) -> None:
    service = Service(Settings("vip"), frozen=frozen, promoted=promoted, guarded=guarded)
    assert service.may_be_left(lease, False) is service.may_be_left(lease, True) is may


@pytest.mark.parametrize("orphaned, lease, action, may", [
    (True, math.inf, None, True), (False, math.inf, None, False), (True, 100.0, None, False), (True, None, None, False),
    (True, math.inf, "stop", False),
])
def test_what_is_stuck_under_a_hold_is_left_by_a_worker_whose_root_is_gone(
    orphaned: bool, lease: Optional[float], action: Optional[str], may: bool,
) -> None:
    settings = Settings("vip")
    service = Service(settings, state="Failed", promoted=True, up=True, failed=True, stuck=True, begun=True, action=action)
    assert service.may_be_left(lease, orphaned) is may and not service.settled
