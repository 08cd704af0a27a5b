"""A whole store for tests: a controller on the process platform, in this process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from shardcluster.spec import parse
from shardcluster_runtime.desired import DesiredStore
from shardcluster_runtime.loop import Controller
from shardcluster_runtime.platforms.process import NodeSettings, ProcessPlatform
from shardcluster_runtime.server_binary import find_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from shardcluster.spec import Spec

__all__ = ["Store", "document", "process_platform", "running_store", "until"]

DEADLINE_S = 60.0
State = dict[str, Any]


def document(shards: int = 3, replicas: int = 1, **spec: Any) -> State:
    """A ShardCluster document; `spec` adds fields."""
    return {
        "apiVersion": "shardcluster.io/v1alpha1",
        "kind": "ShardCluster",
        "metadata": {"name": "test"},
        "spec": {
            "shards": shards,
            "replicasPerShard": replicas,
            "storage": {"size": "1Gi"},
            **spec,
        },
    }


def process_platform(folder: Path, base_port: int, spec: Spec) -> ProcessPlatform:
    """The process platform as `shardctl up` would make it."""
    return ProcessPlatform(
        folder,
        find_server(),
        spec_settings=lambda: NodeSettings(
            node_timeout_ms=spec.failover.node_timeout_ms,
            memory_only=spec.memory_only,
            max_memory_bytes=spec.max_memory_bytes,
            config=spec.config,
        ),
        base_port=base_port,
    )


async def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `condition()` is true and return it; fails saying what was waited for."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (found := condition()):
                await asyncio.sleep(0.02)
            return found
    except TimeoutError:
        message = f"waited {deadline_s} s in vain for {what}"
        raise AssertionError(message) from None


class Store:
    """A controller and its platform."""

    def __init__(self, controller: Controller, platform: ProcessPlatform) -> None:
        """Use `running_store`."""
        self.controller = controller
        self.platform = platform

    @property
    def state(self) -> State:
        """The state document."""
        return self.controller.state()

    async def calm(self, shards: int) -> State:
        """Wait until nothing is left to do and `shards` shards serve all slots."""

        def is_calm() -> State | None:
            state = self.state
            serving = [shard for shard in state["shards"] if shard["slots"]]
            calm = (
                state["reason"] == "Idle"
                and len(serving) == len(state["shards"]) == shards
                and all(node["health"] == "Up" for node in state["nodes"])
                and all(node["link_up"] for node in state["nodes"])
            )
            return state if calm else None

        try:
            found: State = await until(is_calm, f"{shards} calm shards")
        except AssertionError as error:
            message = f"{error}; the status says {self.state['reason']}: {self.state['message']}"
            raise AssertionError(message) from error
        return found

    async def reason(self, reason: str) -> State:
        """Wait until the status gives this reason."""

        def has_it() -> State | None:
            return self.state if self.state["reason"] == reason else None

        found: State = await until(has_it, f"the reason {reason}")
        return found

    def told(self, reason: str) -> list[str]:
        """The messages of all events with this reason."""
        return [
            event["message"]
            for event in self.controller.events.documents(last=200)
            if event["reason"] == reason
        ]

    def node(self, name: str) -> dict[str, Any]:
        """A node of the state document."""
        return next(node for node in self.state["nodes"] if node["name"] == name)

    def shard(self, name: str) -> dict[str, Any]:
        """A shard of the state document."""
        return next(shard for shard in self.state["shards"] if shard["name"] == name)

    def slots(self, shard: str) -> int:
        """How many slots the shard owns; 0 while there is no such shard."""
        return sum(found["slots"] for found in self.state["shards"] if found["name"] == shard)

    def master_port(self, shard: str) -> int:
        """Where the shard's master listens."""
        port: int = self.node(self.shard(shard)["master"])["port"]
        return port


@contextlib.asynccontextmanager
async def running_store(
    folder: Path, base_port: int, doc: State | None = None, *, stop_nodes: bool = True
) -> AsyncIterator[Store]:
    """A store on `folder`; ended at the end, its nodes too unless `stop_nodes` is False."""
    desired = DesiredStore(folder)
    desired.open(None, doc or document())
    if doc is not None:
        desired.edit(doc)
    platform = process_platform(folder, base_port, parse(desired.document))
    controller = Controller(platform, desired)
    await controller.start()
    try:
        yield Store(controller, platform)
    finally:
        await controller.stop(stop_nodes=stop_nodes)
