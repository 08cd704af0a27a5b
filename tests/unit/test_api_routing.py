"""How requests are routed when nodes answer with errors, hang or vanish (scripted nodes)."""

from __future__ import annotations

import asyncio
import json
from collections import deque

import pytest

from shardcluster_api.limits import Limits
from tests.unit.api_fakes import (
    CLOSE,
    HANG,
    FakeShard,
    ask,
    document,
    fake_shard,
    gateway_on,
    header,
    until,
)

PASSING = [
    "-TRYAGAIN Multiple keys request during rehashing of slot",
    "-CLUSTERDOWN The cluster is down",
    "-LOADING Valkey is loading the dataset in memory",
    "-READONLY You can't write against a read only replica.",
    "-BUSY Valkey is busy running a script.",
    "-NOREPLICAS Not enough good replicas to write.",
]
REFUSED = {
    "-OOM command not allowed when used memory > 'maxmemory'.": (507, "OutOfMemory"),
    "-MISCONF Errors writing to the AOF file: No space left on device": (507, "CannotPersist"),
    "-WRONGTYPE Operation against a key holding the wrong kind of value": (409, "WrongType"),
    "-NOAUTH Authentication required.": (503, "LoginRefused"),
    "-ERR something else": (502, "EngineError"),
}


@pytest.mark.parametrize("error", PASSING)
async def test_a_write_is_tried_again_after_an_error_that_passes(error: str) -> None:
    """The client sees only the success, and the value was stored once."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        shard.master.script[b"SET"] = deque([error, error])
        answer = await ask(gateway, "put_key", key=b"k", body=b"v")
        assert answer.status == 204
        assert shard.master.data == {b"k": b"v"}
        assert shard.master.count(b"SET") == 3


@pytest.mark.parametrize(("error", "expected"), REFUSED.items())
async def test_an_error_of_the_engine_is_passed_on(error: str, expected: tuple[int, str]) -> None:
    """With the engine's own words, and the word that the write was not applied."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        shard.master.script[b"SET"] = deque([error])
        answer = await ask(gateway, "put_key", key=b"k", body=b"v")
        found = document(answer)
        assert (answer.status, found["error"]["code"]) == expected
        assert error[1:] in found["error"]["message"]
        assert found["outcome"] == "not_applied"
        assert shard.master.count(b"SET") == 1


@pytest.mark.parametrize("operation", ["put_key", "delete_key"])
async def test_a_write_whose_fate_is_unknown_is_not_sent_again(operation: str) -> None:
    """The node takes the command and closes the connection: 503 and `unknown`, at once."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        command = b"SET" if operation == "put_key" else b"UNLINK"
        shard.master.script[command] = deque([CLOSE])
        answer = await ask(gateway, operation, key=b"k", body=b"")
        assert answer.status == 503
        assert document(answer)["outcome"] == "unknown"
        assert document(answer)["error"]["code"] == "OutcomeUnknown"
        again = await ask(gateway, "put_key", key=b"other", body=b"v")
        assert again.status == 204  # over a new connection
        assert [seen for seen in shard.master.seen if b"k" in seen[1:]] == [
            seen for seen in shard.master.seen if seen[0] == command and seen[1] == b"k"
        ]
        assert sum(b"k" in seen[1:] for seen in shard.master.seen) == 1


async def test_a_write_that_gets_no_answer_ends_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hung node: `unknown` for what was sent to it; later writes are held back and refused."""
    monkeypatch.setattr("shardcluster_api.router.REQUEST_DEADLINE_S", 1.6)
    async with fake_shard(0) as shard, gateway_on(shard.master.address) as gateway:
        for command in (b"SET", b"PING", b"CLUSTER", b"ROLE"):
            shard.master.always[command] = HANG
        first = await ask(gateway, "put_key", key=b"k", body=b"v")
        assert document(first)["outcome"] == "unknown"
        link = gateway.topology.link(shard.master.address)
        await until(lambda: link.suspect, "the node is suspect")
        second = await ask(gateway, "put_key", key=b"k", body=b"v")
        assert document(second)["error"]["code"] == "NotServed"
        assert document(second)["outcome"] == "not_applied"
        assert ("Retry-After", "1") in second.headers
        assert shard.master.count(b"SET") == 1


async def test_a_write_waits_for_the_new_master() -> None:
    """The master's process ends, a replica takes over: the write succeeds without being lost."""
    async with fake_shard(2) as shard, gateway_on(shard.master.address) as gateway:
        old = shard.master
        await old.stop()
        writing = asyncio.create_task(ask(gateway, "put_key", key=b"k", body=b"v"))
        await until(lambda: any(r.count(b"ROLE") > 2 for r in shard.replicas), "they are asked")
        assert not writing.done()
        shard.promote(shard.replicas[0])
        answer = await writing
        assert answer.status == 204
        assert shard.master.data == {b"k": b"v"}
        assert header(answer, "Node") == str(shard.master.address)


async def test_moved_is_followed_and_remembered() -> None:
    """The second write goes to the new owner directly."""
    async with (
        fake_shard() as shard,
        fake_shard(0) as other,
        gateway_on(shard.master.address) as gateway,
    ):
        moved = f"-MOVED 12539 127.0.0.1:{other.master.port}"
        shard.master.script[b"SET"] = deque([moved])
        for value in (b"1", b"2"):
            await ask(gateway, "put_key", key=b"k", body=value)
        assert other.master.data == {b"k": b"2"}
        assert shard.master.count(b"SET") == 1


async def test_ask_is_followed_for_one_request_only() -> None:
    """ASKING precedes the command at the target, and the slot's owner stays."""
    async with (
        fake_shard() as shard,
        fake_shard(0) as other,
        gateway_on(shard.master.address) as gateway,
    ):
        shard.master.script[b"SET"] = deque([f"-ASK 12539 127.0.0.1:{other.master.port}"])
        for value in (b"1", b"2"):
            assert (await ask(gateway, "put_key", key=b"k", body=value)).status == 204
        names = [seen[0] for seen in other.master.seen if seen[0] in (b"ASKING", b"SET")]
        assert names == [b"ASKING", b"SET"]
        assert shard.master.data == {b"k": b"2"}


async def test_a_slot_that_answered_ask_is_read_at_its_master() -> None:
    """Its replicas may say that a key is not there while it lies at the target."""
    async with (
        fake_shard() as shard,
        fake_shard(0) as other,
        gateway_on(shard.master.address) as gateway,
    ):
        other.master.data[b"k"] = b"there"
        ask_reply = f"-ASK 12539 127.0.0.1:{other.master.port}"
        shard.replicas[0].always[b"GET"] = ask_reply
        shard.master.always[b"GET"] = ask_reply
        for _ in range(2):
            assert (await ask(gateway, "get_key", key=b"k")).body == b"there"
        assert shard.replicas[0].count(b"GET") == 1
        assert shard.master.count(b"GET") == 1


def _stored(shard: FakeShard) -> None:
    for node in shard.nodes:
        node.data[b"k"] = b"v"


async def test_reads_are_spread_over_the_replicas() -> None:
    """Each replica gets some, the master none."""
    async with fake_shard(2) as shard, gateway_on(shard.master.address) as gateway:
        _stored(shard)
        for _ in range(20):
            answer = await ask(gateway, "get_key", key=b"k")
            assert header(answer, "Role") == "replica"
        assert shard.master.count(b"GET") == 0
        assert all(replica.count(b"GET") >= 5 for replica in shard.replicas)


@pytest.mark.parametrize("trouble", ["behind", "cut off"])
async def test_a_lagging_replica_gets_no_reads(trouble: str) -> None:
    """Until it has caught up; when the master is gone, too, it is better than nothing."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        _stored(shard)
        replica = gateway.topology.link(shard.replicas[0].address)
        if trouble == "behind":
            shard.master.offset = Limits().lag_bytes_max + 1
        else:
            shard.replicas[0].link = b"connecting"
        await until(lambda: replica.lagging, "the lag is seen")
        assert header(await ask(gateway, "get_key", key=b"k"), "Role") == "master"
        shard.replicas[0].offset = shard.master.offset
        shard.replicas[0].link = b"connected"
        await until(lambda: not replica.lagging, "it has caught up")
        assert header(await ask(gateway, "get_key", key=b"k"), "Role") == "replica"
        shard.master.offset += Limits().lag_bytes_max + 1
        await until(lambda: replica.lagging, "the lag is seen")
        await shard.master.stop()
        master = gateway.topology.link(shard.master.address)
        await until(lambda: master.out_of_reach, "the loss is seen")
        answer = await ask(gateway, "get_key", key=b"k")
        assert (answer.body, header(answer, "Stale")) == (b"v", "master-down")


async def test_a_strong_read_goes_to_the_master() -> None:
    """Over the connection that never said READONLY."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        _stored(shard)
        answer = await ask(gateway, "get_key", key=b"k", query="consistency=strong")
        assert header(answer, "Role") == "master"
        assert shard.replicas[0].count(b"GET") == 0
        assert shard.master.count(b"READONLY") == 0


@pytest.mark.parametrize(
    "trouble",
    [
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "-LOADING Valkey is loading the dataset in memory",
        "-CLUSTERDOWN The cluster is down",
        CLOSE,
        HANG,
    ],
)
async def test_a_replica_in_trouble_is_left_out(trouble: object) -> None:
    """The read is answered by another node, and the next ones do not go there for a while."""
    async with fake_shard(2) as shard, gateway_on(shard.master.address) as gateway:
        _stored(shard)
        shard.replicas[0].always[b"GET"] = trouble
        for _ in range(6):
            assert (await ask(gateway, "get_key", key=b"k")).body == b"v"
        assert shard.replicas[0].count(b"GET") == 1


async def test_a_read_that_no_replica_answers_goes_to_the_master() -> None:
    """The only replica loads its data."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        _stored(shard)
        shard.replicas[0].always[b"GET"] = "-LOADING Valkey is loading the dataset in memory"
        answer = await ask(gateway, "get_key", key=b"k")
        assert (answer.body, header(answer, "Role")) == (b"v", "master")


async def test_reads_go_on_without_a_master_and_say_so() -> None:
    """The header tells that the answer may be old."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        _stored(shard)
        assert header(await ask(gateway, "get_key", key=b"k"), "Stale") is None
        await shard.master.stop()
        link = gateway.topology.link(shard.master.address)
        await until(lambda: link.out_of_reach, "the gateway sees the loss")
        answer = await ask(gateway, "get_key", key=b"k")
        assert answer.body == b"v"
        assert header(answer, "Stale") == "master-down"


async def test_a_refused_write_names_what_stood_in_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No owner within the deadline: 503, Retry-After, not applied."""
    monkeypatch.setattr("shardcluster_api.router.REQUEST_DEADLINE_S", 0.3)
    async with fake_shard(0) as shard, gateway_on(shard.master.address) as gateway:
        await shard.master.stop()
        answer = await ask(gateway, "put_key", key=b"k", body=b"v")
        assert answer.status == 503
        assert str(shard.master.address) in document(answer)["error"]["message"]
        assert document(answer)["outcome"] == "not_applied"
        assert ("Retry-After", "1") in answer.headers


@pytest.mark.parametrize(
    ("durability", "command", "short", "field"),
    [
        ("replica", b"WAIT", 0, "replicas_acked"),
        ("disk", b"WAITAOF", [0, 0], "disks_acked"),
        ("disk", b"WAITAOF", "-ERR appendonly is disabled", "disks_acked"),
    ],
)
async def test_durability_that_is_not_reached_is_told(
    durability: str, command: bytes, short: object, field: str
) -> None:
    """The write is applied; the answer is an error that says so and how far it came."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        query = f"durability={durability}"
        reached = await ask(gateway, "put_key", key=b"k", body=b"1", query=query)
        assert reached.status == 204
        shard.master.script[command] = deque([short])
        answer = await ask(gateway, "put_key", key=b"k", body=b"2", query=query)
        found = document(answer)
        assert (answer.status, found["outcome"]) == (503, "applied")
        assert found["error"]["code"] == "DurabilityNotReached"
        assert found[field] == 0
        assert shard.master.data == {b"k": b"2"}


async def test_more_operations_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent for the one that is too many."""
    monkeypatch.setattr("shardcluster_api.router.REQUEST_DEADLINE_S", 1.0)
    limits = Limits(in_flight_max=1)
    async with fake_shard(0) as shard, gateway_on(shard.master.address, limits=limits) as gateway:
        shard.master.script[b"SET"] = deque([HANG])
        first = asyncio.create_task(ask(gateway, "put_key", key=b"k", body=b"v"))
        await until(lambda: gateway.in_flight == 1, "the first is under way")
        second = await ask(gateway, "put_key", key=b"k", body=b"v")
        assert document(second)["error"]["code"] == "TooBusy"
        assert ("Retry-After", "1") in second.headers
        await first
        assert gateway.in_flight == 0


async def test_operations_of_a_batch_on_one_key_keep_their_order() -> None:
    """A read after a write of the same batch sees it, although reads go to replicas."""
    items = [
        {"op": "put", "key": "k", "value": "1"},
        {"op": "get", "key": "k"},
        {"op": "put", "key": "k", "value": "2"},
        {"op": "get", "key": "k"},
        {"op": "delete", "key": "k"},
        {"op": "get", "key": "k"},
    ]
    body = json.dumps({"operations": items}).encode()
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        found = document(await ask(gateway, "batch", body=body))
        assert [one["status"] for one in found["results"]] == [200, 200, 200, 200, 200, 404]
        assert [one.get("value") for one in found["results"]][1:4:2] == ["1", "2"]
        assert found["failed"] == 0
