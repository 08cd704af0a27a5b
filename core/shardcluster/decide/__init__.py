"""Decide what to do next: one observation in, one Decision out.

Law: pure.  The concerns below are asked in order of danger and the first that wants something
gets it; nothing is remembered, so a controller killed anywhere is followed by one that reads
the same world and goes on.  A concern that only wants to *wait* (a silent master whose fate
gossip decides, views that disagree) gives a hold: concerns that mend go on under a hold,
concerns that change the shape of the store don't.

Order (docs/architecture.md): lost masters, broken views, missing nodes, formation, leftovers,
replicas, settings, open slots and planned moves, shrinking, updates, masters over machines, idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import Decision, MarkFormed, MarkRebalanced, Reason, Wait
from shardcluster.decide import (
    formation,
    half_masters,
    leftovers,
    lost_masters,
    moves,
    nodes,
    rollout,
    settings,
    shrink,
    spread,
    views,
)
from shardcluster.decide.timing import IDLE_S, SOON_S
from shardcluster.picture import draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.observed import Observed
    from shardcluster.picture import Picture
    from shardcluster.spec import Spec

    Concern = Callable[[Picture], Decision | None]

__all__ = ["decide", "decide_on"]

# Each returns an action, a hold (a Decision to wait) or None.
_MENDING: tuple[Concern, ...] = (
    lost_masters.lost_masters,
    views.disagreeing,
    views.foreign_nodes,
    views.introductions,
    views.strangers,
    nodes.ended_nodes,
    nodes.missing_nodes,
    formation.formation,
    leftovers.leftovers,
    half_masters.half_masters,
    nodes.replicas,
)
_SHAPING: tuple[Concern, ...] = (
    settings.settings,
    moves.open_slots,
    moves.planned_moves,
    shrink.shrink,
    rollout.rollout,
    spread.spread,
)


def decide(spec: Spec, observed: Observed) -> Decision:
    """The next bounded step for a store that shall look like `spec` and was seen as `observed`."""
    return decide_on(draw(spec, observed))


def decide_on(picture: Picture) -> Decision:
    """`decide` for a picture drawn already."""
    if picture.spec.paused:
        return Decision(
            Wait(IDLE_S), Reason.PAUSED, "Paused: the store is watched and nothing is changed."
        )
    hold: Decision | None = None
    for concern in _MENDING:
        decision = concern(picture)
        if decision is None:
            continue
        if not isinstance(decision.action, Wait):
            return decision
        hold = hold or decision
    if hold is not None:
        return hold
    for concern in _SHAPING:
        decision = concern(picture)
        if decision is None:
            continue
        if decision.reason is not Reason.REBALANCE_WANTED:
            return decision
        hold = decision  # it waits for people, and what needs none goes on meanwhile
    return hold or _idle(picture)


def _idle(picture: Picture) -> Decision:
    # Every slot has an owner here: `formation` has something to say while one has none.
    observed, spec = picture.observed, picture.spec
    if not observed.formed_before:
        return Decision(MarkFormed(), Reason.FORMING, f"The store {spec.name} is formed.")
    if observed.rebalance_asked:
        return Decision(
            MarkRebalanced(), Reason.REBALANCING, "The rebalance that was asked for is done."
        )
    silent = [node.name for node in observed.nodes if node.view is None]
    if silent:
        missed = any(picture.ids.get(name) in picture.owned for name in silent)
        served = "Some slots are not served:" if missed else "All slots are served, but"
        return Decision(
            Wait(IDLE_S),
            Reason.NODE_SILENT,
            f"{served} {', '.join(silent)} does not answer.",
            healthy=False,
        )
    copying = [
        node.name for node in picture.answering if node.view is not None and not node.view.link_up
    ]
    if copying:
        return Decision(
            Wait(SOON_S), Reason.REPLICA_JOINING, f"{', '.join(copying)} copies its master's data."
        )
    shards = sum(shard.wanted for shard in picture.shards)
    return Decision(
        Wait(IDLE_S),
        Reason.IDLE,
        f"{_in_all(shards)} its slots with {_replicas(spec.replicas_per_shard)}.",
    )


def _in_all(shards: int) -> str:
    return "The one shard serves" if shards == 1 else f"Each of {shards} shards serves"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count or 'no'} replicas"
