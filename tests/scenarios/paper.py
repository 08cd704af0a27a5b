"""A cluster on paper: nodes, their gossip, votes and copying, as far as `decide` can see them.

A test double of our own interface (`Observed` out, `Action` in, see `paper_actions`).  It keeps the
engine's meaning and its traps, not its timing: one `tick` lets every node that can talk hear all.
Deterministic: ids, ports and epochs are counted, time is a number that `tick` moves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from shardcluster.observed import (
    Address,
    NodeView,
    Observed,
    ObservedNode,
    OpenSlot,
    PeerView,
    Role,
)
from shardcluster.slots import SlotSet
from tests.scenarios.paper_node import PaperNode, Process, keys_of, slot_of_key

__all__ = ["PaperCluster"]

REJOIN_DELAY_MS = 2_000  # a master that started or joined doesn't serve yet
FORGET_BAN_MS = 60_000
FIRST_PORT = 7000
FIRST_OFFSET = 14
LONG_ACKED = 1  # its replica has got more since
START_MS = 1_000_000
HANDSHAKE_ID = "f" * 40


@dataclass(slots=True)
class PaperCluster:
    """The platform, its nodes and the time."""

    nodes: dict[str, PaperNode] = field(default_factory=dict)
    now_ms: int = START_MS
    node_timeout_ms: int = 2_000
    storage: bool = True
    proves_end: bool = True  # the platform reaps its processes
    can_fence: bool = True
    can_restart: bool = True
    spare_nodes: int | None = None
    formed_before: bool = False
    rebalance_asked: bool = False
    replicas_know_open_slots: bool = True  # as Valkey 8 and later do
    slice_slots: int = 2_000
    past: dict[str, str] = field(default_factory=dict)  # node name -> what it brings along
    remembered: dict[str, str] = field(default_factory=dict)  # what this controller saw: ids
    led: dict[str, int] = field(default_factory=dict)  # ... and the epochs of those that led
    first_look_ms: int = 0  # of this controller; 0: not yet
    moved: dict[int, int] = field(default_factory=dict)  # slot -> how often it changed owner
    counter: int = 0
    epoch: int = 0

    # -- small helpers ----------------------------------------------------------------------

    def copy(self) -> PaperCluster:
        """The same world once more, to try something on."""
        return dataclasses.replace(
            self,
            nodes={name: node.copy() for name, node in self.nodes.items()},
            past=dict(self.past),
            remembered=dict(self.remembered),
            led=dict(self.led),
            moved=dict(self.moved),
        )

    def count(self) -> int:
        """A number that was not given before."""
        self.counter += 1
        return self.counter

    def new_id(self) -> str:
        """A node id that was not given before."""
        return f"{self.count():08x}" + "0" * 32

    def new_address(self) -> Address:
        """An address that was not given before."""
        return Address("10.0.0.1", FIRST_PORT + self.count())

    def next_epoch(self, _node: PaperNode | None = None) -> int:
        """A config epoch above all; on paper every node knows the highest."""
        self.epoch += 1
        return self.epoch

    def new_node(self, name: str, address: Address) -> PaperNode:
        """A blank node of a new id, not among the others yet."""
        shard, _, ordinal = name.rpartition("-")
        return PaperNode(name, shard, int(ordinal), address, self.new_id())

    def answers(self, node: PaperNode) -> bool:
        """Whether the controller's commands get through to it."""
        return node.running and not node.rejecting and not node.loading

    def by_id(self, node_id: str | None) -> PaperNode | None:
        """The node that has this id now."""
        return next((node for node in self.nodes.values() if node.node_id == node_id), None)

    def running(self) -> list[PaperNode]:
        """Nodes whose process runs."""
        return [node for node in self.nodes.values() if node.running]

    def start_node(self, name: str, *, listed: bool = True) -> PaperNode:
        """A new process in a new place: blank, unless `past` says that it brings something."""
        node = self.new_node(name, self.new_address())
        node.listed = listed
        node.serves_from_ms = self.now_ms + REJOIN_DELAY_MS
        node.config = {"cluster-node-timeout": str(self.node_timeout_ms)}
        self.nodes[name] = node
        past = self.past.pop(name, "")
        if past == "pending":
            node.pending, node.process = "the image is not there yet.", Process.ENDED
        elif past:
            other = PeerView(self.new_id(), Address("10.9.9.9", 6379), frozenset({"master"}),
                             None, 0, 1, link_up=False, slots=SlotSet())  # fmt: skip
            node.lines[other.node_id] = other
            if past == "foreign":
                node.foreign = True
                node.slots, node.epoch = SlotSet.of(range(100)), 1
                node.keys = keys_of(node.slots)
        return node

    def fill(self) -> None:
        """Write the store full: keys into every eighth slot, at its master and the replicas."""
        for node in self.nodes.values():
            if node.slots:
                node.keys = keys_of(node.slots)
        self.tick(0)

    # -- what happens to nodes --------------------------------------------------------------

    def end(self, name: str) -> None:
        """The process ends; without storage its keys are gone."""
        node = self.nodes[name]
        if self.answers(node):
            node.silent_since_ms = self.now_ms
        node.process = Process.ENDED
        if not self.storage:
            node.wipe()

    def lose_disk(self, name: str) -> None:
        """The process ends, and all that it had stored is gone."""
        self.end(name)
        self.nodes[name].emptied = True
        self.nodes[name].wipe()

    def hang(self, name: str) -> None:
        """SIGSTOP."""
        if self.answers(self.nodes[name]):
            self.nodes[name].silent_since_ms = self.now_ms
        self.nodes[name].process = Process.HUNG

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.nodes[name].process = Process.RUNNING

    def begin(self, name: str, *, fresh: bool = False) -> None:
        """The ended process starts again, `fresh` under a new id with nothing on disk."""
        node = self.nodes[name]
        if node.process is not Process.ENDED or node.pending:
            return
        fresh = fresh or node.emptied
        node.process = Process.RUNNING
        node.serves_from_ms = self.now_ms + REJOIN_DELAY_MS
        node.link_up, node.link_down_since_ms, node.syncing = False, None, False
        if fresh:
            twin = self.new_node(name, node.address)
            twin.serves_from_ms, twin.config = node.serves_from_ms, node.config
            self.nodes[name] = twin
        elif not self.storage:
            node.offset = 0

    def move_to_new_address(self, name: str) -> None:
        """The node is restarted elsewhere: it keeps its id and believes in the old addresses."""
        self.nodes[name].address = self.new_address()

    def new_controller(self) -> None:
        """The controller was killed; its follower remembers nothing."""
        self.remembered.clear()
        self.led.clear()
        self.first_look_ms = 0

    # -- time and gossip --------------------------------------------------------------------

    def tick(self, passed_ms: int) -> None:
        """Time passes; every node hears from every other that it can reach."""
        self.now_ms += passed_ms
        self._shake_hands()
        for _ in range(2):
            for node in self.running():
                self._learn(node)
            for node in self.running():
                self._refresh(node)
            for node in self.running():
                self._settle(node)
        self._detect_failures()
        for node in self.running():
            self._replicate(node)

    def hear(self, node: PaperNode, peer: PaperNode) -> None:
        """One node learns what another says of itself, if they talk."""
        if self.connected(node, peer):
            node.lines[peer.node_id] = self._line(peer)

    def hand_over(self, source: PaperNode, target: PaperNode, keys: set[int]) -> None:
        """MIGRATE: what a master does, its replicas are told at once."""
        for node in self.running():
            if node is target or (node.master_id == target.node_id and node.link_up):
                node.keys |= keys
            elif node is source or (node.master_id == source.node_id and node.link_up):
                node.keys -= keys

    def counted_zero(self, source: PaperNode, slot: int) -> bool:
        """COUNTKEYSINSLOT at the source: the gate before the slot changes hands."""
        return not source.keys_in(slot)

    def replicated(self, _target: PaperNode) -> bool:
        """WAIT at the target before it takes the slot: its replicas have what was moved."""
        return True

    def connected(self, node: PaperNode, peer: PaperNode | None) -> bool:
        """Whether the two talk: one of them knows the other's present address."""
        if peer is None or not (node.running and peer.running):
            return False
        there, back = node.lines.get(peer.node_id), peer.lines.get(node.node_id)
        return bool(
            (there and there.address == peer.address) or (back and back.address == node.address)
        )

    def _shake_hands(self) -> None:
        for node in self.running():
            for address in sorted(node.handshakes):
                for peer in self.running():
                    if peer.address == address and peer is not node:
                        node.foreign = peer.foreign = False
                        node.lines[peer.node_id] = self._line(peer)
                        peer.lines[node.node_id] = self._line(node)
            node.handshakes.clear()

    def _line(self, node: PaperNode) -> PeerView:
        flag = "master" if node.role is Role.MASTER else "slave"
        return PeerView(node.node_id, node.address, frozenset({flag}), node.master_id,
                        self.now_ms, node.epoch, link_up=True, slots=node.slots)  # fmt: skip

    def _learn(self, node: PaperNode) -> None:
        """Hear of unknown nodes, and of new addresses, from those one can talk with."""
        for peer_id in list(node.lines):
            peer = self.by_id(peer_id)
            if peer is None or not self.connected(node, peer) or node.node_id not in peer.lines:
                continue
            for third_id in peer.lines:
                third = self.by_id(third_id)
                banned = node.banned.get(third_id, 0) > self.now_ms
                if third is None or third is node or banned or not third.running:
                    continue
                if third_id not in node.lines or not self.connected(node, third):
                    node.lines[third_id] = self._line(third)

    def _refresh(self, node: PaperNode) -> None:
        """Update what the node believes; a slot has one owner in its table."""
        for peer_id, line in list(node.lines.items()):
            peer = self.by_id(peer_id)
            if peer is not None and self.connected(node, peer):
                node.lines[peer_id] = self._line(peer)
                continue
            hung = peer is not None and peer.process is Process.HUNG
            flags = line.flags
            if any(other.address == line.address for other in self.running() if other is not peer):
                flags |= {"noaddr"}
            node.lines[peer_id] = dataclasses.replace(
                line, link_up=line.link_up and hung, flags=flags
            )
        claimed = SlotSet()
        claims = [(node.epoch, "", node.slots)] if node.role is Role.MASTER else []
        claims += [(line.config_epoch, line.node_id, line.slots) for line in node.lines.values()]
        for _, peer_id, slots in sorted(claims, key=lambda claim: (-claim[0], claim[1])):
            if peer_id and slots & claimed:
                line = node.lines[peer_id]
                node.lines[peer_id] = dataclasses.replace(line, slots=slots - claimed)
            claimed |= slots

    def _settle(self, node: PaperNode) -> None:
        """A higher epoch takes slots away, and the keys in them; followers go along."""
        for peer_id in list(node.lines):
            peer = self.by_id(peer_id)
            if peer is None or not self.connected(node, peer) or peer.role is not Role.MASTER:
                continue
            lost = node.slots & peer.slots
            if node.role is Role.MASTER and lost and peer.epoch > node.epoch:
                node.slots -= lost
                node.keys = {key for key in node.keys if slot_of_key(key) not in lost}
                if not node.slots and peer.shard == node.shard:
                    node.become_replica(peer.node_id)
            elif node.role is Role.REPLICA and node.master_id in peer.replaced:
                node.become_replica(peer.node_id)

    def _detect_failures(self) -> None:
        voters = [node for node in self.running() if node.slots]
        owners = {node.node_id for node in self.nodes.values() if node.slots}
        late: dict[str, int] = {}
        for node in self.running():
            for line in node.lines.values():
                if self._late(line) and node in voters:
                    late[line.node_id] = late.get(line.node_id, 0) + 1
        for node in self.running():
            for peer_id, line in node.lines.items():
                flags = line.flags - {"fail", "fail?"}
                if self._late(line):
                    failed = late.get(peer_id, 0) * 2 > len(owners)
                    flags |= {"fail" if failed else "fail?"}
                node.lines[peer_id] = dataclasses.replace(line, flags=flags)

    def _late(self, line: PeerView) -> bool:
        return self.now_ms - line.pong_ms > self.node_timeout_ms

    def _replicate(self, node: PaperNode) -> None:
        """A replica connects *by address* and copies whatever it finds there."""
        if node.role is not Role.REPLICA:
            return
        line = node.lines.get(node.master_id or "")
        master = next(
            (other for other in self.nodes.values() if line and other.address == line.address), None
        )
        if master is not None and master.process is Process.HUNG:
            return  # the connection stays, nothing comes
        if master is None or not master.running:
            if node.link_up:
                node.link_up, node.link_down_since_ms = False, self.now_ms
            node.syncing = False
            return
        if not node.link_up and node.keys != master.keys and not node.syncing:
            node.syncing = True
            return
        node.link_up, node.syncing = True, False
        master.offset = max(master.offset, node.offset, FIRST_OFFSET)
        node.offset = master.offset
        node.keys = set(master.keys)
        if self.replicas_know_open_slots:
            node.migrating, node.importing = dict(master.migrating), dict(master.importing)

    # -- what the controller sees -----------------------------------------------------------

    def observe(self) -> Observed:
        """One pass's picture, as the runtime would hand it in."""
        self.first_look_ms = self.first_look_ms or self.now_ms
        listed = [node for node in self.nodes.values() if node.listed]
        listed.sort(key=lambda node: (int(node.shard.rpartition("-")[2]), node.ordinal))
        return Observed(
            nodes=tuple(self._observed(node) for node in listed),
            now_ms=self.now_ms,
            spare_nodes=self.spare_nodes,
            formed_before=self.formed_before,
            can_fence=self.can_fence,
            can_restart=self.can_restart,
            rebalance_asked=self.rebalance_asked,
            keeps_data=self.storage,
        )

    def _observed(self, node: PaperNode) -> ObservedNode:
        answers = self.answers(node)
        if answers:
            self.remembered[node.name] = node.node_id
            self.led[node.name] = node.epoch if node.slots else 0
        ended = node.process is Process.ENDED
        return ObservedNode(
            name=node.name,
            shard=node.shard,
            ordinal=node.ordinal,
            address=None if node.pending else node.address,
            view=self._view(node) if answers else None,
            ended=ended and self.proves_end and not node.pending,
            refused=node.rejecting or (ended and not node.cut_off and not node.pending),
            loading=node.loading,
            silent_ms=0 if answers else self.now_ms - max(self.first_look_ms, node.silent_since_ms),
            heard=node.name in self.remembered,
            known_id=self.remembered.get(node.name),
            led_epoch=self.led.get(node.name, 0),
            pending=node.pending,
            emptied=node.emptied and ended,
        )

    def _view(self, node: PaperNode) -> NodeView:
        flag = "master" if node.role is Role.MASTER else "slave"
        myself = PeerView(node.node_id, node.address, frozenset({"myself", flag}), node.master_id,
                          0, node.epoch, link_up=True, slots=node.slots)  # fmt: skip
        shaking = tuple(
            PeerView(HANDSHAKE_ID, address, frozenset({"handshake"}), None, 0, 0,
                     link_up=False, slots=SlotSet())
            for address in sorted(node.handshakes)
        )  # fmt: skip
        down_ms = -1
        if node.link_down_since_ms is not None:
            down_ms = self.now_ms - node.link_down_since_ms
        return NodeView(
            node_id=node.node_id,
            role=node.role,
            master_id=node.master_id,
            peers=(myself, *node.lines.values(), *shaking),
            migrating=tuple(OpenSlot(*pair) for pair in sorted(node.migrating.items())),
            importing=tuple(OpenSlot(*pair) for pair in sorted(node.importing.items())),
            current_epoch=self.epoch,
            cluster_ok=self.now_ms >= node.serves_from_ms,
            keys=len(node.keys),
            keeps_open_slots=self.replicas_know_open_slots,
            offset=node.offset,
            history="paper",
            link_up=node.role is Role.MASTER or node.link_up,
            link_down_ms=0 if node.role is Role.MASTER or node.link_up else down_ms,
            syncing=node.syncing,
            half=node.half,
            acked=tuple(
                LONG_ACKED
                for other in self.nodes.values()
                if other.master_id == node.node_id and other.link_up and other.fed
            ),
            config=tuple(sorted(node.config.items())),
        )
