"""Which shard owns which slot: consistent hashing, virtual nodes, bounded loads, stickiness.

Law: pure and the same on every machine.  Each shard owns its fair share ± `load_bound`, or ± one
slot, whichever is more (the band); and as few slots move as can reach the band.

The ring is a circle of 2**64 positions.  A shard has `virtual_nodes × weight` points on it, each a
keyed 64-bit BLAKE2b of `name#i`, so its points don't depend on the other shards.  A slot's position
is linear in its number: keys are hashed to slots already, and hashed positions would scatter each
shard's slots over thousands of ranges, which the engine and every client read as ranges.

A slot belongs to the first shard clockwise that has room: consistent hashing with bounded loads
(Mirrokni, Thorup, Zadimoghaddam, arXiv 1608.01350).  Here loads are bounded from below as well:
with an upper bound alone a shard added to fifty would stay nearly empty.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster.slots import SLOT_COUNT, SlotSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ShardShare", "explain", "fair_band", "plan_ownership", "ring_first"]

POSITIONS = 1 << 64
_KEY = b"shardcluster-ring"
_NOBODY = -1
_ONE = ord("1")


@dataclass(frozen=True, slots=True)
class ShardShare:
    """How much of the ring a shard has, and why."""

    name: str
    weight: float
    virtual_nodes: int
    fair: float  # slots, by weight
    least: int  # the band, slots
    most: int
    owned: int  # slots it owns now
    arcs: int  # slots the bare ring would give it, without bounds
    at_home: int  # owned slots that are on its own arcs


def fair_band(
    weights: Mapping[str, float], load_bound: float, slot_count: int = SLOT_COUNT
) -> dict[str, tuple[int, int]]:
    """(least, most) slots of each shard; the sums of both enclose `slot_count`."""
    total = math.fsum(weights.values())
    band = {}
    for name, weight in weights.items():
        fair = slot_count * weight / total
        slack = max(fair * load_bound, 1.0)
        band[name] = (max(0, math.ceil(fair - slack)), math.floor(fair + slack))
    return band


def plan_ownership(
    weights: Mapping[str, float],
    owned: Mapping[str, SlotSet],
    *,
    virtual_nodes: int = 160,
    load_bound: float = 0.02,
    slot_count: int = SLOT_COUNT,
    cost: Sequence[int] | None = None,
) -> dict[str, SlotSet]:
    """The wanted ownership, by shard, starting from what is `owned`.

    Shards in `owned` that have no weight end with nothing and are no keys of the result.  `cost` is
    what each slot counts (default 1 each); a shard is full when its sum reaches the band's end, so
    with other costs one slot's worth of overshoot is possible.  Moves are the least that reach the
    band.  Raises ValueError without a shard.
    """
    if not weights:
        message = "a ring needs at least one shard"
        raise ValueError(message)
    return _Plan(weights, owned, virtual_nodes, load_bound, cost or [1] * slot_count).run()


def ring_first(
    weights: Mapping[str, float], *, virtual_nodes: int = 160, slot_count: int = SLOT_COUNT
) -> list[str]:
    """For each slot the shard that the bare ring, without bounds, gives it to."""
    names = sorted(weights)
    ring = _Ring.of(
        tuple((name, _count(weights[name], virtual_nodes)) for name in names), slot_count
    )
    return [names[ring.owners[point]] for point in ring.successors]


def explain(
    weights: Mapping[str, float],
    owned: Mapping[str, SlotSet],
    *,
    virtual_nodes: int = 160,
    load_bound: float = 0.02,
) -> tuple[ShardShare, ...]:
    """Each shard's share of the ring and of the slots, in the order of `weights`."""
    first = ring_first(weights, virtual_nodes=virtual_nodes)
    band = fair_band(weights, load_bound)
    total = math.fsum(weights.values())
    shares = []
    for name, weight in weights.items():
        home = SlotSet.of(slot for slot, shard in enumerate(first) if shard == name)
        has = owned.get(name, SlotSet())
        least, most = band[name]
        shares.append(
            ShardShare(
                name, weight, _count(weight, virtual_nodes), SLOT_COUNT * weight / total,
                least, most, len(has), len(home), len(has & home),
            )
        )  # fmt: skip
    return tuple(shares)


def _count(weight: float, virtual_nodes: int) -> int:
    return max(1, round(virtual_nodes * weight))


@functools.lru_cache(maxsize=4096)
def _points(name: str, count: int) -> tuple[int, ...]:
    return tuple(
        int.from_bytes(
            hashlib.blake2b(f"{name}#{number}".encode(), digest_size=8, key=_KEY).digest()
        )
        for number in range(count)
    )


@dataclass(frozen=True, slots=True)
class _Ring:
    """All points in order, and for each slot the first point at or after it."""

    owners: tuple[int, ...]  # by point: the number of its shard
    successors: tuple[int, ...]  # by slot: the number of its first point
    slots: tuple[range, ...]  # by point: the slots whose first point it is

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def of(counts: tuple[tuple[str, int], ...], slot_count: int) -> _Ring:
        points = sorted(
            (position, shard)
            for shard, (name, count) in enumerate(counts)
            for position in _points(name, count)
        )
        successors: list[int] = []
        slots: list[range] = []
        slot = 0
        for point, (position, _) in enumerate(points):
            first = slot
            # the slots at or before this point: slot * POSITIONS / slot_count <= position
            slot = min(slot_count, position * slot_count // POSITIONS + 1)
            successors += [point] * (slot - first)
            slots.append(range(first, slot))
        successors += [0] * (slot_count - slot)  # past the last point the circle begins again
        wrapped = range(slot - slot_count, 0)
        slots[0] = range(wrapped.start, slots[0].stop) if wrapped else slots[0]
        return _Ring(tuple(shard for _, shard in points), tuple(successors), tuple(slots))


class _Walk:
    """Clockwise to the first point whose shard is open; closed stretches are skipped for good."""

    def __init__(self, owners: tuple[int, ...], is_open: list[bool]) -> None:
        self._owners = owners
        self._open = is_open
        self._next = list(range(len(owners)))

    def shard(self, point: int) -> int:
        """The first open shard from `point` on; some shard must be open."""
        passed = []
        while True:
            following = self._next[point]
            if following != point:
                passed.append(point)
                point = following
            elif self._open[self._owners[point]]:
                break
            else:
                self._next[point] = (point + 1) % len(self._next)
        for number in passed:
            self._next[number] = point
        return self._owners[point]


class _Plan:
    """One run: slots are given out, pulled and pushed until every shard is inside its band."""

    def __init__(
        self,
        weights: Mapping[str, float],
        owned: Mapping[str, SlotSet],
        virtual_nodes: int,
        load_bound: float,
        cost: Sequence[int],
    ) -> None:
        self.cost = cost
        self.names = sorted(weights)
        self.ring = _Ring.of(
            tuple((name, _count(weights[name], virtual_nodes)) for name in self.names), len(cost)
        )
        band = fair_band(weights, load_bound, sum(cost))
        self.least = [band[name][0] for name in self.names]
        self.most = [band[name][1] for name in self.names]
        self.load = [0] * len(self.names)
        self.owner = [_NOBODY] * len(cost)
        for shard, name in enumerate(self.names):
            for first, last in owned.get(name, SlotSet()).ranges():
                self.owner[first : last + 1] = [shard] * (last + 1 - first)
        if sum(cost) == len(cost) and max(cost) == 1:  # the usual case, counted fast
            self.load = [self.owner.count(shard) for shard in range(len(self.names))]
            return
        for shard, slot_cost in zip(self.owner, cost, strict=True):
            if shard != _NOBODY:
                self.load[shard] += slot_cost

    def run(self) -> dict[str, SlotSet]:
        """The wanted ownership."""
        self._place_unowned()
        self._pull()
        self._push()
        bits = [bytearray(b"0") * len(self.owner) for _ in self.names]  # the highest slot first
        for slot, shard in enumerate(reversed(self.owner)):
            bits[shard][slot] = _ONE
        return {name: SlotSet(int(flags, 2)) for name, flags in zip(self.names, bits, strict=True)}

    def _give(self, slot: int, shard: int) -> None:
        before = self.owner[slot]
        if before != _NOBODY:
            self.load[before] -= self.cost[slot]
        self.owner[slot] = shard
        self.load[shard] += self.cost[slot]

    def _deficit(self) -> int:
        return sum(max(0, least - load) for least, load in zip(self.least, self.load, strict=True))

    def _excess(self) -> int:
        return sum(max(0, load - most) for most, load in zip(self.most, self.load, strict=True))

    def _place_unowned(self) -> None:
        """Unowned slots go to the first shard with room, keeping enough for those in need."""
        if _NOBODY not in self.owner:
            return
        pool = [slot for slot, shard in enumerate(self.owner) if shard == _NOBODY]
        free = sum(self.cost[slot] for slot in pool) - self._deficit()
        has_room = [load < most for load, most in zip(self.load, self.most, strict=True)]
        in_need = [load < least for load, least in zip(self.load, self.least, strict=True)]
        anywhere = _Walk(self.ring.owners, has_room)
        needy = _Walk(self.ring.owners, in_need)
        for slot in pool:
            point = self.ring.successors[slot]
            scarce = free <= 0 and any(in_need)
            shard = (needy if scarce else anywhere).shard(point)
            if not in_need[shard]:
                free -= self.cost[slot]
            self._give(slot, shard)
            has_room[shard] = self.load[shard] < self.most[shard]
            in_need[shard] = self.load[shard] < self.least[shard]

    def _pull(self) -> None:
        """Shards under their band take the slots nearest before their points."""
        deficit = self._deficit()
        if not deficit:
            return
        slack = deficit - self._excess()
        points: list[list[int]] = [[] for _ in self.names]
        for point, shard in enumerate(self.ring.owners):
            points[shard].append(point)
        for shard in range(len(self.names)):
            if self.load[shard] >= self.least[shard]:
                continue
            for slot in self._nearest(shard, points[shard]):
                donor = self.owner[slot]
                cost = self.cost[slot]
                if donor == shard or self.load[donor] - cost < self.least[donor]:
                    continue
                if self.load[donor] <= self.most[donor]:
                    if slack <= 0:
                        continue
                    slack -= cost
                self._give(slot, shard)
                if self.load[shard] >= self.least[shard]:
                    break  # with costs other than 1 the band may be out of reach

    def _nearest(self, shard: int, points: list[int]) -> Iterator[int]:
        """Slots by the number of points between them and the shard's next point, then by slot."""
        owners = self.ring.owners
        ends = points
        hops = 0
        while ends:
            yield from sorted(
                slot % len(self.cost) for end in ends for slot in self.ring.slots[end - hops]
            )
            hops += 1
            # an arc ends where it meets the shard's own point before
            ends = [end for end in ends if owners[end - hops] != shard]

    def _push(self) -> None:
        """Shards over their band give to the next with room, slots away from home first."""
        has_room = [load < most for load, most in zip(self.load, self.most, strict=True)]
        walk = _Walk(self.ring.owners, has_room)
        for shard in range(len(self.names)):
            if self.load[shard] <= self.most[shard]:
                continue
            mine = [slot for slot, owner in enumerate(self.owner) if owner == shard]
            home = [self.ring.owners[self.ring.successors[slot]] == shard for slot in mine]
            for _, slot in sorted(zip(home, mine, strict=True)):
                if self.load[shard] <= self.most[shard]:
                    break
                if self.load[shard] - self.cost[slot] < self.least[shard]:
                    continue  # too heavy a slot to give away
                taker = walk.shard(self.ring.successors[slot])
                self._give(slot, taker)
                has_room[taker] = self.load[taker] < self.most[taker]
            if self.load[shard] < self.most[shard]:
                # A heavy slot left: the shard has room again, and a walk forgets whom it passed.
                has_room[shard] = True
                walk = _Walk(self.ring.owners, has_room)
