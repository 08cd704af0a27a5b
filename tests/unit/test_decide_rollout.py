"""Updates: one node at a time, replicas first, masters after a hand-over."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from shardcluster.actions import (
    Decision,
    Failover,
    FailoverMode,
    Reason,
    Release,
    ReplaceNode,
    Wait,
)
from shardcluster.decide import decide
from shardcluster.decide.rollout import rollout
from shardcluster.picture import draw
from tests.unit.deciding import STORAGE, formed, spec_of

if TYPE_CHECKING:
    from shardcluster.observed import Observed
    from shardcluster.spec import Spec


def _with(observed: Observed, **facts: dict[str, Any]) -> Observed:
    """Other facts in some nodes, by name with `_` for `-`."""
    by_name = {name.replace("_", "-"): more for name, more in facts.items()}
    nodes = tuple(
        dataclasses.replace(node, **by_name.get(node.name, {})) for node in observed.nodes
    )
    return dataclasses.replace(observed, nodes=nodes)


def _asked(spec: Spec, observed: Observed) -> Decision:
    decision = rollout(draw(spec, observed))
    assert decision is not None
    assert decision.reason is Reason.UPDATING
    return decision


OLD: dict[str, Any] = {"outdated": True}
SPEC = spec_of(2, 1, storage=STORAGE)


def test_a_store_in_its_present_form_is_left_alone() -> None:
    """Nothing outdated, nothing to do."""
    assert rollout(draw(SPEC, formed(2).observe())) is None


def test_replicas_go_first_then_a_new_one_takes_over() -> None:
    """At last the old master goes, as a replica; `decide` comes to the same when all is well."""
    seen = formed(2).observe()
    all_old = _with(seen, shard_1_0=OLD, shard_1_1=OLD)
    assert _asked(SPEC, all_old).action == ReplaceNode("shard-1-1")
    assert decide(SPEC, all_old).action == ReplaceNode("shard-1-1")
    hand_over = Failover("shard-1-1", FailoverMode.GRACEFUL)
    assert _asked(SPEC, _with(seen, shard_1_0=OLD)).action == hand_over


def test_a_step_waits_until_the_one_before_is_done() -> None:
    """A node on its way out, or a new one that is not in step yet."""
    seen = formed(2).observe()
    ending = _with(seen, shard_0_1={**OLD, "ending": True}, shard_1_1=OLD)
    assert isinstance(_asked(SPEC, ending).action, Wait)
    silent = _with(seen, shard_0_1={"view": None}, shard_1_1=OLD)
    assert isinstance(_asked(SPEC, silent).action, Wait)


def test_an_outdated_node_that_is_unwell_is_replaced_first() -> None:
    """The new form may be what mends it."""
    seen = _with(formed(2).observe(), shard_0_1=OLD, shard_1_1={**OLD, "view": None})
    assert _asked(SPEC, seen).action == ReplaceNode("shard-1-1")


def test_without_replicas_a_master_is_replaced_in_place_when_its_data_stays() -> None:
    """Otherwise the user is asked for a replica; an empty node has nothing to lose."""
    cluster = formed(1, 0)
    old = _with(cluster.observe(), shard_0_0=OLD)
    stored = spec_of(1, 0, storage=STORAGE)
    assert _asked(stored, old).action == ReplaceNode("shard-0-0")
    refused = _asked(spec_of(1, 0), old)
    assert isinstance(refused.action, Wait)
    assert "replicasPerShard" in refused.sentence


def test_a_hand_over_waits_until_the_master_has_heard_of_its_replica() -> None:
    """Before that it would take no notice of it."""
    seen = formed(2).observe()
    (view,) = (node.view for node in seen.nodes if node.name == "shard-1-0")
    assert view is not None
    unheard = [dataclasses.replace(peer, master_id=None) for peer in view.peers]
    deaf = {**OLD, "view": dataclasses.replace(view, peers=tuple(unheard))}
    decision = _asked(SPEC, _with(seen, shard_1_0=deaf))
    assert isinstance(decision.action, Wait)
    assert "hand over" in decision.sentence


def test_a_hand_over_waits_until_nobody_holds_the_master_for_failed() -> None:
    """The engine refuses it to a replica that does, for a while after the master is back."""
    seen = formed(2).observe()
    (view,) = (node.view for node in seen.nodes if node.name == "shard-1-1")
    assert view is not None
    late = tuple(
        dataclasses.replace(peer, flags=peer.flags | {"fail"})
        if peer.node_id == view.master_id
        else peer
        for peer in view.peers
    )
    heir: dict[str, Any] = {"view": dataclasses.replace(view, peers=late)}
    decision = _asked(SPEC, _with(seen, shard_1_0=OLD, shard_1_1=heir))
    assert isinstance(decision.action, Wait)
    assert "hand over" in decision.sentence


def test_what_could_not_be_started_is_made_anew_when_the_spec_changes() -> None:
    """Whatever else is to be done, also before a store is formed: no process of it runs."""
    no_image: dict[str, Any] = {"view": None, "pending": "ErrImagePull"}
    stuck = _with(formed(2).observe(), shard_1_1={**no_image, **OLD})
    assert decide(SPEC, stuck).action == ReplaceNode("shard-1-1")
    waiting = decide(SPEC, _with(formed(2).observe(), shard_1_1=no_image))
    assert isinstance(waiting.action, Wait)
    assert "ErrImagePull" in waiting.sentence


def test_a_node_that_can_not_be_started_and_is_not_wanted_stops_nothing() -> None:
    """It is let go."""
    no_place: dict[str, Any] = {"view": None, "ended": True, "pending": "no place"}
    stuck = _with(formed(2).observe(), shard_1_1=no_place)
    fewer = spec_of(2, 0, storage=STORAGE)
    assert isinstance(decide(fewer, stuck).action, Release)
