"""wrk, the load that all front doors get alike; and a fair order of turns."""

from __future__ import annotations

import json
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEYS", "Measured", "in_turns", "wrk"]

KEYS = 100_000
SCRIPT = Path(__file__).with_name("keys.lua")
TURNS = 3
TURN_S = 4
WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of wrk, or the medians of several."""

    rate: float  # requests/s
    p50_ms: float
    p99_ms: float
    failed: int


def wrk(
    url: str, kind: str, connections: int, seconds: int = TURN_S, named: Path | None = None
) -> Measured:
    """Load `url` with one thread; `named` is a file of the keys, else all `KEYS` are asked for.

    Raises CalledProcessError, FileNotFoundError without wrk.
    """
    keys = (str(KEYS),) if named is None else (str(KEYS), str(named))
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url,
         "--", kind, *keys],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    said = json.loads(done.stdout.splitlines()[-1])
    rate = said["requests"] / said["seconds"]
    return Measured(rate, said["p50_ms"], said["p99_ms"], said["failed"])


def in_turns(doors: Mapping[str, tuple[str, str]], connections: int) -> dict[str, Measured]:
    """Each door (url and kind) once a turn, so that all see the same machine; their medians."""
    runs: dict[str, list[Measured]] = {name: [] for name in doors}
    for url, kind in doors.values():
        wrk(url, kind, connections, WARM_UP_S)
    for _ in range(TURNS):
        for name, (url, kind) in doors.items():
            runs[name].append(wrk(url, kind, connections))
    return {
        name: Measured(
            statistics.median(run.rate for run in found),
            statistics.median(run.p50_ms for run in found),
            statistics.median(run.p99_ms for run in found),
            sum(run.failed for run in found),
        )
        for name, found in runs.items()
    }
