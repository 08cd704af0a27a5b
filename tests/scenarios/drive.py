"""Let `decide` drive a paper cluster to rest, looking after the laws at every step."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

from shardcluster.actions import Decision, Reason, Wait
from shardcluster.decide import decide
from shardcluster.spec import Spec, parse
from tests.scenarios.paper_actions import apply
from tests.scenarios.paper_checks import assert_safe, safety

if TYPE_CHECKING:
    from shardcluster.observed import Observed
    from tests.scenarios.paper import PaperCluster

__all__ = ["RESTING", "decide_checked", "run", "spec_of", "step"]

PASSES_MAX = 400
WAIT_TICK_MS = 1_000
PATIENCE_MS = 5_000  # a wait that lasts longer than this is where the store rests
RESTING = frozenset({Reason.IDLE, Reason.PAUSED, Reason.REBALANCE_WANTED})
LOSS_TOLD = frozenset({Reason.DATA_LOST, Reason.SHARD_LOST})


def spec_of(shards: int = 3, replicas: int = 1, **fields: Any) -> Spec:
    """A spec with few virtual nodes, so that thousands of plans are made in seconds."""
    fields.setdefault("ring", {"virtualNodes": 20})
    head = parse({}).document()
    head["spec"] = {"shards": shards, "replicasPerShard": replicas, **fields}
    return parse(head)


def decide_checked(spec: Spec, observed: Observed) -> Decision:
    """`decide`, and what must hold of it whatever was observed.

    Asked twice it says the same, and the order in which a node lists the others means nothing.
    """
    decision = decide(spec, observed)
    assert decide(spec, observed) == decision
    assert decide(spec, _shuffled(observed)) == decision
    assert decision.sentence.endswith((".", "?"))
    return decision


def _shuffled(observed: Observed) -> Observed:
    chance = random.Random(observed.now_ms)
    nodes = []
    for node in observed.nodes:
        if node.view is not None:
            peers = list(node.view.peers)
            chance.shuffle(peers)
            node = dataclasses.replace(  # noqa: PLW2901
                node, view=dataclasses.replace(node.view, peers=tuple(peers))
            )
        nodes.append(node)
    # The runtime hands nodes in sorted; whoever shuffles them has to sort them again.
    chance.shuffle(nodes)
    nodes.sort(key=lambda node: (int(node.shard.rpartition("-")[2]), node.ordinal))
    return dataclasses.replace(observed, nodes=tuple(nodes))


def step(cluster: PaperCluster, spec: Spec) -> Decision:
    """Decide once, do it, and check that nothing was lost by it."""
    decision = decide_checked(spec, cluster.observe())
    before = safety(cluster)
    if isinstance(decision.action, Wait):
        cluster.tick(WAIT_TICK_MS)
    else:
        apply(cluster, decision.action)
    if decision.reason not in LOSS_TOLD:
        assert_safe(before, cluster)
    return decision


def run(cluster: PaperCluster, spec: Spec) -> list[Decision]:
    """Step until the store rests; returns the decisions, the last being where it rests."""
    decisions: list[Decision] = []
    waiting_since = cluster.now_ms
    for _ in range(PASSES_MAX):
        decision = step(cluster, spec)
        same = bool(decisions) and decisions[-1].reason is decision.reason
        if not isinstance(decision.action, Wait) or not same:
            waiting_since = cluster.now_ms
        decisions.append(decision)
        if decision.reason in RESTING or cluster.now_ms - waiting_since > PATIENCE_MS:
            return decisions
    message = f"no rest after {PASSES_MAX} passes: {decisions[-1]}"
    raise AssertionError(message)
