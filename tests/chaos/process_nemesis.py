"""Schedules of faults for a real store: what can be done to processes without any right.

The form is that of `tests/chaos/nemesis.py`. What each kind does is in `process_faults.py`.

Not here: a partition (iptables needs root) and a full disk (a limit on file sizes ends the engine
by SIGXFSZ instead of failing its write, and a small file system has to be mounted).  A slow node or
link is a process that runs a few milliseconds at a time.
"""

from __future__ import annotations

import random

from tests.chaos.nemesis import Fault, Schedule, World

__all__ = ["BLOCK", "FAULTS", "WISHES", "process_schedule"]

FAULTS_PER_ROUND = 18
BEGIN_MS = 300
MEAN_GAPS_MS = (100, 300, 700)
BLOCK = 10  # rounds that share a store

FAULTS = {
    "kill master": 14, "kill replica": 8, "kill gateway": 4, "kill shard": 4, "kill all": 3,
    "end node": 4, "lose disk": 5, "hang master": 7, "hang replica": 5, "hang gateway": 3,
    "hang controller": 3, "slow node": 4, "cut clients": 4, "cut replication": 4,
    "controller dies": 12,
}  # fmt: skip
WISHES = {
    "scale out": 6, "scale in": 4, "retire": 3, "weigh": 5, "rebalance": 2, "settings": 3,
    "slow moves": 4, "replica more": 1, "replica less": 2, "switch over": 4,
}  # fmt: skip
# How long what lasts may last, ms.
LASTS = {
    "hang master": (200, 6_000), "hang replica": (200, 6_000), "hang gateway": (200, 2_500),
    "hang controller": (200, 4_000), "slow node": (300, 1_500), "controller dies": (0, 3_000),
}  # fmt: skip


def process_schedule(seed: int) -> Schedule:
    """The round of that seed."""
    chance = random.Random(f"process-{seed}")
    world = World(
        shards=3, replicas=1, storage=seed // BLOCK % 2 == 0, replicas_know_open_slots=True
    )
    weights = {**FAULTS, **WISHES}
    gap_ms, at_ms, faults = chance.choice(MEAN_GAPS_MS), BEGIN_MS, []
    for kind in chance.choices(list(weights), list(weights.values()), k=FAULTS_PER_ROUND):
        at_ms += int(chance.expovariate(1 / gap_ms))
        lasts = chance.randint(*LASTS.get(kind, (0, 0)))
        faults.append(Fault(at_ms, kind, round(chance.random(), 6), lasts))
    return Schedule(seed, world, tuple(faults))
