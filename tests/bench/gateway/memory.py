"""The gateway's memory over ten million requests: flat."""

from __future__ import annotations

import itertools
import os
from typing import Any

from tests.bench.gateway.idle_connections import gateway_of
from tests.bench.gateway.load import wrk
from tests.bench.gateway.speed import store

__all__ = ["run"]

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "10000000"))
SETTLED_SHARE = 10  # the first one in so many warms up: caches fill, the allocator takes its share
GROWTH_MAX_MIB = 8
CONNECTIONS = 64
ROUND_S = 10
KINDS = ("get", "set", "get", "pipeline")
MIB = 1024 * 1024


def run() -> list[dict[str, Any]]:
    """The row of the table."""
    with store() as made:
        url = f"http://127.0.0.1:{made.port}"
        gateway = gateway_of(made.port)
        done, failed = 0, 0
        samples: list[tuple[int, float]] = []
        for kind in itertools.cycle(KINDS):
            found = wrk(url, kind, CONNECTIONS, ROUND_S)
            done += int(found.rate * ROUND_S)
            failed += found.failed
            samples.append((done, gateway.memory_info().rss / MIB))
            if done >= REQUESTS and len(samples) > len(KINDS):
                break
    settled = next(mib for count, mib in samples if count >= REQUESTS / SETTLED_SHARE)
    most = max(mib for count, mib in samples if count >= REQUESTS / SETTLED_SHARE)
    return [
        {
            "measure": f"memory over {done / 1e6:.1f} million requests",
            "value": f"{most - settled:+.1f} MiB",
            "limit": f"≤ {GROWTH_MAX_MIB} MiB",
            "ok": most - settled <= GROWTH_MAX_MIB and not failed,
            "detail": f"{settled:.1f} MiB after the first tenth, {samples[-1][1]:.1f} at the end;"
            f" {failed} failed",
        }
    ]
