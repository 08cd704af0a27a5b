"""Nodes that run in yesterday's form (image, resources, start files) are replaced one at a time.

Law: the store is whole before each step: every other node answers, every replica is in step.  In a
shard the replicas go first; then a replica of the new form takes over, so that the old master goes
as a replica and no write is lost.  A node of the *new* form that does not come up stops the rollout
at that one node.  A shard without replicas can only be replaced in place, and not at all when its
data would end with its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Failover, FailoverMode, Reason, ReplaceNode, Wait
from shardcluster.decide.timing import SOON_S

if TYPE_CHECKING:
    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["rollout"]


def rollout(picture: Picture) -> Decision | None:
    """The next outdated node, or what the rollout waits for."""
    outdated = [node for node in picture.observed.nodes if node.outdated]
    if not outdated:
        return None
    if ending := [node.name for node in picture.observed.nodes if node.ending]:
        return Decision(
            Wait(SOON_S),
            Reason.UPDATING,
            f"{_to_update(len(outdated))}; {', '.join(ending[:3])} is ending.",
        )
    unwell = [node for node in picture.observed.nodes if not _well(node)]
    if new := [node.name for node in unwell if not node.outdated]:
        return Decision(
            Wait(SOON_S),
            Reason.UPDATING,
            f"{_to_update(len(outdated))}; waiting for {', '.join(new[:3])} first.",
        )
    if unwell:
        return _replace(unwell[0], len(outdated))
    shard = next(shard for shard in picture.shards if any(node.outdated for node in shard.nodes))
    return _in_shard(picture, shard, len(outdated))


def _well(node: ObservedNode) -> bool:
    return node.view is not None and node.view.link_up and not node.view.syncing


def _in_shard(picture: Picture, shard: ShardPicture, left: int) -> Decision:
    for replica in shard.replicas:
        if replica.outdated:
            return _replace(replica, left)
    master = next(node for node in shard.nodes if node.outdated)
    heir = max(picture.heirs(shard), key=_offset, default=None)
    if shard.replicas and heir is None:
        return Decision(
            Wait(SOON_S),
            Reason.UPDATING,
            f"{master.name} is to be updated; waiting for a replica that it can hand over to.",
        )
    if heir is not None:
        return Decision(
            Failover(heir.name, FailoverMode.GRACEFUL),
            Reason.UPDATING,
            f"{heir.name} takes over from {master.name}, which is to be updated.",
        )
    if picture.spec.memory_only and shard.slots:
        return Decision(
            Wait(SOON_S),
            Reason.UPDATING,
            f"{master.name} can't be updated without losing its data: there is no storage and no"
            " replica. Set replicasPerShard to 1 for the time of the update.",
        )
    return _replace(master, left)


def _offset(node: ObservedNode) -> int:
    assert node.view is not None  # it is among the replicas that answer
    return node.view.offset


def _replace(node: ObservedNode, left: int) -> Decision:
    return Decision(
        ReplaceNode(node.name),
        Reason.UPDATING,
        f"{node.name} is replaced by one of the present form; {left} to update.",
    )


def _to_update(count: int) -> str:
    return "1 node is to be updated" if count == 1 else f"{count} nodes are to be updated"
