"""What must hold on the paper cluster after every action, whatever was decided."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster.slots import SlotSet
from tests.scenarios.paper_node import PaperNode, Process, keys_of

if TYPE_CHECKING:
    from shardcluster.spec import Spec
    from tests.scenarios.paper import PaperCluster

__all__ = ["Safety", "assert_safe", "assert_shape", "effective_slots", "safety"]


@dataclass(frozen=True, slots=True)
class Safety:
    """What would be lost if it shrank."""

    owned: SlotSet  # slots that some node owns, running or not
    keys: frozenset[int]  # keys that clients reach, or will once their node is back


def effective_slots(cluster: PaperCluster) -> dict[str, SlotSet]:
    """Slots by node name, each with its owner of the highest epoch."""
    found: dict[str, SlotSet] = {}
    claimed = SlotSet()
    masters = [node for node in _joined(cluster) if node.slots]
    for node in sorted(masters, key=lambda node: (-node.epoch, node.name)):
        found[node.name] = node.slots - claimed
        claimed |= node.slots
    return found


def _joined(cluster: PaperCluster) -> list[PaperNode]:
    """The nodes of this cluster: what a foreign one claims is its own affair."""
    return [node for node in cluster.nodes.values() if not node.foreign]


def safety(cluster: PaperCluster) -> Safety:
    """Measure it."""
    owned = SlotSet()
    keys: set[int] = set()
    for name, slots in effective_slots(cluster).items():
        owned |= slots
        owner = cluster.nodes[name]
        for node in (owner, *_stand_ins(cluster, owner)):
            keys |= _within(node, slots)
        for slot, other_id in owner.migrating.items():
            keys |= _handed_over(cluster, slot, other_id)
    for node in _joined(cluster):
        keys |= {key for slot in node.importing for key in node.keys_in(slot)}
    return Safety(owned, frozenset(keys))


def _stand_ins(cluster: PaperCluster, owner: PaperNode) -> list[PaperNode]:
    """Replicas count while their master can't speak for itself, and one that took its place."""
    if owner.process is Process.RUNNING:
        return []
    return [
        node
        for node in cluster.nodes.values()
        if node.master_id == owner.node_id or owner.node_id in node.replaced
    ]


def _handed_over(cluster: PaperCluster, slot: int, other_id: str) -> set[int]:
    """What the target of a slot has of it; or its successor, which old engines tell nothing."""
    target = cluster.by_id(other_id)
    shard = target.shard if target is not None else ""
    nodes = [node for node in cluster.nodes.values() if node.shard == shard]
    return {key for node in nodes for key in node.keys_in(slot)}


def _within(node: PaperNode, slots: SlotSet) -> set[int]:
    return node.keys & _keys_of(slots)


_keys_of = functools.lru_cache(maxsize=64)(keys_of)


def assert_safe(before: Safety, cluster: PaperCluster) -> None:
    """No slot without its owner, none with two that answer, no key dropped."""
    claimed = SlotSet()
    for node in _joined(cluster):
        if not node.running:
            continue
        assert not node.slots & claimed, f"two nodes own slots {node.slots & claimed}"
        claimed |= node.slots
    after = safety(cluster)
    lost = before.owned - after.owned
    assert not lost, f"slots {lost} lost their owner"
    dropped = before.keys - after.keys
    assert not dropped, f"{len(dropped)} keys dropped, {sorted(dropped)[:5]} among them"


def assert_shape(cluster: PaperCluster, spec: Spec) -> None:
    """The store looks like its spec: shards, replicas, every slot, nothing left open."""
    assert not (SlotSet.full() - safety(cluster).owned)
    listed = [node for node in cluster.nodes.values() if node.listed]
    assert {node.shard for node in listed} == set(spec.wanted_shards())
    for shard in spec.wanted_shards():
        nodes = [node for node in listed if node.shard == shard]
        masters = [node for node in nodes if node.slots]
        assert len(nodes) == 1 + spec.replicas_per_shard, shard
        assert len(masters) == 1, shard
        for node in nodes:
            assert node.running, node.name
            assert not node.importing, node.name
            assert not node.migrating, node.name
            assert node.keys == masters[0].keys, node.name
            assert node is masters[0] or node.master_id == masters[0].node_id, node.name
            assert len(node.lines) == len(listed) - 1, f"{node.name} knows strangers"
