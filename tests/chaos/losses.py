"""Which acknowledged writes a fault may take: written down at the moment when it happens.

Law: an excuse is given only for what `checker.py` promises no more. Whatever the controller does
by itself leaves none, so that a write it loses is a violation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from shardcluster.observed import Role
from tests.chaos.history import Cause, Excuse
from tests.scenarios.paper_node import Process, slot_of_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.model_node import ModelNode, State
    from tests.scenarios.paper_node import PaperNode

__all__ = ["Losses", "in_step", "numbers_of"]

# `decide` bears 2.5 s of a broken link before a master's last sign of life, which is a pong that
# may be a node timeout (2 s) older than its end; what our controller loses beyond is its fault.
STALE_MS_MAX = 4_700
SLEPT_MS = 2_000  # a node that went on so long ago has heard from its master, or copies it anew
FOLLOWED_MS = 200  # two beats: what it was linked until is noted once in each


def numbers_of(data: dict[int, State]) -> set[int]:
    """The writes that a copy holds."""
    return {number for state in data.values() for number in state}


@dataclass(slots=True)
class Losses:
    """The excuses of one run."""

    excuses: list[Excuse] = field(default_factory=list)
    arrived_ms: dict[int, int] = field(default_factory=dict)  # write -> when its master got it
    keeps_data: bool = True
    nodes: dict[str, PaperNode] = field(default_factory=dict)  # the cluster's own

    def _all(self) -> list[ModelNode]:
        return cast("list[ModelNode]", list(self.nodes.values()))

    def _excuse(self, cause: Cause, numbers: Iterable[int]) -> None:
        if missing := frozenset(numbers):
            self.excuses.append(Excuse(cause, missing))

    def ended(self, node: ModelNode) -> None:
        """A fault takes what this node holds: what nobody else has is lost, and nobody's fault."""
        elsewhere: set[int] = set()
        for other in self._all():
            if other is not node and in_step(other):
                elsewhere |= numbers_of(self._kept(other))
        self._excuse(Cause.LAST_COPY, numbers_of(node.data) - elsewhere)

    def _kept(self, node: ModelNode) -> dict[int, State]:
        """What it holds of its shard's slots: of others it may be about to hear DELs."""
        leader = node
        for other in self._all():
            if other.node_id == node.master_id:
                leader = other
        held = leader.data if leader.running else node.data
        return {
            key: state
            for key, state in node.data.items()
            if key in held
            if (slot := slot_of_key(key)) in leader.slots or slot in leader.importing
        }

    def elected(self, heir: ModelNode, master: ModelNode | None, held: dict[int, State]) -> None:
        """The other masters made it the leader by themselves."""
        if _gone(heir, master):
            self._reign_ends(heir, master)
            self._unheard_deletions(heir, master, held)
            self._excuse(Cause.FORCED, numbers_of(held) - numbers_of(heir.data))
            self._rivals(heir)

    def _reign_ends(self, heir: ModelNode, master: ModelNode | None) -> None:
        heir.proclaimed = False
        if master is not None:
            master.deposed = True

    def _rivals(self, heir: ModelNode) -> None:
        """Somebody else was elected in the other part of a split: its reign is ended, too."""
        for other in self._all():
            if other.island != heir.island and other.shard == heir.shard and other.slots:
                cut_ms = min(node.cut_since_ms for node in (other, heir) if node.island)
                other.deposed = True
                missing = numbers_of(other.data) - numbers_of(heir.data)
                self._excuse(Cause.FORCED, self._since(cut_ms - STALE_MS_MAX, missing))

    def promoted(
        self,
        heir: ModelNode,
        master: ModelNode | None,
        held: dict[int, State],
        others: list[ModelNode],
    ) -> None:
        """Our controller had it promoted; `others`: replicas that it could have taken instead."""
        if not _gone(heir, master):
            return
        self._reign_ends(heir, master)
        self._unheard_deletions(heir, master, held)
        missing = numbers_of(held) - numbers_of(heir.data)
        for other in others:
            missing -= numbers_of(other.data)
        if self.keeps_data and master is not None:
            alive_ms = master.last_alive_ms
            if master.island != heir.island or master.last_island:
                alive_ms = min(alive_ms, master.cut_since_ms)
            since_ms = alive_ms - STALE_MS_MAX
            # One that followed until then may be behind by as much as it was slow or hung.
            if heir.linked_ms < since_ms and not _slept_over(heir, alive_ms):
                missing = self._since(since_ms, missing)
        self._excuse(Cause.FORCED, missing)
        self._rivals(heir)

    def unknown_reigns(
        self, heir: ModelNode, master: ModelNode | None, led: dict[str, int]
    ) -> None:
        """Another of the shard led since its master did, and who heard of it is silent or gone.

        Those that answer were cut off then, and the controller is another one by now: `led` are the
        epochs that this one has heard of.  One that it has, it must wait for.
        """
        line = heir.lines.get(heir.master_id or "")
        known_epoch = line.config_epoch if line is not None else 0
        for other in self._all():
            rival = other.shard == heir.shard and other is not heir and other is not master
            since = other.epoch > known_epoch and other.epoch > led.get(other.name, 0)
            if rival and other.slots and since:
                other.deposed = True
                self._excuse(Cause.FORCED, numbers_of(other.data) - numbers_of(heir.data))

    def _since(self, since_ms: int, numbers: Iterable[int]) -> set[int]:
        """Those that reached their master, or the one that has them now, no earlier."""
        return {number for number in numbers if self.arrived_ms.get(number, since_ms) >= since_ms}

    def _known_to_lead(self, node: ModelNode) -> bool:
        masters = [other for other in self._all() if other.slots]
        known = sum(
            other is node
            or ((line := other.lines.get(node.node_id)) is not None and line.slots == node.slots)
            for other in masters
        )
        node.proclaimed = known * 2 > len(masters)
        return node.proclaimed

    def _unheard_deletions(
        self, heir: ModelNode, master: ModelNode | None, held: dict[int, State]
    ) -> None:
        """Keys that had left their master for another, of which its heir had not been told.

        The heir's copy is served from now on, and wins when the slot's move is finished
        (`shardcluster_runtime.migrate`): what the other took meanwhile hadn't reached the heir.
        An heir that doesn't know that the slot is open (older engines tell their replicas nothing)
        serves keys that have left as if they never were, and what is written anew wins as well.
        Nor does the heir of the one that took them know, if that has ended, too.
        """
        leaving = set(master.migrating) if master is not None else set()
        for node in self._all():
            if node.shard == heir.shard:
                continue
            for key in sorted(node.keys - held.keys()):
                source_id = node.importing.get(slot := slot_of_key(key))
                left = source_id == heir.master_id or slot in leaving
                unheard = left and slot not in heir.migrating
                if (left or source_id is not None) and (unheard or key in heir.keys):
                    newer = set(node.data[key]) - set(heir.data.get(key, ()))
                    self._excuse(Cause.FORCED, newer)

    def acknowledged(self, number: int, key: int, node: ModelNode) -> None:
        """A write was answered; when another leads by now it will be lost, as the fault had it."""
        slot = slot_of_key(key)
        if not node.proclaimed and not self._known_to_lead(node):
            # Should all end now and it be cut off, nobody would know but the old master.
            self._excuse(Cause.FORCED, [number])
        for other in self._all():
            if other is node or other.role is not Role.MASTER or other.epoch <= node.epoch:
                continue
            cut = other.island != node.island  # and cannot hear that its reign is over
            if slot in other.slots and (cut or node.deposed):
                self._excuse(Cause.FORCED, [number])


def in_step(node: ModelNode) -> bool:
    """Whether its copy counts: one that is hung, cut off or copying may be replaced by another."""
    follows = node.role is Role.MASTER or (node.link_up and not node.syncing)
    return node.running and not node.island and follows


def _slept_over(heir: ModelNode, alive_ms: int) -> bool:
    """Whether the heir followed until it hung, and hung until its master's last sign of life.

    It finds only then that their connection has ended, maybe long ago: what it says of its link
    is no older than that, and the engine's own check of its freshness sees no more.
    """
    followed = heir.linked_ms >= heir.last_alive_ms - FOLLOWED_MS
    return followed and heir.woke_ms > alive_ms - SLEPT_MS


def _gone(heir: ModelNode, master: ModelNode | None) -> bool:
    """Whether the old master can't be asked: ended, hung, cut off, or failed in the heir's eyes."""
    if master is None or master.process is not Process.RUNNING or master.cut_off:
        return True
    line = heir.lines.get(master.node_id)
    failed = line is not None and bool(line.flags & {"fail", "fail?"})
    return master.island != heir.island or failed
