"""The platforms without Kubernetes keep the contract, on real server processes."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster_runtime.platforms.addresses import FixedAddresses
from shardcluster_runtime.platforms.process import NodeSettings, ProcessPlatform
from shardcluster_runtime.platforms.protocol import Platform, PlatformNode, PlatformUnable
from shardcluster_runtime.platforms.static import StaticPlatform
from shardcluster_runtime.wire import ask_once
from tests.platform_contract import PlatformContract, settled

if TYPE_CHECKING:
    from pathlib import Path

    from shardcluster.observed import Address
    from shardcluster_runtime.server_binary import Server
    from tests.cluster.plain_nodes import PlainNodes
    from tests.platform_contract import Started

ASK_TIMEOUT_S = 20.0
SETTINGS = NodeSettings(node_timeout_ms=1000, memory_only=False, max_memory_bytes=None)


async def _ask(node: PlatformNode, *command: str) -> Any:
    assert node.address is not None
    return await ask_once(node.address, *command, timeout_s=ASK_TIMEOUT_S)


class ProcessRig:
    """Nodes are had for the asking."""

    def __init__(self, folder: Path, server: Server, base_port: int, _: PlainNodes) -> None:
        """No plain nodes are needed."""
        self.folder = folder
        self._server = server
        self._base_port = base_port

    def platform(self) -> Platform:
        """A platform on the folder."""
        return ProcessPlatform(
            self.folder, self._server, spec_settings=lambda: SETTINGS, base_port=self._base_port
        )

    async def provide(self, nodes: int) -> None:
        """They are started when needed."""

    async def ask(self, node: PlatformNode, *command: str) -> Any:
        """At its address."""
        return await _ask(node, *command)

    async def kill(self, node: PlatformNode) -> None:
        """By its process id."""
        assert node.process_id is not None
        os.kill(node.process_id, signal.SIGKILL)

    async def is_gone(self, platform: Platform, node: PlatformNode) -> bool:
        """It is reaped."""
        (found,) = (place for place in await platform.nodes() if place.name == node.name)
        return found.ended


class StaticRig:
    """Nodes are started beforehand and found at their addresses."""

    def __init__(self, folder: Path, _server: Server, _base_port: int, start: PlainNodes) -> None:
        """`start` starts them."""
        self.folder = folder
        self._start = start
        self._addresses: list[Address] = []

    def platform(self) -> Platform:
        """A platform on the folder."""
        return StaticPlatform(self.folder, FixedAddresses(self._addresses))

    async def provide(self, nodes: int) -> None:
        """Start as many as are missing."""
        while len(self._addresses) < nodes:
            self._addresses.append((await asyncio.to_thread(self._start)).address)

    async def ask(self, node: PlatformNode, *command: str) -> Any:
        """At its address."""
        return await _ask(node, *command)

    async def kill(self, node: PlatformNode) -> None:
        """The one at its address."""
        plain = next(plain for plain in self._start.all if plain.address == node.address)
        await asyncio.to_thread(plain.kill)

    async def is_gone(self, platform: Platform, node: PlatformNode) -> bool:
        """Nothing is proven by an address where nobody answers."""
        with pytest.raises(ConnectionRefusedError):
            await self.ask(node, "PING")
        (found,) = (place for place in await platform.nodes() if place.name == node.name)
        return not found.ended


FolderRig = ProcessRig | StaticRig
RIGS = (ProcessRig, StaticRig)


@pytest.fixture(params=RIGS, ids=lambda rig: rig.__name__)
def rig(
    request: pytest.FixtureRequest,
    free_folder: Path,
    server: Server,
    base_port: int,
    start_plain_node: PlainNodes,
) -> FolderRig:
    made: FolderRig = request.param(free_folder, server, base_port, start_plain_node)
    return made


class TestEveryPlatform(PlatformContract):
    """The contract, and what comes with a folder of one's own."""

    async def test_a_second_controller_on_the_folder_is_refused(
        self, rig: FolderRig, started: Started
    ) -> None:
        """And let in once the first is gone."""
        await rig.provide(1)
        first = await started()
        second = rig.platform()
        with pytest.raises(PlatformUnable, match=r"Another ShardCluster controller \(pid \d+\)"):
            await second.start(lambda: None)
        await second.close(stop_nodes=True)
        await first.scale_shard("shard-0", 1)
        await first.close(stop_nodes=False)
        await settled(rig, await started(), "shard-0-0")

    async def test_a_folder_that_cannot_be_used_is_refused_with_a_sentence(
        self, rig: FolderRig
    ) -> None:
        """One that is a file, and one whose name is too long."""
        (rig.folder / "file").write_text("")
        for folder in (rig.folder / "file", rig.folder / ("x" * 300)):
            rig.folder = folder
            with pytest.raises(PlatformUnable, match=r"refuses.*\.$"):
                await rig.platform().start(lambda: None)
            rig.folder = folder.parent
