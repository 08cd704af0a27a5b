"""Which acknowledged writes a fault may take: written down at the moment when it happens.

Law: an excuse is given only for what `checker.py` promises no more. Whatever the controller does
by itself leaves none, so that a write it loses is a violation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from shardcluster.observed import Role
from tests.chaos.history import Cause, Excuse
from tests.scenarios.paper import Process, slot_of_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.model_node import ModelNode, State
    from tests.scenarios.paper import PaperNode

__all__ = ["Losses", "in_step", "numbers_of"]

# `decide` bears 2.5 s of a broken link before a master's last sign of life, which is a pong that
# may be a node timeout (2 s) older than its end; what our controller loses beyond is its fault.
STALE_MS_MAX = 6_000


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
                elsewhere |= numbers_of(other.data)
        self._excuse(Cause.LAST_COPY, numbers_of(node.data) - elsewhere)

    def elected(self, heir: ModelNode, master: ModelNode | None, held: dict[int, State]) -> None:
        """The other masters made it the leader by themselves."""
        if _gone(heir, master):
            heir.excuse = Cause.FORCED
            self._unheard_deletions(heir, held)
            self._excuse(Cause.FORCED, numbers_of(held) - numbers_of(heir.data))

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
        heir.excuse = Cause.FORCED
        self._unheard_deletions(heir, held)
        missing = numbers_of(held) - numbers_of(heir.data)
        for other in others:
            missing -= numbers_of(other.data)
        if self.keeps_data and master is not None:
            since_ms = master.last_alive_ms - STALE_MS_MAX
            missing = {
                number for number in missing if self.arrived_ms.get(number, since_ms) >= since_ms
            }
        self._excuse(Cause.FORCED, missing)

    def _unheard_deletions(self, heir: ModelNode, held: dict[int, State]) -> None:
        """Keys that had left their master for another, of which its heir had not been told.

        The heir's copy is served from now on, and wins when the slot's move is finished
        (`shardcluster_runtime.migrate`): what the other took meanwhile hadn't reached the heir.
        """
        for node in self._all():
            for key in sorted(node.keys & heir.keys - held.keys()):
                if slot_of_key(key) in node.importing:
                    self._excuse(Cause.FORCED, set(node.data[key]) - set(heir.data[key]))

    def acknowledged(self, number: int, key: int, node: ModelNode) -> None:
        """A write was answered; when another leads by now it will be lost, as the fault had it."""
        slot = slot_of_key(key)
        for other in self._all():
            if other is node or other.role is not Role.MASTER or other.epoch <= node.epoch:
                continue
            if slot in other.slots and other.excuse is Cause.FORCED:
                self._excuse(Cause.FORCED, [number])


def in_step(node: ModelNode) -> bool:
    """Whether its copy counts: one that is hung, cut off or copying may be replaced by another."""
    follows = node.role is Role.MASTER or (node.link_up and not node.syncing)
    return node.running and not node.island and follows


def _gone(heir: ModelNode, master: ModelNode | None) -> bool:
    """Whether the old master can't be asked: ended, hung, cut off, or failed in the heir's eyes."""
    if master is None or master.process is not Process.RUNNING or master.cut_off:
        return True
    line = heir.lines.get(master.node_id)
    failed = line is not None and bool(line.flags & {"fail", "fail?"})
    return master.island != heir.island or failed
