"""The right nodes, started and following the right masters.

Law: a place is asked for before it is needed, a process is started again only after the question
who leads its shard is settled, and a node that holds data nobody asked it to hold is not turned
into a replica.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import (
    Decision,
    Reason,
    ReplaceNode,
    Replicate,
    RestartNode,
    ScaleShard,
    Wait,
)
from shardcluster.decide.timing import SOON_S
from shardcluster.observed import Role

if TYPE_CHECKING:
    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["ended_nodes", "missing_nodes", "replicas"]


def ended_nodes(picture: Picture) -> Decision | None:
    """Start an ended node again, unless its shard's slots are its (then `lost_masters` decides).

    One that owns a few beside the shard's new master, who had not heard of them, has to bring
    them home: it keeps its id.
    """
    if not picture.observed.can_restart:
        return None
    if stuck := next((n for n in picture.observed.nodes if n.pending and n.outdated), None):
        return Decision(
            ReplaceNode(stuck.name),
            Reason.UPDATING,
            f"{stuck.name} could not be started ({stuck.pending}) and is made anew in the present"
            " form.",
            healthy=False,
        )
    hold: Decision | None = None
    for shard in picture.shards:
        silent = [
            node.name
            for node in shard.nodes
            if node.view is None and not node.ended and not node.pending
        ]
        for node in shard.nodes:
            if not node.ended or node.pending or node is shard.owner:
                continue  # where the platform can't start it, asking again is no help
            if node.emptied and _nobody_knows(picture) and (others := _others_first(shard, node)):
                hold = hold or others
                continue
            if picture.spec.memory_only and silent and _nobody_knows(picture):
                # Nobody can tell who the master is; if it's this one, it would come back empty
                # and the others would copy the emptiness.
                hold = hold or Decision(
                    Wait(SOON_S),
                    Reason.MASTER_UNKNOWN,
                    f"Nobody answers; {node.name} has no storage, so it is not started again while"
                    f" {', '.join(silent)} may still hold the data of {shard.name}.",
                    healthy=False,
                )
                continue
            # Without storage its old id would come back with nothing behind it; with the whole
            # store down (nobody answers) the old ids still carry the slots and are kept.
            owns = picture.ids.get(node.name) in picture.owned
            fresh = picture.spec.memory_only and not (_nobody_knows(picture) or owns)
            return Decision(
                RestartNode(node.name, fresh=fresh),
                Reason.NODE_RESTARTING,
                f"{node.name} ended and is started again."
                if node.name in picture.ids
                else f"{node.name} is being started.",
                healthy=False,
            )
    return hold


def _others_first(shard: ShardPicture, node: ObservedNode) -> Decision | None:
    """A node whose disk is gone waits for the shard's others: they know whether it was the master.

    It comes back as another one, empty, where the old one was; replicas of that would copy it.
    """
    away = [other.name for other in shard.nodes if other.view is None and not other.emptied]
    if not away:
        return None
    return Decision(
        Wait(SOON_S),
        Reason.MASTER_UNKNOWN,
        f"{node.name} has lost its disk; it is not started again before {', '.join(away)} can tell"
        f" whether it led {shard.name}.",
        healthy=False,
    )


def _nobody_knows(picture: Picture) -> bool:
    """Whether an ended node may lead its shard without anybody who answers knowing it.

    So it is when nobody answers, and when those who do have just joined (more nodes are started,
    or old ones anew, while others are out of reach): then slots seem to have no owner.
    """
    formed = picture.observed.formed_before
    return not picture.answering or (formed and bool(picture.unowned))


def missing_nodes(picture: Picture) -> Decision | None:
    """Ask for the places that the spec wants and the platform has not."""
    count = 1 + picture.spec.replicas_per_shard
    hold: Decision | None = None
    for name in picture.spec.wanted_shards():
        shard = picture.shard(name)
        have = len(shard.nodes) if shard is not None else 0
        if have < count:
            spare = picture.observed.spare_nodes
            if spare is None or spare > 0:
                return Decision(
                    ScaleShard(name, count),
                    Reason.NODES_STARTING,
                    f"Starting {count - have} nodes for {name}.",
                )
            hold = hold or Decision(
                Wait(SOON_S),
                Reason.NODE_PENDING,
                f"{name} needs {count - have} more nodes and no spare node is there: start one"
                " more.",
                healthy=False,
            )
        else:
            assert shard is not None  # it has all its nodes
            hold = hold or _pending(picture, shard)
    return hold


def _pending(picture: Picture, shard: ShardPicture) -> Decision | None:
    for node in shard.nodes:
        if node.pending and not picture.leaving(node):
            return Decision(
                Wait(SOON_S), Reason.NODE_PENDING, f"{node.name}: {node.pending}", healthy=False
            )
    return None


def replicas(picture: Picture) -> Decision | None:
    """Let every other node of a shard follow its master."""
    hold: Decision | None = None
    for shard in picture.shards:
        if shard.master is None or shard.master.view is None:
            continue
        master_id = shard.master.view.node_id
        for node in shard.nodes:
            if node is shard.master or node.view is None or node.view.master_id == master_id:
                continue
            if picture.leaving(node):
                continue  # `shrink` lets it go; it was reset, perhaps, and must not come back
            decision = _follow(shard, node, shard.master)
            if decision is not None and not isinstance(decision.action, Wait):
                return decision
            hold = hold or decision
    return hold


def _follow(shard: ShardPicture, node: ObservedNode, master: ObservedNode) -> Decision | None:
    view, master_view = node.view, master.view
    assert view is not None
    assert master_view is not None
    if view.slots:
        return None  # a second master of the shard: `moves` brings its slots home first
    if not any(
        peer.node_id == master_view.node_id and not peer.flags & {"handshake", "noaddr"}
        for peer in view.peers
    ):
        return Decision(
            Wait(SOON_S),
            Reason.MEETING,
            f"{node.name} has yet to hear of {master.name}, the master of {shard.name}.",
        )
    if view.role is Role.MASTER and view.keys:
        return Decision(
            Wait(SOON_S),
            Reason.FOREIGN_NODE,
            f"{node.name} owns no slot but holds {view.keys} keys: it is not made a replica, which"
            " would erase them. Look at them, then FLUSHALL there.",
            healthy=False,
        )
    return Decision(
        Replicate(node.name, master.name, master_view.node_id),
        Reason.REPLICA_JOINING,
        f"{node.name} becomes a replica of {master.name}.",
    )
