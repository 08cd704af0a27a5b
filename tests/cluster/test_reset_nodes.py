"""A node that is let go is made blank; killed before its end it must not come back as another one.

What a replica had copied stays in its append-only file as it is reset, and the engine lets a node
claim each slot of which it finds keys and knows no owner.  Found by `make chaos TIER=process
SEED=306`.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shardcluster.observed import Address
from shardcluster_runtime.platforms._node_file import set_aside, was_reset
from shardcluster_runtime.platforms.protocol import PlatformUnable
from shardcluster_runtime.wire import ask_once
from tests.cluster.stores import Store, document, running_store, until

if TYPE_CHECKING:
    from pathlib import Path

KEYS = 500
DEADLINE_S = 20.0
LEAVES = "shard-1-1"
FAST_TIMEOUT: dict[str, Any] = {"failover": {"nodeTimeoutMs": 1000}}


async def _ask(store: Store, name: str, *command: str) -> Any:
    address = Address("127.0.0.1", store.node(name)["port"])
    return await ask_once(address, *command, timeout_s=DEADLINE_S)


def _process_id(folder: Path, name: str) -> int:
    found: int = json.loads((folder / "nodes" / name / "node.json").read_text())["pid"]
    return found


def _all_there(store: Store) -> bool:
    with redis.RedisCluster(host="127.0.0.1", port=store.master_port("shard-0")) as client:
        return all(client.get(f"key:{number}") == b"kept" for number in range(KEYS))


async def _fill(store: Store) -> None:
    with redis.RedisCluster(host="127.0.0.1", port=store.master_port("shard-0")) as client:
        for number in range(KEYS):
            client.set(f"key:{number}", "kept")


def _log(folder: Path, name: str) -> bytes:
    """What the node has appended to its file."""
    paths = (folder / "nodes" / name / "data").glob("appendonlydir/*.incr.aof")
    return b"".join(path.read_bytes() for path in paths)


async def _at_rest_and_full(folder: Path, base_port: int) -> None:
    """A store whose nodes run on without a controller; the one that leaves has a file of keys."""
    async with running_store(
        folder, base_port, document(**FAST_TIMEOUT), stop_nodes=False
    ) as store:
        await store.calm(3)
        await _fill(store)
        await until(lambda: b"kept" in _log(folder, LEAVES), "the replica to write its file")


async def test_killed_amid_its_release_a_node_comes_back_blank_and_is_let_go(
    free_folder: Path, base_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was reset, its process ends, and the platform has not taken it away yet."""
    await _at_rest_and_full(free_folder, base_port)
    async with running_store(free_folder, base_port, stop_nodes=True) as store:
        await store.calm(3)
        files: list[bytes] = []
        scale = store.platform.scale_shard

        async def killed_first(shard: str, nodes: int) -> None:
            if not files and (shard, nodes) == ("shard-1", 1):
                os.kill(_process_id(free_folder, LEAVES), signal.SIGKILL)
                files.append(_log(free_folder, LEAVES))
                message = "It is not a good moment."
                raise PlatformUnable(message)
            await scale(shard, nodes)

        monkeypatch.setattr(store.platform, "scale_shard", killed_first)
        await store.controller.put_spec(document(replicas=0, **FAST_TIMEOUT))
        await until(lambda: files, f"the release of {LEAVES}")
        assert files[0].rstrip().endswith(b"SYNC")
        state = await store.calm(3)
        assert [node["name"] for node in state["nodes"]] == ["shard-0-0", "shard-1-0", "shard-2-0"]
        assert _all_there(store)


@pytest.mark.parametrize("replicas", [0, 1], ids=["surplus", "wanted again"])
async def test_killed_right_after_its_reset_a_node_does_not_claim_what_it_had_copied(
    free_folder: Path, base_port: int, replicas: int
) -> None:
    """And the controller with it, before anything could be done about its file."""
    await _at_rest_and_full(free_folder, base_port)
    async with running_store(free_folder, base_port, stop_nodes=False) as store:
        await store.calm(3)
        number = _process_id(free_folder, LEAVES)
        await store.controller.stop(stop_nodes=False)
        await _ask(store, LEAVES, "CLUSTER", "RESET", "HARD")
        os.kill(number, signal.SIGKILL)
    wanted = document(replicas=replicas, **FAST_TIMEOUT)
    async with running_store(free_folder, base_port, wanted) as store:
        state = await store.calm(3)
        assert len(state["nodes"]) == 3 * (1 + replicas)
        assert _all_there(store)


_MYSELF = "a" * 40 + " 127.0.0.1:7100@17100,,tls-port=0 myself,master - 0 0 0 connected"
_OTHER = "b" * 40 + " 127.0.0.1:7101@17101 master - 0 0 1 connected 0-5"
_VARS = "vars currentEpoch 0 lastVoteEpoch 0"


@pytest.mark.parametrize(
    ("lines", "reset"),
    [
        ([_MYSELF, _VARS], True),
        ([f"{_MYSELF} 0-16383", _VARS], False),
        ([f"{_MYSELF} [5-<-{'b' * 40}]", _VARS], False),
        ([_MYSELF.replace("master", "slave"), _VARS], False),
        ([_MYSELF, _OTHER, _VARS], False),
        ([_MYSELF], False),
        ([], False),
    ],
    ids=["alone", "slots", "importing", "replica", "friends", "torn", "empty"],
)
def test_only_who_knows_nobody_and_owns_nothing_was_reset(
    tmp_path: Path, lines: list[str], *, reset: bool
) -> None:
    """A file that isn't whole tells nothing."""
    path = tmp_path / "nodes.conf"
    assert not was_reset(path)
    path.write_text("".join(f"{line}\n" for line in lines))
    assert was_reset(path) is reset


def test_what_a_reset_node_had_copied_is_put_aside(tmp_path: Path) -> None:
    """One that lost the file that tells of the cluster looks the same: people may want its data."""
    data, aside = tmp_path / "data", tmp_path / "set-aside"
    data.mkdir()
    (data / "nodes.conf").write_text("alone")
    set_aside(data)
    assert not aside.exists()
    for content in ("first", "second"):
        (data / "appendonlydir").mkdir()
        (data / "appendonlydir" / "log").write_text(content)
        set_aside(data)
        assert [entry.name for entry in data.iterdir()] == ["nodes.conf"]
        assert (aside / "appendonlydir" / "log").read_text() == content
