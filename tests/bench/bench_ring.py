"""How evenly the ring spreads slots, how little it moves, and how long it takes."""

from __future__ import annotations

import statistics
import time
from typing import Any

from shardcluster.ring import fair_band, plan_ownership
from shardcluster.slots import SLOT_COUNT, SlotSet

__all__ = ["run"]

SIZES = (*range(1, 65), 80, 100, 150, 200, 333, 500, 750, 999, 1000)
MOVE_SIZES = range(3, 65)
MOVES_LIMIT = 1.05
LOAD_BOUND = 0.02


def _equal(count: int) -> dict[str, float]:
    return {f"shard-{number}": 1.0 for number in range(count)}


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    return [
        _spread(),
        _moves("added", grow=True),
        _moves("removed", grow=False),
        _time(),
        _ranges(),
    ]


def _spread() -> dict[str, Any]:
    worst_share, worst_slots, at = 0.0, 0.0, 0
    outside = 0
    for count in SIZES:
        fair = SLOT_COUNT / count
        allowed = max(fair * LOAD_BOUND, 1.0)
        for slots in plan_ownership(_equal(count), {}).values():
            off = abs(len(slots) - fair)
            outside += off > allowed
            if off / allowed > worst_share:
                worst_share, worst_slots, at = off / allowed, off, count
    return {
        "measure": f"slots of each of 1–1,000 equal shards ({len(SIZES)} sizes) within ±2 % or one",
        "value": f"{outside} outside",
        "limit": "0 outside",
        "ok": outside == 0,
        "detail": f"nearest to the edge: {worst_slots:.1f} slots off its fair share at {at} shards",
    }


def _moves(word: str, *, grow: bool) -> dict[str, Any]:
    ratios = {}
    for count in MOVE_SIZES:
        before = plan_ownership(_equal(count), {})
        weights = _equal(count + 1) if grow else _equal(count)
        if not grow:
            del weights[f"shard-{count // 2}"]
        after = plan_ownership(weights, before)
        moved = sum(len(slots - before.get(name, SlotSet())) for name, slots in after.items())
        ratios[count] = moved / _least(before, weights)
    worst = max(ratios, key=lambda count: ratios[count])
    mean = statistics.mean(ratios.values())
    return {
        "measure": f"moves on one {word} shard against the least possible, 3–64 shards",
        "value": f"{mean:.3f}× mean",
        "limit": f"≤ {MOVES_LIMIT}×",
        "ok": mean <= MOVES_LIMIT,
        "detail": f"worst {ratios[worst]:.3f}× at {worst} shards",
    }


def _least(owned: dict[str, SlotSet], weights: dict[str, float]) -> int:
    loads = {name: len(owned.get(name, SlotSet())) for name in weights}
    homeless = SLOT_COUNT - sum(loads.values())
    band = fair_band(weights, LOAD_BOUND)
    excess = sum(max(0, loads[name] - most) for name, (_, most) in band.items())
    deficit = sum(max(0, least - loads[name]) for name, (least, _) in band.items())
    return max(homeless + excess, deficit)


def _time() -> dict[str, Any]:
    began_s = time.perf_counter()
    plan_ownership(_equal(1000), {})
    return {
        "measure": "planning 1,000 shards",
        "value": f"{time.perf_counter() - began_s:.2f} s",
        "limit": "reported",
        "ok": True,
        "detail": "points of the ring cached from the rows above",
    }


def _ranges() -> dict[str, Any]:
    counts = {
        count: sum(len(slots.ranges()) for slots in plan_ownership(_equal(count), {}).values())
        for count in (3, 10, 100)
    }
    return {
        "measure": "ranges that clients read in CLUSTER SLOTS",
        "value": ", ".join(f"{ranges} for {count}" for count, ranges in counts.items()),
        "limit": "reported",
        "ok": True,
        "detail": "shards",
    }


if __name__ == "__main__":
    for row in run():
        print(row)
