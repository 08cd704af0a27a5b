"""The state board, the event log and the parts of the state document."""

from __future__ import annotations

import asyncio

from shardcluster.slots import SlotSet
from shardcluster_runtime.state import (
    EventLog,
    NodeHealth,
    NodePart,
    Phase,
    ProgressMeter,
    ShardPart,
    ShardState,
    StateBoard,
    StateParts,
    assemble,
    timestamp,
)

DEADLINE_S = 5.0


def test_a_repeated_event_becomes_a_count_and_moves_to_the_end() -> None:
    """Two passes that say the same by turns fill no log."""
    now = iter(range(100, 200))
    log = EventLog(lambda: next(now))
    for _ in range(3):
        log.add("MasterLost", "shard-0-0 ended.")
        log.add("Idle", "Nothing to do.")
    assert [(event["reason"], event["count"]) for event in log.documents()] == [
        ("MasterLost", 3),
        ("Idle", 3),
    ]
    assert log.documents()[0]["at"] == "1970-01-01T00:01:44.000Z"


def test_the_log_keeps_only_its_limit() -> None:
    """The oldest events go first."""
    log = EventLog(lambda: 0.0, limit=3)
    for number in range(10):
        log.add("Idle", str(number))
    assert len(log) == 3
    assert [event["message"] for event in log.documents()] == ["7", "8", "9"]
    assert [event["message"] for event in log.documents(last=1)] == ["9"]


def test_progress_follows_the_plan_and_gives_rate_and_time_left() -> None:
    """Ten of forty slots in two seconds leave six seconds."""
    meter = ProgressMeter("Rebalancing", 40, now_s=10.0)
    assert meter.document(11.0)["seconds_left"] is None
    meter.moved(10, 1000)
    assert meter.document(12.0) == {
        "action": "Rebalancing",
        "moved_slots": 10,
        "total_slots": 40,
        "moved_keys": 1000,
        "keys_per_second": 500,
        "seconds_left": 6.0,
    }
    meter.replanned(slots_left=5)
    assert meter.total_slots == 15
    meter.moved(10, 0)
    assert meter.total_slots == meter.moved_slots == 20


def test_the_document_is_assembled_as_the_gateway_reads_it() -> None:
    """Ranges, names and enum values stand where the contract says."""
    shard = ShardPart(
        "shard-0",
        ShardState.READY,
        SlotSet.of([0, 1, 2, 9]),
        keys=5,
        master="shard-0-0",
        replicas=("shard-0-1",),
        moving_out=((SlotSet.of([9]), "shard-1"),),
    )
    node = NodePart("shard-0-0", "shard-0", "master", NodeHealth.UP, "127.0.0.1", 7100)
    document = assemble(
        StateParts("demo", Phase.READY, "Idle", "All is well.", True, {}, [shard], [node])
    )
    assert document["shards"][0]["slot_ranges"] == "0-2 9"
    assert document["shards"][0]["slots"] == 4
    assert document["shards"][0]["moving_out"] == [["9", "shard-1"]]
    assert document["nodes"][0]["health"] == "Up"
    assert document["nodes"][0]["port"] == 7100
    assert document["phase"] == "Ready"


def test_only_a_changed_document_gets_a_new_version() -> None:
    """Publishing the same twice wakes nobody."""

    async def scene() -> None:
        board = StateBoard({"a": 1})
        assert not board.publish({"a": 1})
        assert board.version == 1
        assert board.publish({"a": 2})
        assert board.document() == {"a": 2, "version": 2}

    asyncio.run(scene())


def test_a_waiter_is_answered_by_the_next_version() -> None:
    """A long poll ends when something changed."""

    async def scene() -> None:
        board = StateBoard({"a": 1})
        waiters = [asyncio.create_task(board.wait(1, DEADLINE_S)) for _ in range(3)]
        await asyncio.sleep(0)
        board.publish({"a": 2})
        async with asyncio.timeout(DEADLINE_S):
            assert [document["version"] for document in await asyncio.gather(*waiters)] == [2] * 3

    asyncio.run(scene())


def test_a_waiter_of_another_version_is_answered_at_once() -> None:
    """Also one that knows a higher version, from an earlier controller."""

    async def scene() -> None:
        board = StateBoard({"a": 1})
        async with asyncio.timeout(DEADLINE_S):
            assert (await board.wait(0, 60))["version"] == 1
            assert (await board.wait(500, 60))["version"] == 1

    asyncio.run(scene())


def test_a_waiter_gets_the_old_version_after_its_time() -> None:
    """A long poll is bounded."""

    async def scene() -> None:
        assert (await StateBoard({"a": 1}).wait(1, 0.01))["version"] == 1

    asyncio.run(scene())


def test_times_are_utc_with_milliseconds() -> None:
    """As RFC 3339 writes them."""
    assert timestamp(1_795_460_400.1234) == "2026-11-23T19:00:00.123Z"
