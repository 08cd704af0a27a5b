"""How far replicas are behind, asked of the nodes themselves.

Law: a replica that is further behind its master than the limit, or cut off from it, gets no reads
while the master can answer them.  Master and replicas are asked in the same moment, so that what
is written meanwhile does not count; who doesn't answer keeps the figure it had.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from shardcluster_api.links import Lane
from shardcluster_runtime.wire import ConnectionLost, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardcluster_api.links import NodeLink
    from shardcluster_api.slot_map import ShardRoute

__all__ = ["measure_lag"]

ANSWER_TIMEOUT_S = 0.5


async def measure_lag(routes: Iterable[ShardRoute], limit_bytes: int) -> None:
    """Ask all nodes of the shards for their offset, and mark the replicas that lag."""
    await asyncio.gather(*(_measure(route, limit_bytes) for route in routes if route.replicas))


async def _measure(route: ShardRoute, limit_bytes: int) -> None:
    links = tuple(route.replicas)  # the route's own may be others when the answers are here
    master, *replicas = await asyncio.gather(*map(_role, (route.master, *links)))
    if master is None or master[0] != b"master":
        return
    for link, role in zip(links, replicas, strict=True):
        if role is None or role[0] != b"slave":
            continue
        link.lag_bytes = max(0, master[1] - role[4])
        link.lagging = role[3] != b"connected" or link.lag_bytes > limit_bytes


async def _role(link: NodeLink) -> list[Any] | None:
    """The answer to ROLE, whose offset is the second item of a master's, a replica's last."""
    connection = link.connection(Lane.MAIN)
    if connection is None or link.suspect:
        return None
    with contextlib.suppress(ConnectionLost, NodeReplyError, Overloaded, TimeoutError):
        role: list[Any] = await connection.call("ROLE", timeout_s=ANSWER_TIMEOUT_S)
        return role
    return None
