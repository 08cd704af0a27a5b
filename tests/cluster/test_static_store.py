"""A whole store on nodes that somebody else runs: it forms, grows, fails over and moves house."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import redis.asyncio

from shardcluster.spec import parse
from shardcluster_runtime.desired import DesiredStore
from shardcluster_runtime.loop import Controller
from shardcluster_runtime.platforms.addresses import AddressFile
from shardcluster_runtime.platforms.static import StaticPlatform
from tests.cluster.ports import free_block
from tests.cluster.stores import document, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from tests.cluster.plain_nodes import PlainNode, PlainNodes
    from tests.cluster.stores import State

KEYS = 300


@contextlib.asynccontextmanager
async def _store(folder: Path, listing: Path) -> AsyncIterator[Controller]:
    """A controller on the listed nodes; they run on when it ends."""
    desired = DesiredStore(folder)
    desired.open(None, document(shards=2, failover={"nodeTimeoutMs": 1000}))
    platform = StaticPlatform(
        folder, AddressFile(listing), keeps_data=not parse(desired.document).memory_only
    )
    controller = Controller(platform, desired)
    await controller.start()
    try:
        yield controller
    finally:
        await controller.stop(stop_nodes=False)


def _list(listing: Path, nodes: Iterable[PlainNode]) -> None:
    scratch = listing.with_suffix(".new")
    scratch.write_text("".join(f"{node.address}\n" for node in nodes))
    scratch.replace(listing)


async def _calm(controller: Controller, shards: int) -> State:
    def calm() -> State | None:
        state = controller.state()
        serving = [shard for shard in state["shards"] if shard["slots"]]
        well = all(node["health"] == "Up" and node["link_up"] for node in state["nodes"])
        idle = state["reason"] == "Idle" and well
        return state if idle and len(serving) == len(state["shards"]) == shards else None

    try:
        found: State = await until(calm, f"{shards} calm shards")
    except AssertionError as error:
        state = controller.state()
        message = f"{error}; the status says {state['reason']}: {state['message']}"
        raise AssertionError(message) from error
    return found


def _client(controller: Controller) -> redis.asyncio.RedisCluster:
    """Any client of the cluster; it is told of one node and finds the others."""
    return redis.asyncio.RedisCluster("127.0.0.1", controller.state()["nodes"][0]["port"])


async def _write(controller: Controller) -> None:
    async with contextlib.aclosing(_client(controller)) as client:
        for number in range(KEYS):
            await client.set(f"key:{number}", number)


async def _all_there(controller: Controller) -> bool:
    async with contextlib.aclosing(_client(controller)) as client:
        values = [await client.get(f"key:{number}") for number in range(KEYS)]
    return values == [b"%d" % number for number in range(KEYS)]


def _are_at_home(controller: Controller, nodes: list[PlainNode]) -> bool:
    """Whether the status shows every node at its present port."""
    shown = {node["port"] for node in controller.state()["nodes"]}
    return shown == {node.port for node in nodes}


def _ids(state: State) -> dict[str, str]:
    return {node["name"]: node["node_id"] for node in state["nodes"]}


async def test_a_store_of_other_peoples_nodes_grows_and_shrinks(
    free_folder: Path, tmp_path: Path, start_plain_node: PlainNodes
) -> None:
    """Spares are put to use, and are spares again afterwards."""
    nodes = [start_plain_node("--appendonly", "yes") for _ in range(6)]
    _list(tmp_path / "nodes", nodes)
    async with _store(free_folder, tmp_path / "nodes") as controller:
        state = await _calm(controller, 2)
        assert state["spare_nodes"] == 2
        await _write(controller)
        await controller.add_shard()
        await _calm(controller, 3)
        assert await _all_there(controller)
        await controller.remove_shard("shard-2")
        await _calm(controller, 2)
        assert await _all_there(controller)
        await until(lambda: controller.state()["spare_nodes"] == 2, "the spares")


async def test_every_node_restarted_on_another_port_is_found_and_nothing_is_formed_anew(
    free_folder: Path, tmp_path: Path, start_plain_node: PlainNodes
) -> None:
    """All at once, while the controller runs, and again while it does not."""
    nodes = [start_plain_node("--appendonly", "yes") for _ in range(4)]
    _list(tmp_path / "nodes", nodes)
    ids: dict[str, str] = {}
    for _ in range(2):
        async with _store(free_folder, tmp_path / "nodes") as controller:
            state = await _calm(controller, 2)
            assert ids in ({}, _ids(state))
            if not ids:
                await _write(controller)
            for node in nodes:
                node.kill()
            for node in nodes:
                node.start(free_block())
            _list(tmp_path / "nodes", nodes)
            await until(partial(_are_at_home, controller, nodes), "the new addresses")
            ids = _ids(await _calm(controller, 2))
            assert await _all_there(controller)
        for node in nodes:
            node.kill()
        for node in nodes:
            node.start(free_block())
        _list(tmp_path / "nodes", nodes)


async def test_a_killed_master_is_replaced_and_follows_when_it_is_back(
    free_folder: Path, tmp_path: Path, start_plain_node: PlainNodes
) -> None:
    """Nothing here can end or start a process: two of three masters vote, somebody starts it."""
    nodes = [start_plain_node("--appendonly", "yes") for _ in range(6)]
    _list(tmp_path / "nodes", nodes)
    async with _store(free_folder, tmp_path / "nodes") as controller:
        await _calm(controller, 2)
        await controller.add_shard()
        state = await _calm(controller, 3)
        await _write(controller)
        master = next(node for node in state["nodes"] if node["role"] == "master")
        victim = next(node for node in nodes if node.port == master["port"])
        victim.kill()
        shard = master["shard"]
        await until(
            lambda: next(
                one["master"] not in {None, master["name"]}
                for one in controller.state()["shards"]
                if one["name"] == shard
            ),
            "another master",
        )
        victim.start(victim.port)
        await _calm(controller, 3)
        assert await _all_there(controller)


async def test_a_lost_list_of_members_is_read_off_the_cluster(
    free_folder: Path, tmp_path: Path, start_plain_node: PlainNodes
) -> None:
    """A new controller on an empty folder takes the running store over, its data in place."""
    nodes = [start_plain_node("--appendonly", "yes") for _ in range(5)]
    _list(tmp_path / "nodes", nodes)
    async with _store(free_folder, tmp_path / "nodes") as controller:
        await _calm(controller, 2)
        await _write(controller)
    (free_folder / "members.json").unlink()
    (free_folder / "formed").unlink()
    async with _store(free_folder, tmp_path / "nodes") as controller:
        state = await _calm(controller, 2)
        assert state["spare_nodes"] == 1
        assert await _all_there(controller)
