"""One observation, put in order: which node is which id, who owns which slot, who leads a shard.

Law: what a node says of *itself* counts; what others say of it counts only while it is silent,
and of claims on one slot the one of the higher epoch.  Two that answer and both claim a slot are a
conflict to wait out (the engine settles it by epoch), never a thing to guess about.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster.observed import ObservedNode, Role
from shardcluster.slots import SlotSet

if TYPE_CHECKING:
    from shardcluster.observed import Address, NodeView, Observed, PeerView
    from shardcluster.spec import Spec

__all__ = ["Picture", "ShardPicture", "draw"]


@dataclass(frozen=True, slots=True)
class ShardPicture:
    """One shard of the platform: its places and who leads them."""

    name: str
    nodes: tuple[ObservedNode, ...]
    slots: SlotSet  # owned by any of its nodes
    owner: ObservedNode | None  # the node that owns (most of) its slots, answering or not
    master: ObservedNode | None  # an answering master: the owner, or of a slotless shard its leader
    wanted: bool

    @property
    def replicas(self) -> tuple[ObservedNode, ...]:
        """Answering nodes that follow the shard's owner or leader."""
        return tuple(
            node for node in self.nodes if node.view is not None and node.view.role is Role.REPLICA
        )


@dataclass(frozen=True)  # without slots: what is asked for again and again is kept
class Picture:
    """What `decide` looks at."""

    spec: Spec
    observed: Observed
    shards: tuple[ShardPicture, ...]  # in order of their numbers
    ids: dict[str, str]  # node name -> node id, as far as known
    names: dict[str, str]  # node id -> node name
    owned: dict[str, SlotSet]  # node id -> slots, of every id that owns any
    unowned: SlotSet
    contested: SlotSet  # claimed by two answering nodes

    @functools.cached_property
    def answering(self) -> tuple[ObservedNode, ...]:
        """Nodes that answered in this pass."""
        return tuple(node for node in self.observed.nodes if node.view is not None)

    @functools.cached_property
    def hub(self) -> ObservedNode | None:
        """The node through which others are introduced: of those with slots, the best known."""
        own = self.names.keys()

        def rank(node: ObservedNode) -> tuple[bool, int]:
            known = own & {peer.node_id for peer in _view(node).peers}
            return (self.ids[node.name] in self.owned, len(known))

        return max(self.answering, key=rank, default=None)

    def leaving(self, node: ObservedNode) -> bool:
        """Whether the spec has no place for the node: its shard or its ordinal is too much."""
        surplus = node.ordinal > self.spec.replicas_per_shard
        return surplus or node.shard not in self.spec.wanted_shards()

    def shard(self, name: str) -> ShardPicture | None:
        """The shard of that name, if the platform has a place of it."""
        return next((shard for shard in self.shards if shard.name == name), None)

    def shard_of_id(self, node_id: str) -> ShardPicture | None:
        """The shard that the node of that id belongs to."""
        name = self.names.get(node_id)
        return next(
            (shard for shard in self.shards if any(node.name == name for node in shard.nodes)), None
        )

    def peer_lines(self, node_id: str) -> tuple[PeerView, ...]:
        """What every *other* answering node says of that id."""
        return tuple(
            peer
            for node in self.answering
            if self.ids[node.name] != node_id
            for peer in _view(node).peers
            if peer.node_id == node_id
        )

    def heirs(self, shard: ShardPicture) -> tuple[ObservedNode, ...]:
        """Replicas to which the shard's answering master could hand over now.

        In step, connected with all others, and these have heard whom they follow: a master that
        has not takes no notice of a hand-over that they ask for, and masters that have not give
        them no vote.
        """
        assert shard.master is not None  # callers ask of shards that have one
        if not self.fed(shard):
            return ()
        master_id = _view(shard.master).node_id
        return tuple(node for node in shard.replicas if self._heard_of(_view(node), master_id))

    def fed(self, shard: ShardPicture) -> bool:
        """Whether the shard's answering master sends its stream to all replicas that are linked.

        After a full copy it begins with the replica's first acknowledgement that it hears, up to a
        second later, and a hand-over asked for before stops writes for so long.  One that came too
        early is told of, but begins nothing: that replica has got no more than it acknowledged.
        """
        assert shard.master is not None  # callers ask of shards that have one
        views = [_view(node) for node in shard.replicas]
        linked = [view.offset for view in views if view.link_up and not view.syncing]
        master = _view(shard.master)
        return len(master.acked) >= len(linked) and all(
            offset == master.offset or offset not in master.acked for offset in linked
        )

    def _heard_of(self, heir: NodeView, master_id: str) -> bool:
        # One that is let go and owns nothing may be blank already; it has no vote either.
        others = {
            _view(node).node_id
            for node in self.answering
            if _view(node).slots or not self.leaving(node)
        } - {heir.node_id}
        # The engine refuses to ask a master that it holds for failed, and holds on to that for
        # two node timeouts after the master is back.
        reached = {p.node_id for p in heir.peers if p.link_up and "fail" not in p.flags}
        told = all(
            line.link_up and line.master_id == master_id for line in self.peer_lines(heir.node_id)
        )
        return heir.link_up and not heir.syncing and told and others <= reached

    def votes_possible(self) -> bool:
        """Whether a majority of the masters that own slots answers."""
        alive = sum(self.ids[node.name] in self.owned for node in self.answering)
        return alive * 2 > len(self.owned)


def _view(node: ObservedNode) -> NodeView:
    assert node.view is not None  # callers pass answering nodes
    return node.view


def draw(spec: Spec, observed: Observed) -> Picture:
    """Put an observation in order; never fails, whatever was seen."""
    answering = [node for node in observed.nodes if node.view is not None]
    ids = _ids(observed, answering)
    members = _members(answering)
    owned, contested = _ownership(members)
    everything = SlotSet()
    for slots in owned.values():
        everything |= slots
    wanted = spec.wanted_shards()
    by_shard: dict[str, list[ObservedNode]] = {}
    for node in observed.nodes:
        by_shard.setdefault(node.shard, []).append(node)
    vanished = _vanished_owners(observed, members, ids, owned)
    ids |= {node.name: node.known_id or "" for node in vanished.values()}
    names = {node_id: name for name, node_id in ids.items()}
    shards = tuple(
        _shard(name, tuple(nodes), ids, owned, wanted=name in wanted, vanished=vanished.get(name))
        for name, nodes in by_shard.items()
    )
    return Picture(
        spec, observed, shards, ids, names, owned, SlotSet.full() - everything, contested
    )


def _ids(observed: Observed, answering: list[ObservedNode]) -> dict[str, str]:
    ids = {node.name: _view(node).node_id for node in answering}
    taken = set(ids.values())
    if len(ids) == len(observed.nodes):
        return ids
    at_address = _last_heard_at(
        {node.address for node in observed.nodes if node.view is None and not node.known_id},
        answering,
    )
    for node in observed.nodes:
        if node.view is not None:
            continue
        guess = node.known_id or at_address.get(node.address)
        if guess and guess not in taken:
            ids[node.name] = guess
            taken.add(guess)
    return ids


def _last_heard_at(
    addresses: set[Address | None], answering: list[ObservedNode]
) -> dict[Address | None, str]:
    """Who owns slots at each address, or was heard there last: an earlier one may linger in views.

    A node that hung reads late what an earlier one had sent, and takes it for news.
    """
    found: dict[Address | None, PeerView] = {}
    for node in answering if addresses else ():
        for peer in _view(node).peers:
            if peer.address in addresses and "handshake" not in peer.flags:
                other = found.setdefault(peer.address, peer)
                if _telling(peer) > _telling(other):
                    found[peer.address] = peer
    return {address: peer.node_id for address, peer in found.items()}


def _telling(peer: PeerView) -> tuple[bool, int, str]:
    return (bool(peer.slots), peer.pong_ms, peer.node_id)


def _members(answering: list[ObservedNode]) -> list[ObservedNode]:
    """Nodes that know another answering node or are known by one; all, when nobody is.

    What a lone one claims beside them is its own affair, of another cluster perhaps.
    """
    ids = {_view(node).node_id for node in answering}
    if answering and ids <= {peer.node_id for peer in _view(answering[0]).peers}:
        return answering  # the usual case, told cheaply
    joined: set[str] = set()
    for node in answering:
        view = _view(node)
        others = ids & {peer.node_id for peer in view.peers} - {view.node_id}
        if others:
            joined |= others | {view.node_id}
    return [node for node in answering if _view(node).node_id in joined] or answering


def _vanished_owners(
    observed: Observed,
    members: list[ObservedNode],
    ids: dict[str, str],
    owned: dict[str, SlotSet],
) -> dict[str, ObservedNode]:
    """By shard: the owner of slots whom a replica follows and whose id no place has any more.

    Its place came back under another id (its disk is gone).  It stands in as a node that does not
    answer, so that its replica is seen as what it is: the one that holds the shard's data.
    """
    known = set(ids.values())
    found: dict[str, ObservedNode] = {}
    for node in members:
        master_id = _view(node).master_id
        if master_id is None or master_id in known or master_id not in owned:
            continue
        lines = [
            peer for other in members for peer in _view(other).peers if peer.node_id == master_id
        ]
        address = lines[0].address
        found[node.shard] = ObservedNode(
            name=f"node {master_id[:8]}",
            shard=node.shard,
            ordinal=len(observed.nodes),
            address=address,
            ended=_was_replaced(observed, node.shard, address),
            silent_ms=observed.now_ms - max(line.pong_ms for line in lines),
            known_id=master_id,
        )
    return found


def _was_replaced(observed: Observed, shard: str, address: Address) -> bool:
    """Whether the process of a vanished node has surely ended: a place runs one at a time.

    One answers at its address; or, where the platform can prove an end, all places of its shard
    answer as others, for it would have started none before.  One that has ended may be itself.
    """
    if any(node.address == address and node.view is not None for node in observed.nodes):
        return True
    places = [node for node in observed.nodes if node.shard == shard]
    return observed.can_fence and all(node.view is not None for node in places)


def _ownership(answering: list[ObservedNode]) -> tuple[dict[str, SlotSet], SlotSet]:
    """Slots by owner id, and the slots that two answering nodes claim.

    An answering node speaks for itself; for a silent one the others are asked.  As in the engine
    the higher config epoch wins: a promoted replica's claim is newer than what is told of its
    silent master, and a deposed master that is back claims, for a moment, what a silent one has.
    """
    claims: list[tuple[int, bool, str, SlotSet]] = []  # epoch, hearsay, node id, slots
    claimed = SlotSet()
    contested = SlotSet()
    for view in (_view(node) for node in answering if _view(node).role is Role.MASTER):
        claims.append((view.myself.config_epoch, False, view.node_id, view.slots))
        contested |= view.slots & claimed
        claimed |= view.slots
    speaking = {_view(node).node_id for node in answering}
    hearsay: dict[str, tuple[int, SlotSet]] = {}
    for node in answering:
        for peer in _view(node).peers:
            if peer.node_id in speaking or not peer.slots:
                continue
            epoch, slots = hearsay.get(peer.node_id, (-1, SlotSet()))
            if peer.config_epoch > epoch:
                hearsay[peer.node_id] = (peer.config_epoch, peer.slots)
            elif peer.config_epoch == epoch:
                hearsay[peer.node_id] = (epoch, slots | peer.slots)
    claims += [(epoch, True, node_id, slots) for node_id, (epoch, slots) in hearsay.items()]
    owned: dict[str, SlotSet] = {}
    taken = SlotSet()
    for _, _, node_id, slots in sorted(claims, key=lambda claim: (-claim[0], *claim[1:3])):
        if mine := slots - taken:
            owned[node_id] = mine
            taken |= mine
    return owned, contested


def _shard(
    name: str,
    nodes: tuple[ObservedNode, ...],
    ids: dict[str, str],
    owned: dict[str, SlotSet],
    *,
    wanted: bool,
    vanished: ObservedNode | None,
) -> ShardPicture:
    slots = SlotSet()
    owners: list[tuple[int, ObservedNode]] = []
    for node in (*nodes, vanished) if vanished else nodes:
        mine = owned.get(ids.get(node.name, ""), SlotSet())
        slots |= mine
        if mine:
            owners.append((len(mine), node))
    owner = max(owners, key=lambda pair: (pair[0], -pair[1].ordinal))[1] if owners else None
    master = owner if owner is not None and owner.view is not None else None
    if owner is None:
        master = _leader(nodes, ids)
    return ShardPicture(name, nodes, slots, owner, master, wanted)


def _leader(nodes: tuple[ObservedNode, ...], ids: dict[str, str]) -> ObservedNode | None:
    """The master of a shard without slots: whom its nodes follow, else who has keys, or the first.

    None while it doesn't answer and a replica has keys of it: they are of slots on their way here,
    and following anybody else would erase them.
    """
    masters = [node for node in nodes if node.view is not None and node.view.role is Role.MASTER]
    replicas = [node.view for node in nodes if node.view is not None and node.view.master_id]
    followed = {view.master_id for view in replicas}
    if lead := next((node for node in masters if ids[node.name] in followed), None):
        return lead
    held = {view.master_id for view in replicas if view.keys}
    if any(node.view is None and ids.get(node.name) in held for node in nodes):
        return None
    return max(masters, key=lambda node: bool(_view(node).keys), default=None)
