"""Masters are spread over machines by hand-overs, and only where that wins something."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcluster.actions import Failover, FailoverMode, Reason, Wait
from shardcluster.decide import decide
from shardcluster.decide.spread import spread
from shardcluster.decide.timing import SOON_S
from shardcluster.picture import draw
from tests.scenarios.paper_actions import apply
from tests.unit.deciding import STORAGE, changed, formed, spec_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardcluster.observed import Observed
    from tests.scenarios.paper import PaperCluster


def _on(observed: Observed, machines: Sequence[str | None]) -> Observed:
    """The nodes, in their order, on these machines."""
    nodes = tuple(
        dataclasses.replace(node, machine=machine)
        for node, machine in zip(observed.nodes, machines, strict=True)
    )
    return dataclasses.replace(observed, nodes=nodes)


SPEC = spec_of(3, 1, storage=STORAGE)


def test_a_machine_with_all_masters_gives_one_away() -> None:
    """To where there are least; the sentence says why."""
    seen = _on(formed(3).observe(), ["a", "b", "a", "c", "a", "b"])
    decision = decide(SPEC, seen)
    assert decision.reason is Reason.SPREADING
    assert decision.action == Failover("shard-0-1", FailoverMode.GRACEFUL)
    assert decision.sentence == "3 masters run on a: shard-0-1 takes over from shard-0-0."


def test_a_replica_that_its_master_has_not_heard_of_is_waited_for() -> None:
    """The stream begins with its first acknowledgement; asked before, it would stop writes."""
    cluster = formed(3)
    for node in cluster.nodes.values():
        node.fed = False
    seen = _on(cluster.observe(), ["a", "b", "a", "c", "a", "b"])
    decision = decide(SPEC, seen)
    assert (decision.action, decision.reason) == (Wait(SOON_S), Reason.SPREADING)
    assert decision.sentence == "shard-0-1 is to take over from shard-0-0."


@pytest.mark.parametrize("written", [True, False])
def test_an_acknowledgement_that_came_too_early_begins_no_stream(*, written: bool) -> None:
    """The master tells of it, but does nothing; it shows by what was written since and didn't come.

    Where nothing was written, nothing has to come, and a hand-over takes no time.
    """
    seen = _on(formed(3).observe(), ["a", "b", "a", "c", "a", "b"])
    heir = next(node.view for node in seen.nodes if node.name == "shard-0-1")
    assert heir is not None
    offset = heir.offset + (10 if written else 0)
    seen = changed(seen, "shard-0-0", acked=(heir.offset,), offset=offset)
    picture = draw(SPEC, seen)
    shard = picture.shard("shard-0")
    assert shard is not None
    assert picture.fed(shard) is not written


def test_a_replica_that_reaches_not_all_is_not_waited_for() -> None:
    """That can last; the store is as good as it was."""
    cluster = formed(3)
    for name in ("shard-0-1", "shard-1-1", "shard-2-1"):
        replica = cluster.nodes[name]
        replica.lines = {
            peer_id: dataclasses.replace(line, link_up=False)
            for peer_id, line in replica.lines.items()
        }
    seen = _on(cluster.observe(), ["a", "b", "a", "c", "a", "b"])
    assert spread(draw(SPEC, seen)) is None


def test_what_would_only_trade_places_is_left_alone() -> None:
    """Two on one machine and one on another is as even as it gets."""
    seen = _on(formed(3).observe(), ["a", "b", "a", "b", "b", "a"])
    assert decide(SPEC, seen).reason is Reason.IDLE


def test_only_a_whole_store_on_known_machines_is_spread() -> None:
    """A node on its way out, one that does not answer, one whose machine nobody knows."""
    seen = _on(formed(3).observe(), ["a", "b", "a", "c", "a", "b"])
    assert spread(draw(SPEC, _on(seen, ["a", "b", "a", None, "a", "b"]))) is None
    for trouble in ({"ending": True}, {"view": None}):
        nodes = (dataclasses.replace(seen.nodes[0], **trouble), *seen.nodes[1:])
        assert spread(draw(SPEC, dataclasses.replace(seen, nodes=nodes))) is None


@functools.cache
def _large() -> PaperCluster:
    return formed(4, 2)


@given(st.lists(st.sampled_from("abcd"), min_size=12, max_size=12))
def test_spreading_comes_to_an_end(machines: list[str]) -> None:
    """Each hand-over makes it more even; after the last no machine could give one to another."""
    spec, cluster = spec_of(4, 2, storage=STORAGE), _large().copy()
    uneven = 17
    while decision := spread(draw(spec, _on(cluster.observe(), machines))):
        apply(cluster, decision.action)
        cluster.tick(2000)
        picture = draw(spec, _on(cluster.observe(), machines))
        masters = Counter(shard.master.machine for shard in picture.shards if shard.master)
        assert sum(count * count for count in masters.values()) < uneven
        uneven = sum(count * count for count in masters.values())
