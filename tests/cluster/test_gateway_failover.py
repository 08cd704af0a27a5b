"""The router on real nodes: slots that move, masters that hand over, die or hang."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from shardcluster.slots import key_slot
from shardcluster_api.gateway import Gateway
from shardcluster_api.settings import Settings
from tests.cluster.mini_cluster import MiniCluster, MiniNode, eventually, mini_cluster
from tests.unit.api_fakes import ask, document, gateway_on, header, until

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"{b}key"  # slot 3300, of the first master


def _seeds(cluster: MiniCluster) -> list[Any]:
    return [node.address for node in cluster.masters]


def _keys_of(nodes: int, number: int, count: int) -> list[bytes]:
    """Keys whose slots belong to the `number`-th of so many masters."""
    share = 16384 // nodes
    wanted = range(number * share, (number + 1) * share)
    found = (b"key-%d" % index for index in range(100_000))
    return [key for key in found if key_slot(key) in wanted][:count]


async def _put(gateway: Gateway, key: bytes, value: bytes = b"v", query: str = "") -> int:
    return (await ask(gateway, "put_key", key=key, body=value, query=query)).status


async def test_a_slot_that_was_moved_is_followed() -> None:
    """By MOVED; the answer names the new owner, and the map is mended."""
    async with mini_cluster(3, owners=3) as cluster, gateway_on(*_seeds(cluster)) as gateway:
        source, target = cluster.masters[:2]
        slot = key_slot(KEY)
        for node in (target, source, cluster.masters[2]):
            await node.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        answer = await ask(gateway, "put_key", key=KEY, body=b"v")
        assert header(answer, "Node") == str(target.address)
        redirects = "shardcluster_gateway_redirects_total"
        moved = gateway.metrics.registry.get_sample_value(redirects, {"kind": "MOVED"})
        assert await _put(gateway, KEY) == 204
        again = gateway.metrics.registry.get_sample_value(redirects, {"kind": "MOVED"})
        assert again == moved


async def test_a_slot_on_its_way_is_served_from_both_sides() -> None:
    """Keys that are still at the source, and those that are at the target already."""
    async with (
        mini_cluster(2, owners=2, replicas=1) as cluster,
        gateway_on(*_seeds(cluster)) as gateway,
    ):
        source, target = cluster.masters
        slot, there, here = key_slot(KEY), b"{b}there", b"{b}here"
        assert [await _put(gateway, key) for key in (there, here)] == [204, 204]
        await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
        await source.call(
            "MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", there
        )  # fmt: skip
        for key in (there, here):
            assert (await ask(gateway, "get_key", key=key)).body == b"v"
            assert await _put(gateway, key, b"2") == 204
        assert await _put(gateway, b"{b}new") == 204
        assert await source.call("DBSIZE") == 1
        assert await target.call("DBSIZE") == 2
        deleted = await ask(gateway, "delete_key", key=there)
        assert header(deleted, "Node") == str(target.address)


async def test_a_planned_hand_over_loses_no_write() -> None:
    """CLUSTER FAILOVER under constant writes: each is accepted."""
    async with (
        mini_cluster(3, owners=3, replicas=1) as cluster,
        gateway_on(*_seeds(cluster)) as gateway,
    ):
        replica = cluster.replicas[0]
        statuses: list[int] = []
        stop = asyncio.Event()
        writers = [asyncio.create_task(_keep_writing(gateway, stop, statuses)) for _ in "1234"]
        await replica.call("CLUSTER", "FAILOVER")
        await eventually(lambda: _is_master(replica), "the replica took over")
        await until(_more(statuses, 200), "writes went on")
        stop.set()
        await asyncio.gather(*writers)
        assert set(statuses) == {204}
        answer = await ask(gateway, "put_key", key=KEY, body=b"v")
        assert header(answer, "Node") == str(replica.address)


async def _is_master(node: MiniNode) -> bool:
    return bool((await node.call("ROLE"))[0] == b"master")


async def _keep_writing(gateway: Gateway, stop: asyncio.Event, statuses: list[int]) -> None:
    while not stop.is_set():
        statuses.append(await _put(gateway, KEY))


def _more(statuses: list[int], count: int) -> Callable[[], bool]:
    wanted = len(statuses) + count
    return lambda: len(statuses) >= wanted


async def test_a_write_after_a_kill_waits_for_the_new_master() -> None:
    """SIGKILL, then FAILOVER FORCE: the write that came between them succeeds."""
    async with (
        mini_cluster(3, owners=3, replicas=1) as cluster,
        gateway_on(*_seeds(cluster)) as gateway,
    ):
        assert await _put(gateway, KEY, b"old", "durability=replica") == 204
        cluster.masters[0].end()
        link = gateway.topology.link(cluster.masters[0].address)
        await until(lambda: not link.connected, "the gateway sees the end")
        writing = asyncio.create_task(_put(gateway, KEY, b"new"))
        read = await ask(gateway, "get_key", key=KEY)
        assert (read.status, header(read, "Stale")) == (200, "master-down")
        await cluster.replicas[0].call("CLUSTER", "FAILOVER", "FORCE")
        assert await writing == 204
        answer = await ask(gateway, "get_key", key=KEY, query="consistency=strong")
        assert answer.body == b"new"
        assert header(answer, "Node") == str(cluster.replicas[0].address)


async def test_a_hung_node_does_not_hold_up_the_others() -> None:
    """SIGSTOP of one master: the other shards write, and its replica still answers reads."""
    async with (
        mini_cluster(
            3, owners=3, replicas=1, options=("--cluster-replica-no-failover", "yes")
        ) as cluster,
        gateway_on(*_seeds(cluster)) as gateway,
    ):
        for number in range(3):
            for key in _keys_of(3, number, 5):
                assert await _put(gateway, key) == 204
        hung = cluster.masters[0]
        hung.signal(signal.SIGSTOP)
        try:
            stuck = [asyncio.create_task(_put(gateway, key)) for key in _keys_of(3, 0, 5)]
            for number in (1, 2):
                for key in _keys_of(3, number, 5):
                    assert await _put(gateway, key) == 204
                    assert (await ask(gateway, "get_key", key=key)).status == 200
            reads = [await ask(gateway, "get_key", key=key) for key in _keys_of(3, 0, 5)]
            assert {read.status for read in reads} == {200}
            assert not any(task.done() for task in stuck)
        finally:
            hung.signal(signal.SIGCONT)
        assert set(await asyncio.gather(*stuck)) <= {204, 503}


async def test_a_hung_replica_costs_reads_a_moment_only() -> None:
    """The master answers them."""
    async with (
        mini_cluster(1, owners=1, replicas=1) as cluster,
        gateway_on(*_seeds(cluster)) as gateway,
    ):
        assert await _put(gateway, KEY) == 204
        await cluster.masters[0].call("WAIT", 1, 5000)
        replica = cluster.replicas[0]
        assert header(await ask(gateway, "get_key", key=KEY), "Role") == "replica"
        replica.signal(signal.SIGSTOP)
        try:
            for _ in range(5):
                answer = await ask(gateway, "get_key", key=KEY)
                assert (answer.status, header(answer, "Role")) == (200, "master")
        finally:
            replica.signal(signal.SIGCONT)
        await until(_read_from_replica(gateway), "the replica is used again")


def _read_from_replica(gateway: Gateway) -> Callable[[], bool]:
    link = next(link for link in gateway.topology.map.routes()[0].replicas)
    loop = asyncio.get_running_loop()
    return lambda: link.readable(loop.time())


async def test_a_cut_connection_is_opened_again() -> None:
    """CLIENT KILL at every node: the next requests succeed, whatever was idle."""
    async with (
        mini_cluster(1, owners=1, replicas=1) as cluster,
        gateway_on(*_seeds(cluster)) as gateway,
    ):
        assert await _put(gateway, KEY) == 204
        await cluster.masters[0].call("WAIT", 1, 5000)
        for _ in range(3):
            for node in cluster.nodes:
                await node.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda: not _all_usable(gateway), "the cut is seen")
            assert await _put(gateway, KEY) == 204
            assert (await ask(gateway, "get_key", key=KEY)).status == 200
            await until(lambda: _all_usable(gateway), "all are open again")


def _all_usable(gateway: Gateway) -> bool:
    return all(link.usable for link in gateway.topology.links.values())


async def test_a_full_store_is_told_with_the_engines_words() -> None:
    """Out of memory: 507, not applied; reads go on."""
    async with mini_cluster(1, owners=1) as cluster, gateway_on(*_seeds(cluster)) as gateway:
        assert await _put(gateway, KEY) == 204
        await cluster.masters[0].call("CONFIG", "SET", "maxmemory", 1)
        answer = await ask(gateway, "put_key", key=KEY, body=b"2")
        found = document(answer)
        assert (answer.status, found["error"]["code"]) == (507, "OutOfMemory")
        assert "OOM" in found["error"]["message"]
        assert found["outcome"] == "not_applied"
        assert (await ask(gateway, "get_key", key=KEY)).body == b"v"


async def test_a_password_is_used_for_every_connection() -> None:
    """Reads, writes and durable writes."""
    async with mini_cluster(1, owners=1, replicas=1, password="secret") as cluster:  # noqa: S106
        seeds = ",".join(str(node.address) for node in cluster.masters)
        made = Gateway(Settings.read(None, seeds, {"SHARDCLUSTER_PASSWORD": "secret"}))
        made.start()
        try:
            await until(lambda: not made.unready(), "it is ready")
            query = "durability=replica"
            assert (await ask(made, "put_key", key=KEY, body=b"v", query=query)).status == 204
            assert (await ask(made, "get_key", key=KEY)).body == b"v"
        finally:
            await made.close()
