"""Who owns which slot, as far as the gateway knows: 16,384 entries, and the rules to change them.

Sources are views (`CLUSTER NODES` of some node) and single MOVED redirects.  Views of different
nodes differ for a moment after each failover or move.  Law: a claim with a lower configuration
epoch does not replace a master that became known within the last `TRUST_S`; after that the newest
view wins, so that a store formed anew (epochs start at 0 again) is followed, too.  A MOVED always
wins: it comes from the node that would otherwise have answered, and a wrong one costs a round trip.

For `SETTLE_S` after a slot changed hands its reads prefer the master: the new owner's replicas may
not have the slot's keys yet.  No I/O here; time is an argument.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shardcluster.slots import SLOT_COUNT, SlotSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shardcluster.observed import Address, PeerView
    from shardcluster_api.links import NodeLink

__all__ = ["ShardRoute", "SlotMap"]

TRUST_S = 5.0
SETTLE_S = 2.0
ASK_MEMORY_S = 5.0  # a slot that answered ASK is read at its master for so long

_UNUSABLE_FLAGS = frozenset({"handshake", "noaddr"})


class ShardRoute:
    """Where one shard's requests go."""

    __slots__ = ("epoch", "held", "held_version", "master", "node_id", "replicas", "since_s")

    def __init__(self, node_id: str, master: NodeLink, now_s: float) -> None:
        """`node_id` is the master's, or "" when only a MOVED told of it."""
        self.node_id = node_id
        self.master = master
        self.replicas: tuple[NodeLink, ...] = ()
        self.epoch = 0
        self.since_s = now_s
        self.held = SlotSet()  # seen to be its own, all of them, in this version of the map
        self.held_version = 0

    @property
    def name(self) -> str:
        """The shard's name, or its master's address where the controller has not told it."""
        return self.master.shard or str(self.master.address)


class SlotMap:
    """The table; `link_of` makes or finds the link for an address."""

    def __init__(self, link_of: Callable[[Address], NodeLink]) -> None:
        """An empty map."""
        self.version = 0  # grows with each change
        self.owners: list[ShardRoute | None] = [None] * SLOT_COUNT
        self._link_of = link_of
        self._routes: dict[str, ShardRoute] = {}  # by the master's node id
        self._routes_found: tuple[ShardRoute, ...] = ()
        self._routes_version = 0
        self._owned = 0
        self._owned_version = 0
        self._settled_s = [0.0] * SLOT_COUNT
        self._all_settled_s = 0.0  # the latest of these
        # From then on no slot at all is moving or settling: one comparison for the common case.
        self.quiet_from_s = 0.0
        self._asked: dict[int, float] = {}  # slot -> until when ASK is remembered
        self._moving: frozenset[int] = frozenset()  # as the controller's state says

    def routes(self) -> tuple[ShardRoute, ...]:
        """Every shard that owns a slot, once; counted anew only when the map has changed."""
        if self._routes_version != self.version:
            found = {id(route): route for route in self.owners if route is not None}
            self._routes_found, self._routes_version = tuple(found.values()), self.version
        return self._routes_found

    def slots_owned(self) -> int:
        """How many slots have an owner; counted anew only when the map has changed."""
        if self._owned_version != self.version:
            self._owned = sum(route is not None for route in self.owners)
            self._owned_version = self.version
        return self._owned

    def is_moving(self, slot: int, now_s: float) -> bool:
        """Whether the slot's keys may lie on two nodes now."""
        if slot in self._moving:
            return True
        until_s = self._asked.get(slot) if self._asked else None
        if until_s is None:
            return False
        if until_s > now_s:
            return True
        del self._asked[slot]
        self._note_quiet()
        return False

    def is_settling(self, slot: int, now_s: float) -> bool:
        """Whether the slot changed hands just now."""
        return self._settled_s[slot] > now_s

    def is_on_its_way(self, slot: int, now_s: float) -> bool:
        """Either of these."""
        return self.is_moving(slot, now_s) or self.is_settling(slot, now_s)

    def _settle(self, slot: int, now_s: float) -> None:
        self._settled_s[slot] = self._all_settled_s = now_s + SETTLE_S
        self._note_quiet()

    def _note_quiet(self) -> None:
        unquiet = self._moving or self._asked
        self.quiet_from_s = math.inf if unquiet else self._all_settled_s

    def set_moving(self, slots: Iterable[int]) -> None:
        """What the controller is moving."""
        self._moving = frozenset(slots)
        self._note_quiet()

    def moving_count(self) -> int:
        """How many slots the controller is moving."""
        return len(self._moving)

    def asked(self, slot: int, now_s: float) -> None:
        """A node answered ASK for the slot."""
        self._asked[slot] = now_s + ASK_MEMORY_S
        self._note_quiet()

    def moved(self, slot: int, address: Address, now_s: float) -> bool:
        """A node answered MOVED; says whether that was news."""
        current = self.owners[slot]
        if current is not None and current.master.address == address:
            return False
        link = self._link_of(address)
        for route in self._routes.values():
            if route.master is link:
                break
        else:
            route = self._routes[f"moved to {address}"] = ShardRoute("", link, now_s)
        self.owners[slot] = route
        self._settle(slot, now_s)
        self.version += 1
        return True

    def apply(
        self, peers: Iterable[PeerView], address_of: Callable[[PeerView], Address], now_s: float
    ) -> bool:
        """Take in a view; says whether anything changed."""
        usable = [peer for peer in peers if not peer.flags & _UNUSABLE_FLAGS]
        replicas: dict[str, list[NodeLink]] = {}
        for peer in usable:
            if peer.master_id is not None and "fail" not in peer.flags:
                replicas.setdefault(peer.master_id, []).append(self._link(peer, address_of))
        changed = False
        for peer in usable:
            if peer.master_id is not None or not peer.slots:
                continue
            route, moved = self._route(peer, self._link(peer, address_of), now_s)
            claimed = self._claim(peer, route, now_s)
            found = tuple(replicas.get(peer.node_id, ()))
            if peer.node_id not in self._routes:
                if not claimed:
                    continue  # a stale view of a master that has lost all its slots since
                self._routes[peer.node_id] = route
            changed |= claimed or moved or found != route.replicas
            route.replicas = found
        if changed:
            self.version += 1
            used = set(map(id, self.routes()))
            self._routes = {name: r for name, r in self._routes.items() if id(r) in used}
        return changed

    def _link(self, peer: PeerView, address_of: Callable[[PeerView], Address]) -> NodeLink:
        link = self._link_of(address_of(peer))
        link.node_id = peer.node_id
        return link

    def _route(self, peer: PeerView, master: NodeLink, now_s: float) -> tuple[ShardRoute, bool]:
        """The route led by this master, and whether the master has another address now."""
        route = self._routes.get(peer.node_id)
        if route is None:
            route = ShardRoute(peer.node_id, master, now_s)
        moved = route.master is not master
        route.master = master
        route.epoch = max(route.epoch, peer.config_epoch)
        return route, moved

    def _claim(self, peer: PeerView, route: ShardRoute, now_s: float) -> bool:
        # Views come many times a second while a master is sought, and each look at all slots holds
        # the event loop for milliseconds.
        if route.held_version == self.version and route.held == peer.slots:
            return False
        changed = refused = False
        owners, trusted_from_s = self.owners, now_s - TRUST_S
        for first, last in peer.slots.ranges():
            for slot in range(first, last + 1):
                current = owners[slot]
                if current is route:
                    continue
                if current is not None:
                    newer = current.epoch > route.epoch and current.since_s > trusted_from_s
                    if newer:
                        refused = True
                        continue
                    self._settle(slot, now_s)
                owners[slot] = route
                changed = True
        if not (changed or refused):
            route.held, route.held_version = peer.slots, self.version
        return changed
