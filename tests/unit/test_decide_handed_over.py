"""Keys that were handed over before their slot was: nobody owns the slot where they are."""

from __future__ import annotations

import pytest

from shardcluster.actions import (
    Failover,
    FailoverMode,
    MoveSlots,
    Reason,
    Release,
    RestartNode,
    Wait,
)
from shardcluster.decide import decide
from shardcluster.observed import Role
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.scenarios import paper_actions
from tests.scenarios.drive import run, spec_of, step
from tests.scenarios.paper import PaperCluster
from tests.unit.deciding import STORAGE


def _half_moved(*, stored: bool) -> tuple[PaperCluster, set[int]]:
    """A fourth shard whose master has the keys of three slots and owns none yet."""
    more = {"storage": STORAGE} if stored else {}
    cluster = PaperCluster(storage=stored)
    run(cluster, spec_of(3, 1, **more))
    cluster.fill()
    bigger = spec_of(4, 1, **more)
    while not isinstance((decision := decide(bigger, cluster.observe())).action, MoveSlots):
        step(cluster, bigger)
    moves = [
        move for move in decision.action.moves if cluster.nodes[move.source].keys_in(move.slot)
    ]
    for move in moves[:3]:
        paper_actions._import(cluster, move)
        paper_actions._migrate(cluster, move)
        paper_actions._copy_rest(cluster, move)
    cluster.tick(1000)
    return cluster, set(cluster.nodes["shard-3-0"].keys)


def _held(cluster: PaperCluster) -> set[int]:
    return set().union(*(node.keys for node in cluster.nodes.values()))


def test_without_storage_the_replica_leads_before_the_old_master_starts_empty() -> None:
    """Nothing to vote on, so it takes over; then the slots are finished and every key is there."""
    cluster, keys = _half_moved(stored=False)
    assert keys
    cluster.end("shard-3-0")
    cluster.tick(10)
    spec = spec_of(4, 1)
    decision = decide(spec, cluster.observe())
    assert decision.action == Failover("shard-3-1", FailoverMode.TAKEOVER)
    assert decision.reason is Reason.MASTER_LOST
    run(cluster, spec)
    assert keys <= _held(cluster)


def test_with_storage_that_is_gone_it_is_the_same() -> None:
    """Its disk went with it."""
    cluster, keys = _half_moved(stored=True)
    cluster.lose_disk("shard-3-0")
    cluster.tick(10)
    spec = spec_of(4, 1, storage=STORAGE)
    assert decide(spec, cluster.observe()).action == Failover("shard-3-1", FailoverMode.TAKEOVER)
    run(cluster, spec)
    assert keys <= _held(cluster)


def test_with_storage_it_brings_its_keys_back() -> None:
    """It is just started again."""
    cluster, keys = _half_moved(stored=True)
    cluster.end("shard-3-0")
    cluster.tick(10)
    spec = spec_of(4, 1, storage=STORAGE)
    assert decide(spec, cluster.observe()).action == RestartNode("shard-3-0", fresh=False)
    run(cluster, spec)
    assert keys <= _held(cluster)


@pytest.mark.parametrize("silent", [("shard-3-0",), ("shard-3-0", "shard-3-1")])
def test_a_shard_that_may_hold_such_keys_is_not_released(silent: tuple[str, ...]) -> None:
    """A hang is no end: it is kept until its master answers, and then drained."""
    cluster, keys = _half_moved(stored=True)
    for name in silent:
        cluster.hang(name)
    smaller = spec_of(3, 1, storage=STORAGE)
    for _ in range(20):
        decision = decide(smaller, cluster.observe())
        assert not isinstance(decision.action, Release)
        if isinstance(decision.action, Wait):
            cluster.tick(1000)
        else:
            paper_actions.apply(cluster, decision.action)
    for name in silent:
        cluster.resume(name)
    run(cluster, smaller)
    assert keys <= _held(cluster)
    assert "shard-3-0" not in cluster.nodes


def test_a_new_master_killed_before_any_slot_came_is_followed_again() -> None:
    """Its replica would refuse to forget the old id; it is given the new one first."""
    cluster = PaperCluster(storage=False)
    run(cluster, spec_of(3, 1))
    cluster.fill()
    bigger = spec_of(4, 1)
    while not isinstance(decide(bigger, cluster.observe()).action, MoveSlots):
        step(cluster, bigger)
    cluster.end("shard-3-0")
    cluster.tick(10)
    assert run(cluster, bigger)[-1].reason is Reason.IDLE


def test_a_silent_node_too_many_that_owns_slots_is_kept() -> None:
    """A second master of its shard: its slots have to come home first."""
    cluster = PaperCluster()
    run(cluster, spec_of(3, 1, storage=STORAGE))
    cluster.fill()
    stray, master = cluster.nodes["shard-0-1"], cluster.nodes["shard-0-0"]
    own = SlotSet.of(list(master.slots)[:16])
    stray.role, stray.master_id, stray.epoch = Role.MASTER, None, cluster.next_epoch()
    stray.slots, master.slots = own, master.slots - own
    cluster.tick(10)
    cluster.hang("shard-0-1")
    fewer = spec_of(3, 0, storage=STORAGE)
    for _ in range(10):
        decision = decide(fewer, cluster.observe())
        assert not isinstance(decision.action, Release)
        if isinstance(decision.action, Wait):
            cluster.tick(1000)
        else:
            paper_actions.apply(cluster, decision.action)


def test_a_slot_that_cannot_be_finished_keeps_nothing_else_back() -> None:
    """Settings come first, and the ring's moves go along with the open slot."""
    cluster = PaperCluster()
    run(cluster, spec_of(3, 1, storage=STORAGE))
    cluster.fill()
    source, target = cluster.nodes["shard-0-0"], cluster.nodes["shard-1-0"]
    slot = next(iter(source.slots))
    source.migrating[slot], target.importing[slot] = target.node_id, source.node_id
    wanted = spec_of(4, 1, storage=STORAGE, failover={"nodeTimeoutMs": 3000})
    for _ in range(200):
        decision = decide(wanted, cluster.observe())
        if isinstance(decision.action, MoveSlots) and len(decision.action.moves) > 1:
            break
        if isinstance(decision.action, Wait | MoveSlots):  # the open slot alone: it fails
            cluster.tick(100)
        else:
            paper_actions.apply(cluster, decision.action)
            cluster.tick(10)
    decision = decide(wanted, cluster.observe())
    assert decision.reason is Reason.SLOT_OPEN
    assert isinstance(decision.action, MoveSlots)
    assert decision.action.moves[0].slot == slot
    assert {move.target for move in decision.action.moves[1:]} == {"shard-3-0"}
    assert dict(source.config)["cluster-node-timeout"] == "3000"


def test_waiting_for_people_keeps_nothing_else_back() -> None:
    """Mode manual: a replica too many goes although slots should move."""
    cluster = PaperCluster()
    run(cluster, spec_of(3, 1, storage=STORAGE))
    manual = {"storage": STORAGE, "rebalance": {"mode": "manual"}}
    assert run(cluster, spec_of(4, 1, **manual))[-1].reason is Reason.REBALANCE_WANTED
    assert run(cluster, spec_of(4, 0, **manual))[-1].reason is Reason.REBALANCE_WANTED
    assert "shard-0-1" not in cluster.nodes


def test_a_hang_of_such_a_master_is_no_proof() -> None:
    """It may still take keys: nobody is put in its place."""
    cluster, _ = _half_moved(stored=False)
    cluster.hang("shard-3-0")
    cluster.tick(1000)
    assert not isinstance(decide(spec_of(4, 1), cluster.observe()).action, Failover)


def _disk_lost() -> PaperCluster:
    cluster, _ = _half_moved(stored=True)
    cluster.end("shard-3-0")
    cluster.nodes["shard-3-0"].wipe()
    cluster.move_to_new_address("shard-3-0")
    cluster.begin("shard-3-0", fresh=True)
    cluster.tick(10)
    return cluster


def test_when_its_disk_is_lost_the_replica_leads_before_it_copies_the_empty_one() -> None:
    """Its place has another id; the keys are with the replica alone."""
    cluster = _disk_lost()
    keys = set(cluster.nodes["shard-3-1"].keys)
    assert keys
    assert not cluster.nodes["shard-3-0"].keys
    spec = spec_of(4, 1, storage=STORAGE)
    assert decide(spec, cluster.observe()).action == Failover("shard-3-1", FailoverMode.TAKEOVER)
    run(cluster, spec)
    assert keys <= _held(cluster)


def test_who_may_still_be_there_is_not_taken_over_from() -> None:
    """A place whose id is not known may be the very node."""
    cluster = _disk_lost()
    cluster.hang("shard-1-1")
    cluster.new_controller()
    for node in cluster.nodes.values():
        node.lines.pop(cluster.nodes["shard-1-1"].node_id, None)
    spec = spec_of(4, 1, storage=STORAGE)
    assert not isinstance(decide(spec, cluster.observe()).action, Failover)


def test_nobody_stands_in_for_a_silent_leader_that_has_such_keys() -> None:
    """A blank node beside it: the replica would copy the emptiness."""
    cluster, _ = _half_moved(stored=True)
    cluster.hang("shard-3-0")
    cluster.start_node("shard-3-2")
    cluster.tick(10)
    shard = draw(spec_of(4, 2, storage=STORAGE), cluster.observe()).shard("shard-3")
    assert shard is not None
    assert shard.master is None
