"""The bounded steps that `decide` can ask for, and the reasons it gives.

Each action is one thing the runtime does in at most about two seconds.  An action names nodes
by their platform name and, where the engine needs it, by node id; it carries no connection.
A second run of an action that was done already must change nothing: a controller may be killed
at any line and its follower starts from observation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardcluster.slots import SlotSet

__all__ = [
    "Action", "AddSlots", "CloseEmptyImports", "Configure", "Decision", "DropLeftovers",
    "Failover", "FailoverMode", "Fence", "Forget", "Introduce", "MarkFormed", "MarkRebalanced",
    "Move", "MoveSlots", "Reason", "Release", "ReplaceNode", "Replicate", "ResetNode",
    "RestartNode", "ScaleShard", "StabilizeSlot", "Wait",
]  # fmt: skip


class Reason(enum.Enum):
    """Why a decision was made: one CamelCase word for status, events, logs and tests."""

    IDLE = "Idle"
    PAUSED = "Paused"
    MASTER_LOST = "MasterLost"  # a failover is being done
    MASTER_UNKNOWN = "MasterUnknown"  # silent, no proof: gossip decides
    MASTER_RESTARTING = "MasterRestarting"  # lost, nobody fit to take over: it must come back
    FENCING = "Fencing"
    SHARD_LOST = "ShardLost"  # no node holds the shard's data any more
    DATA_LOST = "DataLost"  # the whole store came back empty
    VIEWS_DISAGREE = "ViewsDisagree"
    STRANGER = "Stranger"
    FOREIGN_NODE = "ForeignNode"  # a node that belongs to another cluster or holds other data
    MEETING = "Meeting"
    FORGETTING = "Forgetting"
    SLOT_OPEN = "SlotOpen"
    LEFTOVERS = "Leftovers"  # keys that belong to others are erased where nobody reaches them
    SLOT_CONFLICT = "SlotConflict"
    FORMING = "Forming"
    NODES_STARTING = "NodesStarting"
    NODE_PENDING = "NodePending"  # the platform cannot give a node now
    NODE_SILENT = "NodeSilent"  # a node nobody depends on does not answer
    NODE_RESTARTING = "NodeRestarting"
    REPLICA_JOINING = "ReplicaJoining"
    REBALANCING = "Rebalancing"
    REBALANCE_WANTED = "RebalanceWanted"  # mode manual: waits for /rebalance
    CONFIGURING = "Configuring"
    SHRINKING = "Shrinking"
    UPDATING = "Updating"  # nodes of an older form are replaced
    SPREADING = "Spreading"  # masters over machines


@dataclass(frozen=True, slots=True)
class Move:
    """One slot from the node that owns it to the master that shall."""

    slot: int
    source: str  # node names
    target: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing now; look again when something happens or after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ScaleShard:
    """Ask the platform that `shard` shall have nodes of ordinal 0..nodes-1 and no others."""

    shard: str
    nodes: int


@dataclass(frozen=True, slots=True)
class RestartNode:
    """Start the ended process of `node` again; `fresh`: with no old id and no old data."""

    node: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class ReplaceNode:
    """End the node gently and let it come back in its present form (image, resources)."""

    node: str


@dataclass(frozen=True, slots=True)
class Fence:
    """End the process of `node` for certain, so that nothing can be written there."""

    node: str


@dataclass(frozen=True, slots=True)
class Introduce:
    """CLUSTER MEET from `hub` to each of `nodes` at their present addresses."""

    hub: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """CLUSTER FORGET of each id at every node that answers."""

    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResetNode:
    """CLUSTER RESET HARD of an empty node: it forgets leftovers of an earlier life."""

    node: str


@dataclass(frozen=True, slots=True)
class AddSlots:
    """CLUSTER ADDSLOTSRANGE of unowned slots, by node name."""

    slots: tuple[tuple[str, SlotSet], ...]


@dataclass(frozen=True, slots=True)
class Replicate:
    """CLUSTER REPLICATE: make `node` a replica of `master`."""

    node: str
    master: str
    master_id: str


class FailoverMode(enum.Enum):
    """How a replica takes over."""

    GRACEFUL = ""  # CLUSTER FAILOVER: the master stops, hands over, nothing is lost
    FORCE = "FORCE"  # the master is dead; the other masters vote
    TAKEOVER = "TAKEOVER"  # no majority exists; only after proof that the master is dead


@dataclass(frozen=True, slots=True)
class Failover:
    """Make the replica `node` the master of its shard."""

    node: str
    mode: FailoverMode
    # FORCE only: the old master's process is proven gone, so that nothing is risked by a TAKEOVER
    # when the vote fails (voters refuse a second vote for the same master within two timeouts).
    takeover_if_refused: bool = False


@dataclass(frozen=True, slots=True)
class MoveSlots:
    """Move slots, as many as fit one slice; those already open come first."""

    moves: tuple[Move, ...]
    keys_per_second: int  # 0 = as fast as the engine goes


@dataclass(frozen=True, slots=True)
class StabilizeSlot:
    """CLUSTER SETSLOT … STABLE at `node`: it holds an open state that means nothing any more."""

    node: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseEmptyImports:
    """SETSLOT … STABLE at those importers of a slot that hold no key of it; fails if two do."""

    slot: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropLeftovers:
    """FLUSHALL at the master `node`, which owns and imports no slot: others own all its keys."""

    node: str


@dataclass(frozen=True, slots=True)
class Release:
    """Take slotless nodes out of `shard`: check, reset, forget, scale the shard to `keep`."""

    shard: str
    nodes: tuple[str, ...]
    node_ids: tuple[str, ...]
    keep: int  # how many nodes the shard has afterwards; 0 = the shard is gone


@dataclass(frozen=True, slots=True)
class Configure:
    """CONFIG SET of each (name, value) at `node`."""

    node: str
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class MarkFormed:
    """Let the platform remember that the store was formed."""


@dataclass(frozen=True, slots=True)
class MarkRebalanced:
    """Mode manual: the rebalance that was asked for is done."""


Action = (
    Wait | ScaleShard | RestartNode | ReplaceNode | Fence | Introduce | Forget | ResetNode
    | AddSlots | Replicate | Failover | MoveSlots | StabilizeSlot | CloseEmptyImports
    | DropLeftovers | Release | Configure | MarkFormed | MarkRebalanced
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next, why (one word) and in one sentence for people."""

    action: Action
    reason: Reason
    sentence: str
    healthy: bool = True  # False: the store is degraded until somebody or time mends it
