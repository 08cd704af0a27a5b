"""What was seen of a cluster in one pass: plain data, filled by the runtime, read by `decide`.

Law: a node that did not answer is *unknown*, never *down*.  Only the evidence fields
(`ended`, `refused`, and what the other nodes say of it in their views) can make it down,
and weighing them is `decide`'s business, not the observer's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardcluster.slots import SlotSet

__all__ = ["Address", "NodeView", "Observed", "ObservedNode", "OpenSlot", "PeerView", "Role"]


class Role(enum.Enum):
    """What a node says it is."""

    MASTER = "master"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where clients and the other nodes reach a node."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PeerView:
    """One line of a node's `CLUSTER NODES`: what it believes of another node (or of itself)."""

    node_id: str  # 40 hex digits, kept by the node on its disk
    address: Address
    flags: frozenset[str]  # "myself master slave fail? fail handshake noaddr nofailover noflags"
    master_id: str | None  # set on replicas
    pong_ms: int  # Unix time of its last pong, ms, by the observer's clock; 0: itself or never
    config_epoch: int
    link_up: bool  # the cluster bus link to it is connected
    slots: SlotSet


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot that a node holds in MIGRATING or IMPORTING state."""

    slot: int
    other_id: str  # the node it goes to (migrating) or comes from (importing)


@dataclass(frozen=True, slots=True)
class NodeView:
    """Everything one node said in one pass."""

    node_id: str
    role: Role
    master_id: str | None  # of a replica
    peers: tuple[PeerView, ...]  # every line of CLUSTER NODES, its own included
    migrating: tuple[OpenSlot, ...] = ()
    importing: tuple[OpenSlot, ...] = ()
    current_epoch: int = 0
    cluster_ok: bool = True  # cluster_state
    keys: int = 0
    used_memory_bytes: int = 0
    max_memory_bytes: int = 0  # 0 = no limit
    offset: int = 0  # replication offset, bytes
    history: str = ""  # the replication id: offsets of one history can be compared; "" is unknown
    history_before: str = ""  # the one that it goes on from, as a replica that was promoted does
    link_up: bool = True  # of a replica: the replication link to its master
    link_down_ms: int = 0  # of a replica: how long the link has been down; -1 = never was up
    syncing: bool = False  # of a replica: a full copy is under way
    acked: tuple[int, ...] = ()  # of a master: the offset that each replica acknowledged last
    half: bool = False  # of a master: its replication follows another; see decide.half_masters
    ops_per_second: int = 0
    version: str = ""
    keeps_open_slots: bool = False  # its engine tells replicas of open slots: Valkey 8 and later
    config: tuple[tuple[str, str], ...] = ()  # the settings `decide` keeps true, as now in force

    @property
    def myself(self) -> PeerView:
        """The node's line about itself; raises StopIteration if the view lacks it (a bug)."""
        return next(peer for peer in self.peers if "myself" in peer.flags)

    @property
    def slots(self) -> SlotSet:
        """The slots it says it owns."""
        return self.myself.slots


@dataclass(frozen=True, slots=True)
class ObservedNode:
    """A node that the platform says belongs to the store, and what was seen of it."""

    name: str  # "shard-0-1"; stable for the life of the node's place
    shard: str  # "shard-0"
    ordinal: int  # 0..replicas; the highest goes first when a shard shrinks
    address: Address | None  # None while the platform has not given it one
    view: NodeView | None = None  # None: it did not answer in this pass
    ended: bool = False  # the platform proves that no process of it runs (reaped, pod gone)
    refused: bool = False  # a new connection was refused at once
    loading: bool = False  # it answers that it still reads its data from disk; `view` is None
    silent_ms: int = 0  # since its last answer; 0 when it answered in this pass
    heard: bool = False  # by this controller, so that `silent_ms` counts from a sign of life
    known_id: str | None = None  # the id it last answered with, when it does not answer now
    led_epoch: int = 0  # the config epoch with which it owned slots when it last answered; 0: none
    pending: str = ""  # why the platform could not start it yet; a sentence
    ending: bool = False  # its end was asked for and it still runs
    outdated: bool = False  # it runs in another form (image, …) than the platform would start now
    emptied: bool = False  # ended with storage that is gone: it would come back as another node
    machine: str | None = None  # where it runs, when the platform knows of machines
    trouble: str = ""  # what went wrong when it was asked, for people


@dataclass(frozen=True, slots=True)
class Observed:
    """One pass's whole picture."""

    nodes: tuple[ObservedNode, ...]  # sorted by (shard number, ordinal)
    now_ms: int  # Unix time
    spare_nodes: int | None = None  # empty nodes to take into use; None = as many as asked for
    formed_before: bool = False  # the platform remembers that this store was formed once
    can_fence: bool = False  # the platform can end a node's process and prove it
    can_restart: bool = False  # the platform can start an ended node again (or put another there)
    rebalance_asked: bool = False  # mode manual: a rebalance was asked for and is not done
    keeps_data: bool = True  # nodes have storage that outlives their process
    notes: tuple[str, ...] = field(default=())  # sentences from the platform, for the status
