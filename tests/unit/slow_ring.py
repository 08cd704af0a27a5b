"""The ring's rules once more, as plainly as can be: loops over points and slots, no cleverness."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from shardcluster.ring import fair_band
from shardcluster.slots import SlotSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["slow_plan"]


class _Slow:
    def __init__(self, weights: dict[str, float], virtual_nodes: int, slot_count: int) -> None:
        self.band = fair_band(weights, 0.02, slot_count)
        self.names = sorted(weights)
        self.slot_count = slot_count
        self.points = sorted(
            (
                int.from_bytes(
                    hashlib.blake2b(
                        f"{name}#{i}".encode(), digest_size=8, key=b"shardcluster-ring"
                    ).digest()
                ),
                name,
            )
            for name in self.names
            for i in range(max(1, round(virtual_nodes * weights[name])))
        )
        self.owner: dict[int, str] = {}

    def load(self, name: str) -> int:
        return list(self.owner.values()).count(name)

    def first(self, slot: int) -> int:
        for index, (position, _) in enumerate(self.points):
            if slot * 2**64 <= position * self.slot_count:
                return index
        return 0

    def walk(self, slot: int, fits: Callable[[str], bool]) -> str:
        start = self.first(slot)
        return next(
            self.points[(start + step) % len(self.points)][1]
            for step in range(len(self.points))
            if fits(self.points[(start + step) % len(self.points)][1])
        )

    def total(self, which: Callable[[str], int]) -> int:
        return sum(max(0, which(name)) for name in self.names)

    def deficit(self, name: str) -> int:
        return self.band[name][0] - self.load(name)

    def excess(self, name: str) -> int:
        return self.load(name) - self.band[name][1]

    def place(self) -> None:
        pool = [slot for slot in range(self.slot_count) if slot not in self.owner]
        for number, slot in enumerate(pool):
            needed = self.total(self.deficit)
            scarce = needed >= len(pool) - number and needed > 0
            name = self.walk(
                slot, (lambda n: self.deficit(n) > 0) if scarce else (lambda n: self.excess(n) < 0)
            )
            self.owner[slot] = name

    def before(self, name: str) -> Iterator[int]:
        """Slots by hops to the shard's next point, then by number."""
        ranked = []
        for slot in range(self.slot_count):
            start = self.first(slot)
            hops = next(
                step
                for step in range(len(self.points))
                if self.points[(start + step) % len(self.points)][1] == name
            )
            ranked.append((hops, slot))
        return (slot for _, slot in sorted(ranked))

    def pull(self) -> None:
        slack = self.total(self.deficit) - self.total(self.excess)
        for name in self.names:
            for slot in self.before(name):
                if self.deficit(name) <= 0:
                    break
                donor = self.owner[slot]
                if self.excess(donor) > 0:
                    self.owner[slot] = name
                elif slack > 0 and donor != name and self.deficit(donor) < 0:
                    slack -= 1
                    self.owner[slot] = name

    def push(self) -> None:
        for name in self.names:
            mine = [slot for slot in range(self.slot_count) if self.owner[slot] == name]
            away = [slot for slot in mine if self.points[self.first(slot)][1] != name]
            home = [slot for slot in mine if self.points[self.first(slot)][1] == name]
            for slot in away + home:
                if self.excess(name) <= 0:
                    break
                self.owner[slot] = self.walk(slot, lambda n: self.excess(n) < 0)


def slow_plan(
    weights: dict[str, float], owned: dict[str, SlotSet], virtual_nodes: int, slot_count: int
) -> dict[str, SlotSet]:
    """What `plan_ownership` has to answer."""
    ring = _Slow(weights, virtual_nodes, slot_count)
    for name, slots in owned.items():
        if name in weights:
            ring.owner.update(dict.fromkeys(slots, name))
    ring.place()
    ring.pull()
    ring.push()
    return {
        name: SlotSet.of(slot for slot, owner in ring.owner.items() if owner == name)
        for name in ring.names
    }
