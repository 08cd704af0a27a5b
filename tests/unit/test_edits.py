"""Adding and removing shards: one name changes, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcluster.edits import EditError, add_shard, remove_shard
from shardcluster.names import node_name, shard_name
from shardcluster.spec import Spec, parse
from shardcluster.spec_limits import RETIRED_MAX, SHARDS_MAX


def spec_of(shards: int, *retire: str, **fields: Any) -> Spec:
    """A valid spec."""
    return parse({"spec": {"shards": shards, "retire": list(retire), **fields}})


def refusal(spec: Spec, name: str, *present: str) -> tuple[str, str]:
    """The code and sentence that removing `name` is refused with."""
    with pytest.raises(EditError) as raised:
        remove_shard(spec, name, present)
    assert str(raised.value) == raised.value.sentence
    return raised.value.code, raised.value.sentence


def test_a_shard_is_added_under_the_next_free_name() -> None:
    """A retired name is passed over."""
    assert add_shard(spec_of(3)) == (spec_of(4), "shard-3")
    assert add_shard(spec_of(3, "shard-3")) == (spec_of(4, "shard-3"), "shard-4")
    assert add_shard(spec_of(3, "shard-1"))[1] == "shard-4"


def test_the_most_shards_there_can_be() -> None:
    """One more is refused."""
    with pytest.raises(EditError, match="1000 shards already") as raised:
        add_shard(spec_of(SHARDS_MAX))
    assert raised.value.code == "TooManyShards"


def test_a_shard_that_would_make_the_spec_invalid_is_not_added() -> None:
    """What `parse` would refuse, no edit makes."""
    weights = {shard_name(number): 100 for number in range(11)}
    spec = spec_of(10, ring={"virtualNodes": 1000, "weights": weights})
    with pytest.raises(EditError, match=r"spec\.ring\.virtualNodes") as raised:
        add_shard(spec)
    assert raised.value.code == "InvalidSpec"
    full = spec_of(5, *(shard_name(number) for number in range(100, 100 + RETIRED_MAX)))
    assert refusal(full, "shard-1")[0] == "InvalidSpec"


def test_the_last_shard_by_number_just_falls_off() -> None:
    """Its name is free again afterwards."""
    smaller = remove_shard(spec_of(4), "shard-3", ["shard-3"])
    assert smaller == spec_of(3)
    assert add_shard(smaller) == (spec_of(4), "shard-3")


def test_a_shard_in_the_middle_is_retired() -> None:
    """By its own name or by a node's."""
    expected = spec_of(3, "shard-1")
    assert remove_shard(spec_of(4), "shard-1", ()) == expected
    assert remove_shard(spec_of(4), "shard-1-0", ()) == expected
    assert remove_shard(spec_of(4), "shard-1-1", ()) == expected


def test_names_that_keep_nothing_out_any_more_are_dropped() -> None:
    """But not one that the user put above all shards."""
    spec = spec_of(2, "shard-1", "shard-9")
    assert spec.wanted_shards() == ("shard-0", "shard-2")
    assert remove_shard(spec, "shard-2", ()) == spec_of(1, "shard-9")
    assert remove_shard(spec, "shard-0", ()) == spec_of(1, "shard-1", "shard-9", "shard-0")


def test_what_is_not_there_cannot_be_removed() -> None:
    """Unknown shards, nodes and nonsense."""
    for name in ("shard-3", "shard-3-0", "shard-00", "", "x" * 10**5, "\ud800", "shard-1-2"):
        code, sentence = refusal(spec_of(3), name, "shard-0")
        assert code == "UnknownShard"
        assert len(sentence) < 100
    assert refusal(spec_of(3), "shard-1-2")[1] == "There is no node shard-1-2."


def test_a_shard_that_is_leaving_is_not_removed_twice() -> None:
    """Known while it stands, unknown when it is gone."""
    spec = remove_shard(spec_of(3), "shard-1", ["shard-1"])
    assert refusal(spec, "shard-1", "shard-1")[0] == "AlreadyLeaving"
    assert refusal(spec, "shard-1-0", "shard-1")[0] == "AlreadyLeaving"
    assert refusal(spec, "shard-1", "shard-0")[0] == "UnknownShard"


def test_the_last_shard_stays() -> None:
    """The data would have no place."""
    assert refusal(spec_of(1), "shard-0", "shard-0")[0] == "LastShard"
    assert refusal(spec_of(1), "shard-1", "shard-1")[0] == "AlreadyLeaving"


def test_a_retired_shard_comes_back_when_the_document_says_so() -> None:
    """Also half-way: it is wanted again, under its name."""
    spec = remove_shard(spec_of(4), "shard-2", ())
    document = spec.document()
    document["spec"]["retire"].remove("shard-2")
    document["spec"]["shards"] += 1
    assert parse(document) == spec_of(4)


@given(
    st.integers(1, 8),
    st.lists(st.integers(0, 12).map(shard_name), unique=True, max_size=4),
    st.lists(st.none() | st.tuples(st.integers(0, 9), st.booleans()), max_size=25),
)
def test_any_row_of_edits_changes_one_name_at_a_time(
    shards: int, retire: list[str], edits: list[tuple[int, bool] | None]
) -> None:
    """An edit is `None` (add) or which wanted shard to remove, by itself or by a node."""
    spec = spec_of(shards, *retire)
    everything_else = dataclasses.replace(spec, shards=1, retire=())
    for edit in edits:
        before = spec.wanted_shards()
        if edit is None:
            spec, name = add_shard(spec)
            assert name not in before
            assert set(spec.wanted_shards()) == {*before, name}
        else:
            position, by_node = edit
            name = before[position % len(before)]
            given_name = node_name(name, 1) if by_node else name
            if len(before) == 1:
                assert refusal(spec, given_name, name)[0] == "LastShard"
                continue
            spec = remove_shard(spec, given_name, before)
            assert spec.wanted_shards() == tuple(other for other in before if other != name)
        assert len(spec.wanted_shards()) == spec.shards
        assert len(set(spec.retire)) == len(spec.retire)
        assert dataclasses.replace(spec, shards=1, retire=()) == everything_else
        assert parse(spec.document()) == spec
