"""Keys that others own, at masters without slots: erased when that is sure, and only then."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from shardcluster.actions import DropLeftovers, Reason, Wait
from shardcluster.decide.leftovers import leftovers
from shardcluster.decide.shrink import shrink
from shardcluster.observed import OpenSlot, Role
from shardcluster.picture import draw
from tests.scenarios.drive import run
from tests.unit.deciding import STORAGE, changed, formed, spec_of

if TYPE_CHECKING:
    from shardcluster.observed import Observed
    from tests.scenarios.paper import PaperCluster

SPEC = spec_of(3, 1, storage=STORAGE)


def left_over() -> PaperCluster:
    """A formed store whose shard-0-1 is a master beside its own and holds two keys."""
    cluster = formed()
    node = cluster.nodes["shard-0-1"]
    node.role, node.master_id, node.keys = Role.MASTER, None, {0, 1}
    return cluster


def test_what_others_own_is_erased_and_the_node_follows_its_master_again() -> None:
    """The last copy is theirs: a slot changes hands only once its source counts no key in it."""
    cluster = left_over()
    decision = leftovers(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.action == DropLeftovers("shard-0-1")
    assert decision.reason is Reason.LEFTOVERS
    run(cluster, SPEC)
    assert cluster.nodes["shard-0-1"].master_id == cluster.nodes["shard-0-0"].node_id


def _unsure(observed: Observed, name: str, cluster: PaperCluster) -> Observed:
    other = cluster.nodes["shard-1-0"]
    match name:
        case "never formed":
            return dataclasses.replace(observed, formed_before=False)
        case "an old engine":
            return changed(observed, "shard-2-1", keeps_open_slots=False)
        case "a slot leaves":
            return changed(observed, "shard-2-0", migrating=(OpenSlot(1, other.node_id),))
        case "a slot arrives":
            return changed(observed, "shard-2-0", importing=(OpenSlot(1, other.node_id),))
        case _:
            nodes = tuple(
                dataclasses.replace(node, view=None) if node.name == name else node
                for node in observed.nodes
            )
            return dataclasses.replace(observed, nodes=nodes)


@pytest.mark.parametrize(
    "why", ["never formed", "an old engine", "a slot leaves", "a slot arrives", "shard-2-0"]
)
def test_nothing_is_erased_while_a_key_may_be_the_only_one(why: str) -> None:
    """A slot that is open, or may be at an owner that is silent or an engine that forgets it."""
    cluster = left_over()
    cluster.observe()
    assert leftovers(draw(SPEC, _unsure(cluster.observe(), why, cluster))) is None


def test_the_heir_of_a_master_that_came_back_empty_keeps_its_copy() -> None:
    """Without storage it may be the only one: the heir led, and had not heard of any slot."""
    cluster = left_over()
    cluster.nodes["shard-0-0"].keys = set()
    observed = changed(cluster.observe(), "shard-0-0", history="its own since then")
    decision = leftovers(draw(spec_of(3, 1), observed))
    assert decision is not None
    assert isinstance(decision.action, Wait)
    assert not decision.healthy
    assert decision.sentence.startswith(
        "shard-0-1 owns no slot but holds 2 keys, which shard-0-0 may have lost"
    )


@pytest.mark.parametrize("owner_goes_on", [True, False])
def test_an_owner_of_the_same_history_has_not_come_back_empty(*, owner_goes_on: bool) -> None:
    """The heir was cut off, or promoted by the others, while the owner served on."""
    heirs, owners = ("new", "old"), ("newer", "old" if owner_goes_on else "")
    observed = left_over().observe()
    for name, (now, before) in {"shard-0-1": heirs, "shard-0-0": owners}.items():
        observed = changed(observed, name, history=now, history_before=before)
    decision = leftovers(draw(spec_of(3, 1), observed))
    assert decision is not None
    assert isinstance(decision.action, DropLeftovers if owner_goes_on else Wait)


def test_without_storage_what_left_the_whole_shard_is_erased() -> None:
    """No node of it owns a slot, so none of its masters can have come back empty."""
    cluster = left_over()
    lost, heir = cluster.nodes["shard-0-0"], cluster.nodes["shard-1-0"]
    slots = lost.slots
    lost.slots -= slots
    lost.keys = set()
    heir.slots |= slots
    for node in cluster.nodes.values():
        for peer_id, line in node.lines.items():
            kept = line.slots | slots if peer_id == heir.node_id else line.slots - slots
            node.lines[peer_id] = dataclasses.replace(line, slots=kept)
    decision = leftovers(draw(spec_of(3, 1), cluster.observe()))
    assert decision is not None
    assert decision.action == DropLeftovers("shard-0-1")


def test_nothing_is_erased_while_a_slot_has_no_owner_or_two() -> None:
    """Who is right is not settled."""
    cluster = left_over()
    owner = cluster.nodes["shard-1-0"]
    cluster.nodes["shard-2-0"].slots |= owner.slots
    assert leftovers(draw(SPEC, cluster.observe())) is None
    cluster = left_over()
    slots = cluster.nodes["shard-1-0"].slots
    cluster.nodes["shard-1-0"].slots -= slots
    for node in cluster.nodes.values():
        node.lines = {
            peer_id: dataclasses.replace(line, slots=line.slots - slots)
            for peer_id, line in node.lines.items()
        }
    assert leftovers(draw(SPEC, cluster.observe())) is None


def test_a_node_outside_keeps_what_it_holds() -> None:
    """It may be another cluster's."""
    cluster = left_over()
    node = cluster.nodes["shard-0-1"]
    for other in cluster.nodes.values():
        other.lines.pop(node.node_id, None)
    node.lines.clear()
    assert leftovers(draw(SPEC, cluster.observe())) is None


def test_a_surplus_master_with_keys_is_not_taken_out() -> None:
    """Nor asked to be, again and again: the executor would refuse."""
    cluster = left_over()
    decision = shrink(draw(spec_of(3, 0, storage=STORAGE), cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, Wait)
    assert decision.sentence.startswith("shard-0-1 owns no slot but holds 2 keys")
