"""Take out what the spec wants no more: emptied shards, replicas over the number.

Law: the last thing done, and only with nodes that own no slot and, as masters, hold no key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Failover, FailoverMode, Reason, Release, Wait
from shardcluster.decide.timing import SOON_S
from shardcluster.observed import Role

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
    if kept := _kept_for_keys(shard, shard.nodes if shard.master else shard.replicas):
        return kept
    if under_way := _on_their_way(picture, shard):
        return Decision(
            Wait(SOON_S),
            Reason.SHRINKING,
            f"{under_way} slots are open towards {shard.name}, and keys of them may be there: it is"
            " kept until its master answers.",
            healthy=False,
        )
    return _release(
        picture, shard, shard.nodes, 0, f"{shard.name} is empty and is taken out of the store."
    )


def _kept_for_keys(shard: ShardPicture, nodes: tuple[ObservedNode, ...]) -> Decision | None:
    """A hold while one of the nodes has keys of its own: a replica's are its master's."""
    for node in nodes:
        view = node.view
        if view is None or not view.keys or (shard.master and view.role is Role.REPLICA):
            continue
        return Decision(
            Wait(SOON_S),
            Reason.SHRINKING,
            f"{node.name} owns no slot but holds {view.keys} keys: {shard.name} is kept until they"
            " are gone. Look at them, then FLUSHALL there.",
            healthy=False,
        )
    return None


def _on_their_way(picture: Picture, shard: ShardPicture) -> int:
    """How many slots answering masters have open towards a node of the shard."""
    ids = {picture.ids[node.name] for node in shard.nodes if node.name in picture.ids}
    return sum(
        entry.other_id in ids
        for node in picture.answering
        if node.view is not None and node.view.role is Role.MASTER
        for entry in node.view.migrating
    )


def _release_surplus(
    picture: Picture, shard: ShardPicture, surplus: tuple[ObservedNode, ...]
) -> Decision | None:
    if shard.master is None or shard.master.view is None:
        return None
    for node in surplus:
        if node is not shard.master and picture.ids.get(node.name) in picture.owned:
            return Decision(
                Wait(SOON_S),
                Reason.SHRINKING,
                f"{node.name} is one too many but owns slots: it is kept until they are moved.",
                healthy=False,
            )
    if shard.master in surplus:
        heirs = [node for node in picture.heirs(shard) if node not in surplus]
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
    if kept := _kept_for_keys(shard, tuple(node for node in surplus if node is not shard.master)):
        return kept
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
