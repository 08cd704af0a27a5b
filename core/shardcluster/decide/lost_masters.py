"""A master that owns slots doesn't answer: by evidence, let a replica take over.

Law (docs/architecture.md, "Losing a master"): unknown is not down.  Two kinds of proof that
agree make a process gone; then a replica is promoted at once.  Without proof the engine's gossip
decides, and we help only once a majority of the masters sees the node failed.  Where no majority
exists, the old master is fenced before a replica takes over, one shard at a time.
A replica that never held the data, or stopped following long before the master's end, is not
promoted while the master's own data can come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import (
    Decision,
    Failover,
    FailoverMode,
    Fence,
    Reason,
    RestartNode,
    Wait,
)
from shardcluster.decide.timing import FRESHNESS_TOLERANCE_MS, SOON_S
from shardcluster.observed import Role

if TYPE_CHECKING:
    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["best_replica", "lost_masters", "proofs_of_death"]

_FAILED = frozenset({"fail", "fail?"})
PROOFS_NEEDED = 2  # one alone is not enough: a rejecting firewall rule also refuses


def lost_masters(picture: Picture) -> Decision | None:
    """The step for the first shard whose owner is lost; actions before waits."""
    hold: Decision | None = None
    for shard in picture.shards:
        if shard.owner is None and (taker := _lost_taker(picture, shard)) is not None:
            return taker
        if shard.owner is None or shard.owner.view is not None:
            continue
        decision = _lost(picture, shard, shard.owner)
        if not isinstance(decision.action, Wait):
            return decision
        hold = hold or decision
    return hold


def _lost_taker(picture: Picture, shard: ShardPicture) -> Decision | None:
    """A master of no slot yet may hold the only keys of slots that are on their way to it.

    Without storage they are gone with its process, but a replica has them: it must lead before the
    old master is started again, empty, and the replica copies that.  There is nothing to vote on.
    """
    if not picture.spec.memory_only or shard.master is not None:
        return None
    nodes = {node.name: node for node in shard.nodes}
    for replica in sorted(shard.replicas, key=lambda node: -node.view.offset if node.view else 0):
        assert replica.view is not None  # it answers
        leader = nodes.get(picture.names.get(replica.view.master_id or "", ""))
        if leader is None or not replica.view.keys:
            continue
        if leader.ended or len(proofs_of_death(picture, leader)) >= PROOFS_NEEDED:
            return Decision(
                Failover(replica.name, FailoverMode.TAKEOVER),
                Reason.MASTER_LOST,
                f"{leader.name} of {shard.name} is gone with keys of slots on their way to it;"
                f" {replica.name} has them and takes over.",
                healthy=False,
            )
    return None


def proofs_of_death(picture: Picture, node: ObservedNode) -> tuple[str, ...]:
    """The kinds of evidence that the silent node's process is gone, in words."""
    found: list[str] = []
    if node.ended:
        found.append("its process ended")
    if node.refused:
        found.append("it refuses connections")
    if _links_down(picture, node):
        found.append("its replicas and the other nodes lost their links to it")
    return tuple(found)


def _links_down(picture: Picture, node: ObservedNode) -> bool:
    node_id = picture.ids[node.name]
    lines = picture.peer_lines(node_id)
    followers = [
        view
        for other in picture.answering
        if (view := other.view) is not None and view.master_id == node_id
    ]
    return (
        bool(followers)
        and len(lines) > len(followers) - 1
        and not any(view.link_up for view in followers)
        and not any(line.link_up for line in lines)
    )


def best_replica(picture: Picture, shard: ShardPicture, *, stale: bool) -> ObservedNode | None:
    """The answering replica with the most of its lost master's data; None when none is fit.

    FORCE skips the engine's own freshness check, so it is made here: a copy that is under way
    or never began is unfit; one that stopped well before the master's last sign of life is fit
    only when `stale` allows it (nothing better will ever come).  Ties go to the lower ordinal.
    """
    assert shard.owner is not None
    owner_id = picture.ids[shard.owner.name]
    last_heard_ms = max((line.pong_ms for line in picture.peer_lines(owner_id)), default=0)
    fit: list[tuple[int, int, ObservedNode]] = []
    for node in shard.replicas:
        view = node.view
        assert view is not None
        if view.master_id != owner_id or view.syncing or view.link_down_ms < 0 or not view.offset:
            continue
        if not any(line.node_id == owner_id and line.slots for line in view.peers):
            continue  # it hasn't heard yet what its master owns, and would lead without a slot
        broke_ms = picture.observed.now_ms - view.link_down_ms
        in_step = view.link_up or broke_ms >= last_heard_ms - FRESHNESS_TOLERANCE_MS
        # A link through a cut network breaks late: when the other end is found dead.  That the
        # replica had not heard its master for long before the others did tells of the cut.
        own_ms = next(line.pong_ms for line in view.peers if line.node_id == owner_id)
        tolerance_ms = max(FRESHNESS_TOLERANCE_MS, picture.spec.failover.node_timeout_ms)
        in_step = in_step and (not own_ms or own_ms >= last_heard_ms - tolerance_ms)
        if in_step or stale:
            fit.append((view.offset, -node.ordinal, node))
    return max(fit, key=lambda item: item[:2])[2] if fit else None


def _lost(picture: Picture, shard: ShardPicture, owner: ObservedNode) -> Decision:
    if owner.loading:
        return Decision(
            Wait(SOON_S),
            Reason.MASTER_RESTARTING,
            f"{owner.name} reads its data from disk; {shard.name} waits for it.",
            healthy=False,
        )
    proofs = proofs_of_death(picture, owner)
    if len(proofs) >= PROOFS_NEEDED:
        return _dead(picture, shard, owner, " and ".join(proofs))
    return _unknown(picture, shard, owner)


def _dead(picture: Picture, shard: ShardPicture, owner: ObservedNode, proof: str) -> Decision:
    # Without storage the master's own data is gone with its process: then the freshest of
    # what is left is the best there will ever be.
    replica = best_replica(picture, shard, stale=False) or (
        best_replica(picture, shard, stale=True) if picture.spec.memory_only else None
    )
    lost = f"{owner.name}, the master of {shard.name}, is gone ({proof})"
    if replica is None:
        return _without_replica(picture, shard, owner, lost)
    if picture.votes_possible():
        return Decision(
            Failover(replica.name, FailoverMode.FORCE, takeover_if_refused=owner.ended),
            Reason.MASTER_LOST,
            f"{lost}; {replica.name} takes over by vote.",
            healthy=False,
        )
    return _take_over(picture, owner, replica, lost)


def _take_over(picture: Picture, owner: ObservedNode, replica: ObservedNode, lost: str) -> Decision:
    """Without a majority: only once the old master's process is proven gone."""
    if owner.ended:
        return Decision(
            Failover(replica.name, FailoverMode.TAKEOVER),
            Reason.MASTER_LOST,
            f"{lost}; no majority of masters is left to vote, {replica.name} takes over.",
            healthy=False,
        )
    if picture.observed.can_fence and owner in picture.observed.nodes:
        return Decision(
            Fence(owner.name),
            Reason.FENCING,
            f"{lost}; no majority of masters can vote, so {owner.name} is ended for certain first.",
            healthy=False,
        )
    return Decision(
        Wait(SOON_S),
        Reason.MASTER_UNKNOWN,
        f"{lost}, but no majority of masters can vote and nothing here can prove that it takes"
        " no more writes: restart it, or stop it for good and run CLUSTER FAILOVER TAKEOVER on"
        " its replica.",
        healthy=False,
    )


def _without_replica(
    picture: Picture, shard: ShardPicture, owner: ObservedNode, lost: str
) -> Decision:
    others = [node for node in shard.nodes if node.name != owner.name]
    silent = [node for node in others if node.view is None and not node.ended]
    copying = [
        node
        for node in shard.replicas
        if node.view is not None and node.view.offset and not node.view.syncing
    ]
    if picture.spec.memory_only and (silent or copying):
        # Started now it would come back empty, and its replicas would copy the emptiness.
        names = ", ".join(node.name for node in (*silent, *copying))
        return Decision(
            Wait(SOON_S),
            Reason.MASTER_RESTARTING,
            f"{lost}; it has no storage, so it is not started again while {names} may still hold"
            " the shard's data.",
            healthy=False,
        )
    if owner.ended and picture.observed.can_restart and owner in picture.observed.nodes:
        lost_too = "its data is lost, for there is no storage; " if picture.spec.memory_only else ""
        return Decision(
            RestartNode(owner.name, fresh=False),
            Reason.SHARD_LOST if lost_too else Reason.MASTER_RESTARTING,
            f"{lost} and no replica can take over: {lost_too}it is started again.",
            healthy=False,
        )
    return Decision(
        Wait(SOON_S),
        Reason.MASTER_RESTARTING,
        f"{lost} and no replica can take over: {shard.name} waits until it is back.",
        healthy=False,
    )


def _unknown(picture: Picture, shard: ShardPicture, owner: ObservedNode) -> Decision:
    owner_id = picture.ids[owner.name]
    silent = f"{owner.name}, the master of {shard.name}, does not answer"
    replica = best_replica(picture, shard, stale=False)
    if picture.votes_possible():
        if replica is not None and _majority_sees_failed(picture, owner_id):
            return Decision(
                Failover(replica.name, FailoverMode.FORCE),
                Reason.MASTER_LOST,
                f"{silent} and most masters see it failed; {replica.name} takes over by vote.",
                healthy=False,
            )
        return Decision(
            Wait(SOON_S),
            Reason.MASTER_UNKNOWN,
            f"{silent}; without proof of its end the nodes' own failure detection decides.",
            healthy=False,
        )
    timed_out = owner.silent_ms >= picture.spec.failover.node_timeout_ms
    if replica is not None and timed_out and _all_suspect(picture, owner_id):
        return _take_over(picture, owner, replica, silent)
    return Decision(
        Wait(SOON_S),
        Reason.MASTER_UNKNOWN,
        f"{silent}; no majority of masters can vote, so it is given until its node timeout.",
        healthy=False,
    )


def _majority_sees_failed(picture: Picture, owner_id: str) -> bool:
    """Whether answering masters that are a majority of all slot owners say that it failed.

    Each one's suspicion (`fail?`, no answer for the node timeout) counts: a majority of them is
    what the engine's own `fail` is made of, only that we hear it without waiting for gossip.
    """
    seen = 0
    for node in picture.answering:
        view = node.view
        assert view is not None
        if view.role is Role.MASTER and view.node_id in picture.owned:
            seen += any(peer.node_id == owner_id and peer.flags & _FAILED for peer in view.peers)
    return seen * 2 > len(picture.owned)


def _all_suspect(picture: Picture, owner_id: str) -> bool:
    lines = picture.peer_lines(owner_id)
    return bool(lines) and all(line.flags & _FAILED for line in lines)
