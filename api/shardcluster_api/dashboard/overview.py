"""What the dashboard shows, in one document: the controller's state and the nodes' numbers.

Law: however many browsers look, the control plane and each node are asked at most once a second,
and only while somebody looks.  What can't be learned is missing or null, never made up: without a
controller the shards come from the gateway's own slot map.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SLOT_COUNT, SlotSet
from shardcluster_api.control_plane import NoControlPlane
from shardcluster_api.dashboard.numbers import NodeNumbers
from shardcluster_api.dashboard.once import SharedLook
from shardcluster_api.errors import ApiError

if TYPE_CHECKING:
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.slot_map import ShardRoute

__all__ = ["Overview"]

FRESH_S = 0.9  # browsers ask once a second

Document = dict[str, Any]


class Overview:
    """The document, for one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        """Nothing is asked before somebody looks."""
        self._gateway = gateway
        self._numbers = NodeNumbers()
        self._shared = SharedLook(self._look, FRESH_S)
        self._slots: dict[ShardRoute, list[int]] = {}
        self._slots_version = -1

    async def document(self) -> Document:
        """As `GET /v1/overview` gives it."""
        return await self._shared.get()

    async def _look(self) -> Document:
        gateway = self._gateway
        (state, controller), numbers = await asyncio.gather(
            self._state(), self._numbers.look(list(gateway.topology.links.values()))
        )
        owned = self._owned()
        if not state:
            state = {"shards": _shards(owned), "nodes": _nodes(gateway)}
        away = [route for route in owned if route.master.out_of_reach]
        return {
            **state,
            **controller,
            "numbers": numbers,
            "gateway": {
                "why_not_ready": gateway.unready(),
                "requests": gateway.metrics.total,
                "in_flight": gateway.in_flight,
                "slots_without_owner": SLOT_COUNT - gateway.topology.map.slots_owned(),
                "masters_out_of_reach": {route.master.name: len(owned[route]) for route in away},
            },
        }

    async def _state(self) -> tuple[Document, Document]:
        """The controller's state (when it is away the last one it told), and how it is."""
        control = self._gateway.control
        if isinstance(control, NoControlPlane):
            return {}, {"controller": "none"}
        try:
            return await control.state(), {"controller": "reachable"}
        except ApiError as error:
            away = {"controller": "unreachable", "controller_message": str(error)}
            return self._gateway.state or {}, away

    def _owned(self) -> dict[ShardRoute, list[int]]:
        """Who owns which slots by the gateway's map; made anew only when that has changed."""
        slot_map = self._gateway.topology.map
        if self._slots_version != slot_map.version:
            found: dict[ShardRoute, list[int]] = {}
            for slot, route in enumerate(slot_map.owners):
                if route is not None:
                    found.setdefault(route, []).append(slot)
            self._slots, self._slots_version = found, slot_map.version
        return self._slots


def _shards(owned: dict[ShardRoute, list[int]]) -> list[Document]:
    """Shards in the state document's form, as far as the gateway knows them."""
    return [
        {
            "name": route.name,
            "state": "Lost" if route.master.out_of_reach else "Ready",
            "slots": len(slots),
            "slot_ranges": str(SlotSet.of(slots)),
            "master": route.master.name,
            "replicas": [replica.name for replica in route.replicas],
            "moving_out": [],
        }
        for route, slots in owned.items()
    ]


def _nodes(gateway: Gateway) -> list[Document]:
    return [
        {
            "name": link.name,
            "shard": route.name,
            "role": "master" if link is route.master else "replica",
            "health": "Up" if link.connected and not link.suspect else "Unknown",
            "host": link.address.host,
            "port": link.address.port,
        }
        for route in gateway.topology.map.routes()
        for link in (route.master, *route.replicas)
    ]
