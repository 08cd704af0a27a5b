"""A store under steady load, a fault every 20 s: `python -m tests.chaos.soak [--seconds 1800]`.

The load is wrk's, at 70 % of what the gateway took right before, nine GETs to one PUT.  Meanwhile
the process tier's rounds go on, whose clients and checker say whether anything is lost.  The
gateway and the controller are hung, but not killed: their memory and open files are to stay flat.

Writes build/soak.json and build/soak.svg; the exit code is 1 when a line is missed.  Needs wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.table import show
from tests.chaos.http_once import Http
from tests.chaos.nemesis import Fault, Schedule, World
from tests.chaos.process_nemesis import FAULTS, LASTS
from tests.chaos.process_stage import PROCESS_TIER, ProcessStage
from tests.chaos.rounds import campaign
from tests.chaos.soak_judge import judged
from tests.chaos.soak_plot import plot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import psutil

    from shardcluster.observed import Address
    from tests.chaos.process_store import ProcessStore
    from tests.chaos.rounds import RoundReport, Stage

SECONDS = 1_800
FAULTS_A_ROUND, EVERY_MS, FIRST_MS = 3, 20_000, 5_000
KILL_WATCHED = frozenset({"kill gateway", "controller dies"})
KEYS = 20_000
FILL_BATCH, FILL_TIMEOUT_S = 1_000, 30.0
CONNECTIONS = 64
SHARE = 0.7
LIMIT_S, LIMIT_RUNS = 5, 3
WINDOW_S = 10
RESULT, PICTURE = Path("build/soak.json"), Path("build/soak.svg")
SCRIPT = Path(__file__).with_name("soak.lua")
MIB = 1024 * 1024


def schedules(seed: int, rounds: int) -> Iterator[Schedule]:
    """Each of three faults, 20 s apart; the same store for all."""
    kinds = {kind: weight for kind, weight in FAULTS.items() if kind not in KILL_WATCHED}
    for number in range(seed, seed + rounds):
        chance = random.Random(f"soak-{number}")
        chosen = chance.choices(list(kinds), list(kinds.values()), k=FAULTS_A_ROUND)
        faults = tuple(
            Fault(
                FIRST_MS + index * EVERY_MS,
                kind,
                round(chance.random(), 6),
                chance.randint(*LASTS.get(kind, (0, 0))),
            )
            for index, kind in enumerate(chosen)
        )
        world = World(shards=3, replicas=1, storage=True, replicas_know_open_slots=True)
        yield Schedule(number, world, faults)


def _wrk(url: str, pause_ms: float, seconds: int) -> dict[str, Any]:
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), url,
         "--", str(KEYS), str(pause_ms)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


async def _fill(address: Address) -> None:
    http = Http(address)
    for first in range(0, KEYS, FILL_BATCH):
        operations = [
            {"op": "put", "key": f"soak-{number}", "value": "value"}
            for number in range(first, first + FILL_BATCH)
        ]
        body = json.dumps({"operations": operations}).encode()
        status, answer = await http.ask("POST", "/v1/batch", body, timeout_s=FILL_TIMEOUT_S)
        assert status == HTTPStatus.OK, answer
        assert json.loads(answer)["failed"] == 0, answer
    http.close()


def _about(process: psutil.Process) -> dict[str, float]:
    with process.oneshot():
        return {"mib": process.memory_info().rss / MIB, "files": process.num_fds()}


@dataclass
class Load:
    """What loads the store, and what is seen of it, window by window."""

    store: ProcessStore
    began_s: float = 0.0
    limit: float = 0.0  # requests/s
    pause_ms: float = 0.0
    windows: list[dict[str, Any]] = field(default_factory=list)
    _ending: bool = False
    _running: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Find the limit, then go on at a part of it."""
        url = f"http://{self.store.gateway}"
        await _fill(self.store.gateway)
        runs = [await asyncio.to_thread(_wrk, url, 0, LIMIT_S) for _ in range(LIMIT_RUNS)]
        best = max(runs, key=lambda run: run["requests"] / run["seconds"])
        self.limit = best["requests"] / best["seconds"]
        # A connection's turn is a request and a pause; the request takes its median, more or less.
        self.pause_ms = CONNECTIONS / (SHARE * self.limit) * 1_000 - best["p50_ms"] / 2
        self.began_s = time.monotonic()
        self._running = asyncio.create_task(self._go_on(url))

    async def _go_on(self, url: str) -> None:
        while not self._ending:
            at_s = time.monotonic() - self.began_s
            found = await asyncio.to_thread(_wrk, url, self.pause_ms, WINDOW_S)
            # The load is steady by what it does, whatever a request takes by now.
            rate = found["requests"] / found["seconds"]
            if not found["failed"]:
                self.pause_ms += (1 / (SHARE * self.limit) - 1 / rate) * CONNECTIONS * 1_000 / 2
                self.pause_ms = max(0.0, self.pause_ms)
            self.windows.append({**found, "at_s": at_s, "rate": rate, **self._processes()})

    def _processes(self) -> dict[str, Any]:
        return {name: _about(one) for name, one in self.store.processes().items()}

    async def end(self) -> dict[str, Any]:
        """The last window; then what the processes hold with nobody there."""
        self._ending = True
        if self._running is not None:
            await self._running
        return self._processes()


async def _soak(seed: int, rounds: int) -> dict[str, Any]:
    """What was seen."""
    loads: list[Load] = []
    faults: list[dict[str, Any]] = []
    broken: list[str] = []

    @contextlib.asynccontextmanager
    async def loaded(plan: Schedule) -> AsyncIterator[Stage]:
        async with PROCESS_TIER.stage(plan) as stage:
            assert isinstance(stage, ProcessStage)
            load = Load(stage.store)
            loads.append(load)
            await load.begin()
            try:
                yield stage
            finally:
                await load.end()

    def on_report(report: RoundReport) -> bool:
        ended_s = time.monotonic() - loads[-1].began_s
        for fault in report.schedule.faults:
            at_s = ended_s - report.seconds + fault.at_ms / 1_000
            faults.append({"at_s": at_s, "kind": fault.kind})
        broken.extend(str(violation) for violation in report.violations)
        sys.stdout.write(f"seed {report.schedule.seed}: {len(broken)} broken, {ended_s:.0f} s\n")
        sys.stdout.flush()
        return not broken

    tier = dataclasses.replace(PROCESS_TIER, block=seed + rounds + 1, stage=loaded)
    await campaign(tier, schedules(seed, rounds), on_report)
    load = loads[0]
    return {
        "seed": seed, "limit": load.limit, "share": SHARE, "windows": load.windows,
        "faults": faults, "broken": broken,
    }  # fmt: skip


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="tests.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rounds = max(1, options.seconds * 1_000 // (FAULTS_A_ROUND * EVERY_MS))
    seen = asyncio.run(_soak(options.seed, rounds))
    rows = judged(seen)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**seen, "rows": rows}, indent=1) + "\n")
    PICTURE.write_text(plot(seen))
    show(rows)
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
