"""A replica had copied all when its master ended for good, but had not heard what slots that owned.

That takes up to a second after it has joined.  Only a master itself tells of its slots; so the
replica would never lead them, also where the others elect it: it has the keys, and owns nothing.

Law: only where the master's process is proven gone and can bring nothing back (`lost_masters` asks
then), and all others of the shard answer or have ended, too.  The replica becomes master first; it
is given the slots only when all masters agree on which these are, and when it became master after
the lost one's last claim: by the epoch the nodes then believe it, and a node that was deposed long
ago, with old keys, has a lower one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import AddSlots, Decision, Failover, FailoverMode, Reason
from shardcluster.observed import Role

if TYPE_CHECKING:
    from shardcluster.observed import NodeView, ObservedNode
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["unheard_heir"]


def unheard_heir(picture: Picture, shard: ShardPicture, owner: ObservedNode) -> Decision | None:
    """The next step to make it lead, if there is such a replica and nothing is in doubt."""
    if not owner.ended or owner not in shard.nodes:
        return None  # of one whose place another has already, the second step would not be seen
    others = [node for node in shard.nodes if node is not owner]
    if any(node.view is None and not node.ended for node in others):
        return None
    owner_id = picture.ids[owner.name]
    whole = [
        node
        for node in shard.replicas
        if (view := node.view) is not None and view.offset and not view.syncing
    ]
    if whole:
        best = max(whole, key=lambda node: (node.view.offset if node.view else 0, -node.ordinal))
        return _lead(shard, owner, best) if _may_lead(picture, owner_id, best.view) else None
    heirs = [
        node
        for node in others
        if (view := node.view) is not None
        and view.role is Role.MASTER
        and view.keys
        and not view.slots
    ]
    if len(heirs) != 1 or not _may_claim(picture, owner_id, heirs[0].view):
        return None
    slots = picture.owned[owner_id]
    return Decision(
        AddSlots(((heirs[0].name, slots),)),
        Reason.MASTER_LOST,
        f"{owner.name}, the master of {shard.name}, is gone; {heirs[0].name} has its keys and had"
        f" not heard of its {len(slots)} slots: it is given them.",
        healthy=False,
    )


def _lead(shard: ShardPicture, owner: ObservedNode, replica: ObservedNode) -> Decision:
    return Decision(
        Failover(replica.name, FailoverMode.TAKEOVER),
        Reason.MASTER_LOST,
        f"{owner.name}, the master of {shard.name}, is gone; {replica.name} has copied all, but has"
        " not heard what slots it owned: it takes over, and is told then.",
        healthy=False,
    )


def _may_lead(picture: Picture, owner_id: str, replica: NodeView | None) -> bool:
    """Whether it had a whole copy of that master, and knows of no slot of it.

    One that knows some may know them as they were: it would claim what others own now.  And the
    epoch that it takes is above those that it has heard of: the lost one's has to be among them.
    """
    assert replica is not None  # it answers
    claims = [line.config_epoch for line in picture.peer_lines(owner_id)]
    return (
        replica.master_id == owner_id
        and replica.link_down_ms >= 0
        and replica.current_epoch >= max(claims)
        and not _heard(replica, owner_id)
    )


def _heard(view: NodeView, owner_id: str) -> bool:
    return any(peer.node_id == owner_id and peer.slots for peer in view.peers)


def _may_claim(picture: Picture, owner_id: str, heir: NodeView | None) -> bool:
    """Whether the masters agree on the lost one's slots, and will believe the heir."""
    assert heir is not None  # it answers
    views = [node.view for node in picture.answering if node.view is not None and node.view.slots]
    lines = [
        next((peer for peer in view.peers if peer.node_id == owner_id), None) for view in views
    ]
    return not _heard(heir, owner_id) and all(
        line is not None
        and line.slots == picture.owned[owner_id]
        and line.config_epoch < heir.myself.config_epoch
        for line in lines
    )
