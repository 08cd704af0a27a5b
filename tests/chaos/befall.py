"""Let a fault of a schedule happen to the simulated cluster, and end again what lasts.

Law: a fault leaves the promise (`checker.py`) something to promise: with storage the last good copy
of a shard is not taken, and a node without storage is started by the controller alone, for whose
platforms guard that start (docs/architecture.md, "The empty restart").
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.losses import in_step, numbers_of
from tests.scenarios.drive import spec_of
from tests.scenarios.paper_node import Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.spec import Spec
    from tests.chaos.clients import Clients
    from tests.chaos.model import ModelCluster
    from tests.chaos.model_node import ModelNode
    from tests.chaos.nemesis import Fault, World

__all__ = ["Befalls", "spec_for"]

SHARDS_MAX = 5
REPLICAS_MAX = 2
LOSSY_PARTS = (0.05, 0.2, 0.5)
LATE_MS = 1_500
QUIET_DELAY_MS = 20
# Once a master's disk is lost its replica is all there is; until it leads, a second loss is beyond
# the promise (`decide` then waits for people, and says so).
SPARED_MS = 20_000  # an election that failed is held again after 8 s
HARSH = frozenset(
    {
        "kill",
        "kill leader",
        "kill shard",
        "kill all",
        "lose disk",
        "hang",
        "cut",
        "split",
        "controller away",
    }
)
OWNERS_MIN = 3  # fewer have no majority without the lost one: nothing proves that it is gone


def spec_for(world: World) -> Spec:
    """What is wanted at first."""
    storage = {"storage": {"size": "1Gi"}} if world.storage else {}
    return spec_of(world.shards, world.replicas, **storage)


@dataclass(slots=True)
class Befalls:
    """What happened, and what is to end when."""

    cluster: ModelCluster
    clients: Clients
    spec: Spec
    counts: Counter[str] = field(default_factory=Counter)
    ends: list[tuple[int, str, Callable[[], None]]] = field(default_factory=list)
    dies_after: int | None = None  # sub-steps that the controller gets of its next action
    away_until_ms: int = 0
    spared_until_ms: int = 0  # a shard has one good copy left
    woken: bool = False  # a connection of the controller ended

    def happen(self, fault: Fault) -> None:
        """It happens, if there is anything that it can befall."""
        if fault.kind in HARSH and self.cluster.now_ms < self.spared_until_ms:
            return
        done = getattr(self, "_" + fault.kind.replace(" ", "_"))(fault)
        if done:
            self.counts[fault.kind] += 1

    def expire(self) -> None:
        """End what has lasted long enough."""
        due = [end for end in self.ends if end[0] <= self.cluster.now_ms]
        self.ends = [end for end in self.ends if end[0] > self.cluster.now_ms]
        for _, _, undo in due:
            undo()

    def calm(self) -> None:
        """No more faults; what ended stays so until the controller starts it."""
        for _, _, undo in self.ends:
            undo()
        self.ends.clear()
        self.dies_after, self.away_until_ms = None, 0

    def _lasts(self, fault: Fault, undo: Callable[[], None]) -> bool:
        self.ends.append((self.cluster.now_ms + fault.lasts, fault.kind, undo))
        return True

    def _pick(self, fault: Fault, nodes: list[ModelNode]) -> ModelNode | None:
        return nodes[int(fault.pick * len(nodes))] if nodes else None

    def _in(self, *states: Process) -> list[ModelNode]:
        return [node for node in self.cluster.model_nodes() if node.process in states]

    # -- processes, disks, machines ---------------------------------------------------------

    def _end(self, node: ModelNode) -> None:
        if not self.cluster.storage:
            self.cluster.losses.ended(node)
        self.cluster.end(node.name)
        self.woken = True

    def _kill(self, fault: Fault) -> bool:
        node = self._pick(fault, self._in(Process.RUNNING, Process.HUNG))
        if node is not None and self._last_fit(node):
            return False
        if node is not None:
            self._end(node)
        return node is not None

    def _last_fit(self, node: ModelNode) -> bool:
        """Without storage: a leader whose replicas are all out of step, but not gone.

        `decide` then waits for them for ever, in the hope of what they hold: a known weakness.
        """
        others = [other for other in self.cluster.model_nodes()
                  if other.shard == node.shard and other is not node]  # fmt: skip
        fit = any(in_step(other) and other.master_id == node.node_id for other in others)
        return not (self.cluster.storage or fit) and any(
            other.process is not Process.ENDED for other in others
        )

    def _kill_leader(self, fault: Fault) -> bool:
        """A replica lags behind the others, and then its master ends."""
        replica = self._pick(fault, [node for node in self._in(Process.RUNNING) if node.master_id])
        if replica is None:
            return False
        replica.stalled_until_ms = self.cluster.now_ms + 2 * fault.lasts
        master_id = replica.master_id

        def undo() -> None:
            spared = self.cluster.now_ms < self.spared_until_ms
            for node in self._in(Process.RUNNING):
                if node.node_id == master_id and not (spared or self._last_fit(node)):
                    self._end(node)

        return self._lasts(fault, undo)

    def _kill_shard(self, fault: Fault) -> bool:
        node = self._pick(fault, self._in(Process.RUNNING, Process.HUNG))
        for other in self._in(Process.RUNNING, Process.HUNG):
            if node is not None and other.shard == node.shard:
                self._end(other)
        return node is not None

    def _kill_all(self, fault: Fault) -> bool:
        found = self._in(Process.RUNNING, Process.HUNG)
        for node in found:
            self._end(node)
        return bool(found) and fault.pick >= 0

    def _start(self, fault: Fault) -> bool:
        """Somebody starts an ended node with its disk."""
        node = self._pick(fault, self._in(Process.ENDED)) if self.cluster.storage else None
        if node is not None:
            self.cluster.begin(node.name)
        return node is not None

    def _move(self, fault: Fault) -> bool:
        """A node is started elsewhere with its disk."""
        node = self._pick(fault, self._in(Process.ENDED)) if self.cluster.storage else None
        if node is not None:
            self.cluster.move_to_new_address(node.name)
            self.cluster.begin(node.name)
        return node is not None

    def _lose_disk(self, fault: Fault) -> bool:
        """A machine with its disk; an empty one takes its place, with a new id and address."""
        node = self._pick(
            fault, [node for node in self.cluster.model_nodes() if self._spared(node)]
        )
        if node is None:
            return False
        if node.slots:
            self.spared_until_ms = self.cluster.now_ms + SPARED_MS
        self.cluster.losses.ended(node)
        self.cluster.end(node.name)
        node.wipe()
        self.cluster.move_to_new_address(node.name)
        self.cluster.begin(node.name, fresh=True)
        self.woken = True
        return True

    def _spared(self, node: ModelNode) -> bool:
        """Whether all of its data is with another node of the shard that runs and can lead it."""
        if not self.cluster.storage:
            return False
        nodes = self.cluster.model_nodes()
        whole = all(other.running and not other.island for other in nodes)
        if node.slots and not (whole and sum(bool(n.slots) for n in nodes) >= OWNERS_MIN):
            return False
        held = numbers_of(node.data)
        masters = {node.node_id, node.master_id}
        return any(
            other is not node and other.shard == node.shard and other.running
            and other.island == node.island and other.link_up and not other.syncing
            and (other.node_id in masters or other.master_id in masters)
            and held <= numbers_of(other.data)
            for other in nodes
        )  # fmt: skip

    def _hang(self, fault: Fault) -> bool:
        node = self._pick(fault, self._in(Process.RUNNING))
        if node is None:
            return False
        self.cluster.hang(node.name)

        def undo() -> None:
            same = self.cluster.nodes.get(node.name) is node
            if same and node.process is Process.HUNG:
                self.cluster.resume(node.name)
                self.clients.catch_up(node)

        return self._lasts(fault, undo)

    # -- the network ------------------------------------------------------------------------

    def _cut(self, fault: Fault) -> bool:
        """One node hears nobody, and the controller not it; clients may still reach it."""
        node = self._pick(fault, self.cluster.model_nodes())
        if node is None:
            return False
        node.island = 1 + node.ordinal
        node.silent_since_ms = node.cut_since_ms = self.cluster.now_ms
        self.woken = True

        def undo() -> None:
            node.island = 0
            twin = self.cluster.nodes.get(node.name)
            if twin is not None:  # a fresh one may stand in its place
                twin.island = 0  # type: ignore[attr-defined]

        return self._lasts(fault, undo)

    def _split(self, fault: Fault) -> bool:
        """The nodes fall in two; the controller is with one part."""
        nodes = self.cluster.model_nodes()
        size = max(1, int(len(nodes) * 0.6))
        first = int(fault.pick * len(nodes))
        away = [nodes[(first + step) % len(nodes)].name for step in range(size)]
        if fault.pick < 0.5:
            away = [node.name for node in nodes if node.name not in away]
        for node in nodes:
            if node.name in away:
                node.island = 9
                node.silent_since_ms = node.cut_since_ms = self.cluster.now_ms
        self.woken = True

        def undo() -> None:
            for node in self.cluster.model_nodes():
                node.island = 0 if node.island == 9 else node.island

        return self._lasts(fault, undo)

    def _lossy(self, fault: Fault) -> bool:
        self.cluster.loss = LOSSY_PARTS[int(fault.pick * len(LOSSY_PARTS))]

        def undo() -> None:
            self.cluster.loss = 0.0

        return self._lasts(fault, undo)

    def _late(self, fault: Fault) -> bool:
        self.cluster.delay_ms_max = LATE_MS

        def undo() -> None:
            self.cluster.delay_ms_max = QUIET_DELAY_MS

        return self._lasts(fault, undo)

    def _stall(self, fault: Fault) -> bool:
        """A node is too busy to apply what its master sends."""
        node = self._pick(fault, self._in(Process.RUNNING))
        if node is not None:
            node.stalled_until_ms = self.cluster.now_ms + fault.lasts
        return node is not None

    # -- the controller, and what people want -----------------------------------------------

    def _controller_dies(self, fault: Fault) -> bool:
        self.dies_after = fault.lasts
        return True

    def _controller_away(self, fault: Fault) -> bool:
        self.away_until_ms = self.cluster.now_ms + fault.lasts
        self.cluster.new_controller()
        return True

    def _wish(self, **fields: object) -> bool:
        self.spec = dataclasses.replace(self.spec, **fields)  # type: ignore[arg-type]
        return True

    def _scale_out(self, _fault: Fault) -> bool:
        return self.spec.shards < SHARDS_MAX and self._wish(shards=self.spec.shards + 1)

    def _scale_in(self, _fault: Fault) -> bool:
        return self.spec.shards > 1 and self._wish(shards=self.spec.shards - 1)

    def _retire(self, fault: Fault) -> bool:
        wanted = self.spec.wanted_shards()
        gone = wanted[int(fault.pick * len(wanted))]
        return self._wish(retire=(*self.spec.retire, gone))

    def _replica_more(self, _fault: Fault) -> bool:
        count = self.spec.replicas_per_shard
        return count < REPLICAS_MAX and self._wish(replicas_per_shard=count + 1)

    def _replica_less(self, _fault: Fault) -> bool:
        count = self.spec.replicas_per_shard
        return count > 0 and self._wish(replicas_per_shard=count - 1)
