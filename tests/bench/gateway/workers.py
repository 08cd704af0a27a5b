"""Two gateway processes against one: the same clients, once all at one, once half at each."""

from __future__ import annotations

import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.bench.gateway.load import TURNS, wrk
from tests.bench.gateway.peers import second_gateway
from tests.bench.gateway.speed import store

if TYPE_CHECKING:
    from tests.bench.gateway.load import Measured

__all__ = ["run"]

CONNECTIONS = 64  # of each of two clients
CORES_MIN = 8  # two clients, two gateways and the nodes of three shards at work
RATIO_MIN = 1.3  # on so many; with fewer they take each other's time


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    cores = os.cpu_count() or 1
    judged = cores >= CORES_MIN
    with store() as made:
        found = json.loads((made.folder / "controller.json").read_text())
        with second_gateway(found["control_url"]) as second:
            return [
                _row(kind, (f"http://127.0.0.1:{made.port}", second), cores, judged=judged)
                for kind in ("get", "set")
            ]


def _row(kind: str, doors: tuple[str, str], cores: int, *, judged: bool) -> dict[str, Any]:
    one: list[float] = []
    both: list[float] = []
    failed = 0
    for url in doors:
        wrk(url, kind, CONNECTIONS, 1)
    for _ in range(TURNS):
        for urls, rates in (((doors[0], doors[0]), one), (doors, both)):
            measured = _together(kind, urls)
            rates.append(sum(each.rate for each in measured))
            failed += sum(each.failed for each in measured)
    of_one, of_both = statistics.median(one), statistics.median(both)
    ratio = of_both / of_one
    return {
        "measure": f"{kind.upper()} through two gateway processes against one",
        "value": f"{ratio:.2f}×",
        "limit": f"≥ {RATIO_MIN}×" if judged else f"none below {CORES_MIN} cores",
        "ok": (ratio >= RATIO_MIN or not judged) and not failed,
        "detail": f"{of_one:,.0f} → {of_both:,.0f}/s on {cores} cores; {failed} failed",
    }


def _together(kind: str, urls: tuple[str, str]) -> list[Measured]:
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda url: wrk(url, kind, CONNECTIONS), urls))
