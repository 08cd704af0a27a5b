"""What every platform promises to the control loop, on real server processes.

A new platform joins by adding a rig to `RIGS`; nothing in the tests is about one platform only.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from shardcluster_runtime.platforms.addresses import FixedAddresses
from shardcluster_runtime.platforms.process import NodeSettings, ProcessPlatform
from shardcluster_runtime.platforms.protocol import Platform, PlatformNode, PlatformUnable
from shardcluster_runtime.platforms.static import StaticPlatform
from shardcluster_runtime.wire import NodeConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from shardcluster.observed import Address
    from shardcluster_runtime.server_binary import Server
    from tests.cluster.plain_nodes import PlainNodes

    Started = Callable[[], Awaitable[Platform]]

DEADLINE_S = 20.0
POLL_S = 0.01
SETTINGS = NodeSettings(node_timeout_ms=1000, memory_only=False, max_memory_bytes=None)


class Rig(Protocol):
    """A platform under test and the hands to do to its nodes what the world does."""

    folder: Path

    def platform(self) -> Platform:
        """A platform on the rig's folder, not started."""
        ...

    async def provide(self, nodes: int) -> None:
        """See to it that so many nodes can be had."""
        ...

    async def kill(self, node: PlatformNode) -> None:
        """End the node's process, outside of the platform."""
        ...


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

    async def kill(self, node: PlatformNode) -> None:
        """By its process id."""
        assert node.process_id is not None
        os.kill(node.process_id, signal.SIGKILL)


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

    async def kill(self, node: PlatformNode) -> None:
        """The one at its address."""
        plain = next(plain for plain in self._start.all if plain.address == node.address)
        await asyncio.to_thread(plain.kill)


RIGS = (ProcessRig, StaticRig)


@pytest.fixture(params=RIGS, ids=lambda rig: rig.__name__)
def rig(
    request: pytest.FixtureRequest,
    free_folder: Path,
    server: Server,
    base_port: int,
    start_plain_node: PlainNodes,
) -> Rig:
    made: Rig = request.param(free_folder, server, base_port, start_plain_node)
    return made


@pytest.fixture
async def started(rig: Rig) -> AsyncIterator[Started]:
    """Call it for a started platform; all are closed at the end, the nodes with the last one."""
    platforms: list[Platform] = []

    async def start() -> Platform:
        platform = rig.platform()
        await platform.start(lambda: None)
        platforms.append(platform)
        return platform

    yield start
    for platform in platforms:
        await platform.close(stop_nodes=True)


async def _ask(address: Address | None, *command: str) -> Any:
    assert address is not None
    connection = await NodeConnection.open(address, timeout_s=DEADLINE_S)
    try:
        return await connection.call(*command, timeout_s=DEADLINE_S)
    finally:
        connection.close()


async def _ids(platform: Platform) -> dict[str, bytes]:
    return {
        node.name: await _ask(node.address, "CLUSTER", "MYID") for node in await platform.nodes()
    }


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await holds():
            await asyncio.sleep(POLL_S)


class TestEveryPlatform:
    """The contract."""

    async def test_a_new_store_has_no_nodes(self, rig: Rig, started: Started) -> None:
        """Also where nodes stand ready that belong to nobody yet."""
        await rig.provide(2)
        platform = await started()
        assert await platform.nodes() == ()
        assert platform.formed_before is False

    async def test_a_scaled_shard_has_that_many_empty_nodes_that_answer(
        self, rig: Rig, started: Started
    ) -> None:
        """Named and numbered in order, all different, in order of the shards' numbers."""
        await rig.provide(5)
        platform = await started()
        await platform.scale_shard("shard-10", 2)
        await platform.scale_shard("shard-2", 3)
        nodes = await platform.nodes()
        assert [(node.name, node.shard, node.ordinal) for node in nodes] == [
            ("shard-2-0", "shard-2", 0),
            ("shard-2-1", "shard-2", 1),
            ("shard-2-2", "shard-2", 2),
            ("shard-10-0", "shard-10", 0),
            ("shard-10-1", "shard-10", 1),
        ]
        assert not any(node.ended or node.pending for node in nodes)
        for node in nodes:
            assert await _ask(node.address, "PING") == b"PONG"
            assert await _ask(node.address, "DBSIZE") == 0
        assert len(set((await _ids(platform)).values())) == 5

    async def test_scaling_to_what_is_there_changes_nothing(
        self, rig: Rig, started: Started
    ) -> None:
        """The same nodes at the same addresses under the same ids."""
        await rig.provide(3)
        platform = await started()
        await platform.scale_shard("shard-0", 2)
        before, ids_before = await platform.nodes(), await _ids(platform)
        await platform.scale_shard("shard-0", 2)
        assert await platform.nodes() == before
        assert await _ids(platform) == ids_before

    async def test_scaling_down_drops_the_highest_ordinal(self, rig: Rig, started: Started) -> None:
        """The others stay; other shards are left alone; zero nodes is no shard."""
        await rig.provide(4)
        platform = await started()
        await platform.scale_shard("shard-0", 3)
        await platform.scale_shard("shard-1", 1)
        ids = await _ids(platform)
        await platform.scale_shard("shard-0", 2)
        del ids["shard-0-2"]
        assert await _ids(platform) == ids
        await platform.scale_shard("shard-0", 0)
        assert [node.name for node in await platform.nodes()] == ["shard-1-0"]

    async def test_a_dropped_place_can_be_had_again(self, rig: Rig, started: Started) -> None:
        """Empty, whatever the node before it held."""
        await rig.provide(2)
        platform = await started()
        await platform.scale_shard("shard-0", 2)
        await platform.scale_shard("shard-0", 1)
        await platform.scale_shard("shard-0", 2)
        assert len(await _ids(platform)) == 2

    async def test_a_new_controller_sees_the_same_nodes(self, rig: Rig, started: Started) -> None:
        """Without one of them having been touched."""
        await rig.provide(2)
        first = await started()
        await first.scale_shard("shard-0", 2)
        before, ids = await first.nodes(), await _ids(first)
        await first.close(stop_nodes=False)
        second = await started()
        assert await second.nodes() == before
        assert await _ids(second) == ids

    async def test_a_killed_node_wakes_the_loop_and_keeps_its_place(self, rig: Rig) -> None:
        """It is listed as ended where that can be proven; elsewhere it just doesn't answer."""
        await rig.provide(2)
        platform = rig.platform()
        woken = asyncio.Event()
        await platform.start(woken.set)
        await platform.scale_shard("shard-0", 2)
        victim, other = await platform.nodes()
        woken.clear()
        await rig.kill(victim)
        async with asyncio.timeout(DEADLINE_S):
            await woken.wait()

        async def is_gone() -> bool:
            node = (await platform.nodes())[0]
            assert node.name == victim.name
            if platform.can_fence:
                return node.ended
            with pytest.raises(ConnectionRefusedError):
                await _ask(node.address, "PING")
            return not node.ended

        await _until(is_gone)
        assert (await platform.nodes())[1] == other
        await platform.close(stop_nodes=True)

    async def test_an_ended_node_runs_again_under_its_id_or_the_platform_says_who_does_that(
        self, rig: Rig, started: Started
    ) -> None:
        """Not fresh: its id is kept.  Fresh: it has another one.  Running: nothing happens."""
        await rig.provide(1)
        platform = await started()
        await platform.scale_shard("shard-0", 1)
        ids = await _ids(platform)
        if not platform.can_restart:
            with pytest.raises(PlatformUnable, match="shard-0-0"):
                await platform.restart("shard-0-0", fresh=False)
            return
        await platform.restart("shard-0-0", fresh=True)
        assert await _ids(platform) == ids
        await platform.fence("shard-0-0")
        await platform.restart("shard-0-0", fresh=False)
        assert await _ids(platform) == ids
        await platform.fence("shard-0-0")
        await platform.restart("shard-0-0", fresh=True)
        assert await _ids(platform) != ids

    async def test_a_fenced_node_is_proven_gone_when_fence_returns(
        self, rig: Rig, started: Started
    ) -> None:
        """Or the platform says that it can't."""
        await rig.provide(1)
        platform = await started()
        await platform.scale_shard("shard-0", 1)
        if not platform.can_fence:
            with pytest.raises(PlatformUnable, match="shard-0-0"):
                await platform.fence("shard-0-0")
            return
        await platform.fence("shard-0-0")
        assert (await platform.nodes())[0].ended
        await platform.fence("shard-0-0")  # twice is as good as once

    async def test_spare_nodes_are_counted(self, rig: Rig, started: Started) -> None:
        """None where any number can be started."""
        await rig.provide(3)
        platform = await started()
        await platform.scale_shard("shard-0", 1)
        await platform.nodes()
        assert await platform.spare_nodes() in {None, 2}

    async def test_that_the_store_was_formed_is_remembered(
        self, rig: Rig, started: Started
    ) -> None:
        """By the next controller too."""
        await rig.provide(1)
        first = await started()
        await first.scale_shard("shard-0", 1)
        await first.mark_formed()
        await first.mark_formed()
        assert first.formed_before
        await first.close(stop_nodes=False)
        assert (await started()).formed_before

    async def test_a_second_controller_on_the_folder_is_refused(
        self, rig: Rig, started: Started
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
        assert len(await (await started()).nodes()) == 1

    async def test_a_folder_that_cannot_be_used_is_refused_with_a_sentence(self, rig: Rig) -> None:
        """One that is a file, and one whose name is too long."""
        (rig.folder / "file").write_text("")
        for folder in (rig.folder / "file", rig.folder / ("x" * 300)):
            rig.folder = folder
            with pytest.raises(PlatformUnable, match=r"refuses.*\.$"):
                await rig.platform().start(lambda: None)
            rig.folder = folder.parent

    async def test_an_unknown_node_or_signal_is_refused(self, rig: Rig, started: Started) -> None:
        """With its name in the sentence."""
        await rig.provide(1)
        platform = await started()
        await platform.scale_shard("shard-0", 1)
        with pytest.raises(PlatformUnable, match="shard-7-0"):
            await platform.kill("shard-7-0", "KILL")
        with pytest.raises(PlatformUnable, match="TERM"):
            await platform.kill("shard-0-0", "TERM")
