"""A silent leader that only the controller heard of isn't replaced by those cut off before."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from shardcluster.actions import Failover, FailoverMode, RestartNode, Wait
from shardcluster.decide.lost_masters import lost_masters
from shardcluster.picture import draw
from tests.unit.deciding import STORAGE, formed, spec_of

if TYPE_CHECKING:
    from shardcluster.actions import Action
    from shardcluster.observed import Observed

OLD, CUT_OFF, LEADER = "shard-0-0", "shard-0-1", "shard-0-2"


def _observed(*, led_epoch: int = 99, ended: bool = False) -> Observed:
    """The old leader has ended, one replica answers, and the other led since."""
    cluster = formed(1, 2)
    cluster.observe()
    cluster.end(OLD)
    cluster.hang(LEADER)
    cluster.tick(100)
    observed = cluster.observe()
    leader = dataclasses.replace(observed.nodes[2], led_epoch=led_epoch, ended=ended)
    return dataclasses.replace(observed, nodes=(*observed.nodes[:2], leader))


def _action(observed: Observed, *, memory_only: bool = True) -> Action:
    spec = spec_of(1, 2, storage=None if memory_only else STORAGE)
    observed = dataclasses.replace(observed, keeps_data=not memory_only)
    decision = lost_masters(draw(spec, observed))
    assert decision is not None
    assert not decision.healthy
    return decision.action


@pytest.mark.parametrize("memory_only", [True, False])
def test_it_is_waited_for(*, memory_only: bool) -> None:
    """It may hang, and nobody else has what it took."""
    assert isinstance(_action(_observed(), memory_only=memory_only), Wait)


def test_one_that_led_no_later_is_nothing_to_wait_for() -> None:
    """Those that answer know of a newer claim."""
    assert _action(_observed(led_epoch=0)) == Failover(CUT_OFF, FailoverMode.TAKEOVER)


def test_ended_without_storage_it_brings_nothing_back() -> None:
    """What is left is the best there will ever be."""
    assert _action(_observed(ended=True)) == Failover(CUT_OFF, FailoverMode.TAKEOVER)


def test_ended_with_its_disk_it_is_started_again() -> None:
    """Its disk has what it took."""
    assert _action(_observed(ended=True), memory_only=False) == RestartNode(LEADER, fresh=False)


def test_ended_where_nobody_can_start_it_it_is_waited_for() -> None:
    """Whoever runs it does that."""
    observed = dataclasses.replace(_observed(ended=True), can_restart=False)
    assert isinstance(_action(observed, memory_only=False), Wait)
