"""A node ended and its disk is seen to be gone: it would come back empty, as another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardcluster.actions import Failover, FailoverMode, Reason, RestartNode, Wait
from shardcluster.decide import decide
from shardcluster.decide.lost_masters import lost_masters
from shardcluster.observed import Role
from shardcluster.picture import draw
from tests.unit.deciding import STORAGE, changed, formed, spec_of

if TYPE_CHECKING:
    from shardcluster.observed import Observed
    from tests.scenarios.paper import PaperCluster

SPEC = spec_of(3, 1, storage=STORAGE)


def _lost(cluster: PaperCluster, name: str = "shard-0-0") -> PaperCluster:
    cluster.observe()
    cluster.lose_disk(name)
    cluster.tick(10)
    return cluster


def test_a_stale_replica_takes_over() -> None:
    """Nothing better will ever come."""
    observed = changed(_lost(formed()).observe(), "shard-0-1", link_down_ms=3_600_000)
    decision = decide(SPEC, observed)
    assert decision.action == Failover("shard-0-1", FailoverMode.FORCE, takeover_if_refused=True)


@pytest.mark.parametrize("provable", [True, False])
def test_a_place_with_another_node_proves_the_end_of_the_first(*, provable: bool) -> None:
    """Also at another address, and where nobody can vote: the platform starts one after another."""
    cluster = _lost(formed(2))
    cluster.begin("shard-0-0", fresh=True)
    cluster.move_to_new_address("shard-0-0")
    cluster.can_fence = provable
    decision = lost_masters(draw(spec_of(2, 1, storage=STORAGE), cluster.observe()))
    assert decision is not None
    if provable:
        assert decision.action == Failover("shard-0-1", FailoverMode.TAKEOVER)
    else:
        assert isinstance(decision.action, Wait)
    assert decision.reason is (Reason.MASTER_LOST if provable else Reason.MASTER_UNKNOWN)


def test_a_place_that_has_ended_may_have_been_that_node() -> None:
    """A new controller can't tell, once its address is another: it is started with its disk."""
    cluster = formed(1, 2)
    cluster.hang("shard-0-0")
    cluster.move_to_new_address("shard-0-0")
    cluster.end("shard-0-0")
    cluster.new_controller()
    cluster.tick(10)
    picture = draw(spec_of(1, 2, storage=STORAGE), cluster.observe())
    shard = picture.shard("shard-0")
    assert shard is not None
    assert shard.owner is not None
    assert shard.owner not in picture.observed.nodes
    assert not shard.owner.ended


def _split(observed: Observed) -> Observed:
    return changed(observed, "shard-0-1", role=Role.MASTER, master_id=None)


@pytest.mark.parametrize("keys", [0, 7])
def test_while_a_node_has_keys_that_may_be_the_shard_s_people_are_asked(keys: int) -> None:
    """Whatever it is: it never finished a copy, or follows nobody.  One without keys is no help."""
    observed = changed(_lost(formed()).observe(), "shard-0-1", keys=keys, link_down_ms=-1)
    for seen in (observed, _split(observed)):
        decision = decide(SPEC, seen)
        if keys:
            assert isinstance(decision.action, Wait)
            assert "shard-0-1 may still hold" in decision.sentence
            assert decision.sentence.endswith("run CLUSTER FAILOVER TAKEOVER there.")
        else:
            assert decision.action == RestartNode("shard-0-0", fresh=False)
            assert decision.reason is Reason.SHARD_LOST


def test_a_replica_whose_disk_is_gone_too_is_not_waited_for() -> None:
    """Both are started, and people are told that the shard is lost."""
    cluster = _lost(_lost(formed()), "shard-0-1")
    decision = decide(SPEC, cluster.observe())
    assert decision.action == RestartNode("shard-0-0", fresh=False)
    assert "its data is lost, for its disk is empty" in decision.sentence


@pytest.mark.parametrize("alone", [True, False])
def test_while_nobody_answers_the_others_of_its_shard_come_first(*, alone: bool) -> None:
    """One that hangs may know that it was the master; when all disks are gone nobody does."""
    cluster = formed(1, 1)
    cluster.observe()
    if alone:
        cluster.lose_disk("shard-0-1")
    else:
        cluster.hang("shard-0-1")
    cluster.lose_disk("shard-0-0")
    cluster.new_controller()
    decision = decide(spec_of(1, 1, storage=STORAGE), cluster.observe())
    if alone:
        assert decision.action == RestartNode("shard-0-0", fresh=False)
    else:
        assert isinstance(decision.action, Wait)
        assert decision.reason is Reason.MASTER_UNKNOWN
        assert "shard-0-1 can tell" in decision.sentence
