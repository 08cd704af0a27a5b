"""What happens to a store: a schedule of faults and of people's wishes, made from a seed.

A schedule is plain data, so that it can be written down, replayed and made smaller: a fault names
no node but a number from 0 to 1 that picks one of those it can befall, and tells how long it
lasts, so that each can be left out without the others losing their meaning.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WISHES", "Fault", "Schedule", "World", "load", "save", "schedule"]

FAULTS_PER_ROUND = 40
BEGIN_MS = 500
MEAN_GAPS_MS = (150, 400, 1_000)  # between two faults; one of them for a round
# Weights by kind; what each does is in `befall.py`.
WEIGHTS = {
    "kill": 14, "kill leader": 6, "kill shard": 1, "kill all": 1, "start": 6, "move": 2,
    "lose disk": 3, "hang": 9, "cut": 9, "split": 3, "lossy": 6, "late": 5, "stall": 5,
    "controller dies": 12, "controller away": 4,
    "scale out": 3, "scale in": 3, "retire": 2, "replica more": 2, "replica less": 2,
}  # fmt: skip
WISHES = frozenset({"scale out", "scale in", "retire", "replica more", "replica less"})
# How long what lasts may last, ms; of "kill leader": how long a replica lags before; of
# "controller dies": how many sub-steps of an action it gets.
LASTS = {
    "kill leader": (200, 1_500), "hang": (300, 9_000), "cut": (300, 9_000),
    "split": (300, 9_000), "lossy": (500, 5_000),
    "late": (500, 5_000), "stall": (200, 3_000), "controller dies": (0, 9),
    "controller away": (500, 8_000),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens."""

    at_ms: int  # since the round's begin
    kind: str
    pick: float  # 0..1: which of those that it can befall
    lasts: int = 0  # ms, or what `LASTS` says


@dataclass(frozen=True, slots=True)
class World:
    """What the store is at the beginning of a round."""

    shards: int
    replicas: int
    storage: bool
    replicas_know_open_slots: bool  # as newer engines do


@dataclass(frozen=True, slots=True)
class Schedule:
    """All of a round; the seed also rolls the dice of the packets and clients."""

    seed: int
    world: World
    faults: tuple[Fault, ...]


def schedule(seed: int) -> Schedule:
    """The round of that seed."""
    chance = random.Random(seed)
    world = World(
        shards=chance.choice((1, 2, 3, 3, 3, 4)),
        replicas=chance.choice((0, 1, 1, 1, 1, 2)),
        storage=chance.random() < 0.6,
        replicas_know_open_slots=chance.random() < 0.8,
    )
    gap_ms, now_ms, faults = chance.choice(MEAN_GAPS_MS), BEGIN_MS, []
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    for kind in chance.choices(kinds, weights, k=FAULTS_PER_ROUND):
        now_ms += int(chance.expovariate(1 / gap_ms))
        faults.append(
            Fault(now_ms, kind, chance.random(), chance.randint(*LASTS.get(kind, (0, 0))))
        )
    return Schedule(seed, world, tuple(faults))


def save(plan: Schedule, path: Path) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(asdict(plan), indent=1) + "\n")


def load(path: Path) -> Schedule:
    """The inverse of `save`."""
    found = json.loads(path.read_text())
    faults = tuple(Fault(**fault) for fault in found["faults"])
    return Schedule(found["seed"], World(**found["world"]), faults)
