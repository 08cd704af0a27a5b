"""Without storage a master ends in the moment in which its replica has its first copy.

The replica has not heard yet, as a rule, which slots its master owned; nobody else has the keys.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import redis

from shardcluster.observed import Address
from shardcluster_runtime.wire import ConnectionLost, NodeReplyError, ask_once
from tests.cluster.stores import Store, document, running_store, until

if TYPE_CHECKING:
    from pathlib import Path

KEYS = 1000
DEADLINE_S = 30.0
POLL_S = 0.001


async def _until_told(port: int, *command: str, words: tuple[bytes, ...]) -> None:
    """Wait until the node's answer has them all."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                told = await ask_once(Address("127.0.0.1", port), *command, timeout_s=DEADLINE_S)
            except (OSError, ConnectionLost, NodeReplyError):
                told = b""
            if all(word in told for word in words):
                return
            await asyncio.sleep(POLL_S)


def _missing(store: Store) -> list[int]:
    with redis.RedisCluster(host="127.0.0.1", port=store.master_port("shard-0")) as client:
        return [number for number in range(KEYS) if client.get(f"key:{number}") is None]


async def test_a_master_that_ends_as_its_replica_has_joined_costs_nothing(
    free_folder: Path, base_port: int
) -> None:
    """Twice, so that each of the two is both; the replica leads and is given the slots."""
    doc = document(failover={"nodeTimeoutMs": 1000})
    del doc["spec"]["storage"]

    def pid(name: str) -> int:
        record: dict[str, Any] = json.loads(
            (free_folder / "nodes" / name / "node.json").read_text()
        )
        number: int = record["pid"]
        return number

    async with running_store(free_folder, base_port, doc) as store:
        await store.calm(3)
        with redis.RedisCluster(host="127.0.0.1", port=store.master_port("shard-0")) as client:
            for number in range(KEYS):
                client.set(f"key:{number}", number)
        for _ in range(2):
            state = await store.calm(3)
            master = store.shard("shard-1")["master"]
            (replica,) = [
                node for node in state["nodes"]
                if node["shard"] == "shard-1" and node["name"] != master
            ]  # fmt: skip
            of_master = pid(master)
            os.kill(pid(replica["name"]), signal.SIGKILL)
            copied = (b"master_link_status:up", b"master_sync_in_progress:0")
            await _until_told(replica["port"], "INFO", "replication", words=copied)
            os.kill(of_master, signal.SIGKILL)
            await until(
                lambda name=replica["name"]: store.shard("shard-1")["master"] == name,  # type: ignore[misc]
                "the failover",
            )
            await store.calm(3)
            # The client below asks one node, which has to hear first who owns the slots now.
            port, whole = store.master_port("shard-0"), (b"cluster_slots_assigned:16384",)
            await _until_told(port, "CLUSTER", "INFO", words=whole)
            assert _missing(store) == []
