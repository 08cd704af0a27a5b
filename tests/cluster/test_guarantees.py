"""What docs/guarantees.md says of acknowledged writes and of reads, on real nodes."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardcluster.actions import Move
from shardcluster.observed import Address
from shardcluster.slots import key_slot
from shardcluster_runtime.migrate import LanePool, Pace, move_slots
from shardcluster_runtime.wire import Credentials, NodeConnection
from tests.cluster.gateway_fixtures import gateway_process
from tests.cluster.mini_cluster import eventually, mini_cluster
from tests.cluster.stores import document, running_store, until
from tests.cluster.troubled import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cluster.mini_cluster import MiniNode
    from tests.cluster.stores import Store

KEY = "{b}key"  # slot 3300, of the first of three shards
SLOT = key_slot(KEY.encode())
WRITERS = 4
KEYS_OF_A_WRITER = 25
TIMEOUT_S = 30.0
ALL_PACKETS, NO_PACKETS = -2, -1  # of the bus, as the engine counts them


def _document(*, storage: bool, shards: int = 3) -> dict[str, Any]:
    doc = document(shards=shards, failover={"nodeTimeoutMs": 1000})
    if not storage:
        del doc["spec"]["storage"]
    return doc


@asynccontextmanager
async def _client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """Of a gateway process on that store."""
    seeds = ",".join(f"127.0.0.1:{node['port']}" for node in store.state["nodes"])
    with gateway_process("fast", seeds=seeds) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=TIMEOUT_S) as client:
            yield client


@dataclass
class _Registers:
    """Keys whose writers write 1, 2, 3, … with one durability, and what was acknowledged."""

    client: httpx.AsyncClient
    durability: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    ended: bool = False

    async def write(self, writer: int) -> None:
        for number in itertools.count(KEYS_OF_A_WRITER):
            if self.ended:
                return
            key = f"register-{writer}-{number % KEYS_OF_A_WRITER}"
            value = self.tried[key] = number // KEYS_OF_A_WRITER
            answer = await self.client.put(
                f"/v1/keys/{key}?durability={self.durability}", content=b"%d" % value
            )
            if answer.status_code == 204:
                self.acknowledged[key] = value

    @property
    def count(self) -> int:
        return sum(self.acknowledged.values())

    async def more(self) -> None:
        """Wait for a round of acknowledged writes."""
        goal = self.count + WRITERS * KEYS_OF_A_WRITER
        await until(lambda: self.count >= goal, "more acknowledged writes")

    async def lost(self) -> list[str]:
        """Keys with less than was acknowledged, or with what nobody wrote."""
        found = []
        for key, acknowledged in self.acknowledged.items():
            answer = await self.client.get(f"/v1/keys/{key}?consistency=strong")
            value = int(answer.content) if answer.status_code == 200 else None
            if value is None or not acknowledged <= value <= self.tried[key]:
                found.append(f"{key}: {value}, acknowledged {acknowledged}")
        return found


@pytest.mark.parametrize("storage", [True, False], ids=["storage", "memory"])
async def test_a_write_that_a_replica_has_outlives_its_master(
    tmp_path: Path, base_port: int, *, storage: bool
) -> None:
    """`durability=replica`, each master killed in turn under writes, with and without storage."""
    async with running_store(tmp_path, base_port, _document(storage=storage)) as store:
        await store.calm(3)
        async with _client(store) as client:
            registers = _Registers(client, "replica")
            writers = [asyncio.create_task(registers.write(n)) for n in range(WRITERS)]
            for shard in ("shard-0", "shard-1", "shard-2"):
                await registers.more()
                await _kill_master(store, shard)
            await registers.more()
            registers.ended = True
            await asyncio.gather(*writers)
            assert await registers.lost() == []


async def _kill_master(store: Store, shard: str) -> None:
    """And wait until another leads and all is well."""
    old = store.shard(shard)["master"]
    await store.controller.kill(old, "KILL")
    await until(lambda: store.shard(shard)["master"] != old, "the failover")
    await store.calm(3)


async def _let_nobody_follow(port: int) -> None:
    """The master at that port cuts off its replicas, and takes them back no more."""
    master = await NodeConnection.open(Address("127.0.0.1", port), timeout_s=5.0)
    await master.call("ACL", "SETUSER", "default", "-psync", "-sync", timeout_s=5.0)
    await master.call("CLIENT", "KILL", "TYPE", "replica", timeout_s=5.0)
    master.close()


@pytest.mark.parametrize("durability", ["async", "disk"])
async def test_a_write_that_no_replica_has_goes_with_its_master(
    tmp_path: Path, base_port: int, durability: str
) -> None:
    """Even one on the master's disk: a replica that is a moment behind leads in its place.

    The replica's link is cut right before the write, and the master killed right after it.
    """
    async with running_store(tmp_path, base_port, _document(storage=True)) as store:
        await store.calm(3)
        async with _client(store) as client:
            kept = await client.put(f"/v1/keys/{KEY}?durability=replica", content=b"kept")
            assert kept.status_code == 204
            port = int(kept.headers["X-ShardCluster-Node"].rpartition(":")[2])
            old = next(node for node in store.state["nodes"] if node["port"] == port)
            await _let_nobody_follow(port)
            answer = await client.put(f"/v1/keys/{KEY}?durability={durability}", content=b"gone")
            assert answer.status_code == 204
            await _kill_master(store, old["shard"])
            read = await client.get(f"/v1/keys/{KEY}?consistency=strong")
            assert read.content == b"kept"


async def test_what_a_slot_s_move_has_handed_over_is_on_one_node_until_its_replica_has_it() -> None:
    """Also what a replica of the old owner had: the target's end in that moment takes it.

    The target's replica is cut off, so that the moment lasts.
    """
    options = ("--cluster-require-full-coverage", "no")
    async with (
        mini_cluster(3, owners=3, replicas=1, options=options) as cluster,
        served(cluster) as asked,
    ):
        source, target, _ = cluster.masters
        assert (await asked.put(KEY, b"v", "?durability=replica")).status_code == 204
        await target.call("ACL", "SETUSER", "default", "-psync", "-sync")
        await target.call("CLIENT", "KILL", "TYPE", "replica")
        await target.call("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source.node_id)
        await source.call("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.node_id)
        await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", KEY)
        target.end()
        heir = cluster.replicas[1]
        await eventually(lambda: _leads(heir), "the target's replica leads")
        left = await cluster.keys([source, heir, cluster.replicas[0]])
        assert KEY.encode() not in left


async def _leads(node: MiniNode) -> bool:
    return bool((await node.call("ROLE"))[0] == b"master")


async def test_a_moved_slot_keeps_what_a_token_s_bearer_wrote() -> None:
    """The token of a write leads its bearer to the slot's new owner, through another gateway."""
    async with (
        mini_cluster(3, owners=3, replicas=1) as cluster,
        served(cluster) as first,
        served(cluster) as second,
    ):
        written = await first.client.post("/", json=["SET", KEY, "mine"])
        token = {"upstash-sync-token": written.headers["upstash-sync-token"]}
        peers = {node.name: node.peer() for node in cluster.masters}
        lanes = LanePool(Credentials())
        moved = await move_slots(
            [Move(SLOT, "m0", "m1")], peers, lanes=lanes, stop=asyncio.Event(), pace=Pace(10.0)
        )
        lanes.close()
        assert moved.moved_slots == (SLOT,)
        read = await second.client.post("/", json=["GET", KEY], headers=token)
        assert read.json() == {"result": "mine"}
        assert read.headers["X-ShardCluster-Node"] == str(cluster.masters[1].address)


async def test_a_replica_that_is_behind_answers_with_what_was() -> None:
    """Two reads may even go back in time; a strong one and one with a sync token don't.

    Of two replicas one is cut off, and the gateway does not look how far they are behind.
    """
    async with mini_cluster(1, owners=1, replicas=2) as cluster:
        master, behind = cluster.masters[0], cluster.replicas[0]
        never = {"shardcluster_api.topology.LAG_INTERVAL_S": 3600.0}
        seeds = str(master.address)
        with gateway_process("fast", seeds=seeds, changed=never) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=TIMEOUT_S) as client:
                await client.put(f"/v1/keys/{KEY}?durability=replica", content=b"old")
                await master.call("WAIT", 2, 5000)
                await behind.call("CONFIG", "SET", "masterauth", "what is not asked for")
                await master.call("CLIENT", "KILL", "TYPE", "replica")
                written = await client.post("/", json=["SET", KEY, "new"])
                await client.put(f"/v1/keys/{KEY}?durability=replica", content=b"new")
                token = {"upstash-sync-token": written.headers["upstash-sync-token"]}
                seen = [(await client.get(f"/v1/keys/{KEY}")).content for _ in range(60)]
                assert set(seen) == {b"old", b"new"}
                assert b"old" in seen[seen.index(b"new") :]
                for _ in range(10):
                    strong = await client.get(f"/v1/keys/{KEY}?consistency=strong")
                    mine = await client.post("/", json=["GET", KEY], headers=token)
                    assert (strong.content, mine.json()) == (b"new", {"result": "new"})


async def test_several_keys_of_a_slot_on_its_way_are_waited_for() -> None:
    """TRYAGAIN, as long as some are at its source and some at its target: then all are read."""
    keys = [f"{{b}}{number}" for number in range(4)]
    async with mini_cluster(2, owners=2) as cluster, served(cluster) as asked:
        source, target = cluster.masters
        for key in keys:
            assert (await asked.put(key, key.encode())).status_code == 204
        await target.call("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source.node_id)
        await source.call("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.node_id)
        move = ("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS")
        await source.call(*move, *keys[:2])
        reading = asyncio.create_task(asked.client.post("/", json=["MGET", *keys]))
        counting = asyncio.create_task(asked.client.post("/", json=["EXISTS", *keys]))
        await asked.until_metric(bool, "node_errors_total", kind="TRYAGAIN")
        assert not reading.done()
        await source.call(*move, *keys[2:])
        assert (await reading).json() == {"result": keys}
        assert (await counting).json() == {"result": len(keys)}


async def test_a_cut_takes_what_only_the_smaller_side_has() -> None:
    """A master and one of its two replicas are cut off: also what that one had is gone.

    Until it notices the master takes writes, and reads even after it was replaced.  The cut: both
    hear nothing of the others any more, and the second replica can't follow.
    """
    options = ("--cluster-require-full-coverage", "no", "--cluster-allow-reads-when-down", "yes")
    async with (
        mini_cluster(3, owners=3, replicas=2, options=options) as cluster,
        served(cluster) as asked,
    ):
        master = cluster.masters[0]
        with_it, heir = [node for node in cluster.replicas if await _follows(node, master)]
        assert (await asked.put(KEY, b"before", "?durability=replica")).status_code == 204
        await master.call("WAIT", 2, 5000)
        await heir.call("CONFIG", "SET", "masterauth", "what is not asked for")
        await master.call("CLIENT", "KILL", "TYPE", "replica")
        await eventually(lambda: _has_replicas(master, 1), "one replica follows")
        for node in (master, with_it):
            await node.call("DEBUG", "DROP-CLUSTER-PACKET-FILTER", ALL_PACKETS)
        answer = await asked.put(KEY, b"during", "?durability=replica")
        assert (answer.status_code, answer.headers["X-ShardCluster-Replicas-Acked"]) == (204, "1")
        await eventually(lambda: _leads(heir), "the majority's replica leads")
        assert await master.call("GET", KEY) == b"during"
        for node in (master, with_it):
            await node.call("DEBUG", "DROP-CLUSTER-PACKET-FILTER", NO_PACKETS)
        await heir.call("CONFIG", "SET", "masterauth", "")
        await eventually(lambda: _follows(master, heir), "the old master follows")
        await eventually(lambda: _follows(with_it, heir), "and so does its replica")
        assert (await asked.get(KEY, "?consistency=strong")).content == b"before"


async def _follows(node: MiniNode, master: MiniNode) -> bool:
    role = await node.call("ROLE")
    return bool(role[0] == b"slave" and role[2] == master.port)


async def _has_replicas(node: MiniNode, count: int) -> bool:
    return b"connected_slaves:%d\r" % count in await node.call("INFO", "replication")
