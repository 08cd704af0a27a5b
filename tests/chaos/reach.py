"""Where a real store is, and how one of its nodes is asked: all that clients and onlookers need.

Used on the machine that the processes run on, and inside a cluster (`tests/chaos/k8s_inside.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shardcluster_runtime.wire import ConnectionLost, Credentials, NodeConnection, NodeReplyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardcluster.observed import Address

__all__ = ["Command", "NodeRecord", "Reach", "Trouble", "ask_node", "now_ms"]

ASK_TIMEOUT_S = 1.0

Command = tuple[str | int, ...]


class Trouble(Exception):
    """The store can't be asked now; a sentence."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as its platform knows it."""

    name: str
    address: Address
    pid: int = 0  # of its process, where that can be told

    @property
    def shard(self) -> str:
        """The shard's name."""
        return self.name.rpartition("-")[0]


class Reach(Protocol):
    """The way to a store."""

    @property
    def gateway(self) -> Address:
        """Where its HTTP API is, now."""
        ...

    @property
    def credentials(self) -> Credentials:
        """For its nodes."""
        ...

    def nodes(self) -> Sequence[NodeRecord]:
        """Those that may answer, by name."""
        ...


def now_ms() -> int:
    """The clock of a history."""
    return int(time.monotonic() * 1000)


async def ask_node(reach: Reach, node: NodeRecord, *commands: Command) -> list[Any]:
    """The replies; raises Trouble when it is silent."""
    try:
        connection = await NodeConnection.open(
            node.address, timeout_s=ASK_TIMEOUT_S, credentials=reach.credentials
        )
        try:
            return await connection.calls(commands, timeout_s=ASK_TIMEOUT_S)
        finally:
            connection.close()
    except (OSError, TimeoutError, ConnectionLost, NodeReplyError) as error:
        message = f"{node.name}: {error!r}"
        raise Trouble(message) from error
