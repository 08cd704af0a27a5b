"""Which concern is heard first, and what a hold lets through."""

from __future__ import annotations

import dataclasses

import pytest

from shardcluster.actions import Failover, Reason, RestartNode, Wait
from shardcluster.decide import decide
from shardcluster.observed import Observed
from tests.unit.deciding import STORAGE, formed, spec_of

SPEC = spec_of(3, 1, storage=STORAGE)


def test_a_lost_master_comes_before_all_else() -> None:
    """Before a node that ended, a spec that grew and a setting that drifted."""
    cluster = formed()
    cluster.end("shard-0-1")
    cluster.end("shard-2-0")
    cluster.nodes["shard-1-0"].config["cluster-node-timeout"] = "1"
    cluster.tick(10)
    assert isinstance(decide(spec_of(4, 1), cluster.observe()).action, Failover)


def test_a_hold_lets_mending_through_but_no_change_of_shape() -> None:
    """A silent master is waited for; meanwhile an ended replica is started, no slot moves."""
    cluster = formed()
    for name in ("shard-3-0", "shard-3-1"):
        cluster.start_node(name)
    spec = spec_of(4, 1, storage=STORAGE)
    cluster.hang("shard-0-0")
    cluster.end("shard-1-1")
    cluster.tick(10)
    seen = set()
    for _ in range(10):
        decision = decide(spec, cluster.observe())
        seen.add(type(decision.action).__name__)
        if isinstance(decision.action, RestartNode):
            cluster.begin("shard-1-1")
        elif isinstance(decision.action, Wait):
            assert decision.reason is Reason.MASTER_UNKNOWN
        else:
            cluster.nodes["shard-0-1"].handshakes |= {
                cluster.nodes[name].address for name in ("shard-3-0", "shard-3-1")
            }
            cluster.tick(0)
    assert "RestartNode" in seen
    assert "MoveSlots" not in seen


def test_paused_comes_before_everything() -> None:
    """Even nothing at all observed is only watched."""
    decision = decide(spec_of(3, 1, paused=True), Observed(nodes=(), now_ms=0))
    assert decision.reason is Reason.PAUSED


def test_idle_says_how_many_serve() -> None:
    """And it is healthy."""
    decision = decide(SPEC, formed().observe())
    assert decision.reason is Reason.IDLE
    assert decision.healthy
    assert "3 shards" in decision.sentence


@pytest.mark.parametrize("owns", [True, False])
def test_a_silent_node_is_told_even_when_nothing_can_be_done(*, owns: bool) -> None:
    """A second owner in a shard is silent, or a replica: the sentence says which is worse."""
    cluster = formed()
    observed = cluster.observe()
    silent = observed.nodes[1]
    assert silent.view is not None
    known_id = silent.view.node_id
    if owns:
        first = observed.nodes[0]
        assert first.view is not None
        few = type(first.view.slots).of(list(first.view.slots)[:2])
        peers = tuple(
            dataclasses.replace(peer, slots=peer.slots - few, config_epoch=99)
            if "myself" in peer.flags
            else dataclasses.replace(peer, slots=few)
            if peer.node_id == known_id
            else peer
            for peer in first.view.peers
        )
        first = dataclasses.replace(first, view=dataclasses.replace(first.view, peers=peers))
        observed = dataclasses.replace(observed, nodes=(first, *observed.nodes[1:]))
    quiet = dataclasses.replace(silent, view=None, known_id=known_id)
    nodes = (observed.nodes[0], quiet, *observed.nodes[2:])
    decision = decide(SPEC, dataclasses.replace(observed, nodes=nodes))
    assert decision.reason is Reason.NODE_SILENT
    assert decision.sentence.startswith("Some slots are not" if owns else "All slots are")
