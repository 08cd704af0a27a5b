"""From the end of a master to the first write of its shard that the HTTP API accepts."""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import time
from typing import TYPE_CHECKING, Any

from tests.bench.local_store import local_store

if TYPE_CHECKING:
    from tests.bench.local_store import LocalStore

__all__ = ["run"]

KILLS = 50
HANGS = 5
P50_LIMIT_S = 0.25
WORST_LIMIT_S = 1.0
DEADLINE_S = 30.0
NODE_TIMEOUT_MS = 2000
SHARDS = 3
BASE_PORT = 21_000
DOCUMENT = {
    "apiVersion": "shardcluster.io/v1alpha1",
    "kind": "ShardCluster",
    "metadata": {"name": "bench"},
    "spec": {
        "shards": SHARDS,
        "replicasPerShard": 1,
        "storage": {"size": "1Gi"},
        "failover": {"nodeTimeoutMs": NODE_TIMEOUT_MS},
    },
}


def run() -> list[dict[str, Any]]:
    """The rows of the table; takes about two minutes."""
    with local_store(DOCUMENT, BASE_PORT) as store:
        kills = [_outage_s(store, number, signal.SIGKILL) for number in range(KILLS)]
        hangs = [_outage_s(store, number, signal.SIGSTOP) for number in range(HANGS)]
    p50, worst = statistics.median(kills), max(kills)
    return [
        {
            "measure": f"kill -9 of a master → first write through the API, p50 of {KILLS}",
            "value": f"{p50 * 1000:.0f} ms",
            "limit": f"≤ {P50_LIMIT_S * 1000:.0f} ms",
            "ok": p50 <= P50_LIMIT_S,
            "detail": f"least {min(kills) * 1000:.0f} ms",
        },
        {
            "measure": "  the same, worst",
            "value": f"{worst * 1000:.0f} ms",
            "limit": f"≤ {WORST_LIMIT_S * 1000:.0f} ms",
            "ok": worst <= WORST_LIMIT_S,
            "detail": f"p90 {statistics.quantiles(kills, n=10)[-1] * 1000:.0f} ms",
        },
        {
            "measure": f"SIGSTOP of a master (a hang) → first write, p50 of {HANGS}",
            "value": f"{statistics.median(hangs) * 1000:.0f} ms",
            "limit": "reported",
            "ok": True,
            "detail": f"worst {max(hangs) * 1000:.0f} ms, node timeout {NODE_TIMEOUT_MS} ms",
        },
    ]


def _outage_s(store: LocalStore, number: int, how: signal.Signals) -> float:
    state = store.calm(SHARDS)
    shard = state["shards"][number % SHARDS]
    key = store.key_of(shard["name"])
    pid = next(node["process_id"] for node in state["nodes"] if node["name"] == shard["master"])
    began_s = time.monotonic()
    os.kill(pid, how)
    try:
        while not _written(store, key):
            if time.monotonic() - began_s > DEADLINE_S:
                message = f"no write of {shard['name']} was accepted for {DEADLINE_S} s"
                raise TimeoutError(message)
        return time.monotonic() - began_s
    finally:
        if how is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)


def _written(store: LocalStore, key: str) -> bool:
    try:
        status, _ = store.ask("PUT", f"/v1/keys/{key}", b"x")
    except (OSError, http.client.HTTPException):
        return False
    return status < 300


if __name__ == "__main__":
    for row in run():
        print(row)
