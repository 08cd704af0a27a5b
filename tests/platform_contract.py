"""What every platform promises to the control loop, on real nodes.

A platform joins by a class that inherits `PlatformContract` and a fixture `rig`; nothing here is
about one platform only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from shardcluster_runtime.platforms.protocol import Platform, PlatformNode, PlatformUnable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Started = Callable[[], Awaitable[Platform]]

__all__ = ["PlatformContract", "Rig", "Started", "settled", "until"]

DEADLINE_S = 120.0
POLL_S = 0.02


class Rig(Protocol):
    """A platform under test and the hands to do to its nodes what the world does."""

    def platform(self) -> Platform:
        """A platform for the rig's one store, not started."""
        ...

    async def provide(self, nodes: int) -> None:
        """See to it that so many nodes can be had."""
        ...

    async def ask(self, node: PlatformNode, *command: str) -> Any:
        """What the node answers; OSError or TimeoutError when it doesn't."""
        ...

    async def kill(self, node: PlatformNode) -> None:
        """End the node's process, outside of the platform."""
        ...

    async def is_gone(self, platform: Platform, node: PlatformNode) -> bool:
        """Whether the process of that node is gone, as far as this platform can say so."""
        ...


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it; TimeoutError after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not await holds():
            await asyncio.sleep(POLL_S)


async def settled(rig: Rig, platform: Platform, *names: str) -> tuple[PlatformNode, ...]:
    """Its nodes, once they are these and all of them answer."""

    async def holds() -> bool:
        nodes = await platform.nodes()
        if tuple(node.name for node in nodes) != names:
            return False
        if any(node.ended or node.pending or node.ending or not node.address for node in nodes):
            return False
        try:
            return all([await rig.ask(node, "PING") == b"PONG" for node in nodes])
        except (OSError, TimeoutError):
            return False

    await until(holds)
    return await platform.nodes()


class PlatformContract:
    """Inherit it where there is a fixture `rig`."""

    @pytest.fixture
    async def started(self, rig: Rig) -> AsyncIterator[Started]:
        """Call it for a started platform; all are closed at the end, nodes with the last one."""
        platforms: list[Platform] = []

        async def start() -> Platform:
            platform = rig.platform()
            await platform.start(lambda: None)
            platforms.append(platform)
            return platform

        yield start
        for platform in platforms:
            await platform.close(stop_nodes=True)

    @staticmethod
    async def _ids(rig: Rig, platform: Platform, *names: str) -> dict[str, bytes]:
        return {
            node.name: await rig.ask(node, "CLUSTER", "MYID")
            for node in await settled(rig, platform, *names)
        }

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
        nodes = await settled(
            rig, platform, "shard-2-0", "shard-2-1", "shard-2-2", "shard-10-0", "shard-10-1"
        )
        assert [(node.name, node.shard, node.ordinal) for node in nodes] == [
            ("shard-2-0", "shard-2", 0),
            ("shard-2-1", "shard-2", 1),
            ("shard-2-2", "shard-2", 2),
            ("shard-10-0", "shard-10", 0),
            ("shard-10-1", "shard-10", 1),
        ]
        assert {await rig.ask(node, "DBSIZE") for node in nodes} == {0}
        assert len({await rig.ask(node, "CLUSTER", "MYID") for node in nodes}) == 5

    async def test_scaling_to_what_is_there_changes_nothing(
        self, rig: Rig, started: Started
    ) -> None:
        """The same nodes at the same addresses under the same ids."""
        await rig.provide(3)
        platform = await started()
        await platform.scale_shard("shard-0", 2)
        names = ("shard-0-0", "shard-0-1")
        ids_before = await self._ids(rig, platform, *names)
        before = await platform.nodes()
        await platform.scale_shard("shard-0", 2)
        assert await platform.nodes() == before
        assert await self._ids(rig, platform, *names) == ids_before

    async def test_scaling_down_drops_the_highest_ordinal(self, rig: Rig, started: Started) -> None:
        """The others stay; other shards are left alone; zero nodes is no shard."""
        await rig.provide(4)
        platform = await started()
        await platform.scale_shard("shard-0", 3)
        await platform.scale_shard("shard-1", 1)
        names = ("shard-0-0", "shard-0-1", "shard-1-0")
        ids = await self._ids(rig, platform, "shard-0-0", "shard-0-1", "shard-0-2", "shard-1-0")
        await platform.scale_shard("shard-0", 2)
        del ids["shard-0-2"]
        assert await self._ids(rig, platform, *names) == ids
        await platform.scale_shard("shard-0", 0)
        await settled(rig, platform, "shard-1-0")

    async def test_a_dropped_place_can_be_had_again(self, rig: Rig, started: Started) -> None:
        """Empty, whatever the node before it held."""
        await rig.provide(2)
        platform = await started()
        await platform.scale_shard("shard-0", 2)
        before = await self._ids(rig, platform, "shard-0-0", "shard-0-1")
        await platform.scale_shard("shard-0", 1)
        await settled(rig, platform, "shard-0-0")
        await platform.scale_shard("shard-0", 2)
        after = await self._ids(rig, platform, "shard-0-0", "shard-0-1")
        assert after["shard-0-0"] == before["shard-0-0"]

    async def test_a_new_controller_sees_the_same_nodes(self, rig: Rig, started: Started) -> None:
        """Without one of them having been touched."""
        await rig.provide(2)
        first = await started()
        await first.scale_shard("shard-0", 2)
        names = ("shard-0-0", "shard-0-1")
        ids = await self._ids(rig, first, *names)
        before = await first.nodes()
        await first.close(stop_nodes=False)
        second = await started()
        assert await second.nodes() == before
        assert await self._ids(rig, second, *names) == ids

    async def test_a_killed_node_wakes_the_loop_and_keeps_its_place(self, rig: Rig) -> None:
        """It is listed as ended where that can be proven; elsewhere it just doesn't answer."""
        await rig.provide(2)
        platform = rig.platform()
        woken = asyncio.Event()
        await platform.start(woken.set)
        await platform.scale_shard("shard-0", 2)
        victim, other = await settled(rig, platform, "shard-0-0", "shard-0-1")
        woken.clear()
        await rig.kill(victim)
        async with asyncio.timeout(DEADLINE_S):
            await woken.wait()

        async def is_gone() -> bool:
            assert (await platform.nodes())[0].name == victim.name
            return await rig.is_gone(platform, victim)

        await until(is_gone)
        assert (await platform.nodes())[1] == other
        await platform.close(stop_nodes=True)

    async def test_an_ended_node_runs_again_under_its_id_or_the_platform_says_who_does_that(
        self, rig: Rig, started: Started
    ) -> None:
        """Not fresh: its id is kept.  Fresh: it has another one.  Running: nothing happens."""
        await rig.provide(1)
        platform = await started()
        await platform.scale_shard("shard-0", 1)
        ids = await self._ids(rig, platform, "shard-0-0")
        if not platform.can_restart:
            with pytest.raises(PlatformUnable, match="shard-0-0"):
                await platform.restart("shard-0-0", fresh=False)
            return
        await platform.restart("shard-0-0", fresh=True)
        assert await self._ids(rig, platform, "shard-0-0") == ids
        await platform.fence("shard-0-0")
        await platform.restart("shard-0-0", fresh=False)
        assert await self._ids(rig, platform, "shard-0-0") == ids
        await self.let_it_end(rig, platform)
        await platform.restart("shard-0-0", fresh=True)
        assert await self._ids(rig, platform, "shard-0-0") != ids

    async def let_it_end(self, rig: Rig, platform: Platform) -> None:
        """End the one node so that it does not come back by itself."""
        del rig
        await platform.fence("shard-0-0")

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
        (victim,) = await settled(rig, platform, "shard-0-0")
        await platform.fence("shard-0-0")
        assert await rig.is_gone(platform, victim)
        await platform.fence("shard-0-0")  # twice is as good as once

    async def test_spare_nodes_are_counted(self, rig: Rig, started: Started) -> None:
        """None where any number can be started."""
        await rig.provide(3)
        platform = await started()
        await platform.scale_shard("shard-0", 1)
        await settled(rig, platform, "shard-0-0")
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

    async def test_an_unknown_node_or_signal_is_refused(self, rig: Rig, started: Started) -> None:
        """With its name in the sentence."""
        await rig.provide(1)
        platform = await started()
        await platform.scale_shard("shard-0", 1)
        with pytest.raises(PlatformUnable, match="shard-7-0"):
            await platform.kill("shard-7-0", "KILL")
        with pytest.raises(PlatformUnable, match="TERM"):
            await platform.kill("shard-0-0", "TERM")
