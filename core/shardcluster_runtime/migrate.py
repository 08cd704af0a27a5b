"""Move slots between live masters: pipelined, throttled, resumable at any point.

Law: `shardcluster.migration` holds the order of steps and the gate before a slot changes hands.
Nothing is remembered between calls; a slot found open in the right direction, half moved, or taken
over already is finished, and a finished move run again changes nothing.

Why MIGRATE … REPLACE: while a slot is open the source's copy of a key is the one clients get.  The
target makes a key only for clients that were sent on because the source did *not* have it.  Both
have it only when a MIGRATE was cut off after the target stored and before the source deleted, and
then the source's is as new or newer.  The exception is a source whose replica was promoted before
it heard of a deletion: the target's copy may then hold a write of the moment (a replication lag)
before the failover, the source's all writes since; clients are served the source's, so it wins.
When the target owned the slot before this run, clients are served *there* and REPLACE is not used.

Why no node gives and takes in the same slice, whatever is asked for: taking a slot raises a node's
epoch.  A source whose epoch rises after a target took a slot from it, and before it has heard of
that, claims the slot with the higher epoch; the target believes it and deletes the keys, which
nobody else has.

Speed: the slots of one (source, target) pair go through each step together, as one write and one
round of answers, 128 at a time, two such groups overlapping; all those pairs at once.  With a limit
on keys/s what clients feel counts instead: one small MIGRATE at a time in each source's queue,
because the engine runs a client's queued commands in one go and answers nobody meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardcluster.decide.moves import one_way
from shardcluster_runtime.migrate_node import (
    LANES_OF_SOURCE,
    LANES_OF_TARGET,
    LanePool,
    MigrationNode,
    NodeTrouble,
    Peer,
)
from shardcluster_runtime.migrate_pair import PairMover
from shardcluster_runtime.migrate_state import OVERTIME_S, BigKey, MigrateOptions, Pace, SliceState
from shardcluster_runtime.throttle import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shardcluster.actions import Move

__all__ = [
    "BigKey", "LanePool", "MigrateOptions", "Pace", "Peer", "SliceResult", "move_slots",
]  # fmt: skip

HANG_S = 1.0  # past a slice's overtime a node that has not answered is not waited for
STOP_GRACE_S = 0.01  # after `stop`: for answers that are on their way
OTHERS_TOLD_MAX = 16  # masters told of each slot besides the two; more learn it by gossip alone


@dataclass
class SliceResult:
    """What one call moved, and what it did not."""

    moved_slots: tuple[int, ...] = ()
    moved_keys: int = 0
    stopped: str = ""  # a sentence why it ended before its time
    big_keys: tuple[BigKey, ...] = ()
    seconds: float = 0.0
    failures: tuple[tuple[int, str], ...] = field(default=())  # (slot, sentence)


async def move_slots(
    moves: Sequence[Move],
    masters: Mapping[str, Peer],
    *,
    lanes: LanePool,
    stop: asyncio.Event,
    pace: Pace,
) -> SliceResult:
    """Move as many of `moves`, in order, as `pace` allows; see the module for the rest.

    `masters`, by name, are the ends of the moves and those to be told who owns a moved slot.
    `stop` ends it within milliseconds and leaves slots open; so does a node that is lost or hangs
    (its slots only).
    """
    loop = asyncio.get_running_loop()
    options = pace.options
    if pace.keys_per_second:
        options = options.throttled(pace.keys_per_second)
    began_s = loop.time()
    state = SliceState(
        options=options,
        bucket=TokenBucket(pace.keys_per_second, options.batch_keys, began_s),
        ends_s=began_s + pace.budget_s,
        lanes=lanes,
    )
    nodes = {
        name: MigrationNode(peer, max(1, options.migrates_in_flight // options.migrates_per_turn))
        for name, peer in masters.items()
    }
    queues = _queues(moves, nodes, state)
    work = asyncio.create_task(_work(queues, nodes, state))
    stopper = asyncio.create_task(stop.wait())
    try:
        await _until_over(work, stopper, nodes, state)
        if not work.done():
            state.stopping = True
            why = "Stopped because a node's connection ended."
            state.stopped = state.stopped or (why if stopper.done() else "A node hangs.")
            await asyncio.wait({work}, timeout=STOP_GRACE_S)
    finally:
        stopper.cancel()
        work.cancel()
        await asyncio.wait({work, stopper})
        state.close()
        for node in nodes.values():
            node.give_up()
    if not work.cancelled():
        work.result()  # a bug in the workers must be heard
    return SliceResult(
        moved_slots=tuple(state.moved_slots),
        moved_keys=state.moved_keys,
        stopped=state.stopped,
        big_keys=tuple(state.big_keys),
        seconds=loop.time() - began_s,
        failures=tuple(sorted(state.failures.items())),
    )


async def _until_over(
    work: asyncio.Task[None],
    stopper: asyncio.Task[bool],
    nodes: Mapping[str, MigrationNode],
    state: SliceState,
) -> None:
    """The work's end, a stop, or the time when whoever has not answered hangs."""
    loop = asyncio.get_running_loop()
    left_s = 1.0
    while not (work.done() or stopper.done()) and left_s > 0:
        # The loop has other things to look at; only a big key may take longer.
        held_up_s = max((node.held_up_until_s for node in nodes.values()), default=0.0)
        left_s = max(state.ends_s + OVERTIME_S, held_up_s) + HANG_S - loop.time()
        await asyncio.wait(
            {work, stopper}, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED
        )


def _queues(
    moves: Sequence[Move], nodes: Mapping[str, MigrationNode], state: SliceState
) -> dict[tuple[str, str], deque[int]]:
    """The slots of each pair, in the order of `moves`; those that make no sense fail."""
    sound = []
    for move in moves:
        unknown = [name for name in (move.source, move.target) if name not in nodes]
        if unknown:
            state.failures[move.slot] = f"There is no connection to {unknown[0]}."
        elif move.source == move.target:
            state.failures[move.slot] = f"{move.source} is the source and the target."
        else:
            sound.append(move)
    queues: dict[tuple[str, str], deque[int]] = {}
    for move in one_way(sound):
        queues.setdefault((move.source, move.target), deque()).append(move.slot)
    return queues


async def _work(
    queues: Mapping[tuple[str, str], deque[int]],
    nodes: Mapping[str, MigrationNode],
    state: SliceState,
) -> None:
    ends = sorted({name for pair in queues for name in pair})
    targets = {target for _, target in queues}
    ready = await asyncio.gather(
        *(
            _prepared(nodes[name], LANES_OF_TARGET if name in targets else LANES_OF_SOURCE, state)
            for name in ends
        )
    )
    broken = {name for name, fine in zip(ends, ready, strict=True) if not fine}
    others = await _to_be_told(sorted(nodes.keys() - broken), nodes, state)
    movers = []
    for (source, target), queue in queues.items():
        if {source, target} & broken:
            continue
        told = [node for node in others if node.name not in {source, target}]
        mover = PairMover(nodes[source], nodes[target], told, queue, state)
        movers += [mover] * state.options.groups_per_pair
    state.groups = max(1, len(movers))
    async with asyncio.TaskGroup() as group:
        for mover in movers:
            group.create_task(mover.run())
    await state.told()


async def _prepared(node: MigrationNode, lanes: int, state: SliceState) -> bool:
    try:
        await node.prepare(state.lanes, lanes)
    except NodeTrouble as trouble:
        state.stopped = str(trouble)
        return False
    return True


async def _to_be_told(
    masters: Sequence[str], nodes: Mapping[str, MigrationNode], state: SliceState
) -> list[MigrationNode]:
    """Masters to tell of new owners: those that it costs one write; see `SliceState.tell`."""
    if state.options.gentle or len(masters) > OTHERS_TOLD_MAX:
        return []
    told = []
    for name in masters:
        try:
            if not (await nodes[name].offsets()).connected:
                told.append(nodes[name])
        except NodeTrouble:
            state.silent.add(name)
    return told
