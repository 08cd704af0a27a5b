"""Keeps the slot map true: who is asked, when, and what to do when a connection ends.

Law: a request never waits for a timer to find a new owner.  Four things refresh the map: a MOVED,
a lost connection to a master (then a *hunt*: the shard's replicas are asked for their role every
10-20 ms, and one other node for its view every 100 ms or so, until the slots have a reachable
owner), a new state of the controller, and a slow timer in case all of these were missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

from shardcluster.cluster_nodes import parse_cluster_nodes
from shardcluster.observed import Address
from shardcluster.slots import SLOT_COUNT, SlotSet
from shardcluster_api.lag import measure_lag
from shardcluster_api.links import Lane, NodeLink, NotReached
from shardcluster_api.slot_map import SlotMap
from shardcluster_runtime.wire import ConnectionLost, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from shardcluster.observed import PeerView
    from shardcluster_api.limits import Limits
    from shardcluster_api.metrics import Metrics
    from shardcluster_api.slot_map import ShardRoute
    from shardcluster_runtime.wire import Credentials

__all__ = ["Topology"]

REFRESH_INTERVAL_S = 5.0  # the slow timer
# Between two refreshes that redirects ask for.  A MOVED mends its own slot at once, and taking in a
# whole view holds the event loop for milliseconds, which clients' p99 shows while slots move.
REFRESH_MIN_S = 0.5
REFRESH_FIRST_S = 0.1  # while there is no map at all
REFRESH_FANOUT = 3  # nodes asked at once; one when there is a map
HEARTBEAT_S = 0.25
ASK_TIMEOUT_S = 0.5  # for one node's view or role
LAG_INTERVAL_S = 0.5
HUNT_MIN_S, HUNT_MAX_S = 0.010, 0.020  # between two rounds, jittered
HUNT_SLOW_AFTER_S = 3.0  # then rounds come ten times slower
HUNT_SLOW_FACTOR = 10
HUNT_TOTAL_S = 60.0
HUNT_VIEW_EVERY = 6  # rounds
HUNT_REPLICAS_MAX = 5

_log = logging.getLogger(__name__)
_NODE_TROUBLE = (
    ConnectionLost, NodeReplyError, NotReached, OSError, Overloaded, ValueError, UnicodeDecodeError,
)  # fmt: skip


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


class Topology:
    """All links, the slot map, and the tasks that keep them true."""

    def __init__(
        self,
        seeds: Iterable[Address],
        credentials: Credentials,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        """`seeds` may be empty when a controller will tell of the nodes."""
        self.limits = limits
        self.seeds = list(seeds)
        self.links: dict[Address, NodeLink] = {}
        self.map = SlotMap(self.link)
        self._credentials = credentials
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._awaiting: set[asyncio.Future[None]] = set()  # who waits for news
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hunts: set[NodeLink] = set()
        self._names: dict[str, tuple[str, str]] = {}  # node id or address -> (node, shard)
        self._shape: object = None  # of the last state, to see whether it tells news
        self._closed = False

    def start(self) -> None:
        """Begin to refresh and to check nodes."""
        self._spawn(self._keep_fresh())
        self._spawn(self._keep_checking())
        self._spawn(self._keep_measuring())

    async def close(self) -> None:
        """End all tasks and connections."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self.links.values():
            link.close()
        self.notify()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of the slot map ended", exc_info=task.exception())

    def link(self, address: Address) -> NodeLink:
        """The link to an address, made when it is new."""
        link = self.links.get(address)
        if link is None:
            link = NodeLink(address, self._credentials, self._lost, lambda _link: self.notify())
            link.pending_max = self.limits.node_share
            self.links[address] = link
            self._name(link)
        return link

    # -- waiting for news ------------------------------------------------------------------

    def notify(self) -> None:
        """Wake every request that waits for the map or a link to change."""
        awaiting, self._awaiting = self._awaiting, set()
        for news in awaiting:
            _wake(news)

    async def changed(self, timeout_s: float) -> None:
        """Return at the next news, or after `timeout_s`."""
        # A future each: thousands may wait, and leaving a shared one's list of callbacks when the
        # time is over takes as long as the list is.
        news: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, _wake, news)
        self._awaiting.add(news)
        try:
            await news
        finally:
            timer.cancel()
            self._awaiting.discard(news)

    # -- what happens to links -------------------------------------------------------------

    def _lost(self, link: NodeLink) -> None:
        if self._closed:
            return
        self._metrics.node_error(link.name, "ConnectionLost")
        self.look_for_owner(link)

    def look_for_owner(self, link: NodeLink) -> None:
        """A node is out of reach: if it is a master, find out who took its slots over."""
        if link in self._hunts or self._closed:
            return
        for route in self.map.routes():
            if route.master is link:
                self._hunts.add(link)
                self._spawn(self._hunt(route, link))
                return

    async def _hunt(self, route: ShardRoute, lost: NodeLink) -> None:
        began_s = self._loop.time()
        asks: dict[NodeLink, asyncio.Task[None]] = {}
        rounds = 0
        try:
            while not lost.usable and any(r.master is lost for r in self.map.routes()):
                elapsed_s = self._loop.time() - began_s
                if elapsed_s > HUNT_TOTAL_S:
                    return
                self._hunt_round(route, lost, asks, rounds)
                rounds += 1
                slower = HUNT_SLOW_FACTOR if elapsed_s > HUNT_SLOW_AFTER_S else 1
                wait_s = random.uniform(HUNT_MIN_S, HUNT_MAX_S) * slower  # noqa: S311 - jitter
                await self.changed(wait_s)
        finally:
            self._hunts.discard(lost)
            for task in asks.values():
                task.cancel()

    def _hunt_round(
        self,
        route: ShardRoute,
        lost: NodeLink,
        asks: dict[NodeLink, asyncio.Task[None]],
        rounds: int,
    ) -> None:
        """Ask everyone who may know and whose last answer is not still due."""

        def ask(link: NodeLink, work: Coroutine[Any, Any, None]) -> None:
            if link in asks and not asks[link].done():
                work.close()
            else:
                asks[link] = asyncio.create_task(work)

        if lost.connection(Lane.MAIN) is None:
            lost.start_opening(Lane.MAIN)  # it may be back, or only the connection was cut
        for replica in route.replicas[:HUNT_REPLICAS_MAX]:
            ask(replica, self._ask_role(replica))
        if rounds % HUNT_VIEW_EVERY == 0:
            known = {lost, *route.replicas}
            others = [link for link in self.links.values() if link not in known]
            if others:
                other = random.choice(others)  # noqa: S311 - spreads the asking
                ask(other, self._ask_view(other))

    async def _ask_role(self, link: NodeLink) -> None:
        with contextlib.suppress(*_NODE_TROUBLE):
            connection = await link.open(Lane.MAIN, ASK_TIMEOUT_S)
            role = await connection.call("ROLE", timeout_s=ASK_TIMEOUT_S)
            if isinstance(role, list) and role[:1] == [b"master"]:
                await self._learn(link)

    async def _ask_view(self, link: NodeLink) -> None:
        with contextlib.suppress(*_NODE_TROUBLE):
            await self._learn(link)

    async def _learn(self, link: NodeLink) -> None:
        """Take in one node's view of the cluster."""
        connection = await link.open(Lane.MAIN, ASK_TIMEOUT_S)
        reply = await connection.call("CLUSTER", "NODES", timeout_s=ASK_TIMEOUT_S)
        if not isinstance(reply, bytes):
            message = f"{link.name} answered no text to CLUSTER NODES"
            raise ValueError(message)  # noqa: TRY004 - trouble of the node, as text that is wrong
        view = parse_cluster_nodes(reply.decode())

        def address_of(peer: PeerView) -> Address:
            if peer.address.host:
                return peer.address
            return Address(link.address.host, peer.address.port)  # it doesn't know its own host

        if self.map.apply(view.peers, address_of, self._loop.time()):
            for known in self.links.values():
                self._name(known)
            self.notify()
            self._connect_all()
            self._give_up_deposed()

    def _give_up_deposed(self) -> None:
        """What waits for a hung node that leads no shard any more will not be answered in time."""
        masters = {route.master for route in self.map.routes()}
        for link in self.links.values():
            if link.suspect and link.waiting and link not in masters:
                link.give_up()

    # -- timers ----------------------------------------------------------------------------

    def refresh_soon(self) -> None:
        """Ask some nodes for their view, but not more often than `REFRESH_MIN_S`."""
        self._wanted.set()

    async def _keep_fresh(self) -> None:
        while True:
            self._wanted.clear()
            await self._refresh()
            self._forget_unused()
            await asyncio.sleep(REFRESH_MIN_S if self.map.version else REFRESH_FIRST_S)
            if self.map.slots_owned() < SLOT_COUNT:
                continue  # a node that has just met the others doesn't know all of them yet
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_INTERVAL_S):
                    await self._wanted.wait()

    async def _refresh(self) -> None:
        links = [link for link in self.links.values() if link.connected and not link.suspect]
        if len(links) < REFRESH_FANOUT:
            seeds = [self.link(address) for address in self.seeds]
            links = list(dict.fromkeys((*links, *seeds, *self.links.values())))
        chosen = random.sample(links, min(1 if self.map.version else REFRESH_FANOUT, len(links)))
        await asyncio.gather(*map(self._ask_view, chosen))

    def _forget_unused(self) -> None:
        used = set(map(self.link, self.seeds))
        for route in self.map.routes():
            used.update((route.master, *route.replicas))
        for address, link in list(self.links.items()):
            if link not in used and link not in self._hunts and not link.waiting:
                link.close()
                del self.links[address]

    async def _keep_checking(self) -> None:
        while True:
            now_s = self._loop.time()
            for link in self.links.values():
                link.check(now_s)
            self._connect_all()
            for route in list(self.map.routes()):
                if route.master.suspect:
                    self.look_for_owner(route.master)
            self._give_up_deposed()
            await asyncio.sleep(HEARTBEAT_S)

    async def _keep_measuring(self) -> None:
        while True:
            await measure_lag(self.map.routes(), self.limits.lag_bytes_max)
            await asyncio.sleep(LAG_INTERVAL_S)

    def _connect_all(self) -> None:
        """Have connections open before they are needed: a failover must not wait for them."""
        for route in self.map.routes():
            if route.master.connection(Lane.MAIN) is None:
                route.master.start_opening(Lane.MAIN)
            for replica in route.replicas:
                for lane in Lane:
                    if replica.connection(lane) is None:
                        replica.start_opening(lane)

    # -- the controller's state ------------------------------------------------------------

    def take_state(self, state: dict[str, Any]) -> None:
        """Names and moves from the controller; news in who owns what starts a refresh."""
        names: dict[str, tuple[str, str]] = {}
        seeds: list[Address] = []
        for node in state["nodes"]:
            called = (node["name"], node["shard"])
            if node.get("host") and node.get("port"):
                address = Address(node["host"], node["port"])
                names[str(address)] = called
                if node.get("node_id"):
                    seeds.append(address)
            if node.get("node_id"):
                names[node["node_id"]] = called
        self._names = names
        self.seeds = seeds or self.seeds
        moving = SlotSet()
        for shard in state["shards"]:
            for ranges, _ in shard["moving_out"]:
                moving |= SlotSet.parse(ranges)
        self.map.set_moving(moving)
        for link in self.links.values():
            self._name(link)
        shape = [(s["name"], s["master"], s["replicas"], s["slot_ranges"]) for s in state["shards"]]
        if shape != self._shape:
            self._shape = shape
            self.refresh_soon()

    def _name(self, link: NodeLink) -> None:
        called = self._names.get(link.node_id) or self._names.get(str(link.address))
        if called is not None:
            link.name, link.shard = called
