"""A deposed master that comes back must not take its shard again by a slot it was importing.

Valkey 8 and later lets an importing node take a slot by itself, with the highest epoch, when the
slot's source has it no more.  Found by `make chaos TIER=process SEED=2`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster.cluster_nodes import parse_cluster_nodes
from shardcluster.slots import SlotSet, key_slot
from shardcluster_runtime.platforms._node_file import forget_imports
from shardcluster_runtime.platforms.process import NodeSettings, ProcessPlatform
from shardcluster_runtime.wire import NodeReplyError, ask_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from shardcluster.observed import PeerView
    from shardcluster_runtime.platforms.protocol import PlatformNode
    from shardcluster_runtime.server_binary import Server

DEADLINE_S = 20.0
MOVED = 16383
OTHERS = "0-8191"  # of shard-0; shard-1 has the rest


@pytest.fixture
async def platform(
    free_folder: Path, server: Server, base_port: int
) -> AsyncIterator[ProcessPlatform]:
    """Two shards, shard-0 with a replica, which imports slot `MOVED`."""
    settings = NodeSettings(node_timeout_ms=1000, memory_only=False, max_memory_bytes=None)
    made = ProcessPlatform(free_folder, server, spec_settings=lambda: settings, base_port=base_port)
    await made.start(lambda: None)
    await made.scale_shard("shard-0", 2)
    await made.scale_shard("shard-1", 1)
    yield made
    for node in await made.nodes():
        await made.fence(node.name)  # a clean end may wait for a replica that has ended
    await made.close(stop_nodes=True)


async def _node(platform: ProcessPlatform, name: str) -> PlatformNode:
    return next(node for node in await platform.nodes() if node.name == name)


async def _ask(platform: ProcessPlatform, name: str, *command: str | int) -> Any:
    node = await _node(platform, name)
    assert node.address is not None
    return await ask_once(node.address, *command, timeout_s=DEADLINE_S)


async def _until(platform: ProcessPlatform, name: str, *command: str | int) -> Any:
    """Ask again until it is no error."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await _ask(platform, name, *command)
            except (NodeReplyError, OSError):
                await asyncio.sleep(0.02)


async def _myself(platform: ProcessPlatform, name: str) -> PeerView:
    view = parse_cluster_nodes((await _ask(platform, name, "CLUSTER", "NODES")).decode())
    return next(peer for peer in view.peers if "myself" in peer.flags)


async def _knows(platform: ProcessPlatform, name: str, ids: Iterable[str]) -> bool:
    text = (await _ask(platform, name, "CLUSTER", "NODES")).decode()
    known = {
        peer.node_id for peer in parse_cluster_nodes(text).peers if "handshake" not in peer.flags
    }
    return known >= set(ids)


async def _form(platform: ProcessPlatform) -> None:
    """Meet, own, follow, and begin to move a slot to shard-0."""
    ids = {
        node.name: (await _myself(platform, node.name)).node_id for node in await platform.nodes()
    }
    for number, name in enumerate(ids, 1):
        await _ask(platform, name, "CLUSTER", "SET-CONFIG-EPOCH", number)
    async with asyncio.timeout(DEADLINE_S):
        while not all([await _knows(platform, name, ids.values()) for name in ids]):
            for name in ids.keys() - {"shard-0-0"}:  # again: an engine gives a handshake up
                address = (await _node(platform, name)).address
                assert address is not None
                await _ask(platform, "shard-0-0", "CLUSTER", "MEET", address.host, address.port)
            await asyncio.sleep(0.2)
    await _ask(platform, "shard-0-0", "CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    await _ask(platform, "shard-1-0", "CLUSTER", "ADDSLOTSRANGE", 8192, MOVED)
    await _until(platform, "shard-0-1", "CLUSTER", "REPLICATE", ids["shard-0-0"])
    async with asyncio.timeout(DEADLINE_S):
        while b"master_link_status:up" not in await _ask(platform, "shard-0-1", "INFO"):
            await asyncio.sleep(0.02)
        while OTHERS not in (await _ask(platform, "shard-0-1", "CLUSTER", "NODES")).decode():
            await asyncio.sleep(0.02)
    await _until(platform, "shard-0-0", "CLUSTER", "SETSLOT", MOVED, "IMPORTING", ids["shard-1-0"])
    await _until(platform, "shard-1-0", "CLUSTER", "SETSLOT", MOVED, "MIGRATING", ids["shard-0-0"])
    # A SETSLOT that waited for the replica is answered before the engine writes the mark down.
    node_file = platform._places["shard-0-0"].paths.data / "nodes.conf"
    async with asyncio.timeout(DEADLINE_S):
        while f"[{MOVED}-<-" not in node_file.read_text():
            await asyncio.sleep(0.02)


async def _depose(platform: ProcessPlatform) -> None:
    """shard-0-0 ends, shard-0-1 leads, finishes the move and takes a write."""
    await platform.fence("shard-0-0")
    await _ask(platform, "shard-0-1", "CLUSTER", "FAILOVER", "TAKEOVER")
    heir = (await _myself(platform, "shard-0-1")).node_id
    await _until(platform, "shard-0-1", "CLUSTER", "SETSLOT", MOVED, "NODE", heir)
    await _until(platform, "shard-1-0", "CLUSTER", "SETSLOT", MOVED, "NODE", heir)
    key = next(key for key in map(str, range(1000)) if key_slot(key.encode()) < 8192)
    await _until(platform, "shard-0-1", "SET", key, "written after the failover")


async def test_a_deposed_master_forgets_what_it_imported(
    platform: ProcessPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it starts: whose word it hears first, the heir's or the source's, must not matter."""
    await _form(platform)
    await _depose(platform)
    place = platform._places["shard-0-0"]
    begins_with: list[str] = []
    start = platform._start

    async def noting(*arguments: Any) -> None:
        begins_with.append((place.paths.data / "nodes.conf").read_text())
        await start(*arguments)

    monkeypatch.setattr(platform, "_start", noting)
    await platform.restart("shard-0-0", fresh=False)
    assert "myself,master" in begins_with[0]
    assert "-<-" not in begins_with[0]
    async with asyncio.timeout(DEADLINE_S):
        while "slave" not in (await _myself(platform, "shard-0-0")).flags:
            await asyncio.sleep(0.02)
    heir = await _myself(platform, "shard-0-1")
    assert "master" in heir.flags
    assert heir.slots == SlotSet.parse(f"{OTHERS} {MOVED}")
    assert await _ask(platform, "shard-0-1", "DBSIZE") == 1


async def test_a_master_that_still_leads_keeps_its_marks(platform: ProcessPlatform) -> None:
    """Else it would delete the keys that have come to it."""
    await _form(platform)
    await platform.fence("shard-0-0")
    await platform.restart("shard-0-0", fresh=False)
    view = parse_cluster_nodes((await _ask(platform, "shard-0-0", "CLUSTER", "NODES")).decode())
    assert [slot.slot for slot in view.importing] == [MOVED]


def test_only_importing_is_forgotten(tmp_path: Path) -> None:
    """All else in the file stays, and a file that isn't there is no trouble."""
    other = "a" * 40
    path = tmp_path / "nodes.conf"
    forget_imports(path)
    path.write_text(
        f"{other} :0 myself,master - 0 0 1 connected 0-5 [6-<-{other}] [5->-{other}]\nvars 1\n"
    )
    forget_imports(path)
    assert path.read_text() == (
        f"{other} :0 myself,master - 0 0 1 connected 0-5 [5->-{other}]\nvars 1\n"
    )
