"""What clients see over HTTP while real nodes refuse, load, hang, are busy, full or gone."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shardcluster.slots import key_slot
from shardcluster_runtime.wire import NodeConnection
from tests.cluster.mini_cluster import MiniNode, eventually, mini_cluster
from tests.cluster.troubled import Asked, keys_of, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

KEY = "{b}key"  # slot 3300, of the first of two or three masters
SLOT = key_slot(KEY.encode())
NO_FAILOVER = ("--cluster-replica-no-failover", "yes")
# As the project's own nodes are set, so that one lost shard does not silence the others.
AS_DEPLOYED = (*NO_FAILOVER, "--cluster-require-full-coverage", "no",
               "--cluster-allow-reads-when-down", "yes")  # fmt: skip
ENDLESS = "while true do end"


def _not_applied(answer: httpx.Response, code: str, status: int = 503) -> bool:
    found = answer.json()
    assert (answer.status_code, found["error"]["code"]) == (status, code), answer.text
    if status == 503:
        assert answer.headers["Retry-After"] == "1"
    return bool(found["outcome"] == "not_applied")


async def test_a_moved_slot_is_followed_by_reads_and_writes() -> None:
    """MOVED once for each front, then the new owner is asked directly; a batch follows, too."""
    async with mini_cluster(2, owners=2, replicas=1) as cluster, served(cluster) as asked:
        source, target = cluster.masters
        for node in (target, source):
            await node.call("CLUSTER", "SETSLOT", SLOT, "NODE", target.node_id)
        await target.call("SET", KEY, "there")
        found = await asked.get(KEY)
        assert (found.status_code, found.content) == (200, b"there")
        assert found.headers["X-ShardCluster-Node"] != str(source.address)
        written = await asked.put(KEY)
        assert (written.status_code, written.headers["X-ShardCluster-Node"]) == (
            204,
            str(target.address),
        )
        moved = await asked.metric("redirects_total", kind="MOVED")
        assert moved >= 1
        items = [{"op": "put", "key": KEY, "value": "1"}, {"op": "get", "key": KEY}]
        batch = (await asked.client.post("/v1/batch", json={"operations": items})).json()
        assert [one["status"] for one in batch["results"]] == [200, 200]
        assert await asked.metric("redirects_total", kind="MOVED") == moved


async def test_a_slot_on_its_way_answers_for_every_key() -> None:
    """ASK: keys on either side are read, written and deleted, by one or in a batch, none missed."""
    keys = [f"{{b}}{number}" for number in range(40)]
    async with mini_cluster(2, owners=2, replicas=1) as cluster, served(cluster) as asked:
        source, target = cluster.masters
        for key in keys:
            assert (await asked.put(key, key.encode())).status_code == 204
        await target.call("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source.node_id)
        await source.call("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.node_id)
        for number in range(0, 40, 4):
            moved = keys[number : number + 4]
            await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", *moved)
            gets = [{"op": "get", "key": key} for key in keys]
            batch = (await asked.client.post("/v1/batch", json={"operations": gets})).json()
            assert [one.get("value") for one in batch["results"]] == keys
            for key in keys[:: 4 + number // 10]:
                assert (await asked.get(key)).content == key.encode()
                assert (await asked.put(key, key.encode())).status_code == 204
        assert await asked.metric("redirects_total", kind="ASK") > 0
        deleted = await asked.client.delete(f"/v1/keys/{keys[0]}")
        assert deleted.headers["X-ShardCluster-Node"] == str(target.address)
        new = await asked.put("{b}new")
        assert new.headers["X-ShardCluster-Node"] == str(target.address)


async def test_a_write_waits_while_its_slot_is_not_served() -> None:
    """CLUSTERDOWN: it succeeds when the slot is served again, and is refused when it isn't."""
    async with (
        mini_cluster(2, owners=2, options=("--cluster-require-full-coverage", "no")) as cluster,
        served(cluster) as asked,
    ):
        for node in cluster.masters:
            await node.call("CLUSTER", "DELSLOTS", SLOT)
        writing = asyncio.create_task(asked.put(KEY))
        await asked.until_metric(bool, "node_errors_total", kind="CLUSTERDOWN")
        other = await asked.put(keys_of(2, 1)[0])
        assert other.status_code == 204
        assert not writing.done()
        await cluster.masters[0].call("CLUSTER", "ADDSLOTS", SLOT)
        assert (await writing).status_code == 204
        await cluster.masters[0].call("CLUSTER", "DELSLOTS", SLOT)
        refused = await asked.put(KEY, b"2")
        assert _not_applied(refused, "NotServed")
        assert "CLUSTERDOWN" in refused.json()["error"]["message"]


async def test_a_node_that_loads_its_data_is_waited_for() -> None:
    """LOADING: strong reads and writes wait, other reads are answered by the replica meanwhile.

    The engine itself answers CLUSTERDOWN to writes then, and for 2 s after.
    """
    async with (
        mini_cluster(1, owners=1, replicas=1, options=AS_DEPLOYED) as cluster,
        served(cluster) as asked,
    ):
        master = cluster.masters[0]
        for number in range(1000):
            await master.call("SET", f"filler-{number}", "x" * 50)
        assert (await asked.put(KEY)).status_code == 204
        await master.call("WAIT", 1, 5000)
        await master.call("BGREWRITEAOF")
        await eventually(lambda: _rewritten(master), "the file is rewritten")
        master.options = (
            *master.options, "--key-load-delay", "1000",
            "--loading-process-events-interval-bytes", "1024",
        )  # fmt: skip
        master.end()
        master.start()
        waiting = asyncio.create_task(asked.get(KEY, "?consistency=strong"))
        writing = asyncio.create_task(asked.put(KEY, b"new"))
        await asked.until_metric(bool, "node_errors_total", kind="LOADING")
        assert not waiting.done()
        assert not writing.done()
        read = await asked.get(KEY)
        assert (read.status_code, read.content) == (200, b"v")
        assert read.headers["X-ShardCluster-Role"] == "replica"
        assert (await waiting).content == b"v"
        assert (await writing).status_code == 204
        assert (await asked.get(KEY, "?consistency=strong")).content == b"new"


async def _rewritten(node: MiniNode) -> bool:
    info = await node.call("INFO", "persistence")
    return b"aof_rewrite_in_progress:0" in info and b"aof_rewrite_scheduled:0" in info


async def test_a_replica_that_may_not_serve_old_data_is_no_answer() -> None:
    """MASTERDOWN: with the master gone reads wait for it, or end in a 503 that says why."""
    async with (
        mini_cluster(1, owners=1, replicas=1, options=NO_FAILOVER) as cluster,
        served(cluster) as asked,
    ):
        assert (await asked.put(KEY)).status_code == 204
        master, replica = cluster.masters[0], cluster.replicas[0]
        await master.call("WAIT", 1, 5000)
        await replica.call("CONFIG", "SET", "replica-serve-stale-data", "no")
        master.end()
        await asked.until_metric(bool, "node_errors_total", kind="ConnectionLost")
        refused = await asked.get(KEY)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert await asked.metric("node_errors_total", kind="MASTERDOWN") > 0
        reading = asyncio.create_task(asked.get(KEY))
        master.start()
        assert (await reading).content == b"v"


async def test_a_busy_node_is_waited_for() -> None:
    """BUSY: a script that does not end; the write is stored once it is killed, others go on."""
    async with (
        mini_cluster(2, owners=2, options=("--busy-reply-threshold", "50")) as cluster,
        served(cluster) as asked,
    ):
        busy = cluster.masters[0]
        script = asyncio.create_task(busy.call("EVAL", ENDLESS, 0, timeout_s=30))
        writing = asyncio.create_task(asked.put(KEY))
        await asked.until_metric(bool, "node_errors_total", kind="BUSY")
        assert (await asked.put(keys_of(2, 1)[0])).status_code == 204
        assert not writing.done()
        killer = await NodeConnection.open(busy.address, timeout_s=5)
        await killer.call("SCRIPT", "KILL")
        killer.close()
        assert (await writing).status_code == 204
        await asyncio.gather(script, return_exceptions=True)


async def test_a_full_node_refuses_with_its_own_words() -> None:
    """OOM: 507 and not applied, at once; reads and deletes go on, and writes when there is room."""
    async with mini_cluster(1, owners=1) as cluster, served(cluster) as asked:
        assert (await asked.put(KEY)).status_code == 204
        await cluster.masters[0].call("CONFIG", "SET", "maxmemory", 1)
        for _ in range(2):
            refused = await asked.put(KEY, b"2")
            assert _not_applied(refused, "OutOfMemory", 507)
            assert "OOM" in refused.json()["error"]["message"]
        assert (await asked.get(KEY)).content == b"v"
        assert (await asked.client.delete(f"/v1/keys/{KEY}")).status_code == 204
        await cluster.masters[0].call("CONFIG", "SET", "maxmemory", 0)
        assert (await asked.put(KEY, b"2")).status_code == 204


async def test_a_master_without_enough_replicas_is_waited_for() -> None:
    """NOREPLICAS: the write succeeds when they are back, else it is refused and not applied."""
    async with mini_cluster(1, owners=1) as cluster, served(cluster) as asked:
        master = cluster.masters[0]
        await master.call("CONFIG", "SET", "min-replicas-to-write", 1)
        refused = await asked.put(KEY)
        assert _not_applied(refused, "NotEnoughReplicas")
        assert "NOREPLICAS" in refused.json()["error"]["message"]
        assert await master.call("DBSIZE") == 0
        before = await asked.metric("node_errors_total", kind="NOREPLICAS")
        writing = asyncio.create_task(asked.put(KEY))
        await asked.until_metric(
            lambda value: value > before, "node_errors_total", kind="NOREPLICAS"
        )
        await master.call("CONFIG", "SET", "min-replicas-to-write", 0)
        assert (await writing).status_code == 204


async def test_a_write_that_surely_did_not_leave_is_sent_again() -> None:
    """The master is gone when it comes and back before the deadline: it succeeds."""
    async with mini_cluster(1, owners=1) as cluster, served(cluster) as asked:
        master = cluster.masters[0]
        assert (await asked.put(KEY)).status_code == 204
        master.end()
        writing = [asyncio.create_task(asked.put(KEY, b"%d" % n)) for n in range(5)]
        await asked.until_metric(bool, "retries_total", reason="NotReached")
        master.start()
        assert {(await one).status_code for one in writing} == {204}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "durable PUT"])
async def test_a_write_lost_with_its_node_is_unknown(method: str) -> None:
    """It was sent to a hung node that is then killed: 503 at once, `unknown`, never sent again."""
    async with (
        mini_cluster(1, owners=1, replicas=1, options=NO_FAILOVER) as cluster,
        served(cluster) as asked,
    ):
        master = cluster.masters[0]
        assert (await asked.put(KEY, b"1")).status_code == 204
        await asked.put(KEY, b"1", "?durability=replica")  # its connection is open then
        master.signal(signal.SIGSTOP)
        query = "?durability=replica" if method == "durable PUT" else ""
        verb = method.rpartition(" ")[2]
        content = b"2" if verb == "PUT" else None
        writing = asyncio.create_task(
            asked.client.request(verb, f"/v1/keys/{KEY}{query}", content=content)
        )
        await asked.until_metric(lambda value: value == 1, "in_flight")
        await _received(master)
        master.end()
        answer = await writing
        assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown"), answer.text
        assert answer.json()["error"]["code"] == "OutcomeUnknown"
        master.start()
        assert (await asked.get(KEY, "?consistency=strong")).content == b"1"
        assert await asked.metric("unknown_outcomes_total") == 1


async def _received(node: MiniNode) -> None:
    """The stopped node's kernel holds something that the process has not read."""

    async def unread() -> bool:
        with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: ASYNC230, PTH123 - memory
            rows = [line.split() for line in table.readlines()[1:]]
        port = f":{node.port:04X}"
        return any(row[1].endswith(port) and int(row[4].partition(":")[2], 16) > 40 for row in rows)

    await eventually(unread, "the write has arrived at the node's machine")


async def test_one_deadline_for_all_of_it() -> None:
    """A hung master: what was sent is unknown, what came later not applied; then all is well."""
    async with mini_cluster(1, owners=1) as cluster, served(cluster) as asked:
        master = cluster.masters[0]
        assert (await asked.put(KEY)).status_code == 204
        master.signal(signal.SIGSTOP)
        try:
            first = await asked.put(KEY, b"2")
            assert (first.status_code, first.json()["outcome"]) == (503, "unknown")
            second = await asked.put(KEY, b"3")
            assert _not_applied(second, "NotServed")
            read = await asked.get(KEY)
            assert (read.status_code, read.json()["error"]["code"]) == (503, "NotServed")
        finally:
            master.signal(signal.SIGCONT)
        assert (await asked.put(KEY, b"4")).status_code == 204
        assert (await asked.get(KEY)).content == b"4"


async def test_reads_go_on_when_a_shard_has_lost_its_master_for_good() -> None:
    """All nodes agree that it failed, nobody takes over: the replica answers, marked as old."""
    async with (
        mini_cluster(3, owners=3, replicas=1, options=AS_DEPLOYED) as cluster,
        served(cluster) as asked,
    ):
        lost, other = keys_of(3, 0)[0], keys_of(3, 1)[0]
        for key in (lost, other):
            assert (await asked.put(key)).status_code == 204
        await cluster.masters[0].call("WAIT", 1, 5000)
        dead = cluster.masters[0].node_id
        cluster.masters[0].end()
        await eventually(lambda: _failed(cluster.replicas[0], dead), "it counts as failed")
        for _ in range(3):
            read = await asked.get(lost)
            assert (read.status_code, read.content) == (200, b"v")
            assert read.headers["X-ShardCluster-Stale"] == "master-down"
            assert "X-ShardCluster-Stale" not in (await asked.get(other)).headers
            assert (await asked.put(other)).status_code == 204
        strong = await asked.get(lost, "?consistency=strong")
        assert (strong.status_code, strong.json()["error"]["code"]) == (503, "NotServed")


async def _failed(node: MiniNode, node_id: str) -> bool:
    peers = (await node.view()).peers
    return any(peer.node_id == node_id and "fail" in peer.flags for peer in peers)


async def test_a_replica_that_is_cut_off_gets_no_reads() -> None:
    """It may not follow its master any more: the master answers until it may again."""
    async with mini_cluster(1, owners=1, replicas=1) as cluster, served(cluster) as asked:
        assert (await asked.put(KEY, b"old")).status_code == 204
        master = cluster.masters[0]
        await master.call("WAIT", 1, 5000)
        await master.call("ACL", "SETUSER", "default", "-psync", "-sync")
        await master.call("CLIENT", "KILL", "TYPE", "replica")
        await eventually(lambda: _role_of(asked, "master"), "the master answers reads")
        assert (await asked.put(KEY, b"new")).status_code == 204
        for _ in range(5):
            assert (await asked.get(KEY)).content == b"new"
        await master.call("ACL", "SETUSER", "default", "+psync", "+sync")
        await eventually(lambda: _role_of(asked, "replica"), "the replica is used again")
        assert (await asked.get(KEY)).content == b"new"


async def _role_of(asked: Asked, role: str) -> bool:
    return (await asked.get(KEY)).headers["X-ShardCluster-Role"] == role


async def test_reads_are_spread_by_load() -> None:
    """A replica that is slow gets fewer than one that isn't."""
    async with mini_cluster(1, owners=1, replicas=2) as cluster, served(cluster) as asked:
        assert (await asked.put(KEY)).status_code == 204
        await cluster.masters[0].call("WAIT", 2, 5000)
        slow, quick = cluster.replicas
        nodes = [(await asked.get(KEY)).headers["X-ShardCluster-Node"] for _ in range(40)]
        assert {str(slow.address), str(quick.address)} == set(nodes)
        async with _drowsy(slow):
            clients = await asyncio.gather(*(_sources(asked) for _ in range(8)))
        answered = [node for nodes in clients for node in nodes]
        assert answered.count(str(slow.address)) < answered.count(str(quick.address))


@asynccontextmanager
async def _drowsy(node: MiniNode) -> AsyncIterator[None]:
    """It sleeps again and again, each time for less than a read is given."""

    async def nap() -> None:
        while True:
            await node.call("DEBUG", "SLEEP", "0.1")

    napping = asyncio.create_task(nap())
    try:
        yield
    finally:
        napping.cancel()


async def _sources(asked: Asked) -> list[str]:
    """Which nodes answered a client that reads again and again."""
    return [(await asked.get(KEY)).headers["X-ShardCluster-Node"] for _ in range(25)]


async def test_durability_that_is_not_reached_is_told() -> None:
    """The replica hangs, or nothing is written to disk: applied, with how far it came."""
    options = (*NO_FAILOVER, "--appendonly", "no")
    async with (
        mini_cluster(1, owners=1, replicas=1, options=options) as cluster,
        served(cluster) as asked,
    ):
        good = await asked.put(KEY, b"1", "?durability=replica")
        assert (good.status_code, good.headers["X-ShardCluster-Replicas-Acked"]) == (204, "1")
        cluster.replicas[0].signal(signal.SIGSTOP)
        try:
            short = await asked.put(KEY, b"2", "?durability=replica")
        finally:
            cluster.replicas[0].signal(signal.SIGCONT)
        assert (short.status_code, short.json()["outcome"]) == (503, "applied"), short.text
        assert short.json()["replicas_acked"] == 0
        assert (await asked.get(KEY, "?consistency=strong")).content == b"2"
        undisk = await asked.put(KEY, b"3", "?durability=disk")
        assert (undisk.status_code, undisk.json()["outcome"]) == (503, "applied")
        assert undisk.json()["disks_acked"] == 0
        assert (await asked.get(KEY, "?consistency=strong")).content == b"3"


async def test_durable_writes_follow_a_hand_over() -> None:
    """The demoted master's connections for WAIT are not trusted: each write is on two nodes."""
    async with mini_cluster(3, owners=3, replicas=1) as cluster, served(cluster) as asked:
        replica = cluster.replicas[0]
        for node in (cluster.masters[0], replica):
            for number in range(10):
                written = await asked.put(KEY, b"%d" % number, "?durability=replica")
                assert written.status_code == 204, written.text
                assert written.headers["X-ShardCluster-Replicas-Acked"] == "1"
                assert written.headers["X-ShardCluster-Node"] == str(node.address)
            if node is not replica:
                await replica.call("CLUSTER", "FAILOVER")
                await eventually(lambda: _leads(replica), "it leads, with its replica in step")


async def _leads(node: MiniNode) -> bool:
    info = await node.call("INFO", "replication")
    return b"role:master" in info and b"state=online" in info
