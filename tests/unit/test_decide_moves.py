"""Open slots and planned moves, in states that stories hardly reach."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shardcluster.actions import Forget, Move, MoveSlots, Reason, StabilizeSlot, Wait
from shardcluster.decide.moves import one_way, open_slots, plan_moves, planned_moves
from shardcluster.decide.views import strangers
from shardcluster.observed import OpenSlot, Role
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.unit.deciding import STORAGE, changed, formed, spec_of

if TYPE_CHECKING:
    from tests.scenarios.paper import PaperCluster

SPEC = spec_of(3, 1, storage=STORAGE)


def first_slot(cluster: PaperCluster, name: str) -> int:
    """The lowest slot that a node owns."""
    return next(iter(cluster.nodes[name].slots))


def second_master(cluster: PaperCluster, count: int) -> SlotSet:
    """Let shard-0-1 be a master beside shard-0-0, with so many of its slots."""
    master, other = cluster.nodes["shard-0-0"], cluster.nodes["shard-0-1"]
    few = SlotSet.of(list(master.slots)[:count])
    other.role, other.master_id, other.slots = Role.MASTER, None, few
    other.epoch = cluster.next_epoch()
    cluster.tick(0)
    return few


def test_nothing_open_is_nothing_to_do() -> None:
    """The usual case."""
    assert open_slots(draw(SPEC, formed().observe())) is None


def test_open_slots_of_a_silent_owner_wait_for_others_to_decide() -> None:
    """Whether the shard has no master, or a second owner is the silent one."""
    cluster = formed()
    slot = first_slot(cluster, "shard-0-0")
    cluster.nodes["shard-1-0"].importing[slot] = cluster.nodes["shard-0-0"].node_id
    cluster.hang("shard-0-0")
    assert open_slots(draw(SPEC, cluster.observe())) is None
    cluster.resume("shard-0-0")
    few = second_master(cluster, 2)
    assert slot in few
    cluster.hang("shard-0-1")
    assert open_slots(draw(SPEC, cluster.observe())) is None


def test_a_slot_that_goes_to_a_shard_without_master_waits() -> None:
    """It stays MIGRATING until somebody leads that shard."""
    cluster = formed()
    slot = first_slot(cluster, "shard-0-0")
    target = cluster.nodes["shard-1-0"]
    cluster.nodes["shard-0-0"].migrating[slot] = target.node_id
    cluster.observe()
    cluster.hang(target.name)
    assert open_slots(draw(SPEC, cluster.observe())) is None


def test_an_open_slot_nobody_owns_is_left_to_formation() -> None:
    """There is no source."""
    cluster = formed()
    slot = first_slot(cluster, "shard-0-0")
    cluster.nodes["shard-0-0"].slots -= SlotSet.of([slot])
    cluster.tick(0)
    cluster.nodes["shard-1-0"].importing[slot] = cluster.nodes["shard-0-0"].node_id
    assert open_slots(draw(SPEC, cluster.observe())) is None


def test_open_states_that_only_a_replica_knows_are_closed_through_its_master() -> None:
    """Newer engines tell replicas first; a master that hung then may have left it at that."""
    left = {"importing": (OpenSlot(1, "e" * 40),), "migrating": (OpenSlot(7, "e" * 40),)}
    observed = changed(formed().observe(), "shard-0-1", **left)
    decision = open_slots(draw(SPEC, observed))
    assert decision is not None
    assert decision.action == StabilizeSlot("shard-0-0", (1, 7))
    for fields in ({"link_up": False}, {"master_id": "e" * 40}):
        assert open_slots(draw(SPEC, changed(observed, "shard-0-1", **fields))) is None


def test_open_states_of_replicas_are_their_master_s_affair() -> None:
    """What it has, too, is finished there; one that is silent has not said."""
    cluster = formed()
    owner, other = cluster.nodes["shard-0-0"], cluster.nodes["shard-1-0"]
    slot = first_slot(cluster, "shard-0-0")
    owner.migrating, other.importing = {slot: other.node_id}, {slot: owner.node_id}
    cluster.tick(0)
    decision = open_slots(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, MoveSlots)
    cluster = formed()
    cluster.observe()
    cluster.hang("shard-0-0")
    observed = changed(cluster.observe(), "shard-0-1", importing=(OpenSlot(1, "e" * 40),))
    assert open_slots(draw(SPEC, observed)) is None


def test_meaningless_states_are_closed_one_node_after_the_other() -> None:
    """And before open slots are finished."""
    cluster = formed()
    owner, other = cluster.nodes["shard-0-0"], cluster.nodes["shard-1-0"]
    slots = list(owner.slots)
    owner.migrating = {slots[0]: "e" * 40, slots[1]: other.node_id}
    other.migrating = {slots[2]: "e" * 40}
    decision = open_slots(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.action == StabilizeSlot(owner.name, (slots[0],))


def test_slots_of_a_second_master_go_home_and_each_moves_once() -> None:
    """Also when the whole shard goes: then they go where the ring wants them."""
    cluster = formed()
    few = second_master(cluster, 5)
    moves = plan_moves(draw(SPEC, cluster.observe()), SPEC.wanted_shards())
    assert {(move.slot, move.source, move.target) for move in moves} == {
        (slot, "shard-0-1", "shard-0-0") for slot in few
    }
    smaller = spec_of(2, 1, storage=STORAGE, retire=["shard-0"])
    picture = draw(smaller, cluster.observe())
    moves = plan_moves(picture, smaller.wanted_shards())
    shard = picture.shard("shard-0")
    assert shard is not None
    assert [move.slot for move in moves] == sorted(shard.slots)
    assert {move.source for move in moves} == {"shard-0-0", "shard-0-1"}
    assert all(not move.target.startswith("shard-0") for move in moves)


def test_a_silent_owner_moves_nothing_and_gets_nothing() -> None:
    """What can't be asked can't be moved."""
    cluster = formed()
    cluster.hang("shard-0-0")
    spec = spec_of(2, 1, storage=STORAGE, retire=["shard-0"])
    assert plan_moves(draw(spec, cluster.observe()), spec.wanted_shards()) == ()
    cluster.resume("shard-0-0")
    cluster.hang("shard-1-0")
    spec = spec_of(1, 1, storage=STORAGE, retire=["shard-0", "shard-2"])
    assert plan_moves(draw(spec, cluster.observe()), spec.wanted_shards()) == ()


def test_a_new_shard_takes_part_only_when_all_are_ready() -> None:
    """It leads itself, everybody is connected to it, its replicas have copied."""
    spec = spec_of(4, 1, storage=STORAGE)
    cluster = formed()
    told = []

    def ask() -> None:
        decision = planned_moves(draw(spec, cluster.observe()))
        assert decision is not None
        told.append(decision)

    ask()
    for name in ("shard-3-0", "shard-3-1"):
        cluster.start_node(name).serves_from_ms = 0
    ask()
    cluster.nodes["shard-0-0"].handshakes |= {
        cluster.nodes[name].address for name in ("shard-3-0", "shard-3-1")
    }
    cluster.tick(10)
    replica = cluster.nodes["shard-3-1"]
    replica.become_replica(cluster.nodes["shard-3-0"].node_id)
    ask()
    cluster.tick(10)
    line = cluster.nodes["shard-1-0"].lines[cluster.nodes["shard-3-0"].node_id]
    for broken in (
        dataclasses.replace(line, flags=frozenset({"handshake"})),
        dataclasses.replace(line, link_up=False),
    ):
        cluster.nodes["shard-1-0"].lines[line.node_id] = broken
        ask()
    cluster.tick(10)
    ask()
    assert [decision.sentence for decision in told[:-1]] == [
        "shard-3 has no master yet.",
        "shard-0-0 is not yet connected to shard-3-0.",
        "shard-3-1 has not copied shard-3-0 yet.",
        "shard-1-0 is not yet connected to shard-3-0.",
        "shard-1-0 is not yet connected to shard-3-0.",
    ]
    assert all(isinstance(decision.action, Wait) for decision in told[:-1])
    assert isinstance(told[-1].action, MoveSlots)


def test_a_summary_names_four_ways_and_counts_the_rest() -> None:
    """A sentence is for people."""
    cluster = formed(5, 0)
    spec = spec_of(6, 0, storage=STORAGE)
    cluster.start_node("shard-5-0").serves_from_ms = 0
    cluster.nodes["shard-0-0"].handshakes.add(cluster.nodes["shard-5-0"].address)
    cluster.tick(10)
    decision = planned_moves(draw(spec, cluster.observe()))
    assert decision is not None
    assert decision.reason is Reason.REBALANCING
    assert decision.sentence.endswith("and 1 more ways.")


def test_no_node_gives_and_takes_in_one_slice() -> None:
    """Taking raises its epoch, and so it could claim anew what it just gave away."""
    moves = (Move(1, "a", "b"), Move(2, "c", "a"), Move(3, "b", "c"), Move(4, "a", "c"))
    assert one_way(moves) == (moves[0], moves[3])
    assert one_way(moves[1:]) == (moves[1],)


def test_no_way_is_held_up_for_ever_by_one_that_can_t_be_done() -> None:
    """A full node has to give slots away before it can take any: all have their turns."""
    moves = (Move(1, "a", "b"), Move(2, "b", "c"), Move(3, "c", "a"), Move(4, "a", "b"))
    slices = [one_way(moves, turn) for turn in range(8)]
    assert all(slices[turn] == (moves[0], moves[3]) for turn in (0, 2, 4, 6))
    assert slices[1::2] == [(moves[0], moves[3]), (moves[1],), (moves[2],), (moves[0], moves[3])]
    assert one_way((), 1) == ()


def test_a_slot_goes_on_to_the_shard_whose_node_was_started_anew() -> None:
    """Older engines don't tell the source who leads there now; its id isn't forgotten before."""
    cluster = formed()
    source, target = cluster.nodes["shard-0-0"], cluster.nodes["shard-1-0"]
    slot, old_id = first_slot(cluster, "shard-0-0"), target.node_id
    source.migrating[slot] = old_id
    cluster.end("shard-1-0")
    heir = cluster.nodes["shard-1-1"]
    heir.slots, target.slots = target.slots, SlotSet()
    heir.role, heir.master_id, heir.epoch = Role.MASTER, None, cluster.next_epoch()
    cluster.begin("shard-1-0", fresh=True)
    cluster.tick(10)
    picture = draw(SPEC, cluster.observe())
    assert strangers(picture) is None
    decision = open_slots(picture)
    assert decision is not None
    assert isinstance(decision.action, MoveSlots)
    assert decision.action.moves[0] == Move(slot, "shard-0-0", "shard-1-1")
    source.migrating.clear()
    cluster.tick(10)
    decision = strangers(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.action == Forget((old_id,))
