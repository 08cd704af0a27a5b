"""Platforms on nodes that somebody else runs, and clusters made of such nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardcluster_runtime.platforms.addresses import (
    FixedAddresses,
)
from shardcluster_runtime.platforms.static import StaticPlatform
from tests.cluster.plain_nodes import PlainNode, until_true
from tests.cluster.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from shardcluster_runtime.platforms.addresses import AddressSource
    from shardcluster_runtime.platforms.protocol import PlatformNode

DEADLINE_S = 20.0
POLL_S = 0.01


class Maker:
    """Makes platforms on one folder and closes them all."""

    def __init__(self, folder: Path) -> None:
        """None yet."""
        self.folder = folder
        self._made: list[StaticPlatform] = []

    async def __call__(
        self, source: AddressSource | list[PlainNode], replace_after_s: float = 600.0
    ) -> StaticPlatform:
        """A started platform on an address source or on nodes at their present addresses."""
        if isinstance(source, list):
            source = FixedAddresses(node.address for node in source)
        platform = StaticPlatform(self.folder, source, replace_after_s=replace_after_s)
        await platform.start(lambda: None)
        self._made.append(platform)
        return platform

    async def close(self) -> None:
        """The nodes run on."""
        for platform in self._made:
            await platform.close(stop_nodes=True)


class Names:
    """A DNS for tests: what a name stands for, or that nobody can be asked."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """`hosts` may be changed at any time; None: nobody can be asked."""
        self.hosts: list[str] | None = list(hosts)
        self.asked = 0

    async def __call__(self, _name: str, _port: int) -> list[str]:
        """The resolver."""
        self.asked += 1
        if self.hosts is None:
            message = "no answer"
            raise OSError(message)
        return self.hosts


async def seen(platform: StaticPlatform) -> dict[str, PlatformNode]:
    return {node.name: node for node in await platform.nodes()}


async def until(platform: StaticPlatform, holds: Callable[[dict[str, PlatformNode]], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds(await seen(platform)):
            await asyncio.sleep(POLL_S)


def formed(*masters: PlainNode, replicas: Iterable[tuple[PlainNode, PlainNode]] = ()) -> None:
    """Make one cluster of them: the slots in equal shares, in the order given."""
    pairs = list(replicas)
    everyone = [*masters, *(replica for replica, _ in pairs)]
    for node in everyone[1:]:
        everyone[0].call("CLUSTER MEET", HOST, node.port)
    share = 16384 // len(masters)
    for number, node in enumerate(masters):
        last = 16383 if node is masters[-1] else share * (number + 1) - 1
        node.call("CLUSTER ADDSLOTSRANGE", share * number, last)

    def all_know_all() -> bool:
        return all(
            node.call("CLUSTER INFO").get("cluster_known_nodes") == str(len(everyone))
            and node.call("CLUSTER INFO").get("cluster_slots_assigned") == "16384"
            for node in everyone
        )

    until_true(all_know_all, "the nodes to know each other")
    for replica, master in pairs:
        replica.call("CLUSTER REPLICATE", master.node_id)
        for node in everyone:
            until_true(lambda: _follows(node, replica, master), "the replica to be known as one")  # noqa: B023


def knows(node: PlainNode, other: PlainNode) -> bool:
    return other.node_id in str(node.call("CLUSTER NODES"))


def _follows(node: PlainNode, replica: PlainNode, master: PlainNode) -> bool:
    """Whether `node` believes that `replica` follows `master`."""
    return replica.node_id in str(node.call("CLUSTER REPLICAS", master.node_id))
