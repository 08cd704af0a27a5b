"""Every plan is cut short: after each sub-step, and with each node lost at each decision.

The controller that follows remembers nothing.  It must bring the store to the spec's shape with
nothing lost on the way, whatever was half done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from shardcluster.actions import MoveSlots, Reason, Wait
from tests.scenarios.drive import decide_checked, run, spec_of, step
from tests.scenarios.paper import PaperCluster
from tests.scenarios.paper_actions import apply_partly
from tests.scenarios.paper_checks import assert_safe, assert_shape, safety
from tests.scenarios.paper_node import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shardcluster.actions import Decision
    from shardcluster.spec import Spec

STORAGE = {"size": "1Gi"}
# Where a store may rest while one of its nodes is silent and nobody can help it.
HOLDS = {
    Reason.MASTER_UNKNOWN, Reason.MASTER_RESTARTING, Reason.NODE_SILENT, Reason.FORMING,
    Reason.NODES_STARTING, Reason.SHRINKING, Reason.MEETING, Reason.REPLICA_JOINING,
}  # fmt: skip
DECISIONS_MAX = 60
GOSSIP_MS = 5_000


class Story(NamedTuple):
    """A world, and what is wanted of it."""

    cluster: PaperCluster
    spec: Spec


def formed(shards: int, replicas: int) -> PaperCluster:
    """A full store at rest."""
    cluster = PaperCluster()
    spec = spec_of(shards, replicas, storage=STORAGE)
    run(cluster, spec)
    cluster.fill()
    run(cluster, spec)
    return cluster


def form() -> Story:
    """From nothing."""
    return Story(PaperCluster(), spec_of(2, 1, storage=STORAGE))


def add_shard() -> Story:
    """Three shards become four."""
    return Story(formed(3, 1), spec_of(4, 1, storage=STORAGE))


def remove_shard() -> Story:
    """One in the middle goes."""
    return Story(formed(4, 1), spec_of(3, 1, storage=STORAGE, retire=["shard-1"]))


def failover() -> Story:
    """A master is killed."""
    cluster = formed(3, 1)
    cluster.end("shard-0-0")
    cluster.tick(10)
    return Story(cluster, spec_of(3, 1, storage=STORAGE))


def add_replica() -> Story:
    """One replica more a shard."""
    return Story(formed(2, 1), spec_of(2, 2, storage=STORAGE))


def remove_replica() -> Story:
    """One less, and one of the surplus nodes leads its shard."""
    cluster = formed(3, 1)
    cluster.end("shard-1-0")
    run(cluster, spec_of(3, 1, storage=STORAGE))
    return Story(cluster, spec_of(3, 0, storage=STORAGE))


STORIES = [form, add_shard, remove_shard, failover, add_replica, remove_replica]
every_story = pytest.mark.parametrize("tell", STORIES, ids=lambda tell: tell.__name__)


def walk(story: Story) -> Iterator[tuple[PaperCluster, Decision]]:
    """The world before each of the story's decisions, and the decision."""
    cluster, last = story.cluster, None
    for _ in range(DECISIONS_MAX):
        decision = decide_checked(story.spec, cluster.observe())
        if decision.reason is Reason.IDLE:
            return
        if decision != last:  # a wait that goes on is the same world
            yield cluster, decision
        last = decision
        step(cluster, story.spec)
    pytest.fail("the story does not end")


def half_done(cluster: PaperCluster, decision: Decision) -> Iterator[PaperCluster]:
    """The worlds after one, two, … sub-steps of the decision, each with a new controller."""
    for sub_steps in range(1, 100):
        twin = cluster.copy()
        if not apply_partly(twin, decision.action, sub_steps):
            return
        twin.new_controller()
        yield twin


def all_keys(cluster: PaperCluster) -> set[int]:
    """Keys at the owners of slots."""
    return {key for node in cluster.nodes.values() if node.slots for key in node.keys}


def ends_well(cluster: PaperCluster, spec: Spec, keys: set[int]) -> None:
    """It comes to rest in the wanted shape, with all keys."""
    assert run(cluster, spec)[-1].reason is Reason.IDLE
    cluster.tick(GOSSIP_MS)  # until the nodes agree that those that were let go failed
    assert run(cluster, spec)[-1].reason is Reason.IDLE
    assert_shape(cluster, spec)
    assert all_keys(cluster) == keys
    assert cluster.formed_before


@every_story
def test_a_controller_killed_after_any_sub_step_is_followed_by_one_that_finishes(
    tell: Callable[[], Story],
) -> None:
    """Whether or not the nodes heard of what was done before the follower looks."""
    story = tell()
    keys = set(safety(story.cluster).keys)
    tried = 0
    for cluster, decision in walk(story):
        before = safety(cluster)
        for twin in half_done(cluster, decision):
            heard = twin.copy()
            heard.tick(10)
            assert_safe(before, heard)
            ends_well(heard, story.spec, keys)
            ends_well(twin, story.spec, keys)
            tried += 2
    assert tried > 0


@every_story
def test_any_node_killed_before_any_decision_is_made_good(tell: Callable[[], Story]) -> None:
    """The platform proves its end; the store ends in shape."""
    story = tell()
    keys = set(safety(story.cluster).keys)
    tried = 0
    for cluster, _ in walk(story):
        for name, node in cluster.nodes.items():
            if node.process is Process.RUNNING:
                twin = cluster.copy()
                twin.end(name)
                twin.tick(10)
                ends_well(twin, story.spec, keys)
                tried += 1
    assert tried > 0


@every_story
def test_any_node_silent_before_any_decision_is_held_out_and_made_good(
    tell: Callable[[], Story],
) -> None:
    """While it hangs the store rests in a shape that is told; when it goes on, all is well."""
    story = tell()
    keys = set(safety(story.cluster).keys)
    tried = 0
    for cluster, _ in walk(story):
        for name, node in cluster.nodes.items():
            if node.process is not Process.RUNNING:
                continue
            twin = cluster.copy()
            twin.hang(name)
            last = run(twin, story.spec)[-1]
            if last.reason is not Reason.IDLE:  # some are fenced and started, or let go
                assert last.reason in HOLDS
                assert isinstance(last.action, Wait)
                if name in twin.nodes and twin.nodes[name].process is Process.HUNG:
                    twin.resume(name)
                    twin.tick(10)
            ends_well(twin, story.spec, keys)
            tried += 1
    assert tried > 0


@pytest.mark.parametrize("tell", [add_shard, remove_shard], ids=lambda tell: tell.__name__)
@pytest.mark.parametrize("modern", [True, False], ids=["modern", "old"])
def test_source_or_target_killed_at_any_step_of_a_move_loses_nothing(
    tell: Callable[[], Story], *, modern: bool
) -> None:
    """Also on engines that keep open slots in the master only."""
    story = tell()
    story.cluster.replicas_know_open_slots = modern
    keys = set(safety(story.cluster).keys)
    tried = 0
    for cluster, decision in walk(story):
        if not isinstance(decision.action, MoveSlots):
            continue
        last = decision.action.moves[: cluster.slice_slots][-1]
        for twin in half_done(cluster, decision):
            for name in (last.source, last.target):
                lost = twin.copy()
                lost.end(name)
                lost.tick(10)
                ends_well(lost, story.spec, keys)
                tried += 1
    assert tried > 0


def test_a_lost_node_without_replica_that_nobody_can_start_leads_to_a_clear_hold() -> None:
    """Nothing is guessed, nothing is given away; it comes back and the plan goes on."""
    tried = 0
    cluster = formed(3, 0)
    cluster.can_fence = cluster.can_restart = cluster.proves_end = False
    story = Story(cluster, spec_of(4, 0, storage=STORAGE))
    keys = all_keys(cluster)
    for world, _ in walk(story):
        for name in world.nodes:
            twin = world.copy()
            before = safety(twin)
            twin.end(name)
            last = run(twin, story.spec)[-1]
            assert last.reason in HOLDS
            assert isinstance(last.action, Wait)
            assert name.rpartition("-")[0] in last.sentence
            assert_safe(before, twin)
            twin.begin(name)
            ends_well(twin, story.spec, keys)
            tried += 1
    assert tried > 0
