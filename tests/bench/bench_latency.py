"""What clients feel while slots move: p99 of GET and SET through the API, before and during."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any

from shardcluster.observed import Address
from shardcluster.slots import key_slot
from shardcluster_runtime.wire import NodeConnection
from tests.bench.local_store import LocalStore, local_store

__all__ = ["run"]

KEYS = 400_000
VALUE = b"x" * 100
REQUESTS_PER_SECOND = int(os.environ.get("BENCH_RATE", "400"))
MAX_KEYS_PER_SECOND = int(os.environ.get("BENCH_MAX_KEYS", "20000"))
WARM_UP_S = 3.0
BEFORE_S = 8.0
FACTOR_LIMIT = 2.0
BASE_PORT = 22_000
DOCUMENT = {
    "apiVersion": "shardcluster.io/v1alpha1",
    "kind": "ShardCluster",
    "metadata": {"name": "bench"},
    "spec": {
        "shards": 3,
        "replicasPerShard": 1,
        "storage": {"size": "1Gi"},
        "rebalance": {"maxKeysPerSecond": MAX_KEYS_PER_SECOND},
    },
}


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    with local_store(DOCUMENT, BASE_PORT) as store:
        asyncio.run(_fill(store))
        load = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.steady_load", str(store.port),
             str(REQUESTS_PER_SECOND)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        time.sleep(WARM_UP_S)
        _say(load, "mark")
        time.sleep(BEFORE_S)
        before = _say(load, "mark")
        began_s = time.monotonic()
        store.ask("POST", "/add_node")
        store.until(lambda state: state["phase"] == "Rebalancing")
        _say(load, "mark")
        moved_from_s = time.monotonic()
        store.calm(4, every_s=0.5)  # the questions cost both ends as much as some requests
        move_s = time.monotonic() - moved_from_s
        during = _say(load, "mark")
        total_s = time.monotonic() - began_s
        lost = _say(load, "end")["lost"]
        load.wait(30)
    factor = during["p99_ms"] / before["p99_ms"]
    failed = before["failed"] + during["failed"]
    first_failures = f"; {during['first_failures']}" if during["failed"] else ""
    return [
        {
            "measure": f"client p99 during the move 3→4, maxKeysPerSecond {MAX_KEYS_PER_SECOND}",
            "value": f"{factor:.2f}×",
            "limit": f"≤ {FACTOR_LIMIT:.0f}×",
            "ok": factor <= FACTOR_LIMIT,
            "detail": f"{before['p99_ms']:.1f} → {during['p99_ms']:.1f} ms at {REQUESTS_PER_SECOND}"
            f" req/s; p50 {before['p50_ms']:.1f} → {during['p50_ms']:.1f}; longest"
            f" {during['max_ms']:.0f} ms; moving took {move_s:.1f} s, all {total_s:.1f} s",
        },
        {
            "measure": "  failed requests and lost acknowledged writes meanwhile",
            "value": f"{failed} and {lost}",
            "limit": "0 and 0",
            "ok": not failed and not lost,
            "detail": f"{during['requests']} requests during the move{first_failures}",
        },
    ]


def _say(load: subprocess.Popen[str], command: str) -> dict[str, Any]:
    assert load.stdin is not None
    assert load.stdout is not None
    load.stdin.write(command + "\n")
    load.stdin.flush()
    answer: dict[str, Any] = json.loads(load.stdout.readline())
    return answer


async def _fill(store: LocalStore) -> None:
    """KEYS keys of 100 B, sent to their masters in big pipelines."""
    state = store.state()
    owner: dict[int, NodeConnection] = {}
    connections = []
    for shard in state["shards"]:
        node = next(node for node in state["nodes"] if node["name"] == shard["master"])
        connection = await NodeConnection.open(Address(node["host"], node["port"]), timeout_s=5)
        connections.append(connection)
        for part in shard["slot_ranges"].split():
            first, _, last = part.partition("-")
            for slot in range(int(first), int(last or first) + 1):
                owner[slot] = connection
    for start in range(0, KEYS, 5000):
        futures = []
        for number in range(start, min(start + 5000, KEYS)):
            key = f"load-{number}".encode()
            futures.append(owner[key_slot(key)].send("SET", key, VALUE))
        for future in futures:
            await future
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    for row in run():
        print(row)
