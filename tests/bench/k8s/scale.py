"""One shard more and one less, with 200,000 keys and writers at work."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from tests.bench.k8s.cluster import Store, load, store, until

__all__ = ["run"]

KEYS, VALUE_BYTES = 200_000, 100
BATCH_KEYS = 1000
PARALLEL = 8
TOTAL_LIMIT_S, MOVING_LIMIT_S = 20.0, 5.0
LOOK_S = 0.25  # the API server and whoever asks it share the machine with what is measured


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    with store("scale") as made:
        asyncio.run(_fill(made.gateway_url()))
        return [_scale(made, 3, 4), _scale(made, 4, 3)]


async def _fill(url: str) -> None:
    value = "x" * VALUE_BYTES
    limit = asyncio.Semaphore(PARALLEL)

    async def batch(session: aiohttp.ClientSession, first: int) -> None:
        operations = [
            {"op": "put", "key": f"key-{number}", "value": value}
            for number in range(first, first + BATCH_KEYS)
        ]
        async with limit, session.post(f"{url}/v1/batch", json={"operations": operations}) as done:
            assert done.status == 200, await done.text()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(batch(session, n) for n in range(0, KEYS, BATCH_KEYS)))


def _scale(made: Store, before: int, after: int) -> dict[str, Any]:
    with load(made) as traffic:
        began_s = time.monotonic()
        made.patch({"shards": after})
        moving_s = _moving_s(made, after)
        took_s = time.monotonic() - began_s
        failed = list(traffic.failed)
    return {
        "measure": f"scale {before} → {after} shards, {KEYS // 1000}k keys × {VALUE_BYTES} B",
        "value": f"{took_s:.1f} s, moving {moving_s:.1f} s, {len(failed)} failed",
        "limit": f"≤ {TOTAL_LIMIT_S:.0f} s, ≤ {MOVING_LIMIT_S:.0f} s, 0",
        "ok": took_s <= TOTAL_LIMIT_S and moving_s <= MOVING_LIMIT_S and not failed,
        "detail": "; ".join(failed[:2]) or f"longest gap {traffic.worst_gap_s * 1000:.0f} ms",
    }


def _moving_s(made: Store, shards: int) -> float:
    """Wait until all is done; how long the status said that slots were moving."""
    seen_s: list[float] = []

    def done() -> bool:
        found = made.read()
        status = found["status"]
        if status.get("progress"):
            seen_s.append(time.monotonic())
        observed = status["observedGeneration"] == found["metadata"]["generation"]
        names = {node["shard"] for node in status["nodes"]}
        return observed and status["reason"] == "Idle" and len(names) == shards

    until(done, f"{shards} shards", poll_s=LOOK_S)
    return seen_s[-1] - seen_s[0] if seen_s else 0.0
