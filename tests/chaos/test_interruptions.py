"""Every operation is cut short before and after each of its actions, and loses each node there.

On the simulated cluster, by the real `decide`, and one by one instead of sampled.  A controller
that remembers nothing follows each time; it must bring the store to its spec, with all that was
written.  How many points there were is printed (`pytest -s`).
"""

from __future__ import annotations

import pickle
import random
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shardcluster.actions import Reason, Wait
from shardcluster.decide import decide
from tests.chaos.clients import KEYS
from tests.chaos.losses import Losses
from tests.chaos.model import BEAT_MS, ActionFailed, ModelCluster
from tests.scenarios.drive import spec_of
from tests.scenarios.paper_checks import assert_shape
from tests.scenarios.paper_node import Process, slot_of_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shardcluster.actions import Decision
    from shardcluster.spec import Spec

STORAGE = {"size": "1Gi"}
PASSES_MAX = 400
PATIENCE_PASSES = 15
WAIT_MS = 300
STEP_MS = 10
SETTLED_MS = 1_000  # until replicas have what was written

Values = dict[int, tuple[int, ...] | None]


class Operation(NamedTuple):
    """A store, and what is wanted of it."""

    cluster: ModelCluster
    spec: Spec


def stored(shards: int, replicas: int, **fields: object) -> Spec:
    """A spec with storage."""
    return spec_of(shards, replicas, storage=STORAGE, **fields)


def blank() -> ModelCluster:
    """Nothing."""
    cluster = ModelCluster()
    cluster.chance = random.Random(6)
    cluster.losses = Losses(nodes=cluster.nodes)
    return cluster


def formed(shards: int, replicas: int) -> ModelCluster:
    """A store at rest, with a write to each key."""
    cluster, number = blank(), 0
    finish(cluster, stored(shards, replicas))
    for key in KEYS.values():
        for node in cluster.model_nodes():
            if slot_of_key(key) in node.slots:
                number += 1
                node.put(key, (number,))
    cluster.tick(SETTLED_MS)
    return cluster


def form() -> Operation:
    """From nothing."""
    return Operation(blank(), stored(2, 1))


def add_shard() -> Operation:
    """Two shards become three."""
    return Operation(formed(2, 1), stored(3, 1))


def remove_shard() -> Operation:
    """The first goes."""
    return Operation(formed(3, 1), stored(2, 1, retire=["shard-0"]))


def add_replica() -> Operation:
    """One more a shard."""
    return Operation(formed(2, 1), stored(2, 2))


def remove_replica() -> Operation:
    """One less a shard, and one of the surplus nodes leads."""
    cluster = formed(2, 1)
    cluster.end("shard-1-0")
    finish(cluster, stored(2, 1))
    return Operation(cluster, stored(2, 0))


def failover() -> Operation:
    """A master is killed."""
    cluster = formed(3, 1)
    cluster.end("shard-0-0")
    return Operation(cluster, stored(3, 1))


def takeover() -> Operation:
    """A master hangs, and there is no majority without it: it is fenced first."""
    cluster = formed(2, 1)
    cluster.hang("shard-0-0")
    return Operation(cluster, stored(2, 1))


def rolling_upgrade() -> Operation:
    """Every node is replaced by one of the present form, each master after a hand-over."""
    cluster = formed(2, 1)
    cluster.outdated.update(cluster.nodes)
    return Operation(cluster, stored(2, 1))


def settings() -> Operation:
    """Every node gets another node timeout."""
    return Operation(formed(2, 1), stored(2, 1, failover={"nodeTimeoutMs": 2_500}))


OPERATIONS = [
    form, add_shard, remove_shard, add_replica, remove_replica, failover, takeover,
    rolling_upgrade, settings,
]  # fmt: skip


def values(cluster: ModelCluster) -> Values:
    """What stands at the slots' owners."""
    owners = [node for node in cluster.model_nodes() if node.slots]
    return {
        key: next((node.data.get(key) for node in owners if slot_of_key(key) in node.slots), None)
        for key in KEYS.values()
    }


def once(cluster: ModelCluster, decision: Decision) -> Iterator[bool]:
    """One pass; yields before, amid (then False) and after its action, unless it is a wait."""
    if isinstance(decision.action, Wait):
        cluster.tick(max(WAIT_MS, int(decision.action.seconds * 1000)))
        return
    yield True
    try:
        for _ in cluster.steps(decision.action):
            yield False
            cluster.tick(STEP_MS)
    except ActionFailed:
        cluster.tick(WAIT_MS)
    yield True
    cluster.tick(BEAT_MS)


def at_rest(cluster: ModelCluster, spec: Spec, decision: Decision) -> bool:
    """Whether nothing is to be done, and the store is what it shall be."""
    if decision.reason is not Reason.IDLE or cluster.outdated:
        return False
    try:
        assert_shape(cluster, spec)
    except AssertionError:
        return False
    return True


def finish(cluster: ModelCluster, spec: Spec) -> None:
    """Decide and do until the store rests."""
    for number in range(PASSES_MAX):
        decision = decide(spec, cluster.observe())
        if at_rest(cluster, spec, decision):
            return
        for _ in once(cluster, decision):
            pass
        if number == PATIENCE_PASSES:  # what hangs proves nothing; somebody lets it go on
            for node in cluster.model_nodes():
                if node.process is Process.HUNG:
                    cluster.resume(node.name)
    pytest.fail(decide(spec, cluster.observe()).sentence)


def points(operation: Operation) -> Iterator[tuple[bytes, bool]]:
    """The worlds before, amid and after each action, and whether it is not amid one."""
    cluster, spec = operation
    for _ in range(PASSES_MAX):
        decision = decide(spec, cluster.observe())
        if at_rest(cluster, spec, decision):
            return
        for whole in once(cluster, decision):
            yield pickle.dumps(cluster), whole
    pytest.fail("the operation does not end")


def lost(world: bytes) -> Iterator[ModelCluster]:
    """The same world with each node ended or hanging, and a new controller.

    Not amid an action: what had just left a master for another may be lost with that one, as every
    write that its replica has not been sent yet.
    """
    for name in [node.name for node in followed(world).model_nodes() if node.running]:
        for what in (ModelCluster.end, ModelCluster.hang):
            twin = followed(world)
            what(twin, name)
            yield twin


def followed(world: bytes) -> ModelCluster:
    """The world, and a controller that has seen nothing of it yet."""
    cluster: ModelCluster = pickle.loads(world)  # noqa: S301 - our own
    cluster.new_controller()
    return cluster


@pytest.mark.parametrize("begin", OPERATIONS, ids=lambda begin: begin.__name__)
def test_whatever_ends_before_amid_or_after_any_action_the_next_controller_finishes(
    begin: Callable[[], Operation],
) -> None:
    """The controller alone, or one node besides, which ends or hangs until somebody sees to it."""
    operation = begin()
    wanted = values(operation.cluster)
    killed = nodes = 0
    for world, whole in points(operation):
        worlds = [followed(world), *(lost(world) if whole else ())]
        for cluster in worlds:
            finish(cluster, operation.spec)
            assert values(cluster) == wanted
        killed += 1
        nodes += len(worlds) - 1
    sys.stdout.write(
        f"{begin.__name__}: the controller {killed} times, a node, too, {nodes} times\n"
    )
    assert killed > 0
    assert nodes > 0
