"""Hot slots, as the engine counts them, and hot keys, as this gateway sees them pass.

Law: an engine that can't tell is no error; the answer then says so in a sentence.  The engine's
figures are sums since the node took the slot over; whoever wants a rate takes two looks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardcluster.slots import key_slot
from shardcluster_api.codec import bytes_fields
from shardcluster_api.dashboard.once import SharedLook
from shardcluster_api.errors import BadRequest
from shardcluster_api.links import Lane
from shardcluster_runtime.wire import ConnectionLost, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.slot_map import ShardRoute

__all__ = ["METRICS", "HotSpots"]

METRICS = ("key-count", "cpu-usec", "network-bytes-in", "network-bytes-out")
FRESH_S = 2.0
NODE_TIMEOUT_S = 0.5
SLOTS_SHOWN_MAX = 10
KEYS_SHOWN_MAX = 10
KEY_SHOWN_BYTES_MAX = 256
_TROUBLE = (ConnectionLost, OSError, Overloaded)
_OLD_ENGINE = (
    "These nodes' engine can't tell: CLUSTER SLOT-STATS came with Valkey 8.0 and Redis 8.2."
)
_SWITCHED_OFF = (
    "The nodes don't count this: it needs cluster-slot-stats-enabled yes in their configuration "
    "(CONFIG SET cluster-slot-stats-enabled yes on each node). Keys are counted in any case."
)
_SILENT = "No master answered."

Document = dict[str, Any]


class HotSpots:
    """What is hot, for one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        """Nothing is asked before somebody looks."""
        self._gateway = gateway
        self._slots = {
            metric: SharedLook(lambda metric=metric: self._look(metric), FRESH_S)  # type: ignore[misc]
            for metric in METRICS
        }

    async def document(self, metric: str) -> Document:
        """As `GET /v1/hot` gives it; raises BadRequest for a metric that is none."""
        if metric not in self._slots:
            message = f'"by" must be one of {", ".join(METRICS)}.'
            raise BadRequest(message)
        return {"slots": await self._slots[metric].get(), "keys": self._keys()}

    def _keys(self) -> Document:
        hot_keys, slot_map = self._gateway.router.hot_keys, self._gateway.topology.map
        top = []
        for found in hot_keys.top(KEYS_SHOWN_MAX):
            slot = key_slot(found.key)
            route = slot_map.owners[slot]
            shown = found.key[:KEY_SHOWN_BYTES_MAX]
            top.append({
                **bytes_fields("key", shown),
                "cut": len(found.key) > len(shown),
                "share": round(found.share, 4),
                "error": round(found.error, 4),
                "slot": slot,
                "shard": None if route is None else route.name,
            })  # fmt: skip
        return {"one_in": hot_keys.every, "top": top}

    async def _look(self, metric: str) -> Document:
        routes = self._gateway.topology.map.routes()
        answers = await asyncio.gather(*(_of_master(route, metric) for route in routes))
        top = sorted(
            (row for rows in answers if isinstance(rows, list) for row in rows),
            key=lambda row: (-row[metric], row["slot"]),
        )[:SLOTS_SHOWN_MAX]
        refusals = [refusal for refusal in answers if isinstance(refusal, str) and refusal]
        silent = [] if any(isinstance(rows, list) for rows in answers) else [_SILENT]
        return {"by": metric, "top": top, "note": next(iter((*refusals, *silent)), "")}


async def _of_master(route: ShardRoute, metric: str) -> list[Document] | str:
    """The master's hottest slots, or why it can't tell ("" when it is only away)."""
    connection = route.master.connection(Lane.MAIN)
    if connection is None or route.master.suspect:
        return ""
    command = ("CLUSTER", "SLOT-STATS", "ORDERBY", metric, "LIMIT", SLOTS_SHOWN_MAX, "DESC")
    try:
        reply = await connection.call(*command, timeout_s=NODE_TIMEOUT_S)
    except NodeReplyError as error:
        unknown = "subcommand" in str(error).lower()
        return _OLD_ENGINE if unknown or metric == METRICS[0] else _SWITCHED_OFF
    except _TROUBLE:
        return ""
    return [_row(slot, counted, route.name) for slot, counted in reply]


def _row(slot: int, counted: list[Any], shard: str) -> Document:
    """RESP2 has no maps: names and numbers take turns."""
    pairs = zip(counted[::2], counted[1::2], strict=False)
    return {"slot": slot, "shard": shard, **{name.decode(): value for name, value in pairs}}
