"""What an administrator asks of one node, and when it is answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from koi.core.commanding import MAX_COMMANDS
from koi.core.effects import Tell
from koi.core.messages import ServiceInfo
from koi.core.pipe import Failure, NodeBegun, NodeCommand, NodeResult, ServiceState
from koi.core.states import still_active
from tests.core.test_reporting import runner, service

T0 = 100.0


def results(effects: list[Any]) -> list[NodeResult]:
    return [one.message for one in effects if isinstance(getattr(one, "message", None), NodeResult)]


def failing(state: str) -> ServiceState:
    return ServiceState(ServiceInfo("vip", 10, state, failed=True), promoted=False)


@pytest.mark.parametrize(("verb", "words"), [
    ("start", "x failed (vip: start exited 1)"), ("recover", "x failed again (vip: start exited 1)"),
])
def test_start_and_recover_are_answered_as_soon_as_the_services_fail(verb: str, words: str) -> None:
    """Although the node recovers by itself: it was answered only once the node had given up, after all of its attempts."""
    one = runner(stopped=verb == "start")
    one.hold_wait_until = T0
    one.start(T0)
    one.service(failing("Failed") if verb == "recover" else service("Stopped"), T0)
    assert results(one.command(NodeCommand("1", verb), T0 + 0.1)) == []
    assert results(one.service(service("Starting"), T0 + 0.2)) == []
    one.failure(Failure("vip", "start", 1, 0.1, "", "start exited 1"))
    found = results(one.service(failing("Failing"), T0 + 0.3))
    assert [result.done for result in found] == [False] and found[0].message.startswith(words)
    assert one.failed == "vip" and one.recover_delay is not None and not one.failed_anew


def test_start_of_a_node_that_has_given_up_is_refused_at_once() -> None:
    """Found: it was never answered, and after sixteen of them no command was taken any more, not even recover."""
    one = runner()
    one.recovery.auto_recover = 0
    one.hold_wait_until = T0
    one.start(T0)
    one.service(failing("Failed"), T0)
    for number in range(MAX_COMMANDS + 1):
        [found] = results(one.command(NodeCommand(f"s{number}", "start"), T0 + 1.0))
        assert found == NodeResult(
            f"s{number}", False, "x has failed (service vip failed) and has given up; 'koi recover x' starts it")
    assert results(one.command(NodeCommand("r", "recover"), T0 + 2.0)) == [] and not one.failed
    assert [one.done for one in results(one.service(service("Started"), T0 + 2.1))] == [True]


@pytest.mark.parametrize("verb", ["start", "recover"])
@pytest.mark.parametrize(("how", "words"), [
    ("live", "x is Live: vip says: running, but not ready to be promoted"), ("disabled", "x is Live: vip is disabled"),
])
def test_start_and_recover_do_not_wait_for_what_only_others_can_change(verb: str, how: str, words: str) -> None:
    """Found: they waited for ever for a node whose status says 93, or that has a disabled service."""
    one = runner(stopped=verb == "start")
    one.hold_wait_until = T0
    one.start(T0)
    one.service(service("Stopped"), T0)
    one.define("vip", 10, how == "disabled", T0)
    if how == "disabled":
        one.define("web", 20, False, T0)
        one.service(replace(service("Stopped"), info=ServiceInfo("web", 20, "Stopped")), T0)
    found = results(one.command(NodeCommand("1", verb), T0 + 1.0))
    if how == "disabled":
        assert found == []
        found = results(one.service(replace(service("Started"), info=ServiceInfo("web", 20, "Started")), T0 + 2.0))
    else:
        found = results(one.service(replace(service("Started"), live=True), T0 + 2.0))
    assert found == [NodeResult("1", True, words)]


def test_a_restart_of_what_vanishes_meanwhile_is_answered() -> None:
    """Found: it waited for ever, and kept one of the sixteen places."""
    one = runner()
    one.hold_wait_until = T0
    one.start(T0)
    one.service(service("Started"), T0)
    assert results(one.command(NodeCommand("1", "restart", service="vip"), T0 + 1.0)) == []
    assert results(one.retire("vip", T0 + 2.0)) == [NodeResult("1", False, "vip of x was not restarted: its folder has vanished")]


def test_only_what_is_not_refused_has_begun() -> None:
    """Found: `why` told of refused commands as if they had been carried out, and --no-wait said that they had begun."""
    one = runner()
    one.hold_wait_until = T0
    one.start(T0)
    one.service(service("Started"), T0)

    def begun(command: NodeCommand) -> bool:
        return Tell("elector", NodeBegun(command)) in one.command(command, T0 + 1.0)

    assert not begun(NodeCommand("1", "restart", service="vap"))
    assert begun(NodeCommand("2", "restart", service="vip"))
    assert not begun(NodeCommand("2", "restart", service="vip")), "repeated"
    one.maintenance = True
    assert not begun(NodeCommand("3", "stop"))


@pytest.mark.parametrize(("first", "second", "words"), [
    ("stop", "start", "x was started again meanwhile; see 'koi why'"),
    ("start", "stop", "x was stopped meanwhile; see 'koi why'"),
    ("restart", "stop", "x was stopped meanwhile; see 'koi why'"),
])
def test_a_command_that_another_one_overtakes_is_answered(first: str, second: str, words: str) -> None:
    """Found: it waited for ever, and kept one of the sixteen places."""
    one = runner(stopped=first == "start")
    one.hold_wait_until = T0
    one.start(T0)
    one.service(service("Stopped" if first == "start" else "Started"), T0)
    assert results(one.command(NodeCommand("1", first, service="vip"), T0 + 1.0)) == []
    assert NodeResult("1", False, words) in results(one.command(NodeCommand("2", second), T0 + 2.0))
    assert "1" not in [command.id for command in one.commands]


def test_a_command_that_maintenance_overtakes_is_answered() -> None:
    one = runner()
    one.hold_wait_until = T0
    one.start(T0)
    one.service(service("Started"), T0)
    assert results(one.command(NodeCommand("1", "stop"), T0 + 1.0)) == []
    one.maintenance = True
    [found] = results(one.handle_timer(T0 + 2.0))
    assert not found.done and found.message.startswith("maintenance was turned on meanwhile: ")


def test_a_stop_that_fails_is_told() -> None:
    """Found: "x is stopped" although its stop had failed; and of a node that got stuck it was never answered."""
    for stuck, words in ((False, "x failed while it stopped (vip: stop exited 1); see 'koi failures'"),
                         (True, still_active("x", False))):
        one = runner()
        one.hold_wait_until = T0
        one.start(T0)
        one.service(service("Started"), T0)
        assert results(one.command(NodeCommand("1", "stop"), T0 + 1.0)) == []
        one.failure(Failure("vip", "stop", 1, 0.1, "", "stop exited 1"))
        state = ServiceState(ServiceInfo("vip", 10, "Failed", failed=True), promoted=stuck, stuck=stuck)
        assert results(one.service(state, T0 + 1.2)) == [NodeResult("1", False, words)]
