"""The status of a ShardCluster resource."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from shardcluster.resource_status import is_news, plan_of, refused_status, state_of, status_of
from shardcluster.slots import SlotSet
from shardcluster.spec import parse
from shardcluster_runtime.state import (
    NodeHealth,
    NodePart,
    Phase,
    ShardPart,
    ShardState,
    StateParts,
    assemble,
)

NOW, LATER = "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:09.000Z"


def _state(**more: Any) -> dict[str, Any]:
    shards = [
        ShardPart("shard-0", ShardState.READY, SlotSet.parse("0-8191"), 80, 10, "shard-0-0",
                  ("shard-0-1",), ((SlotSet.parse("5-6"), "shard-1"),)),
        ShardPart("shard-1", ShardState.READY, SlotSet.parse("8192-16383"), 40, 10, "shard-1-0"),
    ]  # fmt: skip
    nodes = [
        NodePart(f"{shard}-{ordinal}", shard, role, NodeHealth.UP, "10.0.0.1", 6379, "a" * 40)
        for shard in ("shard-0", "shard-1")
        for ordinal, role in enumerate(("master", "replica"))
    ]
    document = assemble(
        StateParts("demo", Phase.READY, "Idle", "All is well.", healthy=True, spec={},
                   shards=shards, nodes=nodes)
    )  # fmt: skip
    return {**document, **more}


def _status(state: dict[str, Any], previous: dict[str, Any] | None = None, now: str = NOW) -> Any:
    return status_of(state, generation=3, previous=previous or {}, now=now, extra={"formed": True})


def _conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {found["type"]: (found["status"], found["reason"]) for found in status["conditions"]}


def test_a_store_at_rest_is_available_and_nothing_else() -> None:
    """All five conditions are always there."""
    status = _status(_state())
    assert _conditions(status) == {
        "Available": ("True", "AllSlotsServed"), "Progressing": ("False", "Idle"),
        "Degraded": ("False", "Idle"), "Paused": ("False", "Idle"), "Accepted": ("True", "Valid"),
    }  # fmt: skip
    assert (status["observedGeneration"], status["readyShards"], status["formed"]) == (3, 2, True)
    assert status["selector"] == "shardcluster.io/cluster=demo"


def test_slots_without_an_owner_or_a_master_make_it_unavailable() -> None:
    """And the condition says which."""
    missing = _state()
    missing["shards"][0]["slots"] -= 10
    assert _conditions(_status(missing))["Available"] == ("False", "SlotsUnowned")
    down = _state(healthy=False)
    down["shards"][1]["master"] = None
    status = _status(down)
    assert _conditions(status)["Available"] == ("False", "ShardDown")
    assert "shard-1" in status["conditions"][0]["message"]
    assert _conditions(status)["Degraded"][0] == "True"
    assert status["readyShards"] == 1


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    """`lastTransitionTime` is about True and False, not about words."""
    first = _status(_state())
    second = _status(_state(reason="Rebalancing", message="Moving."), first, LATER)
    times = {found["type"]: found["lastTransitionTime"] for found in second["conditions"]}
    assert times == {
        "Available": NOW, "Progressing": LATER, "Degraded": NOW, "Paused": NOW, "Accepted": NOW,
    }  # fmt: skip


def test_a_spec_that_is_not_taken_is_told_beside_the_state() -> None:
    """The store lives on in the form it had, and its other conditions say so."""
    status = status_of(
        _state(), generation=4, previous=_status(_state()), now=LATER, extra={}, refusal="No: 7."
    )
    assert _conditions(status)["Accepted"] == ("False", "NotTaken")
    assert _conditions(status)["Available"] == ("True", "AllSlotsServed")
    assert (status["message"], status["observedGeneration"]) == ("No: 7.", 4)


def test_a_resource_that_nothing_runs_for_says_why() -> None:
    """A new one has no more than that; what was known of an older one stays."""
    refused: dict[str, Any] = {
        "generation": 4,
        "now": LATER,
        "reason": "InvalidSpec",
        "message": "No: 7.",
    }
    new = refused_status({}, **refused)
    assert (new["phase"], new["reason"], new["message"]) == ("Waiting", "InvalidSpec", "No: 7.")
    assert _conditions(new) == {"Accepted": ("False", "InvalidSpec")}
    older = refused_status(_status(_state()), **refused)
    assert _conditions(older)["Available"] == ("True", "AllSlotsServed")
    assert _conditions(older)["Accepted"] == ("False", "InvalidSpec")
    assert len(older["conditions"]) == len(_conditions(older))


def test_progress_is_a_word_for_the_printer_column() -> None:
    """Empty while nothing moves."""
    assert _status(_state())["progress"] == ""
    moving = {"moved_slots": 5, "total_slots": 9}
    assert _status(_state(progress=moving))["progress"] == "5/9 slots"


def test_keys_and_memory_alone_are_no_news() -> None:
    """Every write of a status wakes all who watch."""
    before = _status(_state())
    after = copy.deepcopy(before)
    after["shards"][0]["keys"] += 1
    assert not is_news(after, before)
    after["shards"][0]["master"] = "shard-0-1"
    assert is_news(after, before)


def test_the_gateway_gets_its_state_back() -> None:
    """What the status has of it."""
    state = _state()
    resource = {
        "metadata": {"name": "demo", "resourceVersion": "77"},
        "spec": {"shards": 2},
        "status": _status(state),
    }
    back = state_of(resource)
    assert back["version"] == "77"
    assert back["healthy"]
    assert back["shards"] == state["shards"]
    kept = ("name", "shard", "role", "health", "host", "port", "node_id", "link_up")
    for seen, written in zip(back["nodes"], state["nodes"], strict=True):
        assert {name: seen[name] for name in kept} == {name: written[name] for name in kept}
    with pytest.raises(KeyError):
        state_of({"metadata": {"name": "demo", "resourceVersion": "1"}, "spec": {}})


def test_a_plan_says_what_a_spec_would_move() -> None:
    """Slots by the ring, keys by each shard's keys a slot."""
    state = _state()
    same = plan_of(state, parse({"spec": {"shards": 2}}))
    assert same == {"slots": 0, "keys": 0, "moves": [], "start_nodes": [], "stop_nodes": []}
    plan = plan_of(state, parse({"spec": {"shards": 3}}))
    assert {move["to"] for move in plan["moves"]} == {"shard-2"}
    assert plan["start_nodes"] == ["shard-2-0", "shard-2-1"]
    assert plan["slots"] == sum(move["slots"] for move in plan["moves"]) > 5000
    keys = {move["from"]: move["keys"] / move["slots"] for move in plan["moves"]}
    assert keys["shard-0"] > 1.5 * keys["shard-1"]
