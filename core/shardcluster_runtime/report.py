"""Turn a picture and a decision into the state document that people and the gateway read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import MoveSlots, Reason
from shardcluster.decide.lost_masters import PROOFS_NEEDED, proofs_of_death
from shardcluster.decide.views import remarks
from shardcluster.observed import Role
from shardcluster.slots import SlotSet
from shardcluster_runtime.state import (
    NodeHealth,
    NodePart,
    Phase,
    ShardPart,
    ShardState,
    StateParts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from shardcluster.actions import Decision
    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["parts"]

_PHASES = {
    Reason.IDLE: Phase.READY,
    Reason.PAUSED: Phase.PAUSED,
    Reason.MASTER_LOST: Phase.FAILING_OVER,
    Reason.FENCING: Phase.FAILING_OVER,
    Reason.FORMING: Phase.FORMING,
    Reason.REBALANCING: Phase.REBALANCING,
    Reason.SLOT_OPEN: Phase.REBALANCING,
    Reason.CONFIGURING: Phase.READY,
    Reason.REBALANCE_WANTED: Phase.READY,
    Reason.SHRINKING: Phase.REBALANCING,
    Reason.UPDATING: Phase.UPDATING,
    Reason.SPREADING: Phase.READY,
}


def parts(
    picture: Picture,
    decision: Decision,
    *,
    events: Sequence[Any],
    progress: Any,
    process_ids: Mapping[str, int | None],
    notes: Sequence[str] = (),
) -> StateParts:
    """The parts of the state document, from one pass."""
    phase = _PHASES.get(decision.reason, Phase.WAITING)
    if not decision.healthy and phase is Phase.WAITING:
        phase = Phase.DEGRADED
    if picture.unowned and not picture.observed.formed_before and decision.healthy:
        phase = Phase.FORMING
    return StateParts(
        cluster=picture.spec.name,
        phase=phase,
        reason=decision.reason.value,
        message=decision.sentence,
        healthy=decision.healthy,
        spec=picture.spec.document(),
        shards=[_shard(picture, shard, decision) for shard in picture.shards],
        nodes=[
            _node(picture, shard, node, process_ids.get(node.name))
            for shard in picture.shards
            for node in shard.nodes
        ],
        progress=progress,
        spare_nodes=picture.observed.spare_nodes,
        notes=[*picture.observed.notes, *remarks(picture), *notes],
        events=events,
    )


def _shard(picture: Picture, shard: ShardPicture, decision: Decision) -> ShardPart:
    view = shard.master.view if shard.master is not None else None
    if shard.owner is not None and shard.owner.view is None:
        state = (
            ShardState.FAILING_OVER if decision.reason is Reason.MASTER_LOST else ShardState.LOST
        )
    elif not shard.wanted:
        state = ShardState.DRAINING
    elif shard.slots and view is not None and view.cluster_ok:
        state = ShardState.READY
    else:
        state = ShardState.STARTING
    shard_of = {node.name: node.shard for node in picture.observed.nodes}
    moving: dict[str, list[int]] = {}
    for move in decision.action.moves if isinstance(decision.action, MoveSlots) else ():
        if shard_of[move.source] == shard.name:
            moving.setdefault(shard_of[move.target], []).append(move.slot)
    return ShardPart(
        name=shard.name,
        state=state,
        slots=shard.slots,
        keys=view.keys if view is not None else 0,
        memory_bytes=view.used_memory_bytes if view is not None else 0,
        master=shard.master.name if shard.master is not None else None,
        replicas=tuple(node.name for node in shard.replicas),
        moving_out=tuple((SlotSet.of(slots), taker) for taker, slots in moving.items()),
    )


def _node(
    picture: Picture, shard: ShardPicture, node: ObservedNode, process_id: int | None
) -> NodePart:
    view = node.view
    master_view = shard.master.view if shard.master is not None else None
    replica = view is not None and view.role is Role.REPLICA
    behind = 0
    if replica and view is not None and master_view is not None:
        behind = max(0, master_view.offset - view.offset)
    return NodePart(
        name=node.name,
        shard=node.shard,
        role=view.role.value if view is not None else "unknown",
        health=_health(picture, node),
        host=node.address.host if node.address is not None else None,
        port=node.address.port if node.address is not None else None,
        node_id=picture.ids.get(node.name),
        keys=view.keys if view is not None else 0,
        memory_bytes=view.used_memory_bytes if view is not None else 0,
        offset=view.offset if view is not None else 0,
        lag_bytes=behind,
        link_up=view is not None and view.link_up,
        ops_per_second=view.ops_per_second if view is not None else 0,
        process_id=process_id,
        detail=node.pending or node.trouble,
    )


def _health(picture: Picture, node: ObservedNode) -> NodeHealth:
    if node.view is not None:
        return NodeHealth.UP
    if node.loading:
        return NodeHealth.LOADING
    if node.pending and not node.ended:
        return NodeHealth.PENDING
    known = node.name in picture.ids
    proofs = proofs_of_death(picture, node) if known else ("ended",) * node.ended
    if node.ended or len(proofs) >= PROOFS_NEEDED:
        return NodeHealth.DOWN
    return NodeHealth.UNKNOWN
