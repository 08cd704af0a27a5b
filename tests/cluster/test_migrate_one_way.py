"""A node never gives and takes slots in the same slice: see `shardcluster_runtime.migrate`.

Found by `make chaos TIER=process SEED=20`: a source whose epoch rose while a target took a slot
from it claimed the slot again, and the target deleted its keys.
"""

from __future__ import annotations

import asyncio

from shardcluster.actions import Move
from shardcluster_runtime.migrate import LanePool, Pace, SliceResult, move_slots
from shardcluster_runtime.wire import Credentials
from tests.cluster.mini_cluster import MiniCluster, eventually, mini_cluster

SLICE = Pace(60.0)
SLOTS = 200


async def _slice(cluster: MiniCluster, moves: list[Move]) -> SliceResult:
    lanes = LanePool(Credentials())
    peers = {node.name: node.peer() for node in cluster.masters}
    try:
        return await move_slots(moves, peers, lanes=lanes, stop=asyncio.Event(), pace=SLICE)
    finally:
        lanes.close()


async def test_who_gives_takes_nothing_in_the_same_slice() -> None:
    """m0 gives to m1; what it gets from m2, and m1 gives to m2, comes in the next ones."""
    async with mini_cluster(3, owners=3) as cluster:
        names = [node.name for node in cluster.masters]
        moves = [
            Move(slot, names[source], names[target])
            for source, target in ((0, 1), (2, 0), (1, 2), (2, 1))
            for slot in list(await cluster.masters[source].slots())[target * SLOTS :][:SLOTS]
        ]
        moved = []
        for _ in range(3):
            result = await _slice(cluster, moves)
            assert not result.failures
            done = {move for move in moves if move.slot in result.moved_slots}
            moved.append({(move.source, move.target) for move in done})
            moves = [move for move in moves if move not in done]
        assert moved == [
            {(names[0], names[1]), (names[2], names[1])},
            {(names[2], names[0])},
            {(names[1], names[2])},
        ]
        await eventually(cluster.one_owner_each, "one owner for each slot, none open")
