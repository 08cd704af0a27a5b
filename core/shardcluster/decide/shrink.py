"""Take out what the spec wants no more: emptied shards, replicas over the number.

Law: the last thing done, and only with nodes that own no slot and, as masters, hold no key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Failover, FailoverMode, Reason, Release, Wait
from shardcluster.decide.timing import SOON_S

if TYPE_CHECKING:
    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["shrink"]


def shrink(picture: Picture) -> Decision | None:
    """The first shard or surplus node to let go."""
    for shard in picture.shards:
        if not shard.wanted:
            if not shard.slots:
                return _release_shard(picture, shard)
        else:
            surplus = tuple(
                node for node in shard.nodes if node.ordinal > picture.spec.replicas_per_shard
            )
            if surplus:
                return _release_surplus(picture, shard, surplus)
    return None


def _release_shard(picture: Picture, shard: ShardPicture) -> Decision:
    if shard.master is not None and shard.master.view is not None and shard.master.view.keys:
        return Decision(
            Wait(SOON_S),
            Reason.SHRINKING,
            f"{shard.master.name} owns no slot but holds {shard.master.view.keys} keys:"
            f" {shard.name} is kept until they are gone.",
            healthy=False,
        )
    return _release(
        picture, shard, shard.nodes, 0, f"{shard.name} is empty and is taken out of the store."
    )


def _release_surplus(
    picture: Picture, shard: ShardPicture, surplus: tuple[ObservedNode, ...]
) -> Decision | None:
    if shard.master is None or shard.master.view is None:
        return None
    if shard.master in surplus:
        heirs = [
            node
            for node in shard.replicas
            if node not in surplus
            and node.view is not None
            and node.view.link_up
            and not node.view.syncing
        ]
        if not heirs:
            return Decision(
                Wait(SOON_S),
                Reason.SHRINKING,
                f"{shard.master.name} is one too many and the master: waiting for a replica in"
                " step to hand over to.",
            )
        return Decision(
            Failover(heirs[0].name, FailoverMode.GRACEFUL),
            Reason.SHRINKING,
            f"{shard.master.name} is one too many and hands over to {heirs[0].name}.",
        )
    names = ", ".join(node.name for node in surplus)
    return _release(
        picture, shard, surplus, len(shard.nodes) - len(surplus), f"{names} is taken out."
    )


def _release(
    picture: Picture,
    shard: ShardPicture,
    nodes: tuple[ObservedNode, ...],
    keep: int,
    sentence: str,
) -> Decision:
    ids = tuple(picture.ids[node.name] for node in nodes if node.name in picture.ids)
    return Decision(
        Release(shard.name, tuple(node.name for node in nodes), ids, keep),
        Reason.SHRINKING,
        sentence,
    )
