"""Facts of the engine that `decide` and the simulated cluster rest on, seen on real processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from shardcluster import actions
from shardcluster.slots import key_slot
from shardcluster_runtime.execute import ActionFailed, Executor
from shardcluster_runtime.wire import Credentials
from tests.cluster.mini_cluster import MiniCluster, MiniNode, eventually, mini_cluster

if TYPE_CHECKING:
    from shardcluster.picture import Picture
    from shardcluster_runtime.observe import Observer
    from shardcluster_runtime.platforms.protocol import Platform
    from shardcluster_runtime.wire import NodeConnection

EVERY_PACKET, NO_PACKET = -2, -1
KEY = "a"


@dataclass
class Known:
    """What an executor needs of a platform and an observer: connections to nodes by name."""

    cluster: MiniCluster
    credentials: Credentials

    def connection(self, name: str) -> NodeConnection | None:
        """Of that node."""
        return next(node.connection for node in self.cluster.nodes if node.name == name)


async def owner_of(cluster: MiniCluster, slot: int) -> MiniNode:
    """The master that says it owns the slot."""
    for node in cluster.masters:
        if slot in await node.slots():
            return node
    raise AssertionError(slot)


async def key_count(node: MiniNode, slot: int) -> int:
    """How many keys of a slot it holds."""
    return int(await node.call("CLUSTER", "COUNTKEYSINSLOT", slot))


async def move_key(source: MiniNode, target: MiniNode, slot: int) -> None:
    """The slot is open and its key has gone over; the target owns it, the source isn't told."""
    await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
    await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
    await source.call("MIGRATE", "127.0.0.1", target.port, KEY, 0, 5_000)


async def test_a_takeover_by_a_replica_that_was_not_told_erases_what_the_new_owner_holds() -> None:
    """So `best_replica` waits until it has heard that the slot is another's."""
    slot = key_slot(KEY.encode())
    async with mini_cluster(3, owners=3, replicas=1) as cluster:
        source = await owner_of(cluster, slot)
        heir = cluster.replicas[cluster.masters.index(source)]
        target = next(node for node in cluster.masters if node is not source)
        await target.call("CLUSTER", "BUMPEPOCH")  # as one that took slots a moment ago

        async def heard() -> bool:
            lines = {peer.node_id: peer for peer in (await heir.view()).peers}
            epochs = {node_id: line.config_epoch for node_id, line in lines.items()}
            return epochs[target.node_id] == max(epochs.values())

        await eventually(heard, "the heir knows the target's epoch")
        await source.call("SET", KEY, "1")
        await move_key(source, target, slot)
        await heir.call("DEBUG", "DROP-CLUSTER-PACKET-FILTER", EVERY_PACKET)
        await target.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        assert await key_count(target, slot) == 1
        source.end()
        await heir.call("CLUSTER", "FAILOVER", "TAKEOVER")
        await heir.call("DEBUG", "DROP-CLUSTER-PACKET-FILTER", NO_PACKET)

        async def erased() -> bool:
            return await key_count(target, slot) == 0

        await eventually(erased, "the target erases the key")
        assert slot in await heir.slots()
        assert await key_count(heir, slot) == 0


async def test_leftovers_are_erased_at_a_master_without_slots_and_nowhere_else() -> None:
    """No command but FLUSHALL reaches keys of slots that a node does not own."""
    slot = key_slot(KEY.encode())
    async with mini_cluster(3, owners=2) as cluster:
        idle = cluster.masters[2]
        owner = await owner_of(cluster, slot)
        known = Known(cluster, Credentials(None))
        executor = Executor(cast("Platform", known), cast("Observer", known), asyncio.Event())
        picture = cast("Picture", None)  # the action needs none
        await idle.call("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.node_id)
        await idle.call("ASKING")
        await idle.call("SET", KEY, "1")
        with pytest.raises(ActionFailed, match="its keys are kept"):
            await executor.execute(actions.DropLeftovers(idle.name), picture)
        await idle.call("CLUSTER", "SETSLOT", slot, "STABLE")
        with pytest.raises(ActionFailed, match="its keys are kept"):
            await executor.execute(actions.DropLeftovers(owner.name), picture)
        await executor.execute(actions.DropLeftovers(idle.name), picture)
        assert await key_count(idle, slot) == 0
        await executor.execute(actions.ResetNode(idle.name), picture)
        await executor.close()


async def test_of_two_imports_of_a_slot_the_one_without_keys_is_closed() -> None:
    """With keys on each nothing is, and the executor says so."""
    slot = key_slot(KEY.encode())
    async with mini_cluster(3, owners=1) as cluster:
        owner, *importers = cluster.masters
        known = Known(cluster, Credentials(None))
        executor = Executor(cast("Platform", known), cast("Observer", known), asyncio.Event())
        picture = cast("Picture", None)  # the action needs none
        close = actions.CloseEmptyImports(slot, tuple(node.name for node in importers))

        async def open_at(node: MiniNode) -> bool:
            return "[" in (await node.call("CLUSTER", "NODES")).decode()

        for node in importers:
            await node.call("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.node_id)
            await node.call("ASKING")
            await node.call("SET", KEY, "1")
        with pytest.raises(ActionFailed, match="keys on m1 and m2"):
            await executor.execute(close, picture)
        assert [await open_at(node) for node in importers] == [True, True]
        await importers[0].call("ASKING")
        await importers[0].call("DEL", KEY)
        await executor.execute(close, picture)
        assert [await open_at(node) for node in importers] == [False, True]
        await executor.close()


@dataclass
class WrittenTo:
    """A connection to an importer that a client writes to right before its import is closed."""

    inner: NodeConnection

    async def call(self, *command: str | int, timeout_s: float) -> object:
        """As `NodeConnection.call`."""
        if "STABLE" in command:
            await self.inner.call("ASKING")
            await self.inner.call("SET", KEY, "1")
        return await self.inner.call(*command, timeout_s=timeout_s)


class KnownWrittenTo(Known):
    """Every node is written to."""

    def connection(self, name: str) -> NodeConnection | None:
        """Of that node."""
        inner = super().connection(name)
        assert inner is not None
        return cast("NodeConnection", WrittenTo(inner))


async def test_an_import_that_is_written_to_as_it_is_closed_is_opened_again() -> None:
    """Else nobody would know of the key."""
    slot = key_slot(KEY.encode())
    async with mini_cluster(3, owners=1) as cluster:
        owner, *importers = cluster.masters
        known = KnownWrittenTo(cluster, Credentials(None))
        executor = Executor(cast("Platform", known), cast("Observer", known), asyncio.Event())
        picture = cast("Picture", None)  # the action needs none
        for node in importers:
            await node.call("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.node_id)
        close = actions.CloseEmptyImports(slot, tuple(node.name for node in importers))
        with pytest.raises(ActionFailed, match=f"{slot} was written to at m1 meanwhile"):
            await executor.execute(close, picture)
        for node in importers:
            mark = f"[{slot}-<-{owner.node_id}]"
            assert mark in (await node.call("CLUSTER", "NODES")).decode()
        assert await key_count(importers[0], slot) == 1
        await executor.close()
