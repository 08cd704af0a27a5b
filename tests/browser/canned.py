"""Stores that exist on paper: state documents made by our own code, told by a fake controller.

Its masters are fake nodes, so that a hundred shards cost one process and have numbers to show.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from shardcluster.edits import add_shard, remove_shard
from shardcluster.resource_status import plan_of, state_of, status_of
from shardcluster.ring import plan_ownership
from shardcluster.slots import SlotSet
from shardcluster.spec import parse
from shardcluster_runtime.control import Accepted, control_app
from shardcluster_runtime.platforms.protocol import PlatformUnable
from shardcluster_runtime.state import (
    Event,
    NodeHealth,
    NodePart,
    Phase,
    ShardPart,
    ShardState,
    StateParts,
    assemble,
)
from tests.cluster.stores import document
from tests.unit.api_fakes import FakeNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = [
    "CannedController", "canned_state", "fake_masters", "on_kubernetes", "resource_of", "serving",
]  # fmt: skip

Document = dict[str, Any]
NOW = "2026-05-04T12:00:00.000Z"
MEBIBYTE = 1024 * 1024
SLOTS_MOVING = 12


def canned_state(
    shards: int, *, moving: bool = False, weights: Mapping[str, float] | None = None
) -> Document:
    """A calm store of so many shards with a replica each; `moving`: the last one is filling."""
    spec = document(shards)
    if weights:
        spec["spec"]["ring"] = {"weights": dict(weights)}
    names = [f"shard-{number}" for number in range(shards)]
    share = {name: (weights or {}).get(name, 1.0) for name in names}
    owned = plan_ownership(share, {})
    parts, nodes = [], []
    for number, name in enumerate(names):
        leaving = SlotSet.of(list(owned[name])[:SLOTS_MOVING])
        gives = moving and number < min(4, shards - 1)
        parts.append(
            ShardPart(
                name, ShardState.READY, owned[name], 1000 + 37 * number, (8 + number) * MEBIBYTE,
                f"{name}-0", (f"{name}-1",), ((leaving, names[-1]),) if gives else (),
            )
        )  # fmt: skip
        for ordinal, role in enumerate(("master", "replica")):
            nodes.append(
                NodePart(
                    f"{name}-{ordinal}", name, role, NodeHealth.UP, "10.0.0.1", 7000 + number,
                    f"{2 * number + ordinal:040x}",
                )
            )  # fmt: skip
    progress = {
        "action": "moving slots", "moved_slots": 1234, "total_slots": 4000, "moved_keys": 5678,
        "keys_per_second": 900, "seconds_left": 12.5,
    }  # fmt: skip
    return assemble(
        StateParts(
            cluster="paper", phase=Phase.REBALANCING if moving else Phase.READY,
            reason="Rebalancing" if moving else "Idle",
            message=f"Each of {shards} shards serves its slots with 1 replica.",
            healthy=True, spec=parse(spec).document(), shards=parts, nodes=nodes,
            progress=progress if moving else None,
            events=[Event(0.0, 0.0, "Idle", "All is well.").document()],
        )
    ) | {"version": 1}  # fmt: skip


def resource_of(state: Document) -> Document:
    """The ShardCluster resource as the operator would have written it."""
    status = status_of(state, generation=1, previous={}, now=NOW, extra={})
    metadata = {"name": state["cluster"], "resourceVersion": "1"}
    return {"metadata": metadata, "spec": state["spec"]["spec"], "status": status}


def on_kubernetes(state: Document) -> Document:
    """The same as a gateway on Kubernetes knows it: from the resource's status alone."""
    return state_of(resource_of(state)) | {"version": 1}


class CannedController:
    """Tells one document; wishes are noted and change nothing."""

    def __init__(self, state: Document) -> None:
        """`state` may be replaced at any time."""
        self.document = state
        self.wishes: list[str] = []
        self.broken = False

    def state(self) -> Document:
        """The document."""
        if self.broken:
            raise PlatformUnable
        return self.document

    async def wait_state(self, since: int, wait_s: float) -> Document:
        """The document, at once when it is another."""
        waited = 0.0
        while self.document["version"] == since and waited < wait_s:
            await asyncio.sleep(0.05)
            waited += 0.05
        return self.state()

    def _plan(self, spec: Any) -> Document:
        return plan_of(self.document, spec)

    async def add_shard(self) -> Accepted:
        """Noted."""
        self.wishes.append("add")
        bigger, name = add_shard(parse(self.document["spec"]))
        return Accepted(f"{name} is being added.", name, self._plan(bigger))

    async def remove_shard(self, node: str) -> Accepted:
        """Noted."""
        self.wishes.append(f"remove {node}")
        smaller = remove_shard(parse(self.document["spec"]), node, ())
        return Accepted(f"{node} is being drained and removed.", node, self._plan(smaller))

    async def rebalance(self) -> Accepted:
        """Noted."""
        self.wishes.append("rebalance")
        return Accepted("No slot needs to move.")

    async def put_spec(self, document: Document) -> Accepted:
        """Not asked for by a gateway."""
        raise NotImplementedError

    async def preview(self, document: Document) -> Document:
        """The plan from the document alone."""
        return self._plan(parse(document))

    async def kill(self, node: str, signal_name: str) -> None:
        """Not asked for by a gateway."""
        raise NotImplementedError


@asynccontextmanager
async def serving(controller: Any) -> AsyncIterator[str]:
    """The controller's own HTTP API, at the URL that is given."""
    runner = web.AppRunner(control_app(controller), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Master(FakeNode):
    """Counts as if clients were at work."""

    keys = 1000
    reads = 0

    def _reply(self, command: tuple[bytes, ...]) -> Any:
        if command[0] == b"INFO":
            memory = 8_000_000 + 9 * self.reads
            return f"role:master\r\nused_memory:{memory}\r\ndb0:keys={self.keys}\r\n".encode()
        if command[0] == b"LATENCY":
            self.reads += random.randint(200, 900)
            counts = [8, self.reads // 3, 16, self.reads * 98 // 100, 132, self.reads]
            return [b"get", [b"calls", self.reads, b"histogram_usec", counts]]
        if command[0] == b"COMMAND":
            return [b"get"] if command[-1] == b"read" else [b"set"]
        if command[:2] == (b"CLUSTER", b"SLOT-STATS"):
            return "-ERR unknown subcommand 'SLOT-STATS'. Try CLUSTER HELP."
        return super()._reply(command)


@asynccontextmanager
async def fake_masters(state: Document) -> AsyncIterator[list[_Master]]:
    """A node for each master of the document, which then tells where they listen."""
    masters = {shard["master"]: shard for shard in state["shards"]}
    nodes = {node["name"]: node for node in state["nodes"] if node["name"] in masters}
    fakes = {name: _Master(node["node_id"]) for name, node in nodes.items()}

    def view(asked: FakeNode) -> str:
        return "".join(
            f"{fake.node_id} 127.0.0.1:{fake.port}@1 {'myself,' if fake is asked else ''}master "
            f"- 0 0 1 connected {masters[name]['slot_ranges']}\n"
            for name, fake in fakes.items()
        )

    try:
        for name, fake in fakes.items():
            fake.view = view
            fake.keys = masters[name]["keys"]
            await fake.start()
            nodes[name] |= {"host": "127.0.0.1", "port": fake.port}
        yield list(fakes.values())
    finally:
        for fake in fakes.values():
            await fake.stop()
