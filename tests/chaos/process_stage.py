"""A store of processes as a campaign's stage: `make chaos TIER=process`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.history import Outcome
from tests.chaos.look import why_not_owned
from tests.chaos.process_failovers import failovers
from tests.chaos.process_faults import ProcessBefaller
from tests.chaos.process_nemesis import BLOCK, FAULTS, WISHES, process_schedule
from tests.chaos.process_store import ProcessStore
from tests.chaos.reach import now_ms
from tests.chaos.readout import Reading, read_once, read_out
from tests.chaos.rounds import CannotStart, Tier
from tests.chaos.writers import FIRST_NUMBER, Writers, delete_keys, keys_of, write_ballast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.chaos.befaller import Befaller
    from tests.chaos.history import Operation, Readout
    from tests.chaos.nemesis import Schedule
    from tests.chaos.taken import Takeover
    from tests.chaos.writers import Written

__all__ = ["PROCESS_TIER"]

BALLAST_KEYS = 4_000  # written once: a move takes a second, and old data can be missed
START_BOUND_MS = 90_000
CALM_BOUND_MS = 90_000  # after the last fault; the machine may be busy with other things
POLL_S = 0.05
# A node hangs up to 6 s, a gateway 2.5 s, and its own deadline is 5 s.
LATE_MS = 15_000


@dataclass
class ProcessStage:
    """One store."""

    store: ProcessStore
    ballast: tuple[Operation, ...] = ()
    _numbers: list[int] = field(default_factory=lambda: [FIRST_NUMBER])
    _watcher: asyncio.Task[None] | None = None
    _writers: Writers | None = None
    _writing: asyncio.Task[None] | None = None

    async def set_up(self) -> None:
        """Start it and write the ballast; raises CannotStart."""
        self.store.start_controller()
        self._watcher = asyncio.create_task(self.store.watch())
        if why := await self._formed():
            raise CannotStart(why)
        self.ballast = tuple(await write_ballast(self.store, BALLAST_KEYS))
        if self.ballast[-1].outcome is not Outcome.OK:
            message = f"{self.ballast[-1]}"
            raise CannotStart(message)

    async def _formed(self) -> str:
        while not (self.store.state_folder / "desired.json").exists():
            if not self.store.controller_runs():
                return "shardctl up ended"
            await asyncio.sleep(POLL_S)
        return await self._calm(START_BOUND_MS)

    async def end(self) -> None:
        """End all that runs."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self.store.end()

    async def begin(self, plan: Schedule) -> Befaller:
        """Clients write from now on."""
        keys = keys_of(str(plan.seed))
        self._writers = Writers(self.store, keys, self._numbers)
        self._writing = asyncio.create_task(self._writers.run())
        ballast = tuple(operation.key for operation in self.ballast)
        return ProcessBefaller(keys=keys, ballast=ballast, store=self.store)

    async def end_writing(self) -> tuple[Written, list[Takeover]]:
        """Clients stop."""
        assert self._writers is not None
        assert self._writing is not None
        self._writers.end()
        await self._writing
        return self._writers.written, failovers(self.store)

    async def calm(self) -> str:
        """Wait until the spec is reached."""
        return await self._calm(CALM_BOUND_MS)

    async def _calm(self, bound_ms: int) -> str:
        ends_ms = now_ms() + bound_ms
        while why := await self._why_not():
            if now_ms() > ends_ms:
                return f"not reached in {bound_ms / 1000:.0f} s: {why}"
            await asyncio.sleep(POLL_S)
        return ""

    async def _why_not(self) -> str:
        store = self.store
        store.state = store.state if store.controller_runs() else {}
        return _why_not_calm(store) or why_not_owned(await store.look())

    async def read_out(self, keys: Sequence[str], sentence: str) -> Readout:
        """What stands there."""

        async def once() -> Reading:
            leads = {shard["master"] for shard in self.store.state.get("shards", ())}
            return await read_once(self.store, await self.store.look(), keys, leads)

        return await read_out(once, keys, sentence)

    async def forget(self, keys: Sequence[str]) -> None:
        """Delete them."""
        await delete_keys(self.store, keys)

    async def keep(self, folder: Path) -> None:
        """The state and all logs."""
        (folder / "state.json").write_text(json.dumps(self.store.state, indent=1))
        self.store.keep_logs(folder)


def _why_not_calm(store: ProcessStore) -> str:
    """What the state lacks of what the spec asks for; empty when it is reached."""
    state = store.state
    if not store.controller_runs() or not state:
        return "the controller does not run"
    wanted = store.desired()
    spec = wanted["spec"]
    nodes, shards = state["nodes"], state["shards"]
    said = f"{state['reason']}: {state['message']}"
    if state["spec"] != wanted:
        return f"the state shows another spec than the stored one; {said}"
    if state["reason"] != "Idle" or not state["healthy"]:
        return said
    if len(shards) != spec["shards"] or not all(shard["slots"] for shard in shards):
        return f"{len(shards)} shards; {said}"
    if len(nodes) != spec["shards"] * (1 + spec["replicasPerShard"]):
        return f"{len(nodes)} nodes; {said}"
    if not all(node["health"] == "Up" and node["link_up"] for node in nodes):
        return f"not all nodes are up; {said}"
    return ""


@contextlib.asynccontextmanager
async def _stage(plan: Schedule) -> AsyncIterator[ProcessStage]:
    with tempfile.TemporaryDirectory(prefix="shardcluster-chaos-") as name:
        stage = ProcessStage(ProcessStore(Path(name), storage=plan.world.storage))
        try:
            await stage.set_up()
            yield stage
        finally:
            await stage.end()


PROCESS_TIER = Tier(
    name="process",
    faults=FAULTS,
    wishes=WISHES,
    schedule=process_schedule,
    block=BLOCK,
    stage=_stage,
    late_ms=LATE_MS,
)
