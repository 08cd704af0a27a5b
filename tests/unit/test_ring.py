"""The ring: bands, least moves, resumability, and a second, slower implementation that agrees."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardcluster.ring import explain, fair_band, plan_ownership, ring_first
from shardcluster.slots import SLOT_COUNT, SlotSet
from tests.unit.slow_ring import slow_plan

if TYPE_CHECKING:
    import random

SMALL = 96  # slots in the property tests
FEW_POINTS = 4  # virtual nodes in the property tests


def equal(count: int) -> dict[str, float]:
    """So many shards of weight 1."""
    return {f"shard-{number}": 1.0 for number in range(count)}


def moved(before: dict[str, SlotSet], after: dict[str, SlotSet]) -> int:
    """How many slots have another owner."""
    return sum(len(slots - before.get(name, SlotSet())) for name, slots in after.items())


def least_moves(
    owned: dict[str, SlotSet], weights: dict[str, float], slot_count: int = SLOT_COUNT
) -> int:
    """The least moves that bring `owned` into the band."""
    band = fair_band(weights, 0.02, slot_count)
    loads = {name: len(owned.get(name, SlotSet())) for name in weights}
    homeless = slot_count - sum(loads.values())
    excess = sum(max(0, loads[name] - most) for name, (_, most) in band.items())
    deficit = sum(max(0, least - loads[name]) for name, (least, _) in band.items())
    return max(homeless + excess, deficit)


def check(
    plan: dict[str, SlotSet], weights: dict[str, float], slot_count: int = SLOT_COUNT
) -> None:
    """Every slot once, every shard within its band."""
    assert plan.keys() == weights.keys()
    assert sum(map(len, plan.values())) == slot_count
    assert len(set().union(*plan.values())) == slot_count
    for name, (least, most) in fair_band(weights, 0.02, slot_count).items():
        assert least <= len(plan[name]) <= most, name


weights_maps = st.dictionaries(
    st.integers(0, 12).map(lambda number: f"shard-{number}"),
    st.sampled_from([0.1, 0.5, 1.0, 1.0, 1.0, 2.0, 3.5]),
    min_size=1,
    max_size=8,
)
ownerships = st.lists(st.sampled_from([*range(13), None]), min_size=SMALL, max_size=SMALL).map(
    lambda owners: {
        f"shard-{number}": SlotSet.of(slot for slot, owner in enumerate(owners) if owner == number)
        for number in range(13)
        if number in owners
    }
)


class TestBand:
    """The share a shard may have."""

    @given(weights_maps, st.sampled_from([0.0, 0.02, 0.3]))
    def test_the_bands_enclose_all_slots(self, weights: dict[str, float], bound: float) -> None:
        """Else no ownership could satisfy them."""
        band = fair_band(weights, bound)
        assert sum(least for least, _ in band.values()) <= SLOT_COUNT
        assert sum(most for _, most in band.values()) >= SLOT_COUNT

    def test_one_slot_is_the_least_width(self) -> None:
        """With a thousand shards two per cent of a share are less than a slot."""
        band = fair_band(equal(1000), 0.02)
        assert set(band.values()) == {(16, 17)}


class TestPlan:
    """Who shall own what."""

    @pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 50, 333, 1000])
    def test_equal_shards_are_within_the_band(self, count: int) -> None:
        """From nothing, for one to a thousand shards."""
        check(plan_ownership(equal(count), {}), equal(count))

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 64])
    def test_adding_and_removing_a_shard_moves_the_least(self, count: int) -> None:
        """And nothing moves between shards that both stay."""
        before = plan_ownership(equal(count), {})
        grown = plan_ownership(equal(count + 1), before)
        check(grown, equal(count + 1))
        assert moved(before, grown) == least_moves(before, equal(count + 1))
        newest = f"shard-{count}"
        assert all(grown[name] - before[name] == SlotSet() for name in before)
        shrunk = plan_ownership(equal(count), grown)
        check(shrunk, equal(count))
        assert moved(grown, shrunk) == least_moves(grown, equal(count))
        assert sum(len(shrunk[name] & grown[newest]) for name in shrunk) == len(grown[newest])

    @given(weights_maps, ownerships)
    @settings(max_examples=200)
    def test_any_ownership_is_brought_into_the_band_by_the_least_moves(
        self, weights: dict[str, float], owned: dict[str, SlotSet]
    ) -> None:
        """Weights, leaving shards, new shards and unowned slots in any mixture."""
        plan = plan_ownership(weights, owned, virtual_nodes=FEW_POINTS, slot_count=SMALL)
        check(plan, weights, SMALL)
        assert moved(owned, plan) == least_moves(owned, weights, SMALL)

    @given(weights_maps, ownerships)
    @settings(max_examples=200)
    def test_a_slow_second_implementation_agrees(
        self, weights: dict[str, float], owned: dict[str, SlotSet]
    ) -> None:
        """Written from the rules, walking the circle point by point."""
        plan = plan_ownership(weights, owned, virtual_nodes=FEW_POINTS, slot_count=SMALL)
        assert plan == slow_plan(weights, owned, FEW_POINTS, SMALL)

    @given(weights_maps, ownerships, st.randoms(use_true_random=False))
    @settings(max_examples=200)
    def test_from_half_way_no_slot_moves_twice(
        self, weights: dict[str, float], owned: dict[str, SlotSet], rng: random.Random
    ) -> None:
        """Some of the moves done in any order: the rest are as many as were left."""
        plan = plan_ownership(weights, owned, virtual_nodes=FEW_POINTS, slot_count=SMALL)
        moves = [
            (slot, name)
            for name, slots in plan.items()
            for slot in slots - owned.get(name, SlotSet())
        ]
        done = dict(rng.sample(moves, rng.randint(0, len(moves))))
        partial = {
            name: SlotSet.of(
                [slot for slot in owned.get(name, SlotSet()) if slot not in done]
                + [slot for slot, taker in done.items() if taker == name]
            )
            for name in {*owned, *weights}
        }
        rest = plan_ownership(weights, partial, virtual_nodes=FEW_POINTS, slot_count=SMALL)
        assert moved(partial, rest) + len(done) == len(moves)
        assert all(slot in rest[name] for slot, name in done.items())

    @given(weights_maps, ownerships)
    def test_a_finished_plan_has_nothing_to_do(
        self, weights: dict[str, float], owned: dict[str, SlotSet]
    ) -> None:
        """Planning what was planned changes nothing, in any order of the shards."""
        plan = plan_ownership(weights, owned, virtual_nodes=FEW_POINTS, slot_count=SMALL)
        backwards = dict(reversed(weights.items()))
        again = plan_ownership(backwards, plan, virtual_nodes=FEW_POINTS, slot_count=SMALL)
        assert again == plan

    def test_the_same_input_gives_the_same_plan_in_another_process(self) -> None:
        """Whatever Python's hash seed is."""
        script = """if True:
            from shardcluster.ring import plan_ownership
            plan = plan_ownership({f"shard-{number}": 1.0 for number in range(5)}, {})
            print(sorted((name, str(slots)) for name, slots in plan.items()))
        """
        printed = {
            subprocess.run(
                [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, check=True,
                capture_output=True,
            ).stdout
            for seed in ("1", "2")
        }  # fmt: skip
        here = sorted((name, str(slots)) for name, slots in plan_ownership(equal(5), {}).items())
        assert printed == {f"{here}\n".encode()}

    def test_the_bound_may_be_on_the_cost_of_slots(self) -> None:
        """A slot that costs more than the others together leaves its owner little else."""
        cost = [100] + [1] * (SMALL - 1)
        plan = plan_ownership(equal(2), {}, virtual_nodes=FEW_POINTS, slot_count=SMALL, cost=cost)
        heavy = next(name for name, slots in plan.items() if 0 in slots)
        loads = {name: sum(cost[slot] for slot in slots) for name, slots in plan.items()}
        assert len(plan[heavy]) == 1
        assert math.isclose(sum(loads.values()), 100 + SMALL - 1)

    def test_a_slot_too_heavy_to_give_away_stays(self) -> None:
        """Moving it would only turn the imbalance around."""
        cost = [100] + [1] * (SMALL - 1)
        owned = {"shard-0": SlotSet.of(range(SMALL // 2)), "shard-1": SlotSet.of(range(48, SMALL))}
        plan = plan_ownership(
            equal(2), owned, virtual_nodes=FEW_POINTS, slot_count=SMALL, cost=cost
        )
        assert 0 in plan["shard-0"]
        assert len(plan["shard-0"]) < 10

    def test_a_shard_that_gave_a_heavy_slot_away_has_room_again(self) -> None:
        """Else, with all others full, the search for room would have no end."""
        cost = [40, 10, 10, 10, 1, 20, 1, 3, 1, 15, 10, 3, 10, 10, 40, 15, 1, 3, 10, 40]
        owned = {
            "s0": SlotSet.parse("3 6-7 14"),
            "s1": SlotSet.parse("1 9-10 13"),
            "s2": SlotSet.parse("0 2 4-5 18-19"),
            "s3": SlotSet.parse("8 11-12 15-17"),
        }
        weights = dict.fromkeys(owned, 1.0)
        plan = plan_ownership(
            weights, owned, virtual_nodes=FEW_POINTS, slot_count=20, load_bound=0.1, cost=cost
        )
        assert sorted(slot for slots in plan.values() for slot in slots) == list(range(20))
        for name, (_, most) in fair_band(weights, 0.1, sum(cost)).items():
            assert sum(cost[slot] for slot in plan[name]) < most + max(cost)

    def test_a_shard_over_its_band_keeps_its_own_arcs(self) -> None:
        """What it gives away is what the ring would not give it anyway."""
        weights = equal(3)
        everything = {"shard-0": SlotSet.of(range(SMALL))}
        wide = plan_ownership(
            weights, everything, virtual_nodes=FEW_POINTS, slot_count=SMALL, load_bound=0.4
        )
        assert len(wide["shard-0"]) < SMALL // 2

    def test_a_ring_without_shards_is_refused(self) -> None:
        """Nobody could own a slot."""
        with pytest.raises(ValueError, match="at least one shard"):
            plan_ownership({}, {})


class TestExplain:
    """Why a shard owns what it owns."""

    def test_shares_add_up(self) -> None:
        """Arcs of the bare ring and owned slots each cover the circle once."""
        weights = {"shard-0": 1.0, "shard-1": 2.0, "shard-2": 1.0}
        plan = plan_ownership(weights, {})
        shares = explain(weights, plan)
        assert [share.name for share in shares] == list(weights)
        assert sum(share.arcs for share in shares) == SLOT_COUNT
        assert sum(share.owned for share in shares) == SLOT_COUNT
        assert [share.virtual_nodes for share in shares] == [160, 320, 160]
        assert all(share.least <= share.owned <= share.most for share in shares)
        assert all(share.at_home <= min(share.arcs, share.owned) for share in shares)
        assert shares[1].fair == SLOT_COUNT / 2

    def test_the_bare_ring_is_the_first_point_clockwise(self) -> None:
        """One shard has it all."""
        assert set(ring_first(equal(1))) == {"shard-0"}
