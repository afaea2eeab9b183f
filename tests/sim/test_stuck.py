"""A node whose demote and stop failed: it holds all others off, and lets them go once it is clean (docs/protocol.md 9.1)."""

from __future__ import annotations

import math

import pytest

from tests.sim.judge import settled
from tests.sim.test_scenarios import Scene
from tests.sim.worker import Scripts


def test_a_stuck_node_that_is_told_to_yield_does_not_renounce() -> None:
    """With service.stuck: takeover it held nothing any more, counted as demoted, and gave the epoch up: others began at once."""
    scene = Scene(stuck="takeover")
    scene.host("a").scripts.failing.update(demote=1.0, stop=1.0)
    scene.send("promote", "c")
    scene.until(lambda: scene.master() in ("b", "c"), 20.0)
    text = "\n".join(scene.world.trace)
    assert "everything killed" in text
    assert text.index("everything killed") < text.index("begins epoch 2")


def test_a_stuck_node_with_hold_keeps_all_others_away_until_it_is_off() -> None:
    scene = Scene(stuck="hold")
    scene.host("a").scripts.failing.update(demote=1.0, stop=1.0)
    scene.send("promote", "c")
    scene.until(lambda: scene.hold() == "stuck")
    scene.run(20.0)
    assert scene.master() is None and len(scene.cluster.watch.begun) == 1
    scene.host("a").crash()
    scene.send("release", "a", force=True)
    assert scene.until(lambda: scene.master() in ("b", "c")) < 6.0


def test_a_stuck_node_that_recovers_ends_the_hold_by_itself() -> None:
    scene = Scene(stuck="hold")
    scene.host("a").scripts.failing.update(demote=1.0, stop=1.0)
    scene.send("promote", "c")
    scene.until(lambda: scene.hold() == "stuck")
    scene.host("a").scripts.failing.clear()
    runner = scene.host("a").runner
    assert runner is not None
    runner.deliver(runner.command, "recover")
    scene.until(lambda: settled(scene.cluster), 30.0)


@pytest.mark.parametrize("demoting", [False, True])
def test_a_stuck_node_whose_runner_is_replaced_is_not_promoted_under_the_hold(demoting: bool) -> None:
    """Its successor did not know that the epoch was being let go: once recovered it promoted, and the hold stayed for ever."""
    scene = Scene(stuck="hold")
    host = scene.host("a")
    host.scripts.failing.update(demote=1.0, stop=1.0)
    scene.send("promote", "c")
    scene.until(lambda: scene.hold() == "stuck")
    scene.until(lambda: host.cell == math.inf)
    promotes = len(scene.cluster.watch.promotes)
    host.scripts.failing.clear()
    if demoting:
        host.scripts.seconds["demote"] = (1.0, 1.0)
        assert host.runner is not None
        host.runner.deliver(host.runner.command, "recover")
        scene.run(0.2)
    host.kill_runner()
    scene.until(lambda: settled(scene.cluster), 40.0)
    assert "a" not in {name for _, name in scene.cluster.watch.promotes[promotes:]}


def test_a_stuck_node_that_starts_again_is_not_taken_for_clean() -> None:
    """Its new runner held nothing and knew of nothing stuck yet: that counted as clean, and others began beside it."""
    scene = Scene(stuck="hold")
    host = scene.host("a")
    host.scripts.failing.update(demote=1.0, stop=1.0)
    scene.send("promote", "c")
    scene.until(lambda: scene.hold() == "stuck")
    host.scripts.seconds["demote"] = (4.0, 4.0)
    host.kill_root(0.1)
    for worker in host.workers.values():
        worker.alive = False  # killed with root
    scene.until(lambda: "a new root takes over" in "\n".join(scene.world.trace), 20.0)
    scene.run(30.0)
    assert scene.hold() == "stuck" and len(scene.cluster.watch.begun) == 1
    host.scripts.failing.clear()
    assert host.runner is not None
    host.runner.deliver(host.runner.command, "recover")
    scene.until(lambda: settled(scene.cluster), 30.0)


@pytest.mark.parametrize("hold", ["maintenance", "stuck"])
def test_what_was_left_may_take_its_time_to_demote_while_a_hold_keeps_all_others_away(hold: str) -> None:
    """One grace was counted from the start of koinode, or from the end of maintenance: it was killed for nobody's sake."""
    scene = Scene()
    host = scene.host("a")
    host.scripts.seconds["demote"] = (4.0, 4.0)
    leave_under(scene, hold)
    scene.until(lambda: settled(scene.cluster), 30.0)
    text = "\n".join(scene.world.trace)
    assert "demote ended: 0" in text and "everything killed: not demoted" not in text


@pytest.mark.parametrize("hold", ["maintenance", "stuck"])
def test_what_was_left_under_a_hold_is_killed_in_time_once_the_electors_are_silent(hold: str) -> None:
    scene = Scene()
    host = scene.host("a")
    host.scripts.seconds["demote"] = (4.0, 4.0)
    leave_under(scene, hold)
    scene.until(lambda: host.workers and all(worker.machine.action == "demote" for worker in host.workers.values()))
    scene.run(0.5)
    scene.cluster.network.partition([{"a"}, {"b", "c"}])
    timing = scene.cluster.timing
    scene.until(lambda: not scene.cluster.watch.active.get("a"), timing.lease + timing.grace + 0.1)
    assert "everything killed: not demoted" in "\n".join(scene.world.trace)


def leave_under(scene: Scene, hold: str) -> None:
    """Node a was killed as a whole, came back in maintenance, and that ends; or it was stuck, and is killed and started again."""
    host = scene.host("a")
    if hold == "maintenance":
        host.kill_tree(1.0)
        scene.send("maintenance", on=True)
        scene.run(5.0)
        scene.send("maintenance")
    else:
        host.scripts.failing.update(demote=1.0, stop=1.0)
        scene.send("promote", "c")
        scene.until(lambda: scene.hold() == "stuck" and host.cell == math.inf)
        host.kill_tree(0.3)
        host.scripts.failing.clear()


@pytest.mark.parametrize("again", [False, True])
def test_a_master_cut_off_in_a_maintenance_that_is_ended_by_force_gives_way_when_it_is_back(again: bool) -> None:
    """It stayed promoted for good: whoever vouched for it no more had not said that the hold was over."""
    scene = Scene()
    host, names = scene.host("a"), set(scene.cluster.hosts)
    scene.send("maintenance", on=True)
    scene.until(lambda: host.cell == math.inf)
    scene.cluster.network.partition([{"a"}, names - {"a"}])
    scene.run(5.0)
    scene.cluster.watch.inactive("a")  # so the administrator says
    scene.send("maintenance", force=True)
    scene.until(lambda: len(scene.cluster.watch.begun) > 1)
    if again:
        scene.send("maintenance", on=True)
    scene.cluster.network.heal()
    scene.until(lambda: not any(worker.machine.promoted for worker in host.workers.values()), scene.cluster.timing.failover)
    text = "\n".join(scene.world.trace)
    assert "a/runner   lets epoch 1 go: a majority of electors says that a later epoch has begun" in text
    assert "everything killed" not in text, "it was demoted"
    if again:
        scene.run(2.0)
        scene.send("maintenance")
    scene.until(lambda: settled(scene.cluster), 20.0)


def test_what_was_left_is_demoted_in_maintenance_too_if_another_node_is_master() -> None:
    """It stayed promoted beside that one until the maintenance ended, although koinode was there to demote it."""
    scene = Scene()
    host = scene.host("a")
    host.kill_tree(12.0)
    scene.cluster.watch.inactive("a")  # two are active as long as nobody starts koinode: docs/guide.md says so
    scene.until(lambda: scene.master() in ("b", "c"))
    scene.send("maintenance", on=True)
    scene.until(lambda: host.runner is not None, 20.0)
    scene.until(lambda: not any(worker.machine.promoted for worker in host.workers.values()), 3.0)
    scene.run(3.0)
    assert host.runner is not None and host.runner.machine.maintenance is True
    begins = [line for line in scene.world.trace if " a/" in line and "start begins" in line]
    assert len(begins) == len(host.workers), "nothing was started again in maintenance"
    scene.send("maintenance")
    scene.until(lambda: settled(scene.cluster), 20.0)


def test_a_stuck_node_that_was_switched_off_and_on_ends_the_hold() -> None:
    """Nothing of it can be active any more, and it says so: nobody has to use force."""
    scene = Scene(stuck="hold")
    scene.host("a").scripts.failing.update(demote=1.0, stop=1.0)
    scene.send("promote", "c")
    scene.until(lambda: scene.hold() == "stuck")
    scene.host("a").crash()
    scene.run(20.0)
    assert scene.hold() == "stuck" and len(scene.cluster.watch.begun) == 1
    scene.host("a").scripts.failing.clear()
    scene.host("a").start()
    scene.until(lambda: settled(scene.cluster), 30.0)


def test_what_a_dead_tree_left_stuck_can_be_recovered() -> None:
    """Demoting and stopping the leftovers failed; no recovery ever tried it again, for the service was never clean."""
    scene = Scene()
    host = scene.host("a")
    host.scripts.failing.update(demote=1.0, stop=1.0)
    host.kill_root(0.1)
    scene.until(lambda: "a new root takes over" in "\n".join(scene.world.trace), 20.0)
    scene.run(3.0)
    host.scripts.failing.clear()
    assert host.runner is not None
    host.runner.deliver(host.runner.command, "recover")
    scene.until(lambda: host.runner is not None and host.runner.machine.state in ("Backup", "Master"), 10.0)


def test_a_stuck_worker_of_a_dead_tree_stays_until_it_has_killed_everything() -> None:
    """Seed 3601: it ended at once, for nothing more could be tried; so nobody killed what was active when the lease had ended."""
    scene = Scene(stuck="takeover")
    host = scene.host("a")
    host.scripts.failing.update(demote=1.0, stop=1.0)
    host.kill_root(0.1)
    scene.until(lambda: scene.master() in ("b", "c"), 20.0)
    assert "everything killed" in "\n".join(scene.world.trace)


def test_a_stuck_worker_under_a_hold_leaves_the_rest_to_the_next_koinode() -> None:
    """Seed 930335: its lease had no end any more, so it waited for ever, and no koinode could begin as long as it was there."""
    scene = Scene()
    host = scene.host("a")
    host.scripts.failing.update(demote=1.0, stop=1.0)
    scene.send("promote", "c")
    scene.until(lambda: scene.hold() == "stuck" and host.cell == math.inf)
    host.kill_root(0.1)
    scene.until(lambda: "a new root takes over" in "\n".join(scene.world.trace), 2.0)
    assert scene.hold() == "stuck" and len(scene.cluster.watch.begun) == 1
    host.scripts.failing.clear()
    scene.until(lambda: host.runner is not None)
    assert host.runner is not None
    host.runner.deliver(host.runner.command, "recover")
    scene.until(lambda: settled(scene.cluster), 30.0)


@pytest.mark.parametrize("stuck", ["db", "vip", "both"])
@pytest.mark.parametrize("asked", [False, True])
def test_a_stuck_service_is_recovered_wherever_it_stands(stuck: str, asked: bool) -> None:
    """One above another was never told: the one below it had to go up first, and did not, for the epoch was let go."""
    scene = Scene(stuck="hold")
    host = scene.host("a")
    for name, worker in host.workers.items():
        if stuck in (name, "both"):
            worker.scripts = Scripts(failing={"demote": 1.0, "stop": 1.0})
    scene.send("promote", "c")
    scene.until(lambda: scene.hold() == "stuck")
    for worker in host.workers.values():
        worker.scripts = host.scripts
    if asked:
        assert host.runner is not None
        host.runner.deliver(host.runner.command, "recover")
    scene.until(lambda: settled(scene.cluster), 30.0)
