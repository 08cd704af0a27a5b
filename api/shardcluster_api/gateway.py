"""One gateway: router, control plane and metrics, and how a request becomes an answer.

It lives in one asyncio event loop.  The fast protocol calls `answer` there; Flask's threads reach
it through `Bridge` (see app.py).  Law: `answer` never raises; whatever goes wrong is an Answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SLOT_COUNT
from shardcluster.spec import parse
from shardcluster_api.access import Role, refusal_of_role
from shardcluster_api.control_plane import HttpControlPlane, NoControlPlane
from shardcluster_api.dashboard.hot import HotSpots
from shardcluster_api.dashboard.overview import Overview
from shardcluster_api.errors import ApiError, TooBusy
from shardcluster_api.fast import FastLane
from shardcluster_api.gauges import attach_gauges
from shardcluster_api.known_heads import KnownHeads
from shardcluster_api.metrics import Metrics
from shardcluster_api.router import Policy, Router
from shardcluster_api.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from shardcluster_api.answers import Answer, Request
    from shardcluster_api.control_plane import ControlPlane
    from shardcluster_api.files import Followed
    from shardcluster_api.operations import Operation
    from shardcluster_api.settings import Settings

__all__ = ["Gateway"]

STATE_WAIT_S = 20.0  # of a long poll
STATE_RETRY_MIN_S, STATE_RETRY_MAX_S = 0.1, 2.0
UNREADY_STATUS = 503
RELOAD_INTERVAL_S = 1.0  # between two looks at the files that may change

_log = logging.getLogger(__name__)


class Gateway:
    """Everything behind the front ends; make it inside a running event loop."""

    def __init__(self, settings: Settings, control: ControlPlane | None = None) -> None:
        """`control` is given by tests and by platforms with a control plane of their own."""
        self.settings = settings
        self.control = control or _control_plane(settings)
        self.metrics = Metrics()
        self.limits = settings.limits
        self.topology = Topology(
            settings.seeds, settings.credentials, self.metrics, settings.limits
        )
        self.router = Router(self.topology, self.metrics)
        self.fast = FastLane(self)
        self.known_heads = KnownHeads()
        self.overview = Overview(self)
        self.hot_spots = HotSpots(self)
        self.draining = False
        followed = (settings.tokens, settings.https, settings.node_tls)
        self.followed: list[Followed] = [file for file in followed if file is not None]
        self.in_flight = 0
        self.subscribers = 0  # who listens to channels
        self.buffered_bytes = 0  # of bodies that the fast protocol holds
        self.unsent_bytes = 0  # of answers that the fast protocol could not hand over yet
        self.state: dict[str, Any] | None = None  # the last one the controller told
        self._served_once = False
        self._tasks: list[asyncio.Task[None]] = []
        self.connections: Callable[[], int] = lambda: 0  # of clients; the front end knows
        self.controller_reachable = False
        attach_gauges(self)

    def start(self) -> None:
        """Begin to learn about the store; requests are answered from now on."""
        self.topology.start()
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._reload())]

    async def close(self) -> None:
        """Let go of everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
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

    @property
    def under_way(self) -> int:
        """Operations, those on the short way included."""
        return self.in_flight + self.fast.under_way

    def full(self, operations: int) -> bool:
        """Whether so many more are over the limit."""
        return self.under_way + operations > self.limits.in_flight_max

    @contextlib.contextmanager
    def admitted(self, operations: int) -> Iterator[None]:
        """Count operations under way; raises TooBusy over the limit."""
        if self.full(operations):
            limit = self.limits.in_flight_max
            message = f"{self.under_way} operations are under way; the limit is {limit}."
            raise TooBusy(message)
        self.in_flight += operations
        try:
            yield
        finally:
            self.in_flight -= operations

    def role_of(self, headers: Mapping[bytes, bytes], query: str) -> Role:
        """What the sender of a request may do, by its token."""
        tokens = self.settings.tokens
        return Role.ADMIN if tokens is None else tokens.role_of(headers, query)

    async def answer(self, operation: Operation, request: Request) -> Answer:
        """Carry out one request."""
        began_s = time.perf_counter()
        try:
            refusal = refusal_of_role(request.role, operation.role)
            if refusal is not None:
                self.metrics.failed(operation.name, refusal.code)
            answer = (
                operation.error(refusal)
                if refusal is not None
                else await operation.handler(self, request)
            )
        except ApiError as error:
            self.metrics.failed(operation.name, error.code)
            answer = operation.error(error)
        except Exception:  # noqa: BLE001 - a bug of ours: the log gets it, the client a 500
            _log.exception("%s failed", operation.name)
            self.metrics.failed(operation.name, "InternalError")
            answer = operation.error(ApiError(500, "InternalError", "The gateway failed on this."))
        if self.settings.cors.origins:
            answer = self.settings.cors.marked(answer, request.headers.get(b"origin"))
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
                self.controller_reachable = True
                self.topology.take_state(state)
                # Told many times a second in trouble.
                if self.state is None or state["spec"] != self.state["spec"]:
                    spec = parse(state["spec"])
                    self.router.policy = Policy(spec.read_from, spec.gateway.durability)
                since, self.state = state["version"], state
                wait_s = STATE_RETRY_MIN_S
            except ApiError:
                self.controller_reachable = False
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, STATE_RETRY_MAX_S)
                since = None  # another controller may count versions anew
            except (KeyError, TypeError, ValueError, AttributeError, IndexError):
                _log.exception("the controller's state can't be understood")
                await asyncio.sleep(STATE_RETRY_MAX_S)
                since = None

    async def _reload(self) -> None:
        """Take in files that change while the gateway lives."""
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            for file in self.followed:
                file.reload()

    def view(self) -> dict[str, Any]:
        """What the gateway itself sees, for /status."""
        topology = self.topology
        slots = Counter(map(id, topology.map.owners))
        return {
            "ready": not self.unready(),
            "map_version": topology.map.version,
            "slots_owned": topology.map.slots_owned(),
            "requests": self.metrics.total,
            "in_flight": self.under_way,
            "nodes_connected": self._connected(),
            "shards": [
                {
                    "name": route.name,
                    "slots": slots[id(route)],
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
