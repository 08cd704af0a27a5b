"""Clients of the simulated cluster: each has keys of its own and asks for one thing after another.

They find a slot's owner as a cluster client does, by a map that may be old and by redirects, from
anywhere: a master that is cut off from the others still has clients on its side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardcluster.observed import Role
from shardcluster.slots import SLOT_COUNT
from tests.chaos.history import History, Kind, Operation, Outcome, Value, kind_of
from tests.scenarios.paper_node import KEYS_PER_SLOT, Process, slot_of_key

if TYPE_CHECKING:
    import random

    from tests.chaos.model import ModelCluster
    from tests.chaos.model_node import ModelNode, State

__all__ = ["KEYS", "Clients", "value_of"]

KEY_COUNT = 24
HOPS_MAX = 4
ANSWER_LOST = 0.02  # of the answers, at any time
READ_PART = 0.2
DELETE_PART = 0.1
KINDS = ("register", "counter", "list")
# name -> key; two keys a slot, so that a slot can be moved by halves
KEYS = {
    f"{KINDS[number % 3]}-{number}": (number // 2 * 2 * SLOT_COUNT // KEY_COUNT) * KEYS_PER_SLOT
    + number % 2
    for number in range(KEY_COUNT)
}
NAMES = tuple(KEYS)


def value_of(name: str, state: State | None, deletions: set[int]) -> Value:
    """What a client reads of a state."""
    state = state or ()
    if name.startswith("counter"):
        return len(state)
    if name.startswith("list"):
        return state
    return None if not state or state[-1] in deletions else state[-1]


@dataclass(slots=True)
class Clients:
    """All of them."""

    cluster: ModelCluster
    chance: random.Random
    history: History = field(default_factory=History)
    deletions: set[int] = field(default_factory=set)
    again: int = 0  # a mutant's: how often a write of unknown fate is sent once more
    number: int = 0

    def one(self) -> None:
        """Some client asks for something."""
        name = NAMES[int(self.chance.random() * len(NAMES))]
        kind = kind_of(name, self.chance.random(), reads=READ_PART, deletions=DELETE_PART)
        self.number += 1
        number, began_ms, seen = self.number, self.cluster.now_ms, None
        if kind is Kind.DELETE:
            self.deletions.add(number)
        outcome, state = self._ask(number, name, kind)
        for _ in range(self.again if outcome is Outcome.UNKNOWN and kind is not Kind.READ else 0):
            outcome, state = self._ask(number, name, kind)
        if kind is Kind.READ and outcome is Outcome.OK:
            seen = value_of(name, state, self.deletions)
        self.history.operations.append(
            Operation(number, name, kind, outcome, began_ms, self.cluster.now_ms, seen)
        )

    def _ask(self, number: int, name: str, kind: Kind) -> tuple[Outcome, State | None]:
        """Send it to whom some node believes to be the owner, and follow redirects."""
        cluster, key = self.cluster, KEYS[name]
        slot = slot_of_key(key)
        running = [node for node in cluster.model_nodes() if node.process is Process.RUNNING]
        if not running:
            return Outcome.FAILED, None
        node = self._owner(running[int(self.chance.random() * len(running))], slot)
        asking = False
        for _ in range(HOPS_MAX):
            if node is None or node.process is Process.ENDED:
                return Outcome.FAILED, None
            if node.process is Process.HUNG:
                if kind is not Kind.READ:
                    node.inbox.append((number, key))
                return Outcome.UNKNOWN, None
            following, asking, served = self._at(node, key, asking=asking)
            if served:
                return self._do(node, number, key, kind)
            node = following
        return Outcome.FAILED, None

    def _owner(self, node: ModelNode, slot: int) -> ModelNode | None:
        """Who owns the slot in this node's eyes."""
        if slot in node.slots:
            return node
        for line in node.lines.values():
            if slot in line.slots:
                return self.cluster.at(line.address)
        return None

    def _at(
        self, node: ModelNode, key: int, *, asking: bool
    ) -> tuple[ModelNode | None, bool, bool]:
        """Where the node sends us on to, whether with ASKING, and whether it serves instead."""
        now_ms, slot = self.cluster.now_ms, slot_of_key(key)
        if now_ms < node.serves_from_ms or now_ms < node.paused_until_ms:
            return None, False, False
        if node.role is Role.MASTER and slot in node.slots:
            if slot in node.migrating and key not in node.data:
                line = node.lines.get(node.migrating[slot])
                return (self.cluster.at(line.address) if line else None), True, False
            return node, False, True
        if node.role is Role.MASTER and asking and slot in node.importing:
            return node, False, True
        return self._owner(node, slot), False, False

    def _do(
        self, node: ModelNode, number: int, key: int, kind: Kind
    ) -> tuple[Outcome, State | None]:
        """The node serves it; the request or the answer may get lost."""
        cluster = self.cluster
        lost = self.chance.random() < ANSWER_LOST + cluster.loss / 4
        if lost and self.chance.random() < 0.5:
            return Outcome.UNKNOWN, None
        if kind is not Kind.READ:
            node.put(key, (*node.data.get(key, ()), number))
        if lost:
            return Outcome.UNKNOWN, None
        if kind is not Kind.READ:
            cluster.losses.arrived_ms[number] = cluster.now_ms
            cluster.losses.acknowledged(number, key, node)
        return Outcome.OK, node.data.get(key)

    def catch_up(self, node: ModelNode) -> None:
        """A node goes on that hung: it reads what clients sent to it meanwhile; nobody hears."""
        waiting, node.inbox = node.inbox, []
        for number, key in waiting:
            if self._at(node, key, asking=False)[2]:
                node.put(key, (*node.data.get(key, ()), number))
