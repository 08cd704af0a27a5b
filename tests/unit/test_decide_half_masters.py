"""A master whose replication follows another node refuses writes: what is done about it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shardcluster.actions import Failover, FailoverMode, Reason, ReplaceNode, Wait
from shardcluster.decide import decide
from shardcluster.decide.half_masters import half_masters
from shardcluster.picture import draw
from tests.unit.deciding import STORAGE, formed, spec_of

if TYPE_CHECKING:
    from tests.scenarios.paper import PaperCluster


def _cluster(*, keys: bool) -> PaperCluster:
    cluster = formed(3)
    cluster.nodes["shard-1-0"].half = True
    for name in ("shard-1-0", "shard-1-1"):
        if not keys:
            cluster.nodes[name].keys.clear()
    return cluster


def test_an_empty_one_gives_its_slots_to_its_replica() -> None:
    """There is nothing to lose, with storage or without; other masters are left alone."""
    for spec in (spec_of(3, 1), spec_of(3, 1, storage=STORAGE)):
        decision = decide(spec, _cluster(keys=False).observe())
        assert decision.action == Failover("shard-1-1", FailoverMode.TAKEOVER)
        assert decision.reason is Reason.MASTER_LOST
        assert decision.sentence.endswith("it has no key, and shard-1-1 takes over.")
    assert half_masters(draw(spec_of(3, 1), formed(3).observe())) is None


def test_one_with_storage_is_started_again() -> None:
    """It has the data, and its replica may have an old copy."""
    decision = decide(spec_of(3, 1, storage=STORAGE), _cluster(keys=True).observe())
    assert decision.action == ReplaceNode("shard-1-0")


def test_one_that_would_lose_its_keys_is_left_to_people() -> None:
    """Without storage, and where nobody can start it."""
    seen = _cluster(keys=True).observe()
    decision = decide(spec_of(3, 1), seen)
    assert isinstance(decision.action, Wait)
    assert "without losing its" in decision.sentence
    by_hand = dataclasses.replace(seen, can_restart=False)
    assert isinstance(decide(spec_of(3, 1, storage=STORAGE), by_hand).action, Wait)
