"""Broken views: nodes that don't know each other, know old addresses, or know strangers.

Law: a node is introduced only when it is blank or already one of this cluster (it knows the hub,
or the hub knows its id): two clusters that each hold something are never merged.  A stranger that
owns slots stops everything but mending; one without slots that has failed is forgotten.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Forget, Introduce, Reason, ResetNode, Wait
from shardcluster.decide.timing import SOON_S

if TYPE_CHECKING:
    from shardcluster.observed import NodeView, ObservedNode, PeerView
    from shardcluster.picture import Picture

__all__ = ["disagreeing", "foreign_nodes", "introductions", "outsiders", "remarks",
    "strangers",
]  # fmt: skip


def disagreeing(picture: Picture) -> Decision | None:
    """Wait while two answering nodes claim the same slot: the engine settles it by epoch."""
    if not picture.contested:
        return None
    return Decision(
        Wait(SOON_S),
        Reason.VIEWS_DISAGREE,
        f"Two nodes claim slots {_short(str(picture.contested))}; waiting until they agree.",
        healthy=False,
    )


class _Past(enum.Enum):
    """What an outsider brings along."""

    BLANK = enum.auto()  # holds nothing, knows nobody
    OURS = enum.auto()  # knows one of our nodes by id: cut off, or half introduced
    LEFTOVERS = enum.auto()  # empty, and remembers nodes of an earlier life
    FOREIGN = enum.auto()  # holds data of another cluster


def _past(picture: Picture, view: NodeView) -> _Past:
    others = [peer for peer in view.peers if not peer.flags & {"myself", "handshake"}]
    if any(peer.node_id in picture.names for peer in others):
        return _Past.OURS
    # An empty node whose friends own slots is one of theirs only while it is connected to them.
    if view.slots or view.keys or any(peer.slots and peer.link_up for peer in others):
        return _Past.FOREIGN
    return _Past.LEFTOVERS if others else _Past.BLANK


def outsiders(picture: Picture) -> list[ObservedNode]:
    """Answering nodes that neither know the hub nor are known by it."""
    hub = picture.hub
    if hub is None or hub.view is None:
        return []
    known_by_hub = {peer.node_id for peer in hub.view.peers if "handshake" not in peer.flags}
    found = []
    for node in picture.answering:
        view = node.view
        assert view is not None
        if view.node_id in known_by_hub:
            continue
        if not any(peer.node_id == hub.view.node_id for peer in view.peers):
            found.append(node)
    return found


def foreign_nodes(picture: Picture) -> Decision | None:
    """Nodes with another cluster's past: leftovers are wiped off, data is respected."""
    hold: Decision | None = None
    for node in outsiders(picture):
        view = node.view
        assert view is not None
        past = _past(picture, view)
        if past is _Past.LEFTOVERS:
            return Decision(
                ResetNode(node.name),
                Reason.FOREIGN_NODE,
                f"{node.name} is empty but remembers nodes of an earlier life: it is reset.",
            )
        if past is _Past.FOREIGN:
            hold = hold or Decision(
                Wait(SOON_S), Reason.FOREIGN_NODE, _foreign(picture, node.name, view), healthy=False
            )
    return hold


def _foreign(picture: Picture, name: str, view: NodeView) -> str:
    holds = f"{name} holds {view.keys} keys and {len(view.slots)} slots"
    served = any(picture.ids[node.name] in picture.owned for node in picture.answering)
    if view.slots and picture.observed.formed_before and not served:
        return (
            f"{holds} and no other node serves any: it may be this store's own, and all that knew"
            " it are gone. Look at it; if it is, let it CLUSTER MEET the others."
        )
    return (
        f"{holds} of another cluster: it is not taken in. Empty it, or give another node in its"
        " place."
    )


def introductions(picture: Picture) -> Decision | None:
    """Let the hub meet every answering node that it doesn't know at its present address."""
    hub = picture.hub
    if hub is None or hub.view is None:
        return None
    silent = any(node.view is None for node in picture.observed.nodes)
    if silent and picture.observed.formed_before and not picture.owned:
        return None  # new nodes among themselves would be another cluster than the store's
    outside = {node.name for node in outsiders(picture)}
    lines = {peer.node_id: peer for peer in hub.view.peers}
    unmet = []
    for node in picture.answering:
        view = node.view
        assert view is not None
        if node is hub:
            continue
        line = lines.get(view.node_id)
        if line is None or _stale(line, node):
            welcome = {_Past.BLANK, _Past.OURS}
            if picture.leaving(node) and not _only_leader(picture, node):
                welcome = {_Past.OURS}  # a blank one was let go already
            if node.name not in outside or _past(picture, view) in welcome:
                unmet.append(node)
    if not unmet:
        return None
    greeted = {peer.address for peer in hub.view.peers if "handshake" in peer.flags}
    names = [node.name for node in unmet if node.address not in greeted]
    if not names:
        waiting = ", ".join(node.name for node in unmet)
        return Decision(
            Wait(SOON_S),
            Reason.MEETING,
            f"{hub.name} and {waiting} are getting to know each other.",
        )
    return Decision(
        Introduce(hub.name, tuple(names)), Reason.MEETING, f"{hub.name} meets {', '.join(names)}."
    )


def _only_leader(picture: Picture, node: ObservedNode) -> bool:
    """Whether a shard that is wanted has no other master, and all of it answers.

    So it is when the leader of a shard without slots lost its disk while it was one too many: the
    replica that shall stay can't lead before it has somebody to take over from.
    """
    shard = picture.shard(node.shard)
    return (
        shard is not None
        and shard.wanted
        and shard.master is node
        and all(other.view is not None for other in shard.nodes)
    )


def _stale(line: PeerView, node: ObservedNode) -> bool:
    return "noaddr" in line.flags or line.address != node.address or "handshake" in line.flags


def strangers(picture: Picture) -> Decision | None:
    """Ids in the nodes' views that are none of the platform's nodes."""
    gone: dict[str, None] = {}
    trusted: set[str] = set()
    lines = _stranger_lines(picture)
    for peer in lines:
        if peer.node_id in picture.owned:
            return _stranger_with_slots(picture, peer)
        if peer.flags & {"fail", "noaddr"} or _replaced(picture, peer):
            gone[peer.node_id] = None
        elif "fail?" not in peer.flags:
            trusted.add(peer.node_id)
    # After a `Forget` that was cut short too few know it to agree that it failed.
    gone |= {peer.node_id: None for peer in lines if peer.node_id not in trusted}
    for node in picture.answering:
        # FORGET closes slots that are open towards it; `moves` finds out first where they shall go.
        for entry in (*node.view.migrating, *node.view.importing) if node.view is not None else ():
            gone.pop(entry.other_id, None)
        # Its followers refuse to forget it; `nodes.replicas` gives them another master first.
        if node.view is not None and node.view.master_id is not None:
            gone.pop(node.view.master_id, None)
    if gone:
        return Decision(
            Forget(tuple(sorted(gone))),
            Reason.FORGETTING,
            f"Forgetting {len(gone)} nodes that are gone and own nothing.",
        )
    return _owner_without_place(picture)


def _owner_without_place(picture: Picture) -> Decision | None:
    """A hold while an owner of slots may be the node at a place whose id is not known."""
    silent = _without_id(picture)
    owners = [node_id for node_id in picture.owned if node_id not in picture.names]
    if not silent or not owners:
        return None
    return Decision(
        Wait(SOON_S),
        Reason.STRANGER,
        f"The node {owners[0][:8]} owns {len(picture.owned[owners[0]])} slots and may be"
        f" {' or '.join(silent[:3])}: nothing is moved until that answers.",
        healthy=False,
    )


def _stranger_lines(picture: Picture) -> list[PeerView]:
    """What answering nodes say of ids that are not ours; none while one of ours has no known id.

    A place whose id is unknown (silent, or never seen by this controller) may be the very node.
    """
    if _without_id(picture):
        return []
    outside = outsiders(picture)  # whom they know is their affair
    return [
        peer
        for node in picture.answering
        if node not in outside
        for peer in (node.view.peers if node.view is not None else ())
        if peer.node_id not in picture.names and "handshake" not in peer.flags
    ]


def _without_id(picture: Picture) -> list[str]:
    return [
        node.name
        for node in picture.observed.nodes
        if node.name not in picture.ids and not node.pending
    ]


def _replaced(picture: Picture, peer: PeerView) -> bool:
    """Whether one of our nodes answers at the stranger's address under another id."""
    return any(node.address == peer.address for node in picture.answering) and not peer.link_up


def _stranger_with_slots(picture: Picture, peer: PeerView) -> Decision:
    slots = picture.owned[peer.node_id]
    # With two owners of slots the other alone can't agree that it failed: who has its place tells.
    gone = bool(peer.flags & {"fail", "noaddr"}) or _replaced(picture, peer)
    if picture.spec.memory_only and gone and _came_back_empty(picture, peer):
        return Decision(
            Forget((peer.node_id,)),
            Reason.SHARD_LOST,
            f"Every node that held {len(slots)} slots is gone and there is no storage:"
            " their data is lost, the slots are given out again.",
            healthy=False,
        )
    return Decision(
        Wait(SOON_S),
        Reason.STRANGER,
        f"The node {peer.node_id[:8]} at {peer.address} owns {len(slots)} slots and is none of"
        " this store's: nothing is moved until it is gone or its slots are.",
        healthy=False,
    )


def _came_back_empty(picture: Picture, lost: PeerView) -> bool:
    """Whether a shard stands there whole, without a slot or a key: the lost one, anew.

    It is wanted, or it has the lost node's place; and nobody is silent who may hold its data.
    """
    if any(node.view is None and not node.pending for node in picture.observed.nodes):
        return False
    return any(
        (shard.wanted or any(node.address == lost.address for node in shard.nodes))
        and not shard.slots
        and all(node.view is not None and not node.view.keys for node in shard.nodes)
        for shard in picture.shards
    )


def remarks(picture: Picture) -> tuple[str, ...]:
    """Sentences about what is odd but harmless, for the status."""
    alive = {
        peer.node_id: peer
        for peer in _stranger_lines(picture)
        if peer.node_id not in picture.owned and not peer.flags & {"fail", "noaddr"}
    }
    return tuple(
        f"The node {peer.node_id[:8]} at {peer.address} is known to the cluster but is none of"
        " this store's; it owns no slots and is left alone."
        for peer in alive.values()
    )


def _short(text: str, length_max: int = 60) -> str:
    return text if len(text) <= length_max else text[: length_max - 1] + "…"
