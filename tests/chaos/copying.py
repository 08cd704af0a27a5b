"""How replicas of the simulated cluster copy: streams, full copies, links that break late.

A replica connects to whoever is at its master's address; what it was sent and has not applied is
behind it, and lost with the master.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from shardcluster.observed import Role
from tests.chaos.gossip import GossipCluster
from tests.scenarios.paper_node import Process

if TYPE_CHECKING:
    from tests.chaos.model_node import ModelNode

__all__ = ["CopyingCluster"]

REPLICATION_TIMEOUT_MS = 60_000  # until a silent replication link is given up (repl-timeout)
COPY_MS_MAX = 600


@dataclass(slots=True)
class CopyingCluster(GossipCluster):
    """Nodes that gossip, and the streams between masters and replicas."""

    streams: int = 0

    def new_stream(self) -> int:
        """The id of a new replication history."""
        self.streams += 1
        return self.streams

    def source_of(self, node: ModelNode) -> ModelNode | None:
        """Whoever is at the address of the node's master: it connects *by address*."""
        line = node.lines.get(node.master_id or "")
        return self.at(line.address) if line is not None else None

    def copy_on(self, node: ModelNode) -> None:
        """A replica applies what was sent, or begins or ends a full copy."""
        master = self.source_of(node)
        if master is None or not self.reaches(node, master):
            self._copy_breaks(node, master)
            return
        if node.link_up and node.stream == master.stream:
            node.linked_ms = self.now_ms
        if node.stalled_until_ms > self.now_ms or master.role is not Role.MASTER:
            return
        if not master.stream:
            master.begin_stream(self.new_stream())
        if node.link_up and node.stream == master.stream:
            node.link_down_since_ms = None
            node.follow_stream(master)
        elif not node.syncing:
            node.link_up, node.syncing = False, True
            node.sync_until_ms = self.now_ms + int(self.chance.random() * COPY_MS_MAX)
            fits = master.log_start <= node.offset <= master.offset
            if node.stream == master.stream and fits:  # a partial one is enough
                node.link_up, node.syncing = True, False
        elif self.now_ms >= node.sync_until_ms:
            node.copy_all(master)
            node.link_up, node.syncing = True, False
        if self.replicas_know_open_slots and node.link_up:
            node.migrating, node.importing = dict(master.migrating), dict(master.importing)

    def buffer(self, node: ModelNode) -> None:
        """What its master sends waits in the kernel for a replica that hangs."""
        master = self.source_of(node) if node.role is Role.REPLICA and node.link_up else None
        if (master is not None and master.running and master.island == node.island
                and master.stream == node.stream):  # fmt: skip
            node.linked_ms = self.now_ms
            known = node.offset + len(node.buffered)
            node.buffered += master.log[known - master.log_start :
                                        master.sent_offset - master.log_start]  # fmt: skip

    def resume(self, name: str) -> None:
        """SIGCONT: it reads what the others sent meanwhile."""
        super(GossipCluster, self).resume(name)
        node = cast("ModelNode", self.nodes[name])
        node.woke_ms = self.now_ms
        for key, state in node.buffered:
            node.take(key, state)
        node.buffered.clear()
        self.read_on(node)

    def _copy_breaks(self, node: ModelNode, master: ModelNode | None) -> None:
        node.syncing = False
        if not node.link_up:
            return
        heard = master is not None and master.island == node.island
        if master is not None and not (heard and master.process is Process.ENDED):  # silence
            node.link_down_since_ms = node.link_down_since_ms or self.now_ms
            if self.now_ms - node.link_down_since_ms < REPLICATION_TIMEOUT_MS:
                return
        node.link_up, node.link_down_since_ms = False, self.now_ms

    def note_life(self, master: ModelNode) -> None:
        """It ends or hangs: until now it lived, and some replicas were connected with it."""
        master.last_alive_ms, master.last_island = self.now_ms, master.island
        for node in self.model_nodes():
            linked = node.link_up and node.island == master.island
            if node.master_id == master.node_id and linked:
                node.linked_ms = self.now_ms
