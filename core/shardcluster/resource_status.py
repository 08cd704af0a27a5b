"""The `status` of a ShardCluster resource: written by the operator, read by people and gateways.

Law: made from one state document alone, in Kubernetes' own way of writing (camelCase, conditions
with transition times, `observedGeneration`).  What changes from second to second (operations,
offsets, lags) is left out, for each change of a status is a write to the API server; keys and
memory are there, and alone they are no reason to write (`is_news`).  `state_of` gives the gateway
back what it needs.  Source: Kubernetes API conventions, "Typical status properties".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardcluster.decide.ownership import wanted_ownership
from shardcluster.names import node_name
from shardcluster.slots import SLOT_COUNT, SlotSet

if TYPE_CHECKING:
    from shardcluster.spec import Spec

__all__ = ["Document", "is_news", "plan_of", "refused_status", "state_of", "status_of"]

Document = dict[str, Any]

CLUSTER_LABEL = "shardcluster.io/cluster"
_FIGURES = ("keys", "memoryBytes")
_EVENT_FIELDS = ("at", "reason", "message", "count")  # that have one name in both
_SERVING = frozenset({"Ready", "Draining"})


def status_of(
    state: Document,
    *,
    generation: int,
    previous: Document,
    now: str,
    extra: Document,
    refusal: str = "",
) -> Document:
    """The whole status.

    `generation` is the resource's that was looked at last, `previous` the status written last (for
    transition times), `now` RFC 3339; `extra` are fields that the operator itself remembers.
    `refusal` says why the present spec was not taken, so that the store keeps the form it had.
    """
    shards = [_shard(shard) for shard in state["shards"]]
    ready = sum(_is_ready(shard) for shard in shards)
    name = state["cluster"]
    progress = state["progress"]
    return {
        "observedGeneration": generation,
        "phase": state["phase"],
        "reason": state["reason"],
        "message": refusal or state["message"],
        "readyShards": ready,
        "selector": f"{CLUSTER_LABEL}={name}",
        "progress": f"{progress['moved_slots']}/{progress['total_slots']} slots"
        if progress
        else "",
        "conditions": _dated(
            (*_conditions(state, ready), _accepted(refusal, "NotTaken")), generation, previous, now
        ),
        "shards": shards,
        "nodes": [_node(node) for node in state["nodes"]],
        "notes": list(state["notes"]),
        "events": [_event(event) for event in state["events"][-10:]],
        **extra,
    }


def _event(event: Document) -> Document:
    return {
        "firstAt": event["first_at"],
        **{name: event[name] for name in _EVENT_FIELDS},
    }


def _is_ready(shard: Document) -> bool:
    return shard["state"] in _SERVING and shard["master"] is not None


def _shard(shard: Document) -> Document:
    return {
        "name": shard["name"],
        "state": shard["state"],
        "slots": shard["slots"],
        "slotRanges": shard["slot_ranges"],
        "keys": shard["keys"],
        "memoryBytes": shard["memory_bytes"],
        "master": shard["master"],
        "replicas": shard["replicas"],
        "movingOut": [{"slots": slots, "to": to} for slots, to in shard["moving_out"]],
    }


def _node(node: Document) -> Document:
    return {
        "name": node["name"],
        "shard": node["shard"],
        "role": node["role"],
        "health": node["health"],
        "host": node["host"],
        "port": node["port"],
        "nodeId": node["node_id"],
        "linkUp": node["link_up"],
        "detail": node["detail"],
    }


def refused_status(
    previous: Document, *, generation: int, now: str, reason: str, message: str
) -> Document:
    """The status of a resource for which nothing can run, and why; the rest stays as it was."""
    conditions = _dated((_accepted(message, reason),), generation, previous, now)
    kept = [
        found for found in previous.get("conditions", ()) if found["type"] != conditions[0]["type"]
    ]
    return {
        **previous,
        "observedGeneration": generation,
        "phase": previous.get("phase", "Waiting"),
        "reason": reason,
        "message": message,
        "conditions": [*kept, *conditions],
    }


_Condition = tuple[str, bool, str, str]  # type, whether it holds, reason, message


def _accepted(refusal: str, reason: str) -> _Condition:
    if refusal:
        return "Accepted", False, reason, refusal
    return "Accepted", True, "Valid", "The spec is taken."


def _conditions(state: Document, ready: int) -> tuple[_Condition, ...]:
    owned = sum(shard["slots"] for shard in state["shards"])
    lost = [shard["name"] for shard in state["shards"] if shard["slots"] and not _serves(shard)]
    if owned < SLOT_COUNT:
        available, why = False, "SlotsUnowned"
        words = f"{SLOT_COUNT - owned} slots have no owner: {state['message']}"
    elif lost:
        available, why = False, "ShardDown"
        words = f"{', '.join(lost)} can't take writes: {state['message']}"
    else:
        available, why = True, "AllSlotsServed"
        words = f"All {SLOT_COUNT} slots are served by {ready} shards."
    settled = state["reason"] in {"Idle", "RebalanceWanted", "Paused"}
    return (
        ("Available", available, why, words),
        ("Progressing", not settled, state["reason"], state["message"]),
        ("Degraded", not state["healthy"], state["reason"], state["message"]),
        ("Paused", state["phase"] == "Paused", state["reason"], state["message"]),
    )


def _dated(
    wanted: tuple[_Condition, ...], generation: int, previous: Document, now: str
) -> list[Document]:
    """With transition times: of the last change of the condition's word."""
    before = {found["type"]: found for found in previous.get("conditions", ())}
    return [
        {
            "type": kind,
            "status": (word := "True" if holds else "False"),
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": before[kind]["lastTransitionTime"]
            if before.get(kind, {}).get("status") == word
            else now,
        }
        for kind, holds, reason, message in wanted
    ]


def _serves(shard: Document) -> bool:
    return shard["master"] is not None and shard["state"] in {"Ready", "Draining", "Starting"}


def is_news(status: Document, previous: Document) -> bool:
    """Whether more than keys and memory differs from what was written last."""
    return _without_figures(status) != _without_figures(previous)


def _without_figures(status: Document) -> Document:
    kept = {name: value for name, value in status.items() if name != "events"}
    kept["shards"] = [
        {name: value for name, value in shard.items() if name not in _FIGURES}
        for shard in status.get("shards", ())
    ]
    return kept


def state_of(resource: Document) -> Document:
    """The state document as far as the status has it; raises KeyError before the first status."""
    status = resource["status"]
    return {
        "cluster": resource["metadata"]["name"],
        "version": resource["metadata"]["resourceVersion"],
        "phase": status["phase"],
        "reason": status["reason"],
        "message": status["message"],
        "healthy": not any(
            found["type"] == "Degraded" and found["status"] == "True"
            for found in status["conditions"]
        ),
        "spec": {"metadata": {"name": resource["metadata"]["name"]}, "spec": resource["spec"]},
        "shards": [
            {
                "name": shard["name"],
                "state": shard["state"],
                "slots": shard["slots"],
                "slot_ranges": shard["slotRanges"],
                "keys": shard["keys"],
                "memory_bytes": shard["memoryBytes"],
                "master": shard.get("master"),
                "replicas": shard["replicas"],
                "moving_out": [[part["slots"], part["to"]] for part in shard["movingOut"]],
            }
            for shard in status["shards"]
        ],
        "nodes": [
            {
                "name": node["name"],
                "shard": node["shard"],
                "role": node["role"],
                "health": node["health"],
                "host": node.get("host"),
                "port": node.get("port"),
                "node_id": node.get("nodeId"),
                "link_up": node["linkUp"],
                "lag_bytes": 0,
                "detail": node["detail"],
            }
            for node in status["nodes"]
        ],
        "progress": status.get("progress") or None,
        "spare_nodes": None,
        "notes": status["notes"],
        # What an operator before this one wrote has no first time.
        "events": [
            {"first_at": event.get("firstAt", event["at"])}
            | {name: event[name] for name in _EVENT_FIELDS}
            for event in status["events"]
        ],
    }


def plan_of(state: Document, spec: Spec) -> Document:
    """What `spec` would lead to, from a state alone; keys by each shard's keys a slot."""
    shards = {shard["name"]: shard for shard in state["shards"] if shard["slots"]}
    owned = {name: SlotSet.parse(shard["slot_ranges"]) for name, shard in shards.items()}
    target = wanted_ownership(spec, spec.wanted_shards(), owned)
    moves = [
        {
            "from": source,
            "to": name,
            "slots": len(moving),
            "keys": round(shards[source]["keys"] * len(moving) / len(slots)),
        }
        for source, slots in owned.items()
        for name, wanted in target.items()
        if name != source and (moving := slots & wanted)
    ]
    have = {node["name"] for node in state["nodes"]}
    want = {
        node_name(shard, ordinal)
        for shard in spec.wanted_shards()
        for ordinal in range(1 + spec.replicas_per_shard)
    }
    return {
        "slots": sum(move["slots"] for move in moves),
        "keys": sum(move["keys"] for move in moves),
        "moves": moves,
        "start_nodes": sorted(want - have),
        "stop_nodes": sorted(have - want),
    }
