"""GET and SET of small values through one gateway process, beside other doors, in turns."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from tests.bench.gateway.load import KEYS, Measured, in_turns, wrk
from tests.bench.gateway.peers import ordinary_flask, webdis
from tests.bench.local_store import LocalStore, local_store

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fill", "run", "store"]

BASE_PORT = 23_000
RATIO_MIN = 1.2
KEYS_A_SECOND_MIN = 300_000
KEYS_A_REQUEST = 100
CONNECTIONS = (32, 128)
BATCH_CONNECTIONS = 16
FILL_BATCH = 1000


@contextlib.contextmanager
def store() -> Iterator[LocalStore]:
    """Three shards with a replica each, filled."""
    document = {
        "apiVersion": "shardcluster.io/v1alpha1",
        "kind": "ShardCluster",
        "metadata": {"name": "bench"},
        "spec": {"shards": 3, "replicasPerShard": 1},
    }
    with local_store(document, BASE_PORT) as made:
        fill(made)
        yield made


def fill(made: LocalStore) -> None:
    """`KEYS` keys of five bytes."""
    for first in range(0, KEYS, FILL_BATCH):
        operations = [
            {"op": "put", "key": f"key-{number}", "value": "value"}
            for number in range(first, first + FILL_BATCH)
        ]
        body = json.dumps({"operations": operations}).encode()
        status, answer = made.ask("POST", "/v1/batch", body)
        assert status == 200, answer


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    with store() as made, webdis(KEYS) as other:
        node = made.state()["nodes"][0]
        ours = f"http://127.0.0.1:{made.port}"
        rows = []
        with ordinary_flask(f"{node['host']}:{node['port']}") as flask:
            for what in ("get", "set"):
                for connections in CONNECTIONS:
                    doors = {
                        "ours": (ours, what),
                        "webdis": (other, f"webdis-{what}"),
                        "flask": (flask, f"flask-{what}"),
                    }
                    rows += _compared(what.upper(), connections, in_turns(doors, connections))
        rows += [_many(ours, kind) for kind in ("batch", "pipeline", "mget")]
        return rows


def _compared(what: str, connections: int, found: dict[str, Measured]) -> list[dict[str, Any]]:
    ours, webdis_, flask = found["ours"], found["webdis"], found["flask"]
    ratio = ours.rate / webdis_.rate
    measure = f"{what} of 5 bytes, {connections} connections, one process, against Webdis"
    return [
        {
            "measure": measure,
            "value": f"{ratio:.2f}× ({ours.rate:,.0f}/s)",
            "limit": f"≥ {RATIO_MIN}×",
            "ok": ratio >= RATIO_MIN and not ours.failed,
            "detail": f"Webdis {webdis_.rate:,.0f}/s; Flask + redis-py {flask.rate:,.0f}/s;"
            f" {ours.failed} failed",
        },
        {
            "measure": "  its p99",
            "value": f"{ours.p99_ms:.2f} ms",
            "limit": f"≤ {webdis_.p99_ms:.2f} ms (Webdis)",
            "ok": ours.p99_ms <= webdis_.p99_ms,
            "detail": f"p50 {ours.p50_ms:.2f} ms, Webdis {webdis_.p50_ms:.2f} ms;"
            f" Flask + redis-py p99 {flask.p99_ms:.1f} ms",
        },
    ]


def _many(url: str, kind: str) -> dict[str, Any]:
    wrk(url, kind, BATCH_CONNECTIONS, 1)
    found = in_turns({"ours": (url, kind)}, BATCH_CONNECTIONS)["ours"]
    rate = found.rate * KEYS_A_REQUEST
    names = {"batch": "/v1/batch", "pipeline": "/pipeline", "mget": "MGET"}
    return {
        "measure": f"{names[kind]} of {KEYS_A_REQUEST} reads",
        "value": f"{rate:,.0f} keys/s",
        "limit": f"≥ {KEYS_A_SECOND_MIN:,}",
        "ok": rate >= KEYS_A_SECOND_MIN and not found.failed,
        "detail": f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, {found.failed} failed",
    }
