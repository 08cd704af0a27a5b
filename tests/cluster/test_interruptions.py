"""The controller is killed before every single action, and amid one; another ends the work.

The nodes outlive their controller.  Each round kills at the next action, lets a second controller
finish, and looks at every key.  The rounds end when an operation finishes without being killed, so
that the enumeration is complete by construction.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shardcluster_runtime.desired import DesiredStore
from tests.cluster.stores import document, running_store

if TYPE_CHECKING:
    from pathlib import Path

ACTIONS_MAX = 40  # no operation here has so many; reaching it means it never ends
KEYS = 4000
MID_ACTION_MS = 15


async def _controller(
    folder: Path, base_port: int, die_before: int, die_after_ms: int = 0
) -> dict[str, Any] | None:
    """Run one until it is calm or killed itself; its last words, or None."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cluster.doomed_controller",
        str(folder), str(base_port), str(die_before), str(die_after_ms),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0, err.decode()
    last: dict[str, Any] = json.loads(out)
    return last


def _want(folder: Path, doc: dict[str, Any]) -> None:
    desired = DesiredStore(folder)
    desired.open(None, doc)
    desired.edit(doc)


def _fill(port: int) -> None:
    with redis.RedisCluster(host="127.0.0.1", port=port) as client:
        for number in range(KEYS):
            client.set(f"key:{number}", number)


def _check(state: dict[str, Any], shards: list[str], *, keys: int = KEYS) -> None:
    assert [shard["name"] for shard in state["shards"]] == shards
    assert sum(shard["slots"] for shard in state["shards"]) == 16384
    assert all(len(shard["replicas"]) == 1 for shard in state["shards"])
    if keys:
        with redis.RedisCluster(host="127.0.0.1", port=state["nodes"][0]["port"]) as client:
            missing = [n for n in range(keys) if client.get(f"key:{n}") != str(n).encode()]
        assert missing == []


def _port_of(state: dict[str, Any]) -> int:
    port: int = state["nodes"][0]["port"]
    return port


async def _end_nodes(folder: Path, base_port: int) -> None:
    """Adopt what runs and end it."""
    async with running_store(folder, base_port) as _:
        pass


async def _finish(folder: Path, base_port: int) -> dict[str, Any]:
    last = await _controller(folder, base_port, 0)
    assert last is not None
    state: dict[str, Any] = last["state"]
    return state


async def test_formation_is_finished_by_the_next_controller(tmp_path: Path, base_port: int) -> None:
    """Killed before each action of forming a store, from nothing each time."""
    for die_before in range(1, ACTIONS_MAX):
        folder = tmp_path / str(die_before)
        folder.mkdir()
        _want(folder, document(shards=2))
        try:
            whole = await _controller(folder, base_port, die_before)
            _check(await _finish(folder, base_port), ["shard-0", "shard-1"], keys=0)
        finally:
            await _end_nodes(folder, base_port)
        if whole is not None:
            return
    pytest.fail("forming never ends")


@pytest.mark.timeout(900)  # dozens of controllers, one after the other
@pytest.mark.parametrize("die_after_ms", [0, MID_ACTION_MS], ids=["before", "amid"])
async def test_adding_and_removing_a_shard_is_finished_by_the_next_controller(
    tmp_path: Path, base_port: int, die_after_ms: int
) -> None:
    """3 → 4 → 3 again and again, killed one action later each round."""
    three, four = document(), document(shards=4)
    _want(tmp_path, three)
    try:
        state = await _finish(tmp_path, base_port)
        _fill(_port_of(state))
        for number in range(1, ACTIONS_MAX):
            _want(tmp_path, four)
            grown = await _controller(tmp_path, base_port, number, die_after_ms)
            state = await _finish(tmp_path, base_port)
            _check(state, ["shard-0", "shard-1", "shard-2", "shard-3"])
            _want(tmp_path, three)
            shrunk = await _controller(tmp_path, base_port, number, die_after_ms)
            state = await _finish(tmp_path, base_port)
            _check(state, ["shard-0", "shard-1", "shard-2"])
            if grown is not None and shrunk is not None:
                return
        pytest.fail("growing and shrinking never ends")
    finally:
        await _end_nodes(tmp_path, base_port)


async def test_a_failover_is_finished_by_the_next_controller(
    tmp_path: Path, base_port: int
) -> None:
    """A master is killed and the controller with it, one action later each round."""
    _want(tmp_path, document())
    try:
        state = await _finish(tmp_path, base_port)
        _fill(_port_of(state))
        for number in range(1, ACTIONS_MAX):
            async with running_store(tmp_path, base_port, stop_nodes=False) as store:
                await store.calm(3)
                await store.controller.kill(store.shard("shard-0")["master"], "KILL")
            whole = await _controller(tmp_path, base_port, number)
            _check(await _finish(tmp_path, base_port), ["shard-0", "shard-1", "shard-2"])
            if whole is not None:
                return
        pytest.fail("failing over never ends")
    finally:
        await _end_nodes(tmp_path, base_port)
