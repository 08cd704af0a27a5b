"""What one look after the other sees of real nodes, whatever their clocks say."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock

import pytest

from shardcluster.observed import Address, Role
from shardcluster_runtime.observe import Observer
from tests.cluster.stores import running_store

if TYPE_CHECKING:
    from pathlib import Path

    from shardcluster.observed import Observed

DEADLINE_S = 30.0
DAY_S = 86_400.0


@pytest.mark.parametrize("wrong_s", [0.0, DAY_S, -DAY_S])
async def test_times_of_nodes_are_by_the_observers_clock(
    free_folder: Path, base_port: int, wrong_s: float
) -> None:
    """Whoever's clock is wrong: what was heard between two moments lies between these."""

    def clock() -> float:
        return time.time() + wrong_s

    async with running_store(free_folder, base_port) as store:
        await store.calm(3)
        began_ms = int(clock() * 1000)
        observer = Observer(store.platform, lambda: None, clock=clock)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:  # until all have heard all once more since
                    observed = await observer.observe()
                    views = [node.view for node in observed.nodes if node.view is not None]
                    pongs = [
                        peer.pong_ms
                        for view in views
                        for peer in view.peers
                        if "myself" not in peer.flags
                    ]
                    if len(pongs) == 30 and all(pong >= began_ms for pong in pongs):
                        break
                    await asyncio.sleep(0.05)
            assert all(pong <= observed.now_ms for pong in pongs)
        finally:
            await observer.close()


async def _until_heard(observer: Observer, count: int) -> Observed:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = await observer.observe()
            if sum(node.view is not None for node in seen.nodes) == count:
                return seen
            await asyncio.sleep(0.05)


async def test_all_nodes_hang_and_go_on(free_folder: Path, base_port: int) -> None:
    """Nobody is waited for while all are silent; each is heard again all the same."""
    async with running_store(free_folder, base_port) as store:
        await store.calm(3)
        observer = Observer(store.platform, lambda: None)
        try:
            await _until_heard(observer, 6)
            names = [node.name for node in await store.platform.nodes()]
            for name in names:
                await store.platform.kill(name, "STOP")
            await _until_heard(observer, 0)
            for name in names:
                await store.platform.kill(name, "CONT")
            await _until_heard(observer, 6)
        finally:
            await observer.close()


@pytest.mark.parametrize("keeps_data", [True, False])
async def test_who_led_is_known_of_a_silent_node_and_after_its_disk_moved(
    free_folder: Path, base_port: int, *, keeps_data: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without storage a node at another address leads nothing any more."""
    async with running_store(free_folder, base_port) as store:
        await store.calm(3)
        monkeypatch.setattr(type(store.platform), "keeps_data", keeps_data)
        observer = Observer(store.platform, lambda: None)
        try:
            observed = await _until_heard(observer, 6)
            led = {node.name: node.led_epoch for node in observed.nodes}
            assert led == {
                node.name: node.view.myself.config_epoch if node.view and node.view.slots else 0
                for node in observed.nodes
            }
            assert any(led.values())
            places = await store.platform.nodes()
            moved = [
                dataclasses.replace(place, address=Address("127.0.0.1", 1)) for place in places
            ]
            monkeypatch.setattr(store.platform, "nodes", AsyncMock(return_value=moved))
            observed = await observer.observe()
            assert {node.name: node.led_epoch for node in observed.nodes} == (
                led if keeps_data else dict.fromkeys(led, 0)
            )
        finally:
            await observer.close()


async def test_a_promoted_replica_tells_of_the_history_it_goes_on_from(
    free_folder: Path, base_port: int
) -> None:
    """That of the master whose stream it followed; who was never promoted has none before."""
    async with running_store(free_folder, base_port) as store:
        await store.calm(3)
        observer = Observer(store.platform, lambda: None)
        try:
            before = {n.name: n.view for n in (await _until_heard(observer, 6)).nodes if n.view}
            await store.platform.kill("shard-0-0", "KILL")
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    seen = {n.name: n.view for n in (await observer.observe()).nodes if n.view}
                    heir = seen.get("shard-0-1")
                    if heir is not None and heir.role is Role.MASTER:
                        break
                    await asyncio.sleep(0.05)
            assert heir.history_before == before["shard-0-0"].history
            assert heir.history != heir.history_before
            assert before["shard-0-0"].history_before == ""
        finally:
            await observer.close()
