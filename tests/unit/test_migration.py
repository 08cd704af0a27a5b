"""The table of one slot's move, and how its keys are cut into batches."""

from __future__ import annotations

import random

import pytest

from shardcluster.migration import (
    TRANSITIONS,
    Batch,
    BatchLimits,
    SlotEvent,
    SlotState,
    advance,
    split,
)


def _run(*events: SlotEvent) -> SlotState:
    state = SlotState.PLANNED
    for event in events:
        state = advance(state, event)
    return state


def test_a_whole_move_goes_through_every_gate() -> None:
    """Importing, migrating, keys, count, replica, target, source: done."""
    assert (
        _run(
            SlotEvent.IMPORTING_SET,
            SlotEvent.MIGRATING_SET,
            SlotEvent.KEYS_LEFT,
            SlotEvent.COUNTED_ZERO,
            SlotEvent.REPLICA_HAS_IT,
            SlotEvent.TARGET_CLOSED,
            SlotEvent.SOURCE_CLOSED,
        )
        is SlotState.DONE
    )


def test_a_slot_that_was_taken_over_already_is_only_closed() -> None:
    """The target owns it and the source knows: nothing is counted or moved."""
    assert _run(SlotEvent.TARGET_WAS_OWNER, SlotEvent.SOURCE_WAS_NOT_OWNER) is SlotState.EMPTY


def test_a_slot_that_a_third_node_owns_fails() -> None:
    """A source that does not own the slot has nothing to give."""
    assert _run(SlotEvent.IMPORTING_SET, SlotEvent.SOURCE_WAS_NOT_OWNER) is SlotState.FAILED


def test_an_open_slot_reaches_no_new_owner_without_the_count() -> None:
    """Every way from OPEN to a new owner goes through COUNTED_ZERO."""
    reached, frontier = {SlotState.OPEN}, [SlotState.OPEN]
    while frontier:
        state = frontier.pop()
        for (before, event), after in TRANSITIONS.items():
            if before is state and event is not SlotEvent.COUNTED_ZERO and after not in reached:
                reached.add(after)
                frontier.append(after)
    assert reached == {SlotState.OPEN, SlotState.FAILED}


def test_a_step_that_is_not_in_the_table_is_refused() -> None:
    """Closing an open slot raises and says why."""
    with pytest.raises(ValueError, match="'open' can't go on with 'target closed'"):
        advance(SlotState.OPEN, SlotEvent.TARGET_CLOSED)


def test_every_state_but_the_last_two_can_fail() -> None:
    """REFUSED leads to FAILED from wherever something can still be refused."""
    for state in SlotState:
        refusable = (state, SlotEvent.REFUSED) in TRANSITIONS
        assert refusable == (state not in {SlotState.DONE, SlotState.FAILED})


def test_small_keys_go_together_and_big_ones_alone_at_the_end() -> None:
    """Batches hold at most so many keys; a big key has one of its own, its size known."""
    keys = [b"a", b"BIG", b"b", b"c"]
    assert split(keys, 5_000_300, {1: 5_000_000}, BatchLimits(2, 1_000_000)) == [
        Batch((b"a", b"b"), 200),
        Batch((b"c",), 100),
        Batch((b"BIG",), 5_000_000, alone=True),
    ]


def test_large_keys_make_batches_short() -> None:
    """The limit in bytes holds on average; at least one key always goes."""
    keys = [b"%d" % i for i in range(10)]
    assert [len(b.keys) for b in split(keys, 3000, {}, BatchLimits(100, 900))] == [3, 3, 3, 1]
    assert [len(b.keys) for b in split(keys, 30_000, {}, BatchLimits(100, 900))] == [1] * 10
    assert split([], 0, {}, BatchLimits(100, 900)) == []


@pytest.mark.parametrize("seed", range(30))
def test_every_key_is_in_one_batch(seed: int) -> None:
    """Whatever the sizes, no key is dropped or sent twice."""
    dice = random.Random(seed)
    keys = [b"%d" % i for i in range(dice.randint(0, 200))]
    big = {i: dice.randint(1000, 10**9) for i in range(len(keys)) if dice.random() < 0.1}
    limits = BatchLimits(dice.randint(1, 50), dice.randint(1, 10_000))
    batches = split(keys, sum(big.values()) + dice.randint(0, 10**6), big, limits)
    assert sorted(key for batch in batches for key in batch.keys) == sorted(keys)
    assert sum(batch.alone for batch in batches) == len(big)
    assert all(len(batch.keys) <= limits.keys for batch in batches)
