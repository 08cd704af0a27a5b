"""Slots on their way: those found open are finished first, then the ring's plan is carried out.

Law: a slot has one owner at any moment and moves once.  A slot found open (a controller died, a
master was replaced) is finished towards the node that imports it, or that node's shard's present
master: keys that are there already stay reachable.  What can't be told apart is not touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import (
    CloseEmptyImports,
    Decision,
    Move,
    MoveSlots,
    Reason,
    StabilizeSlot,
    Wait,
)
from shardcluster.decide.ownership import owned_by_shard, wanted_ownership
from shardcluster.decide.timing import IDLE_S, SOON_S, TURN_MS
from shardcluster.observed import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture, ShardPicture
    from shardcluster.slots import SlotSet

__all__ = ["one_way", "open_slots", "plan_moves", "planned_moves"]


def open_slots(picture: Picture) -> Decision | None:
    """Finish or close every slot that a master holds in MIGRATING or IMPORTING."""
    importing: dict[int, list[ObservedNode]] = {}
    migrating: dict[int, tuple[ObservedNode, str]] = {}
    for node in picture.answering:
        view = node.view
        assert view is not None
        if view.role is not Role.MASTER:
            continue  # newer engines let replicas know of open slots; the master's word counts
        for entry in view.importing:
            importing.setdefault(entry.slot, []).append(node)
        for entry in view.migrating:
            migrating[entry.slot] = (node, entry.other_id)
    resumed: list[Move] = []
    meaningless: dict[str, list[int]] = {}
    for slot in sorted({*importing, *migrating}):
        found = _open_slot(picture, slot, importing.get(slot, []), migrating.get(slot))
        if isinstance(found, Decision):
            return found
        if isinstance(found, Move):
            resumed.append(found)
        elif found is not None:
            meaningless.setdefault(found, []).append(slot)
    for name, slots in meaningless.items():
        return Decision(
            StabilizeSlot(name, tuple(slots)),
            Reason.SLOT_OPEN,
            f"{name} holds {len(slots)} slots open that go nowhere: closing them.",
        )
    if not resumed:
        return _left_at_replicas(picture)
    open_now = {move.slot for move in resumed}
    planned = planned_moves(picture)
    if planned is not None and isinstance(planned.action, MoveSlots):
        # One that can't be finished (a key too big to move) must not keep the others back.
        resumed += [move for move in planned.action.moves if move.slot not in open_now]
    return Decision(
        MoveSlots(one_way(resumed, _turn(picture)), picture.spec.rebalance.max_keys_per_second),
        Reason.SLOT_OPEN,
        f"Finishing {len(open_now)} slots that were left open.",
    )


def _left_at_replicas(picture: Picture) -> Decision | None:
    """Marks at a replica that its master has not: it would take them for its own once it leads.

    The engine tells replicas first, and the master itself only after they have said yes: one that
    hung meanwhile finds nobody who still waits for it, and leaves it at that.
    """
    for shard in picture.shards:
        if shard.master is None or shard.master.view is None:
            continue
        own = shard.master.view
        known = {entry.slot for entry in (*own.migrating, *own.importing)}
        for node in shard.replicas:
            view = node.view
            assert view is not None  # replicas answer
            left = {entry.slot for entry in (*view.migrating, *view.importing)} - known
            if left and view.link_up and view.master_id == own.node_id:
                return Decision(
                    StabilizeSlot(shard.master.name, tuple(sorted(left))),
                    Reason.SLOT_OPEN,
                    f"{node.name} holds {len(left)} slots open that its master"
                    f" {shard.master.name} does not: closing them.",
                )
    return None


def one_way(moves: Iterable[Move], turn: int = 0) -> tuple[Move, ...]:
    """Those of a slice in which no node both gives and takes; the others' turn comes later.

    A node that takes a slot raises its epoch.  Had it not heard yet that one of its own is another
    node's since a moment ago, it would claim that one anew, and the other would erase its keys.

    In every even turn the first moves decide who gives; in the odd ones each pair of nodes is the
    first once in a while.  Else one that can't be done (a full target, which has to give slots away
    before it has room again) would hold up for ever what goes the other way.
    """
    moves = tuple(moves)
    ways = list(dict.fromkeys((move.source, move.target) for move in moves))
    first = (turn // 2) % len(ways) if turn % 2 and ways else 0
    gives: dict[str, bool] = {}
    chosen = set()
    for source, target in (*ways[first:], *ways[:first]):
        if gives.get(source, True) and not gives.get(target, False):
            gives[source], gives[target] = True, False
            chosen.add((source, target))
    return tuple(move for move in moves if (move.source, move.target) in chosen)


def _turn(picture: Picture) -> int:
    """Whose turn it is: told by the clock, for nothing is remembered."""
    return picture.observed.now_ms // TURN_MS


def _open_slot(
    picture: Picture,
    slot: int,
    importers: list[ObservedNode],
    migrating: tuple[ObservedNode, str] | None,
) -> Move | Decision | str | None:
    """What to do with one: a move, a reason to stop, the node to stabilise it at, or nothing."""
    owner = next((shard for shard in picture.shards if slot in shard.slots), None)
    if len(importers) > 1:
        names = " and ".join(node.name for node in importers)
        return Decision(
            CloseEmptyImports(slot, tuple(node.name for node in importers)),
            Reason.SLOT_CONFLICT,
            f"Slot {slot} is being imported by {names}: it is closed where it has"
            " no keys; with keys on each it waits for people.",
            healthy=False,
        )
    if owner is None or owner.master is None:
        return None  # its owner is silent or unknown: other concerns have said so
    source = _owner_node(owner, slot)
    if source is None:
        return None
    if migrating is not None and migrating[0] is not source:
        return migrating[0].name  # it does not own the slot any more
    if importers:
        target = importers[0]
        return Move(slot, source.name, target.name) if target is not source else target.name
    assert migrating is not None  # the slot is in one of the two
    shard = picture.shard_of_id(migrating[1]) or _shard_at(picture, migrating[1])
    if shard is None or shard.name == owner.name:
        return source.name
    if shard.master is None:
        return None
    return Move(slot, source.name, shard.master.name)


def _shard_at(picture: Picture, gone_id: str) -> ShardPicture | None:
    """The shard whose place a node had that was started anew under another id."""
    at = {line.address for line in picture.peer_lines(gone_id)}
    return next(
        (shard for shard in picture.shards if any(node.address in at for node in shard.nodes)), None
    )


def _owner_node(shard: ShardPicture, slot: int) -> ObservedNode | None:
    return next(
        (node for node in shard.nodes if node.view is not None and slot in node.view.slots), None
    )


def plan_moves(picture: Picture, shards: tuple[str, ...]) -> tuple[Move, ...]:
    """All moves that bring the present ownership to the ring's for `shards`, by slot."""
    owned = owned_by_shard(picture)
    target = wanted_ownership(picture.spec, shards, owned)
    moves: list[Move] = []
    for shard in picture.shards:
        lost = shard.slots - target[shard.name] if shard.name in target else shard.slots
        if lost:
            moves += _moves_of(picture, shard, lost, target)
        moves += _strays(shard, lost)
    return tuple(sorted(moves, key=lambda move: move.slot))


def _moves_of(
    picture: Picture, shard: ShardPicture, lost: SlotSet, target: dict[str, SlotSet]
) -> list[Move]:
    found = []
    for name, wanted in target.items():
        goes = lost & wanted
        taker = picture.shard(name)
        if not goes or taker is None or taker.master is None:
            continue
        for node in shard.nodes:
            if node.view is not None:
                found += [
                    Move(slot, node.name, taker.master.name) for slot in goes & node.view.slots
                ]
    return found


def _strays(shard: ShardPicture, lost: SlotSet) -> list[Move]:
    """Slots that stay in the shard, owned by a second master of it, go home to the first."""
    if shard.master is None:
        return []
    return [
        Move(slot, node.name, shard.master.name)
        for node in shard.nodes
        if node is not shard.master and node.view is not None and node.view.role is Role.MASTER
        for slot in node.view.slots - lost
    ]


def planned_moves(picture: Picture) -> Decision | None:
    """The next slice of the ring's plan, once every wanted shard is ready to take part."""
    spec = picture.spec
    wanted = spec.wanted_shards()
    for name in wanted:
        waiting = _not_ready(picture, name)
        if waiting:
            return Decision(Wait(SOON_S), Reason.NODES_STARTING, waiting)
    moves = plan_moves(picture, wanted)
    if not moves:
        return None
    if spec.rebalance.mode == "manual" and not picture.observed.rebalance_asked:
        return Decision(
            Wait(IDLE_S),
            Reason.REBALANCE_WANTED,
            f"{len(moves)} slots should move; rebalance mode is manual, so ask with /rebalance.",
        )
    return Decision(
        MoveSlots(one_way(moves, _turn(picture)), spec.rebalance.max_keys_per_second),
        Reason.REBALANCING,
        f"Moving {len(moves)} slots: {_summary(moves)}.",
    )


def _not_ready(picture: Picture, name: str) -> str:
    """Why the wanted shard can't take part in moves yet; empty when it can."""
    shard = picture.shard(name)
    if shard is None or shard.master is None or shard.master.view is None:
        return f"{name} has no master yet."
    if not shard.master.view.cluster_ok:
        return f"{shard.master.name} has just joined and does not serve yet."
    if shard.slots:
        return ""
    master_id = shard.master.view.node_id
    for peer_node in picture.answering:
        view = peer_node.view
        assert view is not None
        if picture.leaving(peer_node) and not view.slots:
            continue  # it takes no part; started anew, blank, it isn't introduced to anybody
        line = next((peer for peer in view.peers if peer.node_id == master_id), None)
        if (
            line is None
            or "handshake" in line.flags
            or not ("myself" in line.flags or line.link_up)
        ):
            return f"{peer_node.name} is not yet connected to {shard.master.name}."
    for node in shard.replicas:
        if node.view is not None and not node.view.link_up and not picture.leaving(node):
            return f"{node.name} has not copied {shard.master.name} yet."
    return ""


def _summary(moves: tuple[Move, ...]) -> str:
    pairs: dict[tuple[str, str], int] = {}
    for move in moves:
        pairs[move.source, move.target] = pairs.get((move.source, move.target), 0) + 1
    listed = [f"{source} → {target} {count}" for (source, target), count in pairs.items()]
    more = f" and {len(listed) - 4} more ways" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more
