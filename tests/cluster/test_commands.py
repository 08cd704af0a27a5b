"""The engine's commands over a cluster: like one node, with a true table, while slots move."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster.actions import Move
from shardcluster.observed import Address
from shardcluster.slots import SlotSet, key_slot
from shardcluster_api.access import Role
from shardcluster_api.commands.run import run
from shardcluster_api.commands.wave import How
from shardcluster_api.errors import ApiError
from shardcluster_api.gateway import Gateway
from shardcluster_api.settings import Settings
from shardcluster_api.upstash import error_words
from shardcluster_runtime.migrate import LanePool, Pace, move_slots
from shardcluster_runtime.wire import Credentials, NodeConnection
from tests.cluster.mini_cluster import eventually, mini_cluster
from tools.command_table import TABLE, table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cluster.mini_cluster import MiniCluster
    from tests.cluster.plain_nodes import PlainNodes

STRONG = How(strong=True)
SLICE = Pace(10.0)


async def test_the_table_is_what_a_real_engine_tells(start_plain_node: PlainNodes) -> None:
    """Arity, group, flags and key positions of every command."""
    node = start_plain_node()
    connection = await NodeConnection.open(Address("127.0.0.1", node.port), timeout_s=5)
    try:
        assert await table(connection) == TABLE.read_text(encoding="utf-8")
    finally:
        connection.close()


@pytest.fixture
async def cluster() -> AsyncIterator[MiniCluster]:
    """Three masters with a replica each."""
    async with mini_cluster(3, owners=3, replicas=1) as found:
        yield found


@pytest.fixture
async def gateway(cluster: MiniCluster) -> AsyncIterator[Gateway]:
    """In this process, on that cluster."""
    one = Gateway(Settings(seeds=tuple(node.address for node in cluster.masters)))
    one.start()
    try:

        async def ready() -> bool:
            return not one.unready()

        await eventually(ready, "the gateway is ready")
        yield one
    finally:
        await one.close()


async def _ask(gateway: Gateway, *command: bytes) -> Any:
    done = await run(gateway, [list(command)], Role.ADMIN, STRONG)
    return done.values[0]


# -- like one node ---------------------------------------------------------------------------

KEYS = [b"a", b"b", b"c", b"{t}a", b"{t}b", b"{t}c"]
SHAPES = """
GET k|SET k v|SET k v XX|SET k v NX GET|APPEND k v|INCR k|INCRBY k 5|GETDEL k|SETRANGE k 3 v
STRLEN k|MGET k k k k|MSET k v k v k v|DEL k k|UNLINK k k k|EXISTS k k k|TOUCH k k|MSETNX k v k v
LPUSH k v v|RPUSH k v|LRANGE k 0 -1|LPOP k|LMOVE k k LEFT RIGHT|LLEN k|LPOS k v|LMPOP 2 k k LEFT
SADD k v v|SMEMBERS k|SISMEMBER k v|SUNION k k|SINTERSTORE k k k|SCARD k|SMOVE k k v
HSET k v v|HGET k v|HGETALL k|HINCRBY k v 2|HDEL k v|HMGET k v v
ZADD k 1 v|ZADD k 2 v|ZRANGE k 0 -1 WITHSCORES|ZINCRBY k 1 v|ZUNIONSTORE k 2 k k
ZSCORE k v|ZRANK k v|XADD k 1-1 v v|XLEN k|XRANGE k - +|XREAD STREAMS k k 0 0|XDEL k 1-1
SETBIT k 7 1|BITCOUNT k|BITOP OR k k k|PFADD k v|PFCOUNT k k|PFMERGE k k
GEOADD k 13 38 v|GEOPOS k v|GEOHASH k v|TYPE k|RENAME k k|COPY k k|PERSIST k|EXPIRE k 1000|TTL k
SORT k ALPHA|OBJECT ENCODING k|EVAL script 2 k k v|DBSIZE|KEYS *|ECHO v|GET|GET k k
NOPE k|EXPIRE k x
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
SCRIPT = b"return {#KEYS, ARGV[1], redis.call('EXISTS', KEYS[1])}"
UNORDERED = frozenset({b"KEYS", b"SMEMBERS", b"SUNION"})
STEPS = 2500


def _some_command() -> list[bytes]:
    shape = random.choice(SHAPES)
    command = []
    for index, word in enumerate(shape.encode().split()):
        if word == b"k":
            command.append(random.choice(KEYS))
        elif word == b"v":
            command.append(random.choice([b"v", b"w", b"1", b"\xff\x00\r\n"]))
        else:
            command.append(SCRIPT if word == b"script" and index else word)
    return command


async def test_a_cluster_answers_like_one_node(
    gateway: Gateway, start_plain_node: PlainNodes
) -> None:
    """The same random commands to both; only what crosses slots and isn't split is refused."""
    single = start_plain_node("--cluster-enabled", "no")
    connection = await NodeConnection.open(Address("127.0.0.1", single.port), timeout_s=5)
    crossed = 0
    try:
        for _ in range(STEPS):
            command = _some_command()
            here = await _ask(gateway, *command)
            if isinstance(here, ApiError) and error_words(here).startswith("CROSSSLOT"):
                crossed += 1
                assert command[0] not in {b"MGET", b"MSET", b"DEL", b"UNLINK", b"EXISTS", b"TOUCH"}
                continue
            there = await connection.send(*command)
            if isinstance(here, ApiError):
                assert error_words(here).rstrip() == str(there).rstrip(), command
                continue
            if command[0] in UNORDERED:
                here, there = sorted(here), sorted(there)
            assert here == there, command
    finally:
        connection.close()
    assert 0 < crossed < STEPS / 2


# -- while slots move ------------------------------------------------------------------------


async def _move(cluster: MiniCluster, slots: SlotSet, source: int, target: int) -> None:
    nodes = cluster.masters
    lanes = LanePool(Credentials(None))
    peers = {node.name: node.peer() for node in nodes}
    left = set(slots)
    try:
        while left:  # a busy machine cuts a slice short; the next one goes on
            moves = [Move(slot, nodes[source].name, nodes[target].name) for slot in sorted(left)]
            done = await move_slots(moves, peers, lanes=lanes, stop=asyncio.Event(), pace=SLICE)
            left -= set(done.moved_slots)
    finally:
        lanes.close()


async def test_scan_finds_every_key_though_slots_move(
    gateway: Gateway, cluster: MiniCluster
) -> None:
    """To where it has been, and from where it will be; the gateway is told of nothing."""
    keys = [b"key:%d" % index for index in range(2000)]
    big = [b"{big}%d" % index for index in range(500)]  # one slot, for several calls
    await _ask(gateway, b"MSET", *(word for key in (*keys, *big) for word in (key, b"v")))
    found: list[bytes] = []
    cursor, calls = b"0", 0
    while calls == 0 or cursor != b"0":
        answer = await _ask(gateway, b"SCAN", cursor, b"COUNT", b"100")
        assert isinstance(answer, list), answer
        cursor = answer[0]
        found += answer[1]
        if calls == 3:  # before and behind: of the first node's slots all but the middle
            await _move(cluster, SlotSet.parse("0-200"), 0, 2)
            await _move(cluster, SlotSet.parse("3000-3400"), 0, 1)
        if calls == 6:
            await _move(cluster, SlotSet.parse("12000-12200"), 2, 0)
        calls += 1
    assert set(found) == {*keys, *big}
    assert calls > 20


async def test_writes_of_one_pipeline_are_applied_once_while_slots_move(
    gateway: Gateway, cluster: MiniCluster
) -> None:
    """INCR of many keys, again and again, through redirects of both kinds."""
    keys = [b"count:%d" % index for index in range(60)]
    of_first = SlotSet.of(set(map(key_slot, keys))) & await cluster.masters[0].slots()
    moving = asyncio.create_task(_move(cluster, of_first, 0, 1))
    rounds = 0
    while not moving.done() or rounds < 5:
        rounds += 1
        commands = [[b"INCR", key] for key in keys]
        done = await run(gateway, commands, Role.ADMIN, How())
        assert done.values == [rounds] * len(keys)
        assert await _ask(gateway, b"MGET", *keys) == [b"%d" % rounds] * len(keys)
    await moving
    assert await cluster.masters[0].call("DBSIZE") == 0
