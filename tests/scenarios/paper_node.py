"""One node of a cluster on paper: what it owns and holds, and what it believes of the others."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from shardcluster.observed import Role
from shardcluster.slots import SlotSet

if TYPE_CHECKING:
    from shardcluster.observed import Address, PeerView

__all__ = ["KEYS_PER_SLOT", "PaperNode", "Process", "keys_of", "slot_of_key"]

KEYS_PER_SLOT = 2
KEYED_SLOT_STEP = 8  # every eighth slot holds keys


class Process(enum.Enum):
    """What became of a node's process."""

    RUNNING = enum.auto()
    ENDED = enum.auto()
    HUNG = enum.auto()


def slot_of_key(key: int) -> int:
    """Keys are numbers; a slot has `KEYS_PER_SLOT` of them."""
    return key // KEYS_PER_SLOT


def keys_of(slots: SlotSet) -> set[int]:
    """The keys that a full store has in those slots."""
    return {
        slot * KEYS_PER_SLOT + number
        for slot in slots
        if slot % KEYED_SLOT_STEP == 0
        for number in range(KEYS_PER_SLOT)
    }


@dataclass(slots=True)
class PaperNode:
    """One node; what it owns and holds, and what it believes of the others (`lines`)."""

    name: str
    shard: str
    ordinal: int
    address: Address
    node_id: str
    listed: bool = True  # the platform knows it; False: a stranger
    role: Role = Role.MASTER
    master_id: str | None = None
    slots: SlotSet = field(default_factory=SlotSet)
    epoch: int = 0
    keys: set[int] = field(default_factory=set)
    migrating: dict[int, str] = field(default_factory=dict)
    importing: dict[int, str] = field(default_factory=dict)
    lines: dict[str, PeerView] = field(default_factory=dict)
    handshakes: set[Address] = field(default_factory=set)
    banned: dict[str, int] = field(default_factory=dict)  # id -> until when
    replaced: set[str] = field(default_factory=set)  # ids of masters it took over from
    process: Process = Process.RUNNING
    link_up: bool = True
    link_down_since_ms: int | None = None  # None: never was up
    syncing: bool = False
    half: bool = False  # of a master: its replication follows another
    fed: bool = True  # of a replica: its master has heard of it since the first copy
    offset: int = 0
    serves_from_ms: int = 0
    silent_since_ms: int = 0
    config: dict[str, str] = field(default_factory=dict)
    pending: str = ""
    loading: bool = False
    emptied: bool = False  # ended, its disk is gone
    rejecting: bool = False  # a firewall rejects us; the other nodes reach it
    foreign: bool = False  # of another cluster, as long as nobody introduces it
    cut_off: bool = False  # no packet comes through from anywhere

    @property
    def running(self) -> bool:
        """Whether its process runs and can be talked with by other nodes."""
        return self.process is Process.RUNNING and not self.cut_off

    def keys_in(self, slot: int) -> set[int]:
        """The keys that it holds of one slot."""
        first = slot * KEYS_PER_SLOT
        return self.keys.intersection(range(first, first + KEYS_PER_SLOT))

    def wipe(self) -> None:
        """Its data is gone."""
        self.keys.clear()

    def copy(self) -> Self:
        """A node of the same state that shares nothing that changes."""
        twin = dataclasses.replace(self)
        for name in ("keys", "migrating", "importing", "lines", "handshakes", "banned",
                     "replaced", "config"):  # fmt: skip
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def become_replica(self, master_id: str) -> None:
        """Follow another node from now on."""
        self.role, self.master_id = Role.REPLICA, master_id
        self.slots = SlotSet()
        self.migrating.clear()
        self.importing.clear()
        self.link_up, self.syncing, self.link_down_since_ms = False, False, None
