"""Weighing evidence of a death, and choosing who takes over."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from shardcluster.actions import Failover, FailoverMode, Fence, Reason, RestartNode, Wait
from shardcluster.decide.lost_masters import best_replica, lost_masters, proofs_of_death
from shardcluster.observed import Role
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.unit.deciding import STORAGE, changed, formed, spec_of

if TYPE_CHECKING:
    from tests.scenarios.paper import PaperCluster

SPEC = spec_of(3, 2, storage=STORAGE)


def killed(cluster: PaperCluster) -> PaperCluster:
    cluster.observe()
    cluster.end("shard-0-0")
    cluster.tick(10)
    return cluster


def test_no_master_lost_is_nothing_to_do() -> None:
    """The usual case."""
    assert lost_masters(draw(SPEC, formed(3, 2).observe())) is None


@pytest.mark.parametrize(
    ("reaped", "refused", "links", "proofs"),
    [
        (True, True, True, 3),
        (True, False, False, 1),
        (False, True, True, 2),
        (False, False, True, 1),
        (False, True, False, 1),
        (False, False, False, 0),
    ],
)
def test_each_kind_of_evidence_is_one_proof(
    *, reaped: bool, refused: bool, links: bool, proofs: int
) -> None:
    """And two that agree are needed."""
    cluster = formed(3, 2)
    if links:
        killed(cluster)
    else:
        cluster.observe()
        cluster.hang("shard-0-0")
    observed = cluster.observe()
    owner = dataclasses.replace(observed.nodes[0], ended=reaped, refused=refused)
    picture = draw(SPEC, dataclasses.replace(observed, nodes=(owner, *observed.nodes[1:])))
    assert len(proofs_of_death(picture, owner)) == proofs
    decision = lost_masters(picture)
    assert decision is not None
    assert isinstance(decision.action, Failover) is (proofs >= 2)
    assert not decision.healthy


def test_one_follower_with_its_link_up_denies_the_broken_links() -> None:
    """So does one node whose bus link stands, and a master without followers says nothing."""
    cluster = killed(formed(3, 2))
    owner_id = cluster.nodes["shard-0-0"].node_id
    observed = cluster.observe()

    def links_down(twin_observed: object) -> bool:
        picture = draw(SPEC, twin_observed)  # type: ignore[arg-type]
        return len(proofs_of_death(picture, picture.observed.nodes[0])) == 3

    assert links_down(observed)
    assert not links_down(changed(observed, "shard-0-1", link_up=True))
    view = observed.nodes[3].view
    assert view is not None
    peers = tuple(
        dataclasses.replace(peer, link_up=True) if peer.node_id == owner_id else peer
        for peer in view.peers
    )
    assert not links_down(changed(observed, observed.nodes[3].name, peers=peers))
    alone = changed(changed(observed, "shard-0-1", master_id=None), "shard-0-2", master_id=None)
    assert not links_down(alone)


@pytest.mark.parametrize(
    ("unfit", "heir"),
    [
        ({}, "shard-0-1"),  # as much data: the lower ordinal
        ({"offset": 1}, "shard-0-2"),
        ({"offset": 0}, "shard-0-2"),
        ({"syncing": True}, "shard-0-2"),
        ({"link_down_ms": -1}, "shard-0-2"),
        ({"link_down_ms": 3_600_000}, "shard-0-2"),
        ({"master_id": "e" * 40}, "shard-0-2"),
    ],
)
def test_the_freshest_fit_replica_takes_over(unfit: dict[str, object], heir: str) -> None:
    """FORCE skips the engine's own check."""
    observed = changed(killed(formed(3, 2)).observe(), "shard-0-1", **unfit)
    picture = draw(SPEC, observed)
    shard = picture.shard("shard-0")
    assert shard is not None
    found = best_replica(picture, shard, stale=False)
    assert found is not None
    assert found.name == heir


def test_a_stale_replica_is_fit_only_where_nothing_better_can_come() -> None:
    """Its data is old."""
    observed = killed(formed(3, 2)).observe()
    for name in ("shard-0-1", "shard-0-2"):
        observed = changed(observed, name, link_down_ms=3_600_000)
    picture = draw(SPEC, observed)
    shard = picture.shard("shard-0")
    assert shard is not None
    assert best_replica(picture, shard, stale=False) is None
    assert best_replica(picture, shard, stale=True) is not None


def test_no_master_is_started_empty_while_a_replica_may_hold_its_data() -> None:
    """Its copy is there, but it follows another now: somebody is asked before it is wiped."""
    observed = killed(formed(3, 1)).observe()
    observed = changed(observed, "shard-0-1", master_id="e" * 40)
    decision = lost_masters(draw(spec_of(3, 1), observed))
    assert decision is not None
    assert isinstance(decision.action, Wait)
    assert "shard-0-1 may still hold" in decision.sentence


def test_no_master_is_started_empty_while_a_node_elected_without_slots_has_keys() -> None:
    """It copied all, and was elected before it had heard what its master owned."""
    observed = killed(formed(3, 1)).observe()
    elected = {"role": Role.MASTER, "master_id": None, "keys": 1407}
    observed = changed(observed, "shard-0-1", **elected)
    decision = lost_masters(draw(spec_of(3, 1), observed))
    assert decision is not None
    assert isinstance(decision.action, Wait)
    assert "shard-0-1 may still hold" in decision.sentence


def test_an_action_for_one_shard_comes_before_the_wait_for_another() -> None:
    """A silent master does not hold up the replacement of a dead one."""
    cluster = formed(5, 1)
    cluster.observe()
    cluster.hang("shard-0-0")
    cluster.end("shard-2-0")
    cluster.tick(10)
    decision = lost_masters(draw(spec_of(5, 1, storage=STORAGE), cluster.observe()))
    assert decision is not None
    assert decision.action == Failover("shard-2-1", FailoverMode.FORCE, takeover_if_refused=True)


def test_without_a_vote_a_refused_connection_and_broken_links_still_need_a_fence() -> None:
    """Both together may be a firewall."""
    cluster = formed(1, 1)
    cluster.proves_end = False
    killed(cluster)
    decision = lost_masters(draw(spec_of(1, 1, storage=STORAGE), cluster.observe()))
    assert decision is not None
    assert decision.action == Fence("shard-0-0")


def test_a_vanished_owner_whose_address_another_has_is_replaced_without_a_vote() -> None:
    """Its process is proven gone, and there is no place to fence."""
    for elsewhere in (True, False):
        cluster = formed(1, 1)
        cluster.end("shard-0-0")
        cluster.tick(3_000)
        if elsewhere:
            cluster.move_to_new_address("shard-0-0")
            cluster.can_fence = False  # nor prove an end
        cluster.begin("shard-0-0", fresh=True)
        decision = lost_masters(draw(spec_of(1, 1, storage=STORAGE), cluster.observe()))
        assert decision is not None
        if elsewhere:
            assert decision.reason is Reason.MASTER_UNKNOWN
        else:
            assert decision.action == Failover("shard-0-1", FailoverMode.TAKEOVER)


def test_a_dead_master_that_nobody_can_start_is_waited_for() -> None:
    """No replica holds its data."""
    cluster = killed(formed(3, 0))
    cluster.can_restart = False
    decision = lost_masters(draw(spec_of(3, 0, storage=STORAGE), cluster.observe()))
    assert decision is not None
    assert decision.reason is Reason.MASTER_RESTARTING
    assert isinstance(decision.action, Wait)


@pytest.mark.parametrize("known", [{"slots": SlotSet()}, {"pong_ms": 1}, {"config_epoch": 0}])
def test_a_replica_that_heard_too_little_of_its_master_does_not_take_over(
    known: dict[str, object],
) -> None:
    """Not what that one owns, not its last claim, or nothing for long: it was cut off."""
    cluster = killed(formed(3, 2))
    owner_id = cluster.nodes["shard-0-0"].node_id
    for name in ("shard-0-1", "shard-0-2"):
        picture = draw(SPEC, cluster.observe())
        heir = best_replica(picture, picture.shards[0], stale=False)
        assert heir is not None
        assert heir.name == name
        lines = cluster.nodes[name].lines
        lines[owner_id] = dataclasses.replace(lines[owner_id], **known)  # type: ignore[arg-type]
    picture = draw(SPEC, cluster.observe())
    assert best_replica(picture, picture.shards[0], stale=False) is None


def test_a_replica_that_has_not_heard_that_slots_moved_on_does_not_take_over() -> None:
    """It would claim them at a higher epoch, and their present owner erase the keys in them."""
    cluster = formed(1, 1)
    cluster.nodes["shard-1-0"] = target = cluster.start_node("shard-1-0")
    cluster.nodes["shard-0-0"].handshakes.add(target.address)
    cluster.tick(10)
    owner = cluster.nodes["shard-0-0"]
    moved = SlotSet.of([0])
    owner.slots -= moved
    target.slots, target.epoch = moved, cluster.next_epoch()
    cluster.observe()
    cluster.end("shard-0-0")
    spec = spec_of(2, 1, storage=STORAGE)
    decision = lost_masters(draw(spec, cluster.observe()))
    assert decision is not None
    assert decision.action == RestartNode("shard-0-0", fresh=False)
    cluster.tick(10)  # it hears of it
    decision = lost_masters(draw(spec, cluster.observe()))
    assert decision is not None
    assert decision.action == Failover("shard-0-1", FailoverMode.TAKEOVER)


@pytest.mark.parametrize(("age_ms", "fit"), [(8_000, True), (9_000, False)])
def test_a_long_node_timeout_bears_half_of_itself(age_ms: int, *, fit: bool) -> None:
    """So old may the last pong of a healthy replica be, and no older."""
    cluster = formed(3, 1)
    cluster.tick(20_000)
    killed(cluster)
    owner_id, heir = cluster.nodes["shard-0-0"].node_id, cluster.nodes["shard-0-1"]
    line = heir.lines[owner_id]
    heir.lines[owner_id] = dataclasses.replace(line, pong_ms=line.pong_ms - age_ms)
    spec = spec_of(3, 1, storage=STORAGE, failover={"nodeTimeoutMs": 15_000})
    picture = draw(spec, cluster.observe())
    assert (best_replica(picture, picture.shards[0], stale=False) is not None) is fit


def test_one_node_that_read_a_pong_late_makes_no_replica_stale() -> None:
    """It hung meanwhile, and takes what had waited for it for news."""
    cluster = killed(formed(3, 2))
    owner_id = cluster.nodes["shard-0-0"].node_id
    cluster.nodes["shard-0-2"].offset += 1
    late = cluster.nodes["shard-0-1"]
    late.lines[owner_id] = dataclasses.replace(
        late.lines[owner_id], pong_ms=late.lines[owner_id].pong_ms + 3_000
    )
    for name in ("shard-0-1", "shard-0-2"):
        cluster.nodes[name].link_down_since_ms = cluster.now_ms + 3_000
    cluster.now_ms += 3_000
    picture = draw(SPEC, cluster.observe())
    heir = best_replica(picture, picture.shards[0], stale=False)
    assert heir is not None
    assert heir.name == "shard-0-2"
