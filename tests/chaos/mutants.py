"""Planted bugs: each is one that a store like this has had, and the checker must find it.

A mutant changes what is decided or done as a whole, from outside: nothing in `core` knows of it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shardcluster.actions import (
    AddSlots,
    Decision,
    Failover,
    FailoverMode,
    Fence,
    Forget,
    Reason,
    Wait,
)
from shardcluster.decide import decide
from shardcluster.decide.lost_masters import best_replica
from shardcluster.picture import draw
from tests.chaos.run import Plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardcluster.observed import Observed, ObservedNode
    from shardcluster.spec import Spec

__all__ = ["MUTANTS"]


def _stalest_promoted(spec: Spec, observed: Observed) -> Decision:
    """Of several replicas the one that has the least takes over."""
    decision = decide(spec, observed)
    action = decision.action
    if not isinstance(action, Failover) or action.mode is FailoverMode.GRACEFUL:
        return decision
    views = {node.name: node.view for node in observed.nodes if node.view is not None}
    heir = views[action.node]
    rivals = [
        name for name, view in views.items() if view.master_id == heir.master_id and view.offset
    ]
    worst = min(rivals, key=lambda name: (views[name].offset, name), default=action.node)
    return dataclasses.replace(decision, action=dataclasses.replace(action, node=worst))


def _formed_anew(spec: Spec, observed: Observed) -> Decision:
    """An owner that doesn't answer is forgotten, and its slots are given out as in a new store."""
    picture = draw(spec, observed)
    masters = [shard.master for shard in picture.shards if shard.master is not None]
    if picture.unowned and masters:
        return Decision(
            AddSlots(((masters[0].name, picture.unowned),)), Reason.FORMING, "Formed anew."
        )
    decision = decide(spec, observed)
    silent = [
        picture.ids[shard.owner.name]
        for shard in picture.shards
        if shard.owner is not None and shard.owner.view is None
    ]
    if isinstance(decision.action, Wait) and silent and masters:
        return Decision(Forget(tuple(silent)), Reason.FORGETTING, "Forgotten with its slots.")
    return decision


def _unfenced(spec: Spec, observed: Observed) -> Decision:
    """Where the old master should be ended first, its replica takes over beside it."""
    decision = decide(spec, observed)
    if not isinstance(decision.action, Fence):
        return decision
    picture = draw(spec, observed)
    heir: ObservedNode | None = None
    for shard in picture.shards:
        if shard.owner is not None and shard.owner.name == decision.action.node:
            heir = best_replica(picture, shard, stale=False)
    if heir is None:
        return decision
    return Decision(Failover(heir.name, FailoverMode.TAKEOVER), Reason.MASTER_LOST, "Unfenced.")


def _forgetful(spec: Spec, observed: Observed) -> Decision:
    """Nobody keeps in mind who led last."""
    nodes = tuple(dataclasses.replace(node, led_epoch=0) for node in observed.nodes)
    return decide(spec, dataclasses.replace(observed, nodes=nodes))


# What was planted, and the rounds of which one finds it: from 0 to the one that finds it today,
# with room for changes that roll the dice anew; or that which found the bug when it was one.
MUTANTS: dict[str, tuple[Plot, Sequence[int]]] = {
    "a slot is closed without counting its keys": (Plot(ungated=True), range(60)),
    "the stalest replica is promoted": (Plot(_stalest_promoted), range(60)),
    "a write of unknown fate is sent again": (Plot(again=1), range(20)),
    "a store is formed anew over its data": (Plot(_formed_anew), range(20)),
    "a replica takes over without a fence": (Plot(_unfenced), range(60)),
    "who led last is forgotten": (Plot(_forgetful), (618,)),
}
