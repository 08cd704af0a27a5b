"""Many commands at once: order, redirects, and what is never sent twice; on scripted nodes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from shardcluster.spec_model import Durability
from shardcluster_api.access import Role
from shardcluster_api.commands.run import run
from shardcluster_api.commands.wave import How
from shardcluster_api.errors import ApiError
from tests.unit.api_fakes import (
    CLOSE,
    FakeShard,
    ask,
    document,
    fake_shard,
    until,
)

if TYPE_CHECKING:
    from shardcluster_api.gateway import Gateway


async def _run(gateway: Gateway, *lines: str, how: How | None = None) -> list[Any]:
    commands = [line.encode().split() for line in lines]
    return (await run(gateway, commands, Role.ADMIN, how or How())).values


async def test_reads_alone_go_to_the_replica(shard: FakeShard, gateway: Gateway) -> None:
    """And with a write in their slot to the master, in order."""
    shard.replicas[0].data[b"a"] = b"old"
    assert await _run(gateway, "GET a", "GET b") == [b"old", None]
    assert shard.master.count(b"GET") == 0
    assert await _run(gateway, "GET a", "SET a new", "GET a", "GET b") == [
        None,
        b"OK",
        b"new",
        None,
    ]
    assert [seen[0] for seen in shard.master.seen if seen[0] in {b"GET", b"SET"}] == [
        b"GET", b"SET", b"GET"
    ]  # fmt: skip


async def test_a_passing_error_is_tried_again(shard: FakeShard, gateway: Gateway) -> None:
    """As for a single command."""
    shard.master.script[b"SET"] = deque(["-TRYAGAIN later", "+OK"])
    assert await _run(gateway, "SET a 1", "SET b 2") == [b"OK", b"OK"]
    assert shard.master.count(b"SET") == 3


async def test_a_write_overtaken_by_another_is_not_tried_again(
    shard: FakeShard, gateway: Gateway
) -> None:
    """Its slot's later write was applied, and the earlier one may not come after it."""
    shard.master.script[b"SET"] = deque(["-BUSY a script runs", "+OK"])
    first, second = await _run(gateway, "SET a 1", "SET a 2")
    assert isinstance(first, ApiError)
    assert (first.status, first.fields["outcome"]) == (503, "not_applied")
    assert second == b"OK"
    assert shard.master.count(b"SET") == 2


async def test_a_write_without_an_answer_is_unknown_and_not_sent_again(
    shard: FakeShard, gateway: Gateway
) -> None:
    """Those before it have their answers, a read is asked elsewhere."""
    shard.master.script[b"INCR"] = deque([1, CLOSE])
    first, second, third = await _run(gateway, "INCR a", "INCR b", "GET c")
    assert first == 1
    assert isinstance(second, ApiError)
    assert (second.status, second.fields["outcome"]) == (503, "unknown")
    assert third is None
    assert shard.master.count(b"INCR") == 2
    assert gateway.metrics.unknown_outcomes.value == 1


async def test_an_unknown_write_is_a_503_in_upstash_s_shape(
    shard: FakeShard, gateway: Gateway
) -> None:
    """With its outcome beside the error."""
    shard.master.always[b"INCR"] = CLOSE
    answer = await ask(gateway, "command", body=b'["INCR","a"]')
    said = document(answer)
    assert (answer.status, said["outcome"]) == (503, "unknown")
    assert "INCR" not in said["error"]


async def test_a_split_write_that_half_failed_says_so(shard: FakeShard, gateway: Gateway) -> None:
    """`not_applied` would be a lie."""
    shard.master.script[b"UNLINK"] = deque(["-OOM no memory", 1])
    (value,) = await _run(gateway, "UNLINK a b")
    assert isinstance(value, ApiError)
    assert value.fields["outcome"] == "unknown"
    assert "1 of 2 parts" in str(value)


async def test_a_durable_pipeline_waits_once(shard: FakeShard, gateway: Gateway) -> None:
    """One WAIT for all writes of a master; what was not reached is an error of each."""
    how = How(durability=Durability.REPLICA)
    assert await _run(gateway, "SET a 1", "SET b 2", "SET c 3", how=how) == [b"OK"] * 3
    assert shard.master.count(b"WAIT") == 1
    shard.master.always[b"WAIT"] = 0
    values = await _run(gateway, "SET a 1", "SET b 2", how=how)
    assert all(isinstance(value, ApiError) for value in values)
    assert {value.fields["outcome"] for value in values} == {"applied"}


async def test_a_transaction_is_one_multi_and_exec(shard: FakeShard, gateway: Gateway) -> None:
    """Refused as a whole by the node's first refusal; redirected as a whole."""
    shard.master.always[b"EXEC"] = ["OK", 5]
    answer = await ask(gateway, "multi_exec", body=b'[["SET","a","4"],["INCR","a"]]')
    assert (answer.status, answer.body) == (200, b'[{"result":"OK"},{"result":5}]\n')
    sent = [seen[0] for seen in shard.master.seen]
    assert sent[sent.index(b"MULTI") :][:4] == [b"MULTI", b"SET", b"INCR", b"EXEC"]
    shard.master.script[b"INCR"] = deque(["-ERR no such thing"])
    shard.master.always[b"EXEC"] = "-EXECABORT Transaction discarded because of previous errors."
    answer = await ask(gateway, "multi_exec", body=b'[["SET","a","4"],["INCR","a"]]')
    assert (answer.status, document(answer)) == (400, {"error": "ERR no such thing"})
    shard.master.always[b"EXEC"] = CLOSE
    answer = await ask(gateway, "multi_exec", body=b'[["SET","a","4"]]')
    assert (answer.status, document(answer)["outcome"]) == (503, "unknown")


async def test_a_moved_slot_is_followed(shard: FakeShard, gateway: Gateway) -> None:
    """Every command of the pipeline, in order, at the new owner."""
    async with fake_shard(0) as other:
        moved = f"-MOVED 15495 127.0.0.1:{other.master.port}"
        shard.master.always[b"SET"] = moved
        shard.master.always[b"GET"] = moved
        assert await _run(gateway, "SET a 1", "SET a 2", "GET a") == [b"OK", b"OK", b"2"]
        assert other.master.data[b"a"] == b"2"
        await until(lambda: other.master.count(b"SET") == 2, "both came once")


async def test_a_role_is_asked_of_each_command(gateway: Gateway) -> None:
    """A reader's pipeline reads, and is refused what writes."""
    answer = await ask(
        gateway, "pipeline", body=b'[["GET","a"],["SET","a","1"],["FLUSHALL"]]', role=Role.READ
    )
    assert answer.status == 200
    assert answer.body.count(b"NOPERM") == 2
    refused = await ask(gateway, "command", body=b'["SET","a","1"]', role=Role.READ)
    assert refused.status == 403
    nobody = await ask(gateway, "command", body=b'["GET","a"]', role=Role.NONE)
    assert nobody.status == 401
    assert "WRONGPASS" in document(nobody)["error"]
