"""Slots of keys, and sets of slots against Python's own sets."""

from __future__ import annotations

import pytest
import redis.crc
from hypothesis import given
from hypothesis import strategies as st

from shardcluster.slots import SLOT_COUNT, SlotSet, key_slot

slot_sets = st.sets(st.integers(0, SLOT_COUNT - 1), max_size=200)


@given(st.binary(max_size=64) | st.from_regex(rb"[a-z{}]{0,12}", fullmatch=True))
def test_a_key_has_the_slot_that_redis_py_computes(key: bytes) -> None:
    """Binary keys, hash tags, half hash tags, empty hash tags."""
    assert key_slot(key) == redis.crc.key_slot(key)


@pytest.mark.parametrize(
    ("key", "same_as"),
    [(b"{user}a", b"user"), (b"a{user}b{x}", b"user"), (b"{}a", b"{}a"), (b"{a", b"{a")],
)
def test_the_hash_tag_decides(key: bytes, same_as: bytes) -> None:
    """What stands between the first brace and the next, unless that is nothing."""
    assert redis.crc.key_slot(same_as) == key_slot(key)


@given(slot_sets, slot_sets)
def test_sets_of_slots_behave_like_sets(left: set[int], right: set[int]) -> None:
    """Union, intersection, difference, size, membership, order."""
    one, other = SlotSet.of(left), SlotSet.of(right)
    assert set(one | other) == left | right
    assert set(one & other) == left & right
    assert set(one - other) == left - right
    assert len(one) == len(left)
    assert list(one) == sorted(left)
    assert all((slot in one) == (slot in left) for slot in (0, 1, 5460, *right))
    assert (one == other) == (left == right)


@given(slot_sets)
def test_the_engine_s_notation_is_read_and_written(slots: set[int]) -> None:
    """`parse` is the inverse of `str`."""
    one = SlotSet.of(slots)
    assert SlotSet.parse(str(one)) == one
    assert repr(one) == f"SlotSet.parse({str(one)!r})"


@given(slot_sets | st.sets(st.integers(0, 40)))
def test_ranges_are_as_long_as_can_be(slots: set[int]) -> None:
    """As a plain set of numbers gives them, counted one by one."""
    firsts = [slot for slot in sorted(slots) if slot - 1 not in slots]
    lasts = [slot for slot in sorted(slots) if slot + 1 not in slots]
    assert SlotSet.of(slots).ranges() == tuple(zip(firsts, lasts, strict=True))


def test_all_slots_are_one_range() -> None:
    """0-16383."""
    assert str(SlotSet.full()) == "0-16383"
    assert len(SlotSet.full()) == SLOT_COUNT


@pytest.mark.parametrize("text", ["x", "5-", "-5", "7-3", "0-16384", "1,2"])
def test_what_is_no_list_of_ranges_is_refused(text: str) -> None:
    """Half an answer must not be decided upon."""
    with pytest.raises(ValueError, match=r"."):
        SlotSet.parse(text)


@pytest.mark.parametrize("slot", [-1, SLOT_COUNT])
def test_there_are_no_other_slots(slot: int) -> None:
    """0..16383."""
    with pytest.raises(ValueError, match="is not in"):
        SlotSet.of([slot])
