"""How nodes of the simulated cluster learn of each other: each message may come late or never.

Law: a node believes what it was told, not what is. A claim on a slot holds against all of a lower
config epoch; two masters of one epoch part by their ids; `fail` needs a majority of the masters.
The rules are the engine's (valkey `cluster_legacy.c`); their timing is coarse: one beat of 100
ms.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from shardcluster.observed import PeerView, Role
from shardcluster.slots import SlotSet
from tests.scenarios.paper import PaperCluster
from tests.scenarios.paper_node import PaperNode, Process

if TYPE_CHECKING:
    from shardcluster.observed import Address
    from tests.chaos.model_node import ModelNode

__all__ = ["GossipCluster"]

DELAY_MS = 3  # at least, on its way
PINGS_PER_BEAT = 2
NONE = SlotSet()
NOBODY = frozenset[str]()
_MASTER, _REPLICA = frozenset({"master"}), frozenset({"slave"})
_FAILED = frozenset({"fail", "fail?"})


class Message(NamedTuple):
    """One packet on the bus."""

    due_ms: int
    number: int
    kind: str  # "ping", "pong", "update" (a third node's claim), "fail"
    sender: ModelNode
    receiver: ModelNode
    receiver_id: str
    header: PeerView
    epoch: int
    suspects: frozenset[str]


@dataclass(slots=True)
class GossipCluster(PaperCluster):
    """Nodes, and the packets between them."""

    chance: random.Random = field(default_factory=lambda: random.Random(0))
    loss: float = 0.0  # part of the packets
    delay_ms_max: int = 20
    packets: list[Message] = field(default_factory=list)
    places: dict[Address, ModelNode] = field(default_factory=dict)  # so that `at` need not look
    packets_lost: int = 0
    packets_late: int = 0  # later than a beat, so that others overtake them

    def model_nodes(self) -> list[ModelNode]:
        """All nodes."""
        return cast("list[ModelNode]", list(self.nodes.values()))

    def reaches(self, node: PaperNode, peer: PaperNode) -> bool:
        """Whether packets between the two come through and both can answer."""
        one, two = cast("ModelNode", node), cast("ModelNode", peer)
        return node.running and peer.running and one.island == two.island

    def connected(self, node: PaperNode, peer: PaperNode | None) -> bool:
        """Whether the two talk."""
        known = peer is not None and peer.node_id in node.lines
        return known and peer is not None and self.reaches(node, peer)

    def at(self, address: Address) -> ModelNode | None:
        """The node whose place that is, running or not."""
        found = self.places.get(address)
        if found is not None and found.address is address and self.nodes.get(found.name) is found:
            return found
        for node in self.nodes.values():
            if node.address == address:
                self.places[address] = cast("ModelNode", node)
                return self.places[address]
        return None

    # -- sending ----------------------------------------------------------------------------

    def header(self, node: ModelNode) -> PeerView:
        """What a node says of itself; the same object as long as it says the same."""
        old = node.header
        if (old is not None and old.slots is node.slots and old.config_epoch == node.epoch
                and old.master_id == node.master_id and old.address is node.address
                and old.node_id == node.node_id):  # fmt: skip
            return old
        flags = _MASTER if node.role is Role.MASTER else _REPLICA
        node.header = PeerView(node.node_id, node.address, flags, node.master_id, 0, node.epoch,
                               link_up=True, slots=node.slots)  # fmt: skip
        return node.header

    def lost(self) -> bool:
        """Whether the next packet gets lost."""
        if self.loss and self.chance.random() < self.loss:
            self.packets_lost += 1
            return True
        return False

    def send(self, node: ModelNode, peer_id: str, kind: str, about: PeerView | None = None) -> None:
        """Put a packet on its way to whoever is at the address that the node knows."""
        line = node.lines.get(peer_id)
        peer = self.at(line.address) if line is not None else None
        away = peer is None or peer.process is Process.ENDED or peer.island != node.island
        if line is None or peer is None or away:
            if line is not None and line.link_up and self._link_breaks(line, peer):
                node.lines[peer_id] = _told(line, line.flags, link_up=False)
            return
        if self.lost():
            return
        delay_ms = DELAY_MS + int(self.chance.random() * self.delay_ms_max)
        self.packets_late += delay_ms > 100
        suspects = node.suspects if node.slots else NOBODY
        heapq.heappush(
            self.packets,
            Message(self.now_ms + delay_ms, self.count(), kind, node, peer, peer.node_id,
                    about or self.header(node), node.known_epoch, suspects),
        )  # fmt: skip

    def _link_breaks(self, line: PeerView, peer: ModelNode | None) -> bool:
        """An ended process ends its connections; silence is noticed after half a timeout."""
        if peer is None or peer.process is Process.ENDED:
            return True
        silent = self.now_ms - line.pong_ms > self.node_timeout_ms // 2
        return silent and peer.process is not Process.HUNG

    def tell_all(self, node: ModelNode, kind: str = "pong", about: PeerView | None = None) -> None:
        """To everybody it knows."""
        for peer_id in list(node.lines):
            self.send(node, peer_id, kind, about)

    def deliver(self) -> None:
        """Packets whose time has come; what their receiver has become meanwhile decides."""
        while self.packets and self.packets[0].due_ms <= self.now_ms:
            message = heapq.heappop(self.packets)
            node = message.receiver
            same = self.nodes.get(node.name) is node and node.node_id == message.receiver_id
            if not same or node.island != message.sender.island:
                continue
            if node.process is Process.HUNG:
                node.unread.append(message)
            elif node.running:
                self._receive(node, message)

    def read_on(self, node: ModelNode) -> None:
        """A node that hung finds in its sockets what it was sent, and reads it now."""
        unread, node.unread = node.unread, []
        for message in unread:
            self._receive(node, message, late=True)

    def hear(self, node: PaperNode, peer: PaperNode) -> None:
        """One node learns at once what another says of itself, if they talk."""
        if self.connected(node, peer):
            sender, receiver = cast("ModelNode", peer), cast("ModelNode", node)
            self._receive(receiver, Message(0, 0, "pong", sender, receiver, node.node_id,
                                            self.header(sender), sender.known_epoch,
                                            frozenset()))  # fmt: skip

    # -- receiving --------------------------------------------------------------------------

    def _receive(self, node: ModelNode, message: Message, *, late: bool = False) -> None:
        header = message.header
        line = node.lines.get(header.node_id)
        node.known_epoch = max(node.known_epoch, message.epoch, header.config_epoch)
        if line is None:
            return  # of a stranger nothing is taken
        if message.kind == "fail":
            self._fails(node, header.node_id)
            return
        if message.kind == "update":
            if header.config_epoch > line.config_epoch:
                self._believe(node, line, header, line.pong_ms)
                node.lines[header.node_id] = _told(
                    node.lines[header.node_id], line.flags, link_up=line.link_up
                )
            return
        # A ping is no pong.  Among others it hardly matters here, for the pong follows in a beat.
        heard_ms = line.pong_ms if late and message.kind == "ping" else self.now_ms
        if header.config_epoch >= line.config_epoch:  # else another overtook it
            self._believe(node, line, header, heard_ms)
        elif line.pong_ms < heard_ms:
            node.lines[header.node_id] = _told(line, line.flags, pong_ms=heard_ms)
        self._take_part(node, message)

    def _take_part(self, node: ModelNode, message: Message) -> None:
        """The rest of a ping: whom the sender suspects and knows; and the answer."""
        sender = message.sender
        for suspect in message.suspects:
            if suspect != node.node_id:
                node.reports.setdefault(suspect, {})[sender.node_id] = self.now_ms
        if len(sender.lines) != len(node.lines) or sender.lines.keys() ^ node.lines.keys() != {
            sender.node_id, node.node_id
        }:  # fmt: skip
            self._meet_third(node, sender)
        # A replica's packets tell what its master owns in its eyes: who knows better answers.
        told = sender.lines.get(sender.master_id) if sender.master_id else None
        mine = node.lines.get(told.node_id) if told is not None else None
        if told is not None and mine is not None and mine.config_epoch > told.config_epoch:
            self.send(node, sender.node_id, "update", mine)
        if message.kind == "ping":
            self.send(node, sender.node_id, "pong")

    def _meet_third(self, node: ModelNode, sender: ModelNode) -> None:
        for third_id, seen in sender.lines.items():
            if third_id in node.lines or third_id == node.node_id or seen.flags & {"fail"}:
                continue
            if node.banned.get(third_id, 0) <= self.now_ms and seen.link_up:
                node.handshakes.add(seen.address)

    def _believe(self, node: ModelNode, line: PeerView, header: PeerView, pong_ms: int) -> None:
        """Take over what a node says of itself, but for slots that others claim newer."""
        flags = self._cleared(node, line, header)
        if line.slots is header.slots and node.heard.get(header.node_id) is header:
            node.lines[header.node_id] = _told(header, header.flags | flags, pong_ms=pong_ms)
            return
        node.heard[header.node_id] = header
        slots = header.slots if "master" in header.flags else NONE
        if slots:
            slots = self._contest(node, header)
        if slots == header.slots:
            slots = header.slots  # the same object: the next time nothing has to be compared
        node.lines[header.node_id] = PeerView(
            header.node_id, header.address, header.flags | flags, header.master_id, pong_ms,
            header.config_epoch, link_up=True, slots=slots,
        )  # fmt: skip
        self._collide(node, header)
        if "slave" in header.flags and node.master_id == header.node_id:
            heir = header.master_id  # my master follows another: so do I
            if heir is not None and heir != node.node_id and heir in node.lines:
                node.become_replica(heir)

    def _cleared(self, node: ModelNode, line: PeerView, header: PeerView) -> frozenset[str]:
        """The failure flags that stay on a node that was heard."""
        if "fail" not in line.flags:
            return frozenset()
        long_ago = self.now_ms - node.failed_ms.get(line.node_id, 0) > 2 * self.node_timeout_ms
        if not header.slots or long_ago:
            return frozenset()
        return frozenset({"fail"})

    def _contest(self, node: ModelNode, header: PeerView) -> SlotSet:
        """The slots of the claim that hold; everybody of a lower epoch loses them."""
        claim = header.slots
        if node.role is Role.MASTER and (mine := node.slots & claim):
            if header.config_epoch > node.epoch:
                self._lose(node, mine, header.node_id)
            else:
                claim -= mine
                self.send(node, header.node_id, "update", self.header(node))
        for peer_id, line in list(node.lines.items()):
            if peer_id == header.node_id or not line.slots or not (both := line.slots & claim):
                continue
            if line.config_epoch >= header.config_epoch:
                claim -= both
                self.send(node, header.node_id, "update", line)
                continue
            node.lines[peer_id] = _told(line, line.flags, slots=line.slots - both)
            heir = self.by_id(header.node_id)
            if (
                node.master_id == peer_id
                and not line.slots - both
                and node.node_id != header.node_id
                and heir is not None
                and heir.shard == node.shard
            ):
                node.become_replica(header.node_id)  # fmt: skip
        return claim

    def _lose(self, node: ModelNode, slots: SlotSet, winner_id: str) -> None:
        """Another's claim is newer: give up the slots, and the keys in them."""
        node.slots -= slots
        for slot in [slot for slot in node.migrating if slot in slots]:
            del node.migrating[slot]
        winner = self.by_id(winner_id)
        if not node.slots and winner is not None and winner.shard == node.shard:
            node.become_replica(winner_id)
        else:
            node.drop_slots(slots)

    def _collide(self, node: ModelNode, header: PeerView) -> None:
        """Two masters of one epoch: the one of the lower id takes another."""
        if (node.role is Role.MASTER and "master" in header.flags and header.config_epoch
                == node.epoch and node.node_id < header.node_id):  # fmt: skip
            node.epoch = self.next_epoch(node)

    def next_epoch(self, node: PaperNode | None = None) -> int:
        """One above all that this node has heard of; another may take the same."""
        assert node is not None  # only on paper everybody knows the highest
        taker = cast("ModelNode", node)
        taker.known_epoch = max(taker.known_epoch, node.epoch) + 1
        self.epoch = max(self.epoch, taker.known_epoch)
        return taker.known_epoch

    # -- a beat -----------------------------------------------------------------------------

    def gossip(self) -> None:
        """Everybody pings some, and those not heard for half a timeout."""
        for node in self.model_nodes():
            if not node.running:
                continue
            if node.handshakes:
                self._shake(node)
            peers = list(node.lines)
            if not peers:
                continue
            turn = self.now_ms // 100 + node.ordinal
            chosen = {peers[(turn + step) % len(peers)] for step in range(PINGS_PER_BEAT)}
            oldest_ms = self.now_ms - self.node_timeout_ms // 2
            for peer_id in peers:
                if peer_id in chosen or node.lines[peer_id].pong_ms < oldest_ms:
                    self.send(node, peer_id, "ping")
            self._suspect(node)

    def _shake(self, node: ModelNode) -> None:
        for address in sorted(node.handshakes):
            node.handshakes.discard(address)
            peer = self.at(address)
            if peer is None or peer is node or not self.reaches(node, peer) or self.lost():
                continue
            if node.banned.get(peer.node_id, 0) > self.now_ms:
                continue
            for one, two in ((node, peer), (peer, node)):
                if two.node_id not in one.lines:
                    one.lines[two.node_id] = _told(self.header(two), self.header(two).flags,
                                                   pong_ms=self.now_ms, slots=NONE)  # fmt: skip
                self.hear(one, two)

    def _suspect(self, node: ModelNode) -> None:
        self._flag(node)
        suspects = [other for other, seen in node.lines.items() if seen.flags & _FAILED]
        if suspects or node.suspects:
            node.suspects = frozenset(suspects)

    def _flag(self, node: ModelNode) -> None:
        """Flag who is late; a majority of the masters that say so makes it failed."""
        late_ms = self.now_ms - self.node_timeout_ms
        for peer_id, line in list(node.lines.items()):
            if line.pong_ms >= late_ms:
                if "fail?" in line.flags:
                    node.lines[peer_id] = _told(line, line.flags - {"fail?"})
                continue
            if not line.flags & _FAILED:
                node.lines[peer_id] = _told(line, line.flags | {"fail?"})
            if "fail" not in line.flags and self._agreed(node, peer_id):
                self._fails(node, peer_id)
                self.tell_all(node, "fail", node.lines[peer_id])

    def _agreed(self, node: ModelNode, peer_id: str) -> bool:
        since_ms = self.now_ms - 2 * self.node_timeout_ms
        said = {who for who, when in node.reports.get(peer_id, {}).items() if when >= since_ms}
        masters = {other for other, line in node.lines.items() if line.slots}
        if node.slots:
            said.add(node.node_id)
            masters.add(node.node_id)
        return len(said & masters) * 2 > len(masters)

    def _fails(self, node: ModelNode, peer_id: str) -> None:
        line = node.lines.get(peer_id)
        if line is not None and "fail" not in line.flags:
            node.lines[peer_id] = _told(line, line.flags - {"fail?"} | {"fail"})
            node.failed_ms[peer_id] = self.now_ms

    def majority(self, node: ModelNode) -> bool:
        """Whether it hears a majority of the masters, itself among them."""
        masters = heard = int(bool(node.slots))
        for line in node.lines.values():
            if line.slots:
                masters += 1
                heard += not line.flags & _FAILED
        return heard * 2 > masters


def _told(
    line: PeerView, flags: frozenset[str], *, pong_ms: int | None = None,
    link_up: bool | None = None, slots: SlotSet | None = None,
) -> PeerView:  # fmt: skip
    """The line with some of it changed; `dataclasses.replace` takes thrice as long."""
    return PeerView(
        line.node_id, line.address, flags, line.master_id,
        line.pong_ms if pong_ms is None else pong_ms, line.config_epoch,
        link_up=line.link_up if link_up is None else link_up,
        slots=line.slots if slots is None else slots,
    )  # fmt: skip
