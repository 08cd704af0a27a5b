"""Actions on the paper cluster, with the engine's meaning, in sub-steps that can be cut short.

`steps` is a generator: each `yield` is a line after which the controller may be killed.  What the
engine or the executor would refuse ends the action; what would destroy data if the executor did not
look first raises `PaperViolation`, for `decide` must not even ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster import actions
from shardcluster.actions import FailoverMode
from shardcluster.observed import Role
from shardcluster.slots import SlotSet
from tests.scenarios.paper_checks import effective_slots
from tests.scenarios.paper_node import PaperNode, Process, slot_of_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.paper import PaperCluster

__all__ = [
    "STEPWISE_SLOTS", "PaperViolation", "apply", "apply_partly", "move_at_once",
    "retarget_open_slots", "steps",
]  # fmt: skip

STEPWISE_SLOTS = 16  # the end of a slice is done step by step, the rest before at once


class PaperViolation(AssertionError):
    """The action would have harmed the store."""


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise PaperViolation(otherwise)


def apply(cluster: PaperCluster, action: actions.Action) -> None:
    """Do the whole action, and let the nodes hear of it."""
    for _ in steps(cluster, action):
        pass
    cluster.tick(10)


def apply_partly(cluster: PaperCluster, action: actions.Action, sub_steps: int) -> bool:
    """Do only the first sub-steps; returns whether there were that many."""
    walk = steps(cluster, action)
    return all(next(walk, None) is not None for _ in range(sub_steps))


def steps(cluster: PaperCluster, action: actions.Action) -> Iterator[str]:
    """The sub-steps of one action, done one by one; each yields its name."""
    match action:
        case actions.Wait(seconds):
            cluster.tick(max(int(seconds * 1000), 100))
        case actions.MoveSlots():
            yield from _move(cluster, action)
        case actions.ScaleShard(shard, count):
            yield from _scale(cluster, shard, count)
        case actions.Release():
            yield from _release(cluster, action)
        case actions.Failover():
            yield from _failover(cluster, action)
        case actions.RestartNode(name, fresh):
            cluster.begin(name, fresh=fresh)
            yield "started"
        case actions.Fence(name):
            _require(cluster.can_fence, "this platform can't fence")
            if cluster.nodes[name].process is not Process.ENDED:
                cluster.end(name)
            yield "fenced"
        case actions.MarkFormed():
            cluster.formed_before = True
            yield "marked"
        case actions.MarkRebalanced():
            cluster.rebalance_asked = False
            yield "marked"
        case _:
            yield from _commands(cluster, action)


def _commands(cluster: PaperCluster, action: actions.Action) -> Iterator[str]:
    match action:
        case actions.Introduce(hub, names):
            for name in names:
                cluster.nodes[hub].handshakes.add(cluster.nodes[name].address)
                yield f"met {name}"
        case actions.Forget(node_ids):
            yield from _forget(cluster, node_ids, leaving=())
        case actions.ResetNode(name):
            _reset(cluster, cluster.nodes[name])
            yield "reset"
        case actions.AddSlots(gifts):
            yield from _add_slots(cluster, gifts)
        case actions.Replicate(name, _, master_id):
            _replicate(cluster, cluster.nodes[name], master_id)
            yield "follows"
        case actions.DropLeftovers(name):
            node = cluster.nodes[name]
            _require(not (node.slots or node.importing), f"{name} owns or imports slots: erased")
            node.wipe()
            yield "erased"
        case actions.StabilizeSlot(name, slots):
            for slot in slots:
                cluster.nodes[name].migrating.pop(slot, None)
                cluster.nodes[name].importing.pop(slot, None)
            yield "stable"
        case actions.CloseEmptyImports(slot, names):
            yield from _close_empty_imports(cluster, slot, names)
        case actions.Configure(name, settings):
            cluster.nodes[name].config.update(settings)
            yield "set"
        case _:
            raise TypeError(action)


def _close_empty_imports(cluster: PaperCluster, slot: int, names: tuple[str, ...]) -> Iterator[str]:
    nodes = [cluster.nodes[name] for name in names]
    empty = [node for node in nodes if slot not in map(slot_of_key, node.keys)]
    if len(empty) < len(nodes) - 1:
        return  # the executor leaves it alone
    for node in empty:
        node.importing.pop(slot, None)
    yield "closed"


def _refuse_loss(node: PaperNode, what: str) -> None:
    holds = node.role is Role.MASTER and (node.slots or node.keys)
    said = f"{node.name} holds {len(node.slots)} slots and {len(node.keys)} keys: {what}"
    _require(not holds, said)


def _reset(cluster: PaperCluster, node: PaperNode) -> None:
    _refuse_loss(node, "reset")
    node.node_id = cluster.new_id()
    node.role, node.master_id, node.slots, node.epoch = Role.MASTER, None, SlotSet(), 0
    node.wipe()
    for kept in (node.lines, node.migrating, node.importing, node.handshakes,
                 node.banned, node.replaced):  # fmt: skip
        kept.clear()
    node.offset, node.syncing, node.link_up = 0, False, True


def _replicate(cluster: PaperCluster, node: PaperNode, master_id: str) -> None:
    _refuse_loss(node, "made a replica")
    master = cluster.by_id(master_id)
    if master is None or master_id not in node.lines or master.role is not Role.MASTER:
        return  # "Unknown node", "I can only replicate a master"
    if node.master_id != master_id:
        node.become_replica(master_id)


def _add_slots(cluster: PaperCluster, gifts: tuple[tuple[str, SlotSet], ...]) -> Iterator[str]:
    for name, slots in gifts:
        for other in cluster.nodes.values():
            # What a node without storage had is gone with its process, and its id with it.
            gone = other.process is Process.ENDED and (other.emptied or not cluster.storage)
            owned = SlotSet() if gone else other.slots & slots
            _require(not owned, f"{other.name} owns {owned} given to {name}")
        node = cluster.nodes[name]
        if node.running and node.role is Role.MASTER:
            node.slots |= slots
            node.epoch = node.epoch or cluster.next_epoch(node)
        yield f"gave {name}"


def _forget(
    cluster: PaperCluster, node_ids: tuple[str, ...], leaving: tuple[str, ...]
) -> Iterator[str]:
    for node in cluster.running():
        if node.name in leaving or not node.listed or not cluster.answers(node):
            continue
        for node_id in node_ids:
            if node_id == node.master_id:
                return  # "Can't forget my master!"
            node.lines.pop(node_id, None)
            node.banned[node_id] = cluster.now_ms + 60_000
        yield f"{node.name} forgot"


def _scale(cluster: PaperCluster, shard: str, count: int) -> Iterator[str]:
    for name, node in list(cluster.nodes.items()):
        if node.shard == shard and node.listed and node.ordinal >= count:
            # A node that was replaced while it was silent may still believe that it owns slots.
            owned = effective_slots(cluster).get(name)
            _require(not owned, f"{name} owns {owned}: taken away")
            del cluster.nodes[name]
            cluster.remembered.pop(name, None)
            cluster.led.pop(name, None)
            if cluster.spare_nodes is not None:
                cluster.spare_nodes += 1
            yield f"dropped {name}"
    for ordinal in range(count):
        name = f"{shard}-{ordinal}"
        if name not in cluster.nodes and cluster.spare_nodes != 0:
            cluster.start_node(name)
            if cluster.spare_nodes is not None:
                cluster.spare_nodes -= 1
            yield f"started {name}"


def _release(cluster: PaperCluster, action: actions.Release) -> Iterator[str]:
    present = [cluster.nodes[name] for name in action.nodes if cluster.answers(cluster.nodes[name])]
    present.sort(key=lambda node: node.role is Role.MASTER)
    for node in present:
        _reset(cluster, node)
        yield f"reset {node.name}"
    yield from _forget(cluster, action.node_ids, leaving=action.nodes)
    yield from _scale(cluster, action.shard, action.keep)


def _failover(cluster: PaperCluster, action: actions.Failover) -> Iterator[str]:
    heir = cluster.nodes[action.node]
    master = cluster.by_id(heir.master_id)
    if not heir.running or heir.role is not Role.REPLICA:
        return
    if action.mode is FailoverMode.GRACEFUL:
        if master is None or not master.running or not heir.link_up:
            return
        _promote(cluster, heir)
        master.become_replica(heir.node_id)
    elif action.mode is FailoverMode.FORCE and _vote(cluster, heir):
        _promote(cluster, heir)
    elif action.mode is FailoverMode.TAKEOVER or action.takeover_if_refused:
        dead = master is None or master.process is Process.ENDED
        _require(dead, f"{heir.name} takes over from a master that is alive")
        _promote(cluster, heir)
    yield "became master"


def _vote(cluster: PaperCluster, heir: PaperNode) -> bool:
    owners = [node for node in cluster.nodes.values() if node.slots]
    votes = sum(cluster.connected(heir, node) for node in owners)
    return votes * 2 > len(owners)


def _promote(cluster: PaperCluster, heir: PaperNode) -> None:
    old_id = heir.master_id
    assert old_id is not None
    heir.slots = heir.lines[old_id].slots
    heir.role, heir.master_id = Role.MASTER, None
    heir.epoch = cluster.next_epoch(heir)
    heir.replaced.add(old_id)
    heir.link_up = True
    retarget_open_slots(cluster, heir, old_id)


def retarget_open_slots(cluster: PaperCluster, heir: PaperNode, old_id: str) -> None:
    """What becomes of open slots when a replica takes its master's place."""
    if not cluster.replicas_know_open_slots:
        heir.migrating.clear()
        heir.importing.clear()
    elif cluster.by_id(old_id) is not None:
        # Newer engines also tell the other end of an open slot whom it talks with now.
        for node in cluster.running():
            for book in (node.migrating, node.importing):
                for slot in [slot for slot, other in book.items() if other == old_id]:
                    book[slot] = heir.node_id


def _move(cluster: PaperCluster, action: actions.MoveSlots) -> Iterator[str]:
    """The six steps; all but the last few slots of a slice go through at once."""
    slice_moves = action.moves[: cluster.slice_slots]
    head, tail = slice_moves[:-STEPWISE_SLOTS], slice_moves[-STEPWISE_SLOTS:]
    ways: dict[tuple[str, str], list[actions.Move]] = {}
    for move in head:
        ways.setdefault((move.source, move.target), []).append(move)
    for moves in ways.values():
        move_at_once(cluster, moves)
    cluster.tick(100)
    for number, step in enumerate(_STEPS):
        yield f"before step {number}"
        for move in tail:
            step(cluster, move)


def move_at_once(cluster: PaperCluster, moves: list[actions.Move]) -> None:
    """Slots of one source and target, all steps."""
    ends = _ends(cluster, moves[0])
    if ends is None:
        return
    source, target = ends
    slots = SlotSet.of(move.slot for move in moves) & source.slots
    for slot in slots:
        cluster.moved[slot] = cluster.moved.get(slot, 0) + 1
        target.importing.pop(slot, None)
        source.migrating.pop(slot, None)
    moving = {key for key in source.keys | target.keys if slot_of_key(key) in slots}
    cluster.hand_over(source, target, moving)
    source.slots -= slots
    target.slots |= slots
    target.epoch = cluster.next_epoch(target)


def _ends(cluster: PaperCluster, move: actions.Move) -> tuple[PaperNode, PaperNode] | None:
    source, target = cluster.nodes[move.source], cluster.nodes[move.target]
    good = cluster.answers(source) and cluster.answers(target)
    masters = source.role is Role.MASTER and target.role is Role.MASTER
    return (source, target) if good and masters else None


def _import(cluster: PaperCluster, move: actions.Move) -> None:
    if (ends := _ends(cluster, move)) and move.slot in ends[0].slots:
        ends[1].importing[move.slot] = ends[0].node_id


def _migrate(cluster: PaperCluster, move: actions.Move) -> None:
    if (ends := _ends(cluster, move)) and move.slot in ends[1].importing:
        ends[0].migrating[move.slot] = ends[1].node_id


def _opened(cluster: PaperCluster, move: actions.Move) -> tuple[PaperNode, PaperNode] | None:
    """Both ends, when both have opened the slot: only then may its keys go."""
    ends = _ends(cluster, move)
    if ends is None or move.slot not in ends[1].importing:
        return None
    return ends if ends[0].migrating.get(move.slot) == ends[1].node_id else None


def _copy_keys(cluster: PaperCluster, move: actions.Move, number: int) -> None:
    if ends := _opened(cluster, move):
        source, target = ends
        moving = {key for key in source.keys_in(move.slot) if key % 2 <= number}
        cluster.hand_over(source, target, moving)


def _copy_first(cluster: PaperCluster, move: actions.Move) -> None:
    _copy_keys(cluster, move, 0)


def _copy_rest(cluster: PaperCluster, move: actions.Move) -> None:
    _copy_keys(cluster, move, 1)


def _own_at_target(cluster: PaperCluster, move: actions.Move) -> None:
    if ends := _opened(cluster, move):
        source, target = ends
        # The fourth step: the source is asked.
        if cluster.counted_zero(source, move.slot) and cluster.replicated(target):
            target.slots |= SlotSet.of([move.slot])
            target.epoch = cluster.next_epoch(target)
            target.importing.pop(move.slot)
            cluster.moved[move.slot] = cluster.moved.get(move.slot, 0) + 1
            if cluster.replicas_know_open_slots:  # they agree before the target answers
                for node in cluster.running():
                    if node.master_id == target.node_id:
                        cluster.hear(node, target)


def _disown_at_source(cluster: PaperCluster, move: actions.Move) -> None:
    source, target = cluster.nodes[move.source], cluster.nodes[move.target]
    if source.running and move.slot in source.slots and move.slot in target.slots:
        source.slots -= SlotSet.of([move.slot])
        source.migrating.pop(move.slot, None)
        cluster.hear(source, target)


def _tell_the_others(cluster: PaperCluster, move: actions.Move) -> None:
    for node in cluster.running():
        cluster.hear(node, cluster.nodes[move.target])


_STEPS = (
    _import, _migrate, _copy_first, _copy_rest, _own_at_target, _disown_at_source, _tell_the_others
)  # fmt: skip
