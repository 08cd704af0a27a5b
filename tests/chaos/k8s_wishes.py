"""What people change in a ShardCluster while faults happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.kube import Document, engine_image, next_engine_image

if TYPE_CHECKING:
    from tests.chaos.k8s_befaller import K8sBefaller
    from tests.chaos.nemesis import Fault

__all__ = ["edit", "wish"]

SHARDS_MIN, SHARDS_MAX = 2, 4
REPLICAS_MAX = 2
WEIGHTS = (0.5, 1, 2)
SAMPLES = ("3", "5", "7", "10")
SLOW_MOVES = 300  # keys/s: slots then change hands a few at a time, so that faults hit a move


async def wish(befaller: K8sBefaller, fault: Fault) -> str:
    """Change the spec; raises Trouble when that is refused."""
    spec, status = await befaller.ground.spec(), await befaller.ground.status()
    shards = [shard["name"] for shard in status.get("shards", ())]
    if not (changes := edit(fault, spec, shards)):
        return ""
    await befaller.ground.patch(**changes)
    return ", ".join(f"{name}: {value}" for name, value in changes.items())


def edit(fault: Fault, spec: Document, shards: list[str]) -> dict[str, Any]:
    """The fields that become others; empty when the wish means nothing now.  Pure."""
    count, replicas, retired = spec["shards"], spec["replicasPerShard"], spec.get("retire", [])
    present = [shard for shard in shards if shard not in retired]
    picked = present[int(fault.pick * len(present))] if present else ""
    weights = spec.get("ring", {}).get("weights", {})
    heavier = WEIGHTS[(WEIGHTS.index(weights.get(picked, 1)) + 1) % len(WEIGHTS)]
    images = (engine_image(), next_engine_image())
    sample = SAMPLES[int(fault.pick * len(SAMPLES))]
    changes: dict[str, tuple[bool, dict[str, Any]]] = {
        "scale out": (count < SHARDS_MAX, {"shards": count + 1}),
        "scale in": (count > SHARDS_MIN, {"shards": count - 1}),
        "retire": (
            count > SHARDS_MIN and bool(picked),
            {"shards": count - 1, "retire": [*retired, picked]},
        ),
        "weigh": (bool(picked), {"ring": {"weights": {**weights, picked: heavier}}}),
        "replica more": (replicas < REPLICAS_MAX, {"replicasPerShard": replicas + 1}),
        "replica less": (replicas > 1, {"replicasPerShard": replicas - 1}),
        "upgrade": (True, {"image": images[spec["image"] == images[0]]}),
        "settings": (True, {"config": {"maxmemory-samples": sample}}),
        "slow moves": (True, {"rebalance": {"maxKeysPerSecond": SLOW_MOVES}}),
    }
    possible, change = changes[fault.kind]
    return change if possible else {}
