"""A master that owns slots doesn't answer: by evidence, let a replica take over.

Law (docs/architecture.md, "Losing a master"): unknown is not down.  Two kinds of proof that
agree make a process gone; then a replica is promoted at once.  Without proof the engine's gossip
decides, and we help only once a majority of the masters sees the node failed.  Where no majority
exists, the old master is fenced before a replica takes over, one shard at a time.
A replica that never held the data, or stopped following long before the master's end, is not
promoted while the master's own data can come back.  It can't without storage, nor from a disk that
is gone: such a master is started again, empty, only when nobody is left who may hold its data.
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
from shardcluster.decide.unheard import unheard_heir
from shardcluster.observed import Role
from shardcluster.slots import SlotSet

if TYPE_CHECKING:
    from shardcluster.observed import NodeView, ObservedNode, PeerView
    from shardcluster.picture import Picture, ShardPicture

__all__ = ["best_replica", "lost_masters", "proofs_of_death"]

_FAILED = frozenset({"fail", "fail?"})
ANSWER_MS = 1_000  # until a pong is there that was asked for, on a busy machine
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

    They are gone with its process where there is no storage, and else with its disk, but a replica
    has them: it must lead before it is told to follow an empty node, and copies that.  There is
    nothing to vote on.
    """
    if shard.master is not None and shard.master.view is not None and shard.master.view.keys:
        return None  # another replica took over already
    for replica in sorted(shard.replicas, key=lambda node: -node.view.offset if node.view else 0):
        assert replica.view is not None  # it answers
        if replica.view.keys and (leader := _gone_leader(picture, shard, replica.view)):
            return Decision(
                Failover(replica.name, FailoverMode.TAKEOVER),
                Reason.MASTER_LOST,
                f"{leader} of {shard.name} is gone with keys of slots on their way to it;"
                f" {replica.name} has them and takes over.",
                healthy=False,
            )
    return None


def _gone_leader(picture: Picture, shard: ShardPicture, follower: NodeView) -> str:
    """The name of whom the replica follows, when its keys are gone for certain; else empty."""
    leader_id = follower.master_id or ""
    name = picture.names.get(leader_id)
    if name is not None:
        leader = next((node for node in shard.nodes if node.name == name), None)
        if leader is None or not _comes_back_empty(picture, leader):
            return ""
        dead = leader.ended or len(proofs_of_death(picture, leader)) >= PROOFS_NEEDED
        return leader.name if dead else ""
    # Its id is none of ours any more: its place has another, blank one, for its disk is lost.
    placed = all(node.name in picture.ids or node.pending for node in picture.observed.nodes)
    linked = follower.link_up or any(line.link_up for line in picture.peer_lines(leader_id))
    return f"The node {leader_id[:8]}" if placed and not linked else ""


def _comes_back_empty(picture: Picture, node: ObservedNode) -> bool:
    return picture.spec.memory_only or node.emptied


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
    only when `stale` allows it (nothing better will ever come), or when it has more of the same
    history than another that is fit.  Ties go to the lower ordinal.
    """
    assert shard.owner is not None
    owner_id = picture.ids[shard.owner.name]
    lines = picture.peer_lines(owner_id)
    claim_epoch = max((line.config_epoch for line in lines), default=0)
    whole: list[tuple[int, int, ObservedNode]] = []
    fit: list[tuple[int, int, ObservedNode]] = []
    unready: list[tuple[int, int, ObservedNode]] = []
    for node in shard.replicas:
        view = node.view
        assert view is not None
        if view.master_id != owner_id or view.syncing or view.link_down_ms < 0 or not view.offset:
            continue
        own = next((line for line in view.peers if line.node_id == owner_id), None)
        item = (view.offset, -node.ordinal, node)
        if own is None or not own.slots or own.config_epoch < claim_epoch:
            unready.append(item)  # it hasn't heard yet what its master owns, so would lead no slot
            continue
        if own.slots - picture.owned.get(owner_id, SlotSet()):
            unready.append(item)  # nor what has moved on: it would claim that, and keys be erased
            continue
        whole.append(item)
        if stale or _in_step(picture, shard.owner, view, own, lines):
            fit.append(item)
    best = max(fit, key=lambda item: item[:2], default=None)
    if best is None:
        return None
    # It may seem out of step only because it was cut off and the last pong is still on its way.
    best = max((best, *_fresher(whole, best)), key=lambda item: item[:2])
    # One that has more will hear in a moment, or never.
    soon = shard.owner.silent_ms < picture.spec.failover.node_timeout_ms
    return None if soon and _fresher(unready, best) else best[2]


def _fresher(
    others: list[tuple[int, int, ObservedNode]], best: tuple[int, int, ObservedNode]
) -> list[tuple[int, int, ObservedNode]]:
    return [item for item in others if item[0] > best[0] and _one_history(item[2], best[2])]


def _one_history(one: ObservedNode, two: ObservedNode) -> bool:
    assert one.view is not None
    assert two.view is not None
    return bool(one.view.history) and one.view.history == two.view.history


def _in_step(
    picture: Picture,
    owner: ObservedNode,
    view: NodeView,
    own: PeerView,
    lines: tuple[PeerView, ...],
) -> bool:
    """Whether the replica followed its master until about its last sign of life."""
    now_ms = picture.observed.now_ms
    answered_ms = now_ms - owner.silent_ms if owner.heard else 0  # to the controller
    last_heard_ms = max(answered_ms, *(line.pong_ms for line in lines))
    broke_ms = now_ms - view.link_down_ms
    if not view.link_up and broke_ms < last_heard_ms - FRESHNESS_TOLERANCE_MS:
        return False
    if not own.pong_ms:
        return True
    # A link through a cut network breaks late: when the other end is found dead.  That the
    # replica had not heard its master for long before the others did tells of the cut.
    # A node asks each other at least every half node timeout.
    half_ms = picture.spec.failover.node_timeout_ms // 2
    tolerance_ms = max(FRESHNESS_TOLERANCE_MS, half_ms + ANSWER_MS)
    if not owner.heard and len(picture.owned) == 1 and _comes_back(picture, owner):
        # The only master takes writes also while it is cut off from all who could tell of it.
        return own.pong_ms >= now_ms - tolerance_ms
    # One other may only have read late what it was sent while it hung: most have to say so, unless
    # the master can just be started again with all it had.  The controller reads nothing late.
    later = sum(line.pong_ms - tolerance_ms > own.pong_ms for line in lines)
    borne = 0 if _comes_back(picture, owner) else (len(lines) - 1) // 2
    return later <= borne and answered_ms - tolerance_ms <= own.pong_ms


def _comes_back(picture: Picture, owner: ObservedNode) -> bool:
    observed = picture.observed
    startable = owner.ended and observed.can_restart and owner in observed.nodes
    # One that was silent for long before its end was fenced, maybe, and is still out of reach.
    fenced = owner.silent_ms >= picture.spec.failover.node_timeout_ms
    return startable and not fenced and not picture.spec.memory_only


def _lost(picture: Picture, shard: ShardPicture, owner: ObservedNode) -> Decision:
    if owner.loading:
        return Decision(
            Wait(SOON_S),
            Reason.MASTER_RESTARTING,
            f"{owner.name} reads its data from disk; {shard.name} waits for it.",
            healthy=False,
        )
    if (decision := _led_since(picture, shard, owner)) is not None:
        return decision
    proofs = proofs_of_death(picture, owner)
    if len(proofs) >= PROOFS_NEEDED:
        return _dead(picture, shard, owner, " and ".join(proofs))
    return _unknown(picture, shard, owner)


def _led_since(picture: Picture, shard: ShardPicture, owner: ObservedNode) -> Decision | None:
    """A silent node was the shard's leader after the owner of whom those that answer know.

    They were cut off when it took over.  What it took since, nobody else may have: to promote one
    of them would throw it away.
    """
    owner_id = picture.ids[owner.name]
    known_epoch = max((line.config_epoch for line in picture.peer_lines(owner_id)), default=0)
    for node in shard.nodes:
        if node is owner or node.view is not None or node.led_epoch <= known_epoch:
            continue
        if node.ended and _comes_back_empty(picture, node):
            continue
        silent = f"{node.name}, which led {shard.name} last, does not answer"
        if node.ended and picture.observed.can_restart:
            return Decision(
                RestartNode(node.name, fresh=False),
                Reason.MASTER_RESTARTING,
                f"{silent}: it ended and is started again.",
                healthy=False,
            )
        return Decision(
            Wait(SOON_S),
            Reason.MASTER_UNKNOWN,
            f"{silent}; those that answer were cut off when it took over from {owner.name}, so it"
            " is waited for.",
            healthy=False,
        )
    return None


def _dead(picture: Picture, shard: ShardPicture, owner: ObservedNode, proof: str) -> Decision:
    # Without storage the master's own data is gone with its process: then the freshest of
    # what is left is the best there will ever be.
    replica = best_replica(picture, shard, stale=False) or (
        best_replica(picture, shard, stale=True) if _comes_back_empty(picture, owner) else None
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
    empty = _comes_back_empty(picture, owner)
    if empty and (step := unheard_heir(picture, shard, owner)):
        return step
    if empty and (holders := _may_hold(picture, shard, owner)):
        # Started now it would come back empty, and its replicas would copy the emptiness.
        why = "it has no storage" if picture.spec.memory_only else "its disk is empty"
        names = ", ".join(node.name for node in holders)
        people = all(node.view for node in holders) and not picture.spec.memory_only
        hint = " Look at it; then run CLUSTER FAILOVER TAKEOVER there." if people else ""
        return Decision(
            Wait(SOON_S),
            Reason.MASTER_RESTARTING,
            f"{lost}; {why}, so it is not started again while {names} may still hold the shard's"
            f" data.{hint}",
            healthy=False,
        )
    if owner.ended and picture.observed.can_restart and owner in picture.observed.nodes:
        why = "there is no storage" if picture.spec.memory_only else "its disk is empty"
        lost_too = f"its data is lost, for {why}; " if empty else ""
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


def _may_hold(
    picture: Picture, shard: ShardPicture, owner: ObservedNode
) -> tuple[ObservedNode, ...]:
    """The shard's other nodes that may have what its owner, who comes back empty, had."""
    others = [node for node in shard.nodes if node.name != owner.name]
    silent = [node for node in others if node.view is None and not node.ended]
    if not picture.spec.memory_only:
        # Their disks may have it, whatever they say of their copy; people can look.
        stored = [node for node in others if node.ended and not node.emptied]
        copies = [node for node in others if (v := node.view) and v.keys and not v.slots]
        return (*silent, *stored, *copies)
    copying = [
        node
        for node in shard.replicas
        if node.view is not None and node.view.offset and node.view.keys and not node.view.syncing
    ]
    # A copy that was whole, but had not heard what its master owned, when the masters elected it.
    unheard = [
        node
        for node in others
        if node.view is not None
        and node.view.role is Role.MASTER
        and node.view.keys
        and not node.view.slots
    ]
    return (*silent, *copying, *unheard)


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
