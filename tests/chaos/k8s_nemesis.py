"""Schedules of faults for a store on a real Kubernetes.

The form is that of `tests/chaos/nemesis.py`. What each kind does is in `k8s_faults.py`,
`k8s_machines.py` (what needs a rig) and `k8s_wishes.py`.
"""

from __future__ import annotations

import random

from tests.chaos.nemesis import Fault, Schedule, World

__all__ = ["BLOCK", "FAULTS", "LASTS", "NEED_RIG", "NEED_STORAGE", "WISHES", "k8s_schedule"]

FAULTS_PER_ROUND = 22  # and wishes
BEGIN_MS = 500
MEAN_GAPS_MS = (3_500, 5_000, 6_500)
GAP_MS_MAX = 15_000
BLOCK = 4  # rounds that share a store

FAULTS = {
    "kill master": 8, "kill replica": 4, "kill shard": 2, "kill master, no API": 1,
    "hang master": 5, "hang replica": 3,
    "delete pod": 6, "force-delete pod": 4, "delete pods": 3, "delete all pods": 1,
    "delete StatefulSet": 2, "delete object": 4, "lose volume": 4,
    "delete operator": 4, "kill operator": 5, "delete gateways": 3, "kill gateway": 3,
    "machine dies": 2, "partition": 3, "partition, clients inside": 2, "API away": 2,
}  # fmt: skip
NEED_STORAGE = frozenset({"kill shard", "delete all pods", "delete StatefulSet", "lose volume"})
NEED_RIG = frozenset({
    "kill master, no API", "machine dies", "partition", "partition, clients inside", "API away",
})  # fmt: skip
WISHES = {
    "scale out": 4, "scale in": 3, "retire": 2, "weigh": 2, "replica more": 1, "replica less": 2,
    "upgrade": 3, "settings": 2, "slow moves": 2,
}  # fmt: skip
# How long what lasts may last, ms.
LASTS = {
    "hang master": (300, 8_000), "hang replica": (300, 6_000),
    "kill master, no API": (4_000, 8_000), "API away": (2_000, 12_000),
    "machine dies": (3_000, 20_000),
    "partition": (1_000, 15_000), "partition, clients inside": (1_000, 12_000),
}  # fmt: skip


def k8s_schedule(seed: int) -> Schedule:
    """The round of that seed."""
    chance = random.Random(f"k8s-{seed}")
    world = World(
        shards=3, replicas=1, storage=seed // BLOCK % 2 == 0, replicas_know_open_slots=True
    )
    weights = {
        kind: weight
        for kind, weight in {**FAULTS, **WISHES}.items()
        if world.storage or kind not in NEED_STORAGE
    }
    gap_ms, at_ms, faults = chance.choice(MEAN_GAPS_MS), BEGIN_MS, []
    for kind in chance.choices(list(weights), list(weights.values()), k=FAULTS_PER_ROUND):
        at_ms += min(int(chance.expovariate(1 / gap_ms)), GAP_MS_MAX)
        lasts = chance.randint(*LASTS.get(kind, (0, 0)))
        faults.append(Fault(at_ms, kind, round(chance.random(), 6), lasts))
    return Schedule(seed, world, tuple(faults))
