"""What a changed spec would lead to."""

from __future__ import annotations

from shardcluster.decide.moves import plan_moves
from shardcluster.picture import draw
from shardcluster.preview import preview
from tests.scenarios.drive import run, spec_of
from tests.scenarios.paper import PaperCluster


def formed(shards: int, replicas: int) -> PaperCluster:
    cluster = PaperCluster()
    run(cluster, spec_of(shards, replicas))
    return cluster


def test_the_present_spec_leads_to_nothing() -> None:
    """No move, nobody starts or stops."""
    spec = spec_of(3, 1)
    found = preview(draw(spec, formed(3, 1).observe()), spec)
    assert (found.slots, found.moves, found.start_nodes, found.stop_nodes) == (0, (), (), ())


def test_a_shard_more_is_told_with_its_nodes_and_the_very_slots_that_will_move() -> None:
    """What is previewed is what is done."""
    cluster = formed(2, 1)
    spec = spec_of(3, 1)
    found = preview(draw(spec_of(2, 1), cluster.observe()), spec)
    assert found.start_nodes == ("shard-2-0", "shard-2-1")
    assert found.stop_nodes == ()
    run_until_ready = PaperCluster.copy(cluster)
    run(run_until_ready, spec_of(3, 1, rebalance={"mode": "manual"}))
    moves = plan_moves(draw(spec, run_until_ready.observe()), spec.wanted_shards())
    assert {move.slot for move in moves} == {slot for _, _, slots in found.moves for slot in slots}


def test_a_shard_less_is_told_with_the_nodes_that_stop() -> None:
    """All its slots move."""
    cluster = formed(3, 1)
    picture = draw(spec_of(3, 1), cluster.observe())
    gone = picture.shard("shard-0")
    assert gone is not None
    found = preview(picture, spec_of(2, 0, retire=["shard-0"]))
    assert found.slots == len(gone.slots)
    assert {source for source, _, _ in found.moves} == {"shard-0"}
    assert found.stop_nodes == ("shard-0-0", "shard-0-1", "shard-1-1", "shard-2-1")
