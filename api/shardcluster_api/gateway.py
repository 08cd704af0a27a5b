"""One gateway: router, control plane and metrics, and how a request becomes an answer.

It lives in one asyncio event loop.  The fast protocol calls `answer` there; Flask's threads reach
it through `Bridge` (see app.py).  Law: `answer` never raises; whatever goes wrong is an Answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SLOT_COUNT
from shardcluster.spec import parse
from shardcluster_api.access import Role, refusal_of_role
from shardcluster_api.answers import error_answer
from shardcluster_api.control_plane import HttpControlPlane, NoControlPlane
from shardcluster_api.dashboard.hot import HotSpots
from shardcluster_api.dashboard.overview import Overview
from shardcluster_api.errors import ApiError, TooBusy
from shardcluster_api.limits import IN_FLIGHT_MAX
from shardcluster_api.metrics import Metrics
from shardcluster_api.router import Policy, Router
from shardcluster_api.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shardcluster_api.answers import Answer, Request
    from shardcluster_api.control_plane import ControlPlane
    from shardcluster_api.operations import Operation
    from shardcluster_api.settings import Settings

__all__ = ["Gateway"]

STATE_WAIT_S = 20.0  # of a long poll
STATE_RETRY_MIN_S, STATE_RETRY_MAX_S = 0.1, 2.0
UNREADY_STATUS = 503

_log = logging.getLogger(__name__)


class Gateway:
    """Everything behind the front ends; make it inside a running event loop."""

    def __init__(self, settings: Settings, control: ControlPlane | None = None) -> None:
        """`control` is given by tests and by platforms with a control plane of their own."""
        self.settings = settings
        self.control = control or _control_plane(settings)
        self.metrics = Metrics()
        self.topology = Topology(settings.seeds, settings.credentials, self.metrics)
        self.router = Router(self.topology, self.metrics)
        self.overview = Overview(self)
        self.hot_spots = HotSpots(self)
        self.draining = False
        self.in_flight = 0
        self.buffered_bytes = 0  # of bodies that the fast protocol holds
        self.state: dict[str, Any] | None = None  # the last one the controller told
        self._served_once = False
        self._following: asyncio.Task[None] | None = None
        self.metrics.watch("in_flight", "Operations under way", lambda: self.in_flight)
        self.metrics.watch("buffered_bytes", "Bodies held", lambda: self.buffered_bytes)
        self.metrics.watch("map_version", "Slot map", lambda: self.topology.map.version)
        self.metrics.watch("ready", "1 when it serves", lambda: float(not self.unready()))
        self.metrics.watch("nodes_connected", "Nodes with a connection", self._connected)

    def start(self) -> None:
        """Begin to learn about the store; requests are answered from now on."""
        self.topology.start()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Let go of everything."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.control.close()
        await self.topology.close()

    def _connected(self) -> int:
        return sum(link.connected for link in self.topology.links.values())

    def unready(self) -> str:
        """Why it can't serve, or nothing.

        Before it has ever been ready every slot needs an owner; after, any: a store that lost a
        shard still serves the others.
        """
        if self.draining:
            return "This gateway is shutting down."
        owned = self.topology.map.slots_owned()
        if owned < (1 if self._served_once else SLOT_COUNT):
            return f"Only {owned} of {SLOT_COUNT} slots have a known owner."
        if not self._connected():
            return "No node of the store is reachable."
        self._served_once = True
        return ""

    @contextlib.contextmanager
    def admitted(self, operations: int) -> Iterator[None]:
        """Count operations under way; raises TooBusy over the limit."""
        if self.in_flight + operations > IN_FLIGHT_MAX:
            message = f"{self.in_flight} operations are under way; the limit is {IN_FLIGHT_MAX}."
            raise TooBusy(message)
        self.in_flight += operations
        try:
            yield
        finally:
            self.in_flight -= operations

    def role_of(self, headers: Mapping[bytes, bytes], query: str) -> Role:
        """What the sender of a request may do, by its token."""
        del headers, query
        return Role.ADMIN

    async def answer(self, operation: Operation, request: Request) -> Answer:
        """Carry out one request."""
        began_s = time.perf_counter()
        try:
            refusal = refusal_of_role(request.role, operation.role)
            answer = (
                error_answer(refusal)
                if refusal is not None
                else await operation.handler(self, request)
            )
        except ApiError as error:
            answer = error_answer(error)
        except Exception:  # noqa: BLE001 - a bug of ours: the log gets it, the client a 500
            _log.exception("%s failed", operation.name)
            answer = error_answer(ApiError(500, "InternalError", "The gateway failed on this."))
        self.metrics.answered(operation.name, answer.status, time.perf_counter() - began_s)
        return answer

    async def _follow(self) -> None:
        """Long-poll the controller's state for as long as the gateway lives."""
        if isinstance(self.control, NoControlPlane):
            return
        wait_s = STATE_RETRY_MIN_S
        since: int | None = None
        while True:
            try:
                state = await self.control.state(since, STATE_WAIT_S)
                self.topology.take_state(state)
                spec = parse(state["spec"])
                self.router.policy = Policy(spec.read_from, spec.gateway.durability)
                since, self.state = state["version"], state
                wait_s = STATE_RETRY_MIN_S
            except ApiError:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, STATE_RETRY_MAX_S)
                since = None  # another controller may count versions anew
            except (KeyError, TypeError, ValueError, AttributeError, IndexError):
                _log.exception("the controller's state can't be understood")
                await asyncio.sleep(STATE_RETRY_MAX_S)
                since = None

    def view(self) -> dict[str, Any]:
        """What the gateway itself sees, for /status."""
        topology = self.topology
        slots: dict[int, int] = {}
        for route in topology.map.owners:
            slots[id(route)] = slots.get(id(route), 0) + 1
        return {
            "ready": not self.unready(),
            "map_version": topology.map.version,
            "slots_owned": topology.map.slots_owned(),
            "requests": self.metrics.total,
            "in_flight": self.in_flight,
            "nodes_connected": self._connected(),
            "shards": [
                {
                    "name": route.name,
                    "slots": slots.get(id(route), 0),
                    "master": route.master.name,
                    "replicas": [link.name for link in route.replicas],
                }
                for route in topology.map.routes()
            ],
            "nodes": [
                {
                    "name": link.name,
                    "address": str(address),
                    "connected": link.connected,
                    "suspect": link.suspect,
                    "left_out": not link.readable(asyncio.get_running_loop().time()),
                    "waiting": link.waiting,
                }
                for address, link in sorted(topology.links.items())
            ],
        }


def _control_plane(settings: Settings) -> ControlPlane:
    if settings.controller_url:
        return HttpControlPlane(settings.controller_url)
    if settings.resource is None:
        return NoControlPlane()
    # Only there is the client of Kubernetes installed for sure, and loading it takes a while.
    from shardcluster_api.kubernetes_control_plane import KubernetesControlPlane  # noqa: PLC0415

    return KubernetesControlPlane(*settings.resource)
