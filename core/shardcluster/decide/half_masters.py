"""Masters whose replication still follows another node.

The engine can make a node a master for the cluster and leave its replication as it was (issue 2460
of valkey-io/valkey): it owns slots, refuses every write, and its replicas get no copy.

Law: it has the data, so nobody takes over from one that holds keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Failover, FailoverMode, Reason, ReplaceNode, Wait
from shardcluster.decide.timing import SOON_S

if TYPE_CHECKING:
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["half_masters"]


def half_masters(picture: Picture) -> Decision | None:
    """Give the slots of an empty one to its replica; start one with storage again."""
    for shard in picture.shards:
        if shard.master is not None and shard.master.view is not None and shard.master.view.half:
            return _mend(picture, shard)
    return None


def _mend(picture: Picture, shard: ShardPicture) -> Decision:
    assert shard.master is not None  # the caller has looked
    assert shard.master.view is not None
    name, view = shard.master.name, shard.master.view
    state = f"{name} is a master but refuses writes, for its replication still follows another node"
    empty = [
        node.name
        for node in shard.replicas
        if node.view and node.view.master_id == view.node_id and not node.view.keys
    ]
    if empty and not view.keys:
        return Decision(
            Failover(empty[0], FailoverMode.TAKEOVER),
            Reason.MASTER_LOST,
            f"{state}; it has no key, and {empty[0]} takes over.",
            healthy=False,
        )
    if picture.observed.can_restart and not picture.spec.memory_only:
        return Decision(
            ReplaceNode(name),
            Reason.NODE_RESTARTING,
            f"{state}; it is started again from its disk.",
            healthy=False,
        )
    return Decision(
        Wait(SOON_S),
        Reason.MASTER_UNKNOWN,
        f"{state}, and it can't be started again without losing its {view.keys} keys: copy them,"
        " then end it.",
        healthy=False,
    )
