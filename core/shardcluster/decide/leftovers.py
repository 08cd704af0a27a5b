"""Keys at a master without slots that others own: what a failover left behind is erased.

A replica that takes over may not have been told yet that keys had left for another shard.  Where
it loses the last slot it keeps such keys, though nobody reaches them, and they would hold up
whatever is to become of the node; if their slot came back, deleted keys would come back with it.
Valkey erases them itself, but only when the node is started again.

Law: nothing is erased unless every slot has an owner that answers and none is open.  A slot was
closed only after its old owner counted no key in it, so the only copies are with the owners.
Engines that don't tell replicas of open slots may have lost sight of one: there people look.
So they do where a master without storage has ended and is back beside its heir, which had not heard
of its slots: it owns them again, and what they held is with the heir alone.  An owner whose
replication goes on from the same history as the heir's has not ended since, and has it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import Decision, DropLeftovers, Reason, Wait
from shardcluster.decide.timing import IDLE_S
from shardcluster.decide.views import outsiders
from shardcluster.observed import Role

if TYPE_CHECKING:
    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture

__all__ = ["leftovers"]


def leftovers(picture: Picture) -> Decision | None:
    """The first master without slots that holds keys, when they are surely nobody's."""
    holders = [
        (node, view.keys)
        for node in picture.answering
        if (view := node.view) is not None
        and view.role is Role.MASTER
        and view.keys
        and not view.slots
    ]
    if not holders or not _all_is_told(picture):
        return None
    outside = {node.name for node in outsiders(picture)}  # what they hold is their affair
    hold: Decision | None = None
    for node, keys in holders:
        if node.name in outside:
            continue
        shard = picture.shard(node.shard)
        owner = shard.owner if shard is not None else None
        if picture.spec.memory_only and owner is not None and not _served_on(owner, node):
            hold = hold or Decision(
                Wait(IDLE_S),
                Reason.LEFTOVERS,
                f"{node.name} owns no slot but holds {keys} keys, which {owner.name} may have"
                f" lost, for there is no storage: look at both; FLUSHALL on {node.name} lets it"
                " follow again.",
                healthy=False,
            )
            continue
        return Decision(
            DropLeftovers(node.name),
            Reason.LEFTOVERS,
            f"{node.name} owns no slot but holds {keys} keys of slots that others own since before"
            " it took over: they are erased there.",
        )
    return hold


def _served_on(owner: ObservedNode, heir: ObservedNode) -> bool:
    """Whether the owner's process still has the data that the heir once copied or followed."""
    assert owner.view is not None  # every owner answers here
    assert heir.view is not None
    owners, heirs = ({view.history, view.history_before} - {""} for view in (owner.view, heir.view))
    return not owners.isdisjoint(heirs)


def _all_is_told(picture: Picture) -> bool:
    """Whether nothing is open, unowned or contested, and every owner speaks for itself."""
    views = [node.view for node in picture.answering if node.view is not None]
    return (
        picture.observed.formed_before
        and not picture.unowned
        and not picture.contested
        and picture.owned.keys() <= {view.node_id for view in views}
        and all(view.keeps_open_slots for view in views)
        and not any(view.migrating or view.importing for view in views)
    )
