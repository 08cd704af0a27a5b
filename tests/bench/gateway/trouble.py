"""What a hung node costs the requests to the others: their p99 before and during, in one run."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SlotSet, key_slot
from tests.bench.gateway.load import KEYS, Measured, wrk
from tests.bench.gateway.speed import store

if TYPE_CHECKING:
    from tests.bench.local_store import LocalStore

__all__ = ["Hung", "measure", "run"]

FACTOR_MAX = 1.5
REPETITIONS = 5
WINDOW_S = 3  # of each figure; the store itself notices the hang after about as long
CONNECTIONS = 32  # to the other shards
STUCK_CONNECTIONS = 32  # of clients that want the hung one


@dataclass(frozen=True, slots=True)
class Hung:
    """Medians of p99 to the other shards, in ms, and requests to them that failed."""

    before_ms: float
    during_ms: float
    failed: int


def measure(made: LocalStore, kind: str) -> Hung:
    """SIGSTOP the first shard's master a few times, with clients that go on to write to it."""
    url = f"http://127.0.0.1:{made.port}"
    before: list[Measured] = []
    during: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        others, its_own = _keys(made, Path(folder))
        for _ in range(REPETITIONS):
            before.append(wrk(url, kind, CONNECTIONS, WINDOW_S, others))
            process_id = _master(made)
            os.kill(process_id, signal.SIGSTOP)
            try:
                stuck = threads.submit(wrk, url, "set", STUCK_CONNECTIONS, WINDOW_S, its_own)
                during.append(wrk(url, kind, CONNECTIONS, WINDOW_S, others))
                stuck.result()
            finally:
                os.kill(process_id, signal.SIGCONT)
            made.calm(3)
    return Hung(
        statistics.median(one.p99_ms for one in before),
        statistics.median(one.p99_ms for one in during),
        sum(one.failed for one in (*before, *during)),
    )


def _keys(made: LocalStore, folder: Path) -> tuple[Path, Path]:
    """Files with the keys of the other shards and with those of the first one."""
    shards = made.state()["shards"]
    its_own = SlotSet.parse(shards[0]["slot_ranges"])
    files = folder / "others", folder / "its_own"
    lines: tuple[list[str], list[str]] = [], []
    for number in range(KEYS):
        key = f"key-{number}"
        lines[key_slot(key.encode()) in its_own].append(key)
    for path, names in zip(files, lines, strict=True):
        path.write_text("\n".join(names) + "\n")
    return files


def _master(made: LocalStore) -> int:
    state = made.state()
    name = state["shards"][0]["master"]
    found: int = next(node["process_id"] for node in state["nodes"] if node["name"] == name)
    return found


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    rows = []
    with store() as made:
        for kind in ("get", "set"):
            found = measure(made, kind)
            factor = found.during_ms / found.before_ms
            rows.append(
                {
                    "measure": f"p99 of {kind.upper()} to other shards while one master hangs",
                    "value": f"{factor:.2f}×",
                    "limit": f"≤ {FACTOR_MAX}×",
                    "ok": factor <= FACTOR_MAX and not found.failed,
                    "detail": f"{found.before_ms:.2f} → {found.during_ms:.2f} ms at {CONNECTIONS}"
                    f" connections, {STUCK_CONNECTIONS} more want the hung one; medians of"
                    f" {REPETITIONS}; {found.failed} failed",
                }
            )
    return rows
