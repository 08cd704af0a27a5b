"""What the control loop needs from the place where nodes run.

Every platform passes the same contract test (`tests/cluster/test_platform_contract.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.observed import Address
    from shardcluster_runtime.wire import Credentials

__all__ = ["Platform", "PlatformNode", "PlatformUnable"]


class PlatformUnable(Exception):
    """The platform can't do this now; the message is a sentence for the status."""


@dataclass(frozen=True, slots=True)
class PlatformNode:
    """A place where a node of the store runs or shall run."""

    name: str  # "shard-0-1"
    shard: str  # "shard-0"
    ordinal: int
    address: Address | None  # None: not known yet
    ended: bool = False  # proven: no process of this node runs (reaped, pod gone, unlisted)
    pending: str = ""  # why it could not be started yet; a sentence
    process_id: int | None = None  # where that means something, for people
    ending: bool = False  # its end was asked for (by us or others) and it may still run
    outdated: bool = False  # it runs in another form than it would be started in now
    emptied: bool = False  # ended, and the storage that it had is seen to be gone
    machine: str | None = None  # where it runs, where there are several machines
    known_id: str | None = None  # its node id, where the platform itself knows it


class Platform(Protocol):
    """Its verbs are idempotent and bounded in time, and raise PlatformUnable with a sentence."""

    can_fence: bool  # `fence` can end a node's process and prove it
    can_restart: bool  # `restart` can start an ended node again, or put another in its place
    formed_before: bool  # the store was formed once (survives the controller)

    @property
    def keeps_data(self) -> bool:
        """Whether nodes have storage that outlives their process."""
        ...

    @property
    def credentials(self) -> Credentials:
        """How to log in to the nodes."""
        ...

    async def start(self, wake: Callable[[], None]) -> None:
        """Get ready; call `wake()` whenever something changed that the loop should look at."""
        ...

    async def nodes(self) -> tuple[PlatformNode, ...]:
        """All places of the store, sorted by shard number and ordinal; reads the world afresh."""
        ...

    async def spare_nodes(self) -> int | None:
        """How many empty nodes could be taken into use; None = any number can be started."""
        ...

    async def scale_shard(self, shard: str, nodes: int) -> None:
        """Let the shard have the places of ordinal 0..nodes-1 and no others.

        New places start empty under a new id.  A place that is dropped loses its process and
        its data: the caller has made sure that nothing is needed of it.
        """
        ...

    async def restart(self, node: str, *, fresh: bool) -> None:
        """Start the ended process of a place again; `fresh` drops its old data and id first.

        Does nothing when it runs.
        """
        ...

    async def replace(self, node: str) -> None:
        """End the node gently; it comes back, or is started again by the loop, as it shall be now.

        The caller has made sure that it leads no shard that somebody else could lead.
        """
        ...

    async def fence(self, node: str) -> None:
        """End the node's process and return only when it is proven gone."""
        ...

    async def mark_formed(self) -> None:
        """Remember that the store was formed."""
        ...

    async def kill(self, node: str, signal_name: str) -> None:
        """For trying things: send SIGKILL, SIGSTOP or SIGCONT to the node's process."""
        ...

    async def close(self, *, stop_nodes: bool) -> None:
        """Let go; with `stop_nodes` end the nodes cleanly, their data on disk."""
        ...
