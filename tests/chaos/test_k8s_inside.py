"""The program that runs in the cluster, on a store of real processes."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

from tests.chaos.history import Kind, Outcome
from tests.chaos.k8s_documents import reading_of, seen_of, whereabouts, written_of
from tests.chaos.k8s_inside import Inside
from tests.chaos.process_nemesis import BLOCK, process_schedule
from tests.chaos.process_stage import PROCESS_TIER, ProcessStage

if TYPE_CHECKING:
    from collections.abc import Callable

IN_MEMORY = BLOCK  # a seed
OLD = [f"register-ballast-{number}" for number in range(1, 21)]
DEADLINE_S = 60.0


async def _until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.05)


async def test_clients_and_eyes_inside_a_cluster() -> None:
    """They write through all doors, see a master replaced, and read everything back."""
    async with PROCESS_TIER.stage(process_schedule(IN_MEMORY)) as stage:
        assert isinstance(stage, ProcessStage)
        store, inside = stage.store, Inside(None)
        where = whereabouts(store.gateway, {node.name: node.address for node in store.nodes()})
        seen = [seen_of(node) for node in (await inside.look(where))["nodes"]]
        assert {node.name for node in seen} == {node.name for node in store.nodes()}
        keys = ["register-inside", "counter-inside", "list-inside"]
        await inside.begin({"keys": keys})
        written = inside._writers.written if inside._writers is not None else None
        assert written is not None
        await _until(lambda: len(written.operations) > 60)

        master = next(node for node in seen if node.is_master and node.slots)
        (record,) = (node for node in store.nodes() if node.name == master.name)
        store.signal_node(record, signal.SIGKILL)
        await _until(lambda: inside.watch.takeovers)
        assert {one.shard for one in inside.watch.takeovers} == {master.shard}

        found, takeovers = written_of(json.loads(json.dumps(await inside.end({}))), 0)
        (takeover,) = takeovers
        assert takeover.since_ms < takeover.until_ms
        answered = [one for one in found.operations if one.outcome is Outcome.OK]
        assert {one.kind for one in answered} >= {Kind.SET, Kind.INCREMENT, Kind.APPEND, Kind.READ}
        assert found.through_gateway
        assert not await stage.calm()

        leads = [shard["master"] for shard in store.state["shards"]]
        reading = reading_of(await inside.read({"keys": [*keys, *OLD], "leads": leads}))
        assert not reading.differs
        assert reading.values[OLD[0]] == 1
        counted = [one for one in answered if one.kind is Kind.INCREMENT]
        assert reading.values["counter-inside"] in range(len(counted) - 4, len(counted) + 9)
        await inside.forget({"keys": keys})
        views = await inside.views({})
        assert all("myself" in views[node.name] for node in store.nodes())
