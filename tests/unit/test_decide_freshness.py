"""Which copy is the freshest, by all that is known of the lost master's last sign of life."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from shardcluster.actions import Failover, RestartNode
from shardcluster.decide.lost_masters import best_replica, lost_masters
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.unit.deciding import STORAGE, changed, formed, spec_of

if TYPE_CHECKING:
    from shardcluster.observed import Observed

SPEC = spec_of(3, 2, storage=STORAGE)
OWNER, FIRST, SECOND = "shard-0-0", "shard-0-1", "shard-0-2"


def _lost(*, seconds_ago: float = 0.1) -> Observed:
    """The first shard's master has ended."""
    cluster = formed(3, 2)
    cluster.observe()
    cluster.end(OWNER)
    cluster.tick(int(seconds_ago * 1000))
    return cluster.observe()


def _heir(observed: Observed) -> str | None:
    picture = draw(SPEC, observed)
    shard = picture.shard("shard-0")
    assert shard is not None
    found = best_replica(picture, shard, stale=False)
    return found.name if found is not None else None


def _heard(observed: Observed, name: str, **line_fields: object) -> Observed:
    """The node says other things of the lost master."""
    owner_id = observed.nodes[0].known_id
    view = next(node.view for node in observed.nodes if node.name == name)
    assert view is not None
    peers = tuple(
        dataclasses.replace(peer, **line_fields) if peer.node_id == owner_id else peer  # type: ignore[arg-type]
        for peer in view.peers
    )
    return changed(observed, name, peers=peers)


def _owner(observed: Observed, **fields: object) -> Observed:
    owner = dataclasses.replace(observed.nodes[0], **fields)  # type: ignore[arg-type]
    return dataclasses.replace(observed, nodes=(owner, *observed.nodes[1:]))


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("seconds_ago", [1, 9])
def test_the_only_master_may_have_led_on_while_nobody_heard_it(
    shards: int, seconds_ago: int
) -> None:
    """A new controller never did, nor its replica for long: it is started again with its disk.

    Among several masters one that is cut off from the others takes no more writes.
    """
    spec = spec_of(shards, 1, storage=STORAGE)
    cluster = formed(shards, 1)
    cluster.observe()
    cluster.end(OWNER)
    cluster.tick(seconds_ago * 1000)
    cluster.new_controller()
    decision = lost_masters(draw(spec, cluster.observe()))
    assert decision is not None
    alone = shards == 1 and seconds_ago > 2
    assert isinstance(decision.action, RestartNode if alone else Failover)


def test_more_of_the_same_history_is_fresher_whatever_its_last_pong() -> None:
    """It was cut off and has caught up, and gossip is late; a longer other history says nothing."""
    observed = _lost()
    observed = _heard(observed, SECOND, pong_ms=observed.now_ms - 9_000)
    observed = changed(observed, SECOND, offset=99)
    assert _heir(observed) == SECOND
    assert _heir(changed(observed, SECOND, history="another")) == FIRST
    unknown = changed(changed(observed, SECOND, history=""), FIRST, history="")
    assert _heir(unknown) == FIRST


@pytest.mark.parametrize("unready", [{"slots": SlotSet()}, {"slots": SlotSet.full()}])
def test_a_fresher_one_that_has_yet_to_hear_is_waited_for(unready: dict[str, object]) -> None:
    """What its master owned, or owns no more; for a node timeout at most."""
    observed = changed(_heard(_lost(), SECOND, **unready), SECOND, offset=99)
    assert _heir(observed) is None
    assert _heir(_owner(observed, silent_ms=2_000)) == FIRST
    assert _heir(changed(observed, SECOND, history="another")) == FIRST


def test_what_the_controller_heard_of_the_master_counts() -> None:
    """All nodes were cut off from it; a new controller has not heard it."""
    observed = _lost()
    for node in observed.nodes[1:]:
        observed = _heard(observed, node.name, pong_ms=observed.now_ms - 9_000)
    assert _heir(observed) is None
    assert _heir(_owner(observed, heard=False)) == FIRST


def test_a_link_that_broke_before_the_controller_s_last_answer_is_stale() -> None:
    """Nobody else has a pong of that time."""
    observed = _lost()
    for node in observed.nodes[1:]:
        observed = _heard(observed, node.name, pong_ms=0)
    for name in (FIRST, SECOND):
        observed = changed(observed, name, link_up=False, link_down_ms=5_000)
    assert _heir(observed) is None
    assert _heir(_owner(observed, heard=False)) == FIRST


def test_one_witness_is_enough_where_the_master_can_be_started_with_its_disk() -> None:
    """Elsewhere one may have read late what it was sent while it hung."""
    observed = _owner(_lost(), heard=False)
    for node in observed.nodes[1:-1]:
        observed = _heard(observed, node.name, pong_ms=observed.now_ms - 9_000)
    assert _heir(observed) is None
    decision = lost_masters(draw(SPEC, observed))
    assert decision is not None
    assert decision.action == RestartNode(OWNER, fresh=False)
    assert _heir(dataclasses.replace(observed, can_restart=False)) == FIRST
    assert _heir(_owner(observed, ended=False)) == FIRST
    assert _heir(_owner(observed, silent_ms=2_000)) == FIRST  # fenced, and still out of reach


def test_a_copy_of_nothing_keeps_no_master_from_being_started() -> None:
    """Without storage: its replica has copied an empty node that came to the master's address."""
    observed = _lost()
    memory = spec_of(3, 2)
    for name in (FIRST, SECOND):
        observed = changed(observed, name, master_id="e" * 40, keys=0)
    decision = lost_masters(draw(memory, observed))
    assert decision is not None
    assert isinstance(decision.action, RestartNode)
    decision = lost_masters(draw(memory, changed(observed, SECOND, keys=1)))
    assert decision is not None
    assert not isinstance(decision.action, RestartNode | Failover)
