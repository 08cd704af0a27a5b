"""How fast slots move from three shards to a fourth, against `valkey-cli --cluster rebalance`.

Each run gets its own fresh servers with the same keys.  valkey-cli goes first; ours then moves
exactly the slots that it moved, in slices of the length the controller uses; then both again.  The
two rows beside the ratio say what would otherwise be asked: valkey-cli with a larger pipeline, and
ours when every shard has a replica that must have each key and each change of owner.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardcluster.actions import Move
from shardcluster.slots import key_slot
from shardcluster_runtime.migrate import LanePool, Pace, move_slots
from shardcluster_runtime.wire import Credentials
from tests.cluster.mini_cluster import MiniCluster, eventually, mini_cluster, server_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from shardcluster.slots import SlotSet

__all__ = ["run"]

KEYS = 400_000
VALUE_BYTES = 100
OWNERS, MASTERS = 3, 4
LOAD_CHUNK = 20_000
SLICE_S = 1.0
ROUNDS = 2
OURS_PER_ROUND = 2  # shorter runs meet more luck
RATIO_LEAST = 8.0
WIDE_PIPELINE = 100
CLI_DEADLINE_S = 300.0
OPTIONS = ("--appendonly", "no")

Taken = dict[str, "SlotSet"]  # the slots that the new shard got, by the name of who had them


@dataclass
class _Total:
    """Of all runs of one contender."""

    keys: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.keys / sum(self.seconds)

    def __str__(self) -> str:
        return f"{self.rate:,.0f} keys/s in {', '.join(f'{took:.2f}' for took in self.seconds)} s"


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    return asyncio.run(_run())


async def _run() -> list[dict[str, Any]]:
    cli, ours = _Total(), _Total()
    taken: Taken = {}
    for _ in range(ROUNDS):  # in turns, so that both meet the same machine
        taken = await _by_cli((), cli)
        for _ in range(OURS_PER_ROUND):
            await _by_us(taken, ours, replicas=0)
    assert ours.keys == cli.keys * OURS_PER_ROUND, "both moved the same keys"
    wide, with_replicas = _Total(), _Total()
    await _by_cli(("--cluster-pipeline", str(WIDE_PIPELINE)), wide)
    await _by_us(taken, with_replicas, replicas=1)
    slots = sum(len(found) for found in taken.values())
    ratio = ours.rate / cli.rate
    return [
        {
            "measure": f"moving slots {OWNERS}→{MASTERS} shards, {KEYS // 1000}k keys ×"
            f" {VALUE_BYTES} B, against valkey-cli rebalance",
            "value": f"{ratio:.1f}×",
            "limit": f"≥ {RATIO_LEAST:g}×",
            "ok": ratio >= RATIO_LEAST,
            "detail": f"{slots} slots, {cli.keys // ROUNDS} keys a run: {ours} against {cli}",
        },
        {
            "measure": f"  against valkey-cli rebalance --cluster-pipeline {WIDE_PIPELINE}",
            "value": f"{ours.rate / wide.rate:.1f}×",
            "limit": "reported",
            "ok": True,
            "detail": f"{ours} against {wide}",
        },
        {
            "measure": "  the same with a replica in each shard",
            "value": f"{with_replicas.rate:,.0f} keys/s",
            "limit": "reported",
            "ok": True,
            "detail": str(with_replicas),
        },
    ]


@asynccontextmanager
async def _loaded(replicas: int) -> AsyncIterator[MiniCluster]:
    async with mini_cluster(MASTERS, owners=OWNERS, replicas=replicas, options=OPTIONS) as cluster:
        owner = {slot: node for node in cluster.masters for slot in await node.slots()}
        value = b"x" * VALUE_BYTES
        for start in range(0, KEYS, LOAD_CHUNK):
            futures = []
            for index in range(start, start + LOAD_CHUNK):
                key = b"key:%d" % index
                connection = owner[key_slot(key)].connection
                assert connection is not None
                futures.append(connection.send("SET", key, value))
            for future in futures:
                assert await future == b"OK"
        yield cluster


async def _by_cli(options: tuple[str, ...], total: _Total) -> Taken:
    """Which slots it took from whom; keys and seconds go into `total`."""
    async with _loaded(0) as cluster:
        before = {node.name: await node.slots() for node in cluster.masters}
        began_s = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            server_binary("valkey-cli"), "--cluster", "rebalance",
            f"127.0.0.1:{cluster.masters[0].port}", "--cluster-use-empty-masters",
            "--cluster-threshold", "1", *options,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        code = await asyncio.wait_for(process.wait(), CLI_DEADLINE_S)
        took_s = time.perf_counter() - began_s
        assert code == 0, f"valkey-cli ended with {code}"
        await eventually(cluster.one_owner_each, "valkey-cli's move is agreed on")
        got = await cluster.masters[-1].slots()
        taken = {name: slots & got for name, slots in before.items() if slots & got}
        total.keys += await cluster.masters[-1].call("DBSIZE")
        total.seconds.append(took_s)
        return taken


async def _by_us(taken: Mapping[str, SlotSet], total: _Total, *, replicas: int) -> None:
    """Move the slots that valkey-cli took; keys and seconds go into `total`."""
    async with _loaded(replicas) as cluster:
        target = cluster.masters[-1]
        moves = [Move(slot, name, target.name) for name, slots in taken.items() for slot in slots]
        moves.sort(key=lambda move: move.slot)
        peers = {node.name: node.peer() for node in cluster.masters}
        began_s = time.perf_counter()
        rest = moves
        lanes = LanePool(Credentials())
        while rest:
            result = await move_slots(
                rest,
                peers,
                lanes=lanes,
                stop=asyncio.Event(),
                pace=Pace(SLICE_S),
            )
            assert result.moved_slots, result.stopped or result.failures
            done = set(result.moved_slots)
            rest = [move for move in rest if move.slot not in done]
        took_s = time.perf_counter() - began_s
        lanes.close()
        await eventually(cluster.one_owner_each, "our move is agreed on")
        assert set(await target.slots()) == {move.slot for move in moves}
        total.keys += await target.call("DBSIZE")
        total.seconds.append(took_s)


if __name__ == "__main__":
    for row in run():
        print(row)
