"""Look at every node once: the I/O half of a pass.

Law: one open connection a node, all nodes in parallel, each bounded.  A node that was silent in
the last pass is not waited for in this one: when its answer comes, it is waited for in the next.
What is reported is what was heard now; of the past only `silent_ms` and, of a node's last answer,
its id and whether it led are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster.cluster_nodes import parse_cluster_nodes, parse_info
from shardcluster.observed import NodeView, Observed, ObservedNode, Role
from shardcluster_runtime.wire import ConnectionLost, NodeConnection, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shardcluster.observed import Address, PeerView
    from shardcluster_runtime.platforms.protocol import Platform, PlatformNode

__all__ = ["Observer"]

PASS_WAIT_S = 0.4  # how long a pass waits for nodes that answered in the last one
CONNECT_TIMEOUT_S = 1.0
PROBE_TIMEOUT_S = 5.0  # after this a probe is given up and the connection made anew
PARALLEL_PROBES_MAX = 64
GLANCE_TIMEOUT_S = 0.5
NO_HISTORY = "0" * 40  # as the engine writes that there was none before
FIRST_TO_KEEP = 8  # major version of the first Valkey whose replicas are told of open slots
# Of CLUSTER INFO: what a death, a hang, a vote or a move of slots changes on every node.
_TELLING = re.compile(
    rb"^cluster_(?:state|slots_\w+|known_nodes|size|current_epoch|my_epoch):.*$", re.MULTILINE
)
_ACKED = re.compile(r"^ip=.*,state=online,offset=([1-9]\d*)")  # of a replica, as its master tells


@dataclass(slots=True)
class _Watch:
    """What is kept of one place between passes."""

    address: Address
    last_answer_s: float
    connection: NodeConnection | None = None
    probe: asyncio.Task[NodeView | None] | None = None
    silent: bool = False
    heard: bool = False
    refused: bool = False
    loading: bool = False
    trouble: str = ""
    known_id: str | None = None
    led_epoch: int = 0
    digest: tuple[bytes, ...] = ()  # of its last CLUSTER INFO


class Observer:
    """Keeps the connections and turns one round of answers into an `Observed`."""

    def __init__(
        self,
        platform: Platform,
        wake: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`wake` is called in the moment a node's connection ends; `clock` gives Unix time, s."""
        self._platform = platform
        self._wake = wake
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._limit = asyncio.Semaphore(PARALLEL_PROBES_MAX)
        self._glances = 0
        self.settings: tuple[str, ...] = ()  # names of the engine settings to read

    def connection(self, node: str) -> NodeConnection | None:
        """The open connection to a node, if there is one now."""
        watch = self._watches.get(node)
        connection = watch.connection if watch else None
        return connection if connection is not None and not connection.closed else None

    async def observe(self, *, rebalance_asked: bool = False) -> Observed:
        """One pass.  Raises what the platform raises when it can't list its nodes."""
        places = await self._platform.nodes()
        self._follow(places)
        await self._probe(places)
        return Observed(
            nodes=tuple(self._seen(place) for place in places),
            now_ms=int(self._clock() * 1000),
            spare_nodes=await self._platform.spare_nodes(),
            formed_before=self._platform.formed_before,
            can_fence=self._platform.can_fence,
            can_restart=self._platform.can_restart,
            rebalance_asked=rebalance_asked,
            keeps_data=self._platform.keeps_data,
        )

    async def glance(self) -> bool:
        """Ask one node, another each time, whether it sees what it saw last; False if not.

        Far cheaper than a pass; what no event tells (a hang, a machine without power) is seen by
        any node's gossip.  A node that had not answered in the last pass is not asked.
        """
        asked = [watch for watch in self._watches.values() if not watch.silent]
        if not asked:
            return True
        self._glances += 1
        watch = asked[self._glances % len(asked)]
        if watch.connection is None:
            return False
        try:
            answer = await watch.connection.call("CLUSTER", "INFO", timeout_s=GLANCE_TIMEOUT_S)
        except (OSError, TimeoutError, NodeReplyError, Overloaded):
            return False
        return _digest(answer) == watch.digest

    async def close(self) -> None:
        """End all connections."""
        for watch in self._watches.values():
            await _drop(watch)
        self._watches.clear()

    def _follow(self, places: Iterable[PlatformNode]) -> None:
        """Keep exactly one watch for every place that has an address."""
        addresses = {place.name: place.address for place in places}
        for name, watch in list(self._watches.items()):
            if addresses.get(name) != watch.address:
                self._forget(name)
                if (address := addresses.get(name)) is not None:
                    # In another process it leads nothing any more, unless its disk has it.
                    led_epoch = watch.led_epoch if self._platform.keeps_data else 0
                    self._watches[name] = _Watch(
                        address, self._clock(), known_id=watch.known_id, led_epoch=led_epoch
                    )
        for name, address in addresses.items():
            if address is not None and name not in self._watches:
                self._watches[name] = _Watch(address, self._clock())

    def _forget(self, name: str) -> None:
        watch = self._watches.pop(name)
        if watch.probe is not None:
            watch.probe.cancel()
        if watch.connection is not None:
            watch.connection.close()

    async def _probe(self, places: Iterable[PlatformNode]) -> None:
        ended = {place.name for place in places if place.ended}
        waited_for: list[asyncio.Task[NodeView | None]] = []
        for name, watch in self._watches.items():
            back = watch.probe is not None and _answer(watch.probe) is not None
            if watch.probe is None or watch.probe.done():
                watch.probe = asyncio.create_task(self._look(watch))
            if back or not watch.silent or name in ended:
                waited_for.append(watch.probe)
        if waited_for:
            await asyncio.wait(waited_for, timeout=PASS_WAIT_S)
        else:
            await asyncio.sleep(0)

    async def _look(self, watch: _Watch) -> NodeView | None:
        watch.refused = watch.loading = False
        async with self._limit:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    view = await self._ask(watch)
            except ConnectionRefusedError:
                watch.refused = True
                return None
            except NodeReplyError as error:
                watch.loading = error.code == "LOADING"
                watch.trouble = "" if watch.loading else str(error)
                if watch.loading:
                    watch.last_answer_s = self._clock()
                return None
            except (OSError, TimeoutError, ConnectionLost, Overloaded, ValueError) as error:
                watch.trouble = str(error) or "It did not answer in time."
                if watch.connection is not None:
                    watch.connection.close()
                return None
        watch.trouble = ""
        watch.last_answer_s, watch.heard = self._clock(), True
        watch.known_id = view.node_id
        watch.led_epoch = view.myself.config_epoch if view.slots else 0
        return view

    async def _ask(self, watch: _Watch) -> NodeView:
        if watch.connection is None or watch.connection.closed:
            watch.connection = await NodeConnection.open(
                watch.address,
                timeout_s=CONNECT_TIMEOUT_S,
                credentials=self._platform.credentials,
                on_closed=lambda _connection: self._wake(),
            )
            watch.connection.watch_closely()
        asked_ms = self._clock() * 1000
        replies = await _read(watch.connection, self.settings)
        watch.digest = _digest(replies[1])
        return _by_our_clock(replies, asked_ms, self._clock() * 1000)

    def _seen(self, place: PlatformNode) -> ObservedNode:
        watch = self._watches.get(place.name)
        if watch is None:
            return ObservedNode(
                place.name, place.shard, place.ordinal, place.address,
                ended=place.ended, pending=place.pending, outdated=place.outdated,
                emptied=place.emptied, ending=place.ending, machine=place.machine,
                known_id=place.known_id,
            )  # fmt: skip
        view = _answer(watch.probe) if watch.probe is not None else None
        if view is not None and (watch.connection is None or watch.connection.closed):
            view = None  # it answered and ended before the pass was over
        watch.silent = view is None
        silent_s = 0.0 if view is not None else self._clock() - watch.last_answer_s
        return ObservedNode(
            name=place.name,
            shard=place.shard,
            ordinal=place.ordinal,
            address=place.address,
            view=view,
            ended=place.ended,
            refused=watch.refused and view is None,
            loading=watch.loading and view is None,
            silent_ms=int(max(silent_s, 0.0) * 1000),
            heard=watch.heard,
            known_id=watch.known_id or place.known_id,
            led_epoch=watch.led_epoch,
            pending=place.pending,
            ending=place.ending,
            outdated=place.outdated,
            emptied=place.emptied,
            machine=place.machine,
            trouble=watch.trouble if view is None else "",
        )


def _answer(probe: asyncio.Task[NodeView | None]) -> NodeView | None:
    return probe.result() if probe.done() and not probe.cancelled() else None


async def _drop(watch: _Watch) -> None:
    if watch.probe is not None:
        watch.probe.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await watch.probe
    if watch.connection is not None:
        watch.connection.close()


async def _read(connection: NodeConnection, settings: tuple[str, ...]) -> list[Any]:
    """Everything a pass wants to know of one node, in one round trip.

    Raises NodeReplyError when the node refuses (LOADING, NOAUTH) and ConnectionLost.
    """
    commands: list[tuple[str, ...]] = [
        ("CLUSTER", "NODES"),
        ("CLUSTER", "INFO"),
        ("INFO", "server", "memory", "stats", "replication"),
        ("DBSIZE",),
    ]
    if settings:
        commands.append(("CONFIG", "GET", *settings))
    replies = await connection.calls(commands)
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise NodeReplyError(str(reply))
    return replies


def _digest(cluster_info: bytes) -> tuple[bytes, ...]:
    return tuple(_TELLING.findall(cluster_info))


def _set_back(peers: tuple[PeerView, ...], by_ms: int) -> tuple[PeerView, ...]:
    return tuple(
        dataclasses.replace(peer, pong_ms=peer.pong_ms - by_ms) if peer.pong_ms else peer
        for peer in peers
    )


def _by_our_clock(replies: list[Any], asked_ms: float, answered_ms: float) -> NodeView:
    """The replies of `_read` in one; raises ValueError for one that can't be read.

    The times in it are by the clock of the node's machine.  It answered between two moments of
    ours: as far as its clock is outside of them it is wrong, or ours is, and they are put right.
    """
    info = parse_info(replies[2].decode(errors="replace"))
    theirs_ms = int(info.get("server_time_usec", "0")) / 1000
    wrong_ms = round(theirs_ms - min(max(theirs_ms, asked_ms), answered_ms)) if theirs_ms else 0
    return _view(replies, info, wrong_ms)


def _view(replies: list[Any], info: dict[str, str], wrong_ms: int) -> NodeView:
    nodes = parse_cluster_nodes(replies[0].decode())
    cluster = parse_info(replies[1].decode())
    config = [value.decode(errors="replace") for value in replies[4]] if len(replies) > 4 else []
    myself = next((peer for peer in nodes.peers if "myself" in peer.flags), None)
    if myself is None:
        message = "CLUSTER NODES without the node itself"
        raise ValueError(message)
    replica = info.get("role") == "slave"
    down_s = int(info.get("master_link_down_since_seconds", "0"))
    return NodeView(
        node_id=myself.node_id,
        role=Role.REPLICA if "slave" in myself.flags else Role.MASTER,
        master_id=myself.master_id,
        peers=_set_back(nodes.peers, wrong_ms) if wrong_ms else nodes.peers,
        migrating=nodes.migrating,
        importing=nodes.importing,
        current_epoch=int(cluster.get("cluster_current_epoch", "0")),
        cluster_ok=cluster.get("cluster_state") == "ok",
        keys=int(replies[3]),
        used_memory_bytes=int(info.get("used_memory", "0")),
        max_memory_bytes=int(info.get("maxmemory", "0")),
        history=info.get("master_replid", ""),
        history_before="" if (before := info.get("master_replid2", "")) == NO_HISTORY else before,
        offset=int(info.get("slave_repl_offset" if replica else "master_repl_offset", "0")),
        link_up=not replica or info.get("master_link_status") == "up",
        link_down_ms=-1 if down_s < 0 else down_s * 1000,
        syncing=info.get("master_sync_in_progress", "0") == "1",
        acked=tuple(int(found[1]) for value in info.values() if (found := _ACKED.search(value))),
        half=replica and "master" in myself.flags,
        ops_per_second=int(info.get("instantaneous_ops_per_sec", "0")),
        version=info.get("valkey_version") or info.get("redis_version", ""),
        keeps_open_slots=int(info.get("valkey_version", "0").partition(".")[0]) >= FIRST_TO_KEEP,
        config=tuple(zip(config[::2], config[1::2], strict=True)),
    )
