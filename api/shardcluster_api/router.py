"""Sends one command to the node that should answer it, and deals with every way that can fail.

Law: one deadline for everything a request goes through.  A write that surely was not applied
(refused connection, redirect, a node that is loading or not in charge) is tried again until then;
one that left this process and got no answer is `OutcomeUnknown` and is never sent again.  Reads
have no such trouble: they are asked of another node when one is slow or broken.

A slow node holds up only its own requests: connections are per node, nothing here waits while
holding something that another request needs, and those that wait for one node may not become so
many that the gateway's own limit turns away the requests to the others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import hiredis

from shardcluster.observed import Address
from shardcluster.spec_model import Durability, ReadFrom
from shardcluster_api.calls import Call
from shardcluster_api.errors import EngineRefused, NotServed, OutcomeUnknown, TooBusy
from shardcluster_api.hot_keys import HotKeys
from shardcluster_api.limits import CONNECT_TIMEOUT_S, HEDGE_AFTER_S, REQUEST_DEADLINE_S
from shardcluster_api.links import Lane, NodeLink, NotReached
from shardcluster_runtime.wire import ConnectionLost, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardcluster_api.metrics import Metrics
    from shardcluster_api.slot_map import ShardRoute
    from shardcluster_api.topology import Topology
    from shardcluster_runtime.wire import NodeConnection

__all__ = ["PASSING", "Policy", "Reply", "Router"]

CHANGE_WAIT_S = 0.05  # news wakes who waits for an owner; in case it is missed they look again
# No attempt begins later than so long before the deadline: an answer to it would come too late, and
# a write that was about to be refused once more would have an unknown fate.
ATTEMPT_MIN_S = 0.5
PAUSE_MIN_S, PAUSE_MAX_S = 0.01, 0.02  # before asking the same node again, jittered
PAUSE_GROWTH_MAX = 8  # both come up to so many times later, or thousands who wait take all the time
READ_ATTEMPT_S = 1.0  # a read that waits longer for one node looks at the map again
REDIRECTS_AT_ONCE_MAX = 4  # followed without a pause

# Errors that pass by themselves: the command was not applied, and asking again may help.
PASSING = frozenset(
    {"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "BUSY", "NOREPLICAS"}
)
_PACKED_ASKING = hiredis.pack_command(("ASKING",))
_PACKED_MULTI = hiredis.pack_command(("MULTI",))
_PACKED_EXEC = hiredis.pack_command(("EXEC",))


class Reply:
    """A node's answer and where it came from."""

    __slots__ = ("acked", "link", "node", "role", "shard", "stale", "value")

    def __init__(self, value: Any, link: NodeLink, shard: str, role: str) -> None:
        """`role` is that of the answering node."""
        self.value = value
        self.link = link
        self.node = link.name
        self.shard = shard
        self.role = role
        self.stale = False  # from a replica whose master is out of reach
        self.acked: int | str | None = None  # what WAIT or WAITAOF said, or its error


_Attempt = Callable[[Call, NodeLink], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the store's spec says for requests that don't say otherwise."""

    read_from: ReadFrom = ReadFrom.REPLICA
    durability: Durability = Durability.ASYNC


class Router:
    """Reads and writes by slot."""

    def __init__(self, topology: Topology, metrics: Metrics) -> None:
        """`topology` knows who owns what."""
        self.topology = topology
        self.policy = Policy()
        self._held: dict[NodeLink | None, int] = {}  # requests that wait for a node to be itself
        self.hot_keys = HotKeys()
        self._map = topology.map
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._turn = 0  # of replicas with equal load

    async def write(
        self,
        slot: int,
        packed: bytes,
        wait: tuple[str | int, ...] | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Reply:
        """Send a write to the slot's master; `wait` is the WAIT command that is to follow it."""
        call = Call(slot, packed, deadline_s or self._loop.time() + REQUEST_DEADLINE_S)
        call.wait = wait
        call.writing = True
        return await self._at_master(call, self._attempt_write)

    async def transaction(
        self, slot: int, commands: tuple[bytes, ...], wait: tuple[str | int, ...] | None = None
    ) -> Reply:
        """All commands or none by MULTI and EXEC; the reply's value is the list of theirs.

        Raises EngineRefused with the first error of a command that the node would not queue.
        """
        call = Call(slot, b"", self._loop.time() + REQUEST_DEADLINE_S)
        call.wait = wait
        call.writing = True
        call.commands = (_PACKED_MULTI, *commands, _PACKED_EXEC)
        return await self._at_master(call, self._attempt_write)

    async def read(
        self, slot: int, packed: bytes, *, strong: bool = False, deadline_s: float | None = None
    ) -> Reply:
        """Send a read to a replica, or with `strong` to the master."""
        now_s = self._loop.time()
        call = Call(slot, packed, deadline_s or now_s + REQUEST_DEADLINE_S)
        at_master = strong or self.policy.read_from is ReadFrom.MASTER
        if at_master or self._map.is_moving(slot, now_s):
            return await self._at_master(call, self._attempt_read)
        while True:
            route = self._map.owners[slot]
            if route is not None:
                reply = await self._race(call, route)
                if reply is not None:
                    return reply
                if call.asking:
                    return await self._at_master(call, self._attempt_read)
                if call.redirects % REDIRECTS_AT_ONCE_MAX and self._map.owners[slot] is not route:
                    continue
            await self._pause(call, CHANGE_WAIT_S, None if route is None else route.master)

    # -- with no more ado ------------------------------------------------------------------

    def reader_at_once(
        self, route: ShardRoute, now_s: float
    ) -> tuple[NodeLink, NodeConnection] | None:
        """Where reads of the shard can be sent this instant, unless their slot is on its way."""
        master = route.master
        if master.out_of_reach:
            return None
        replicas = () if self.policy.read_from is ReadFrom.MASTER else self._replicas(route, now_s)
        link = replicas[0] if replicas else master
        connection = link.connection(Lane.MAIN if link is master else Lane.READONLY)
        return None if connection is None else (link, connection)

    def takes_turns(self) -> bool:
        """Whether the same shard's reads go now to one node and now to another."""
        return any(len(route.replicas) > 1 for route in self._map.routes())

    def writer_at_once(self, route: ShardRoute) -> tuple[NodeLink, NodeConnection] | None:
        """Likewise for writes that needn't be safer than that the master has them."""
        master = route.master
        if master.suspect or self.policy.durability is not Durability.ASYNC:
            return None
        connection = master.connection(Lane.MAIN)
        return None if connection is None else (master, connection)

    # -- at the master ---------------------------------------------------------------------

    async def _at_master(self, call: Call, attempt: _Attempt) -> Reply:
        while True:
            route = self._map.owners[call.slot]
            link = call.target or (route.master if route is not None else None)
            if link is None:
                self.topology.refresh_soon()
                await self._pause(call, CHANGE_WAIT_S)
                continue
            try:
                reply = await attempt(call, link)
            except (NotReached, Overloaded) as error:
                self._retry(call, "NotReached", str(error))
                call.target, call.asking = None, False
                self.topology.look_for_owner(link)
                await self._pause(call, CHANGE_WAIT_S, link)
                continue
            if not isinstance(reply.value, hiredis.ReplyError):
                return reply
            await self._after_error(call, link, str(reply.value))

    async def _attempt_write(self, call: Call, link: NodeLink) -> Reply:
        """One try; raises NotReached when nothing was sent, OutcomeUnknown when no answer came."""
        if link.suspect:
            message = f"{link.name} does not answer"
            raise NotReached(message)
        if call.wait is not None or len(call.commands) > 1:
            return await self._attempt_exclusive(call, link)
        connection = link.connection(Lane.MAIN) or await link.open(Lane.MAIN, self._left(call))
        try:
            if call.asking:
                connection.send_packed(_PACKED_ASKING)
            future = connection.send_packed(call.packed)
            value = await self._answer(future, call, link)
        except ConnectionLost as lost:
            self._not_sent(lost, link)
        return self._reply(value, link)

    async def _attempt_exclusive(self, call: Call, link: NodeLink) -> Reply:
        """On a connection of its own: a write that WAIT follows, or a transaction."""
        connection = await link.borrow(min(self._left(call), CONNECT_TIMEOUT_S))
        try:
            if call.asking:
                connection.send_packed(_PACKED_ASKING)  # in a transaction it holds until EXEC
            futures = [connection.send_packed(one) for one in call.commands]
            waited = None if call.wait is None else connection.send(*call.wait)
            reply = self._reply(await self._answer(futures[-1], call, link), link)
            if isinstance(reply.value, hiredis.ReplyError):
                # EXECABORT says only that something was wrong; the command's own answer says what.
                values = (future.result() for future in futures)
                reply.value = next(one for one in values if isinstance(one, hiredis.ReplyError))
            elif waited is not None:
                reply.acked = await self._acked(waited, call)
        except ConnectionLost as lost:
            self._not_sent(lost, link)
        finally:
            link.give_back(connection)
        return reply

    async def _acked(self, waited: asyncio.Future[Any], call: Call) -> int | str:
        """How many copies have it: the write itself is applied already, whatever comes now."""
        await _settled((waited,), self._left(call))
        if not waited.done():
            return "no answer in time"
        if waited.exception() is not None:
            return str(waited.exception())
        answer = waited.result()
        if isinstance(answer, list):  # WAITAOF: local, then replicas
            return int(answer[0])
        return str(answer) if isinstance(answer, hiredis.ReplyError) else int(answer)

    async def _answer(self, future: asyncio.Future[Any], call: Call, link: NodeLink) -> Any:
        await _settled((future,), self._left(call))
        if not future.done():
            raise self.unknown(link)
        return future.result()

    def _not_sent(self, lost: ConnectionLost, link: NodeLink) -> NoReturn:
        """Tell a write that never left from one that may be applied; always raises."""
        if lost.sent:
            raise self.unknown(link, lost) from lost
        raise NotReached(str(lost)) from lost

    def unknown(self, link: NodeLink, lost: ConnectionLost | None = None) -> OutcomeUnknown:
        """The error for a write that this node got and did not answer; counted."""
        self._metrics.unknown_outcomes.inc()
        silent = f"it is silent for {REQUEST_DEADLINE_S:.0f} s"
        return OutcomeUnknown(link.name, silent if lost is None else "its connection ended")

    async def _attempt_read(self, call: Call, link: NodeLink) -> Reply:
        connection = link.connection(Lane.MAIN) or await link.open(Lane.MAIN, self._left(call))
        try:
            if call.asking:
                connection.send_packed(_PACKED_ASKING)
            future = connection.send_packed(call.packed)
            await _settled((future,), min(self._left(call), READ_ATTEMPT_S))
            if not future.done():
                message = f"{link.name} is silent"
                raise NotReached(message)
            return self._reply(future.result(), link)
        except ConnectionLost as lost:
            raise NotReached(str(lost)) from lost

    async def _after_error(self, call: Call, link: NodeLink, message: str) -> None:
        """Follow a redirect or wait a moment; raises EngineRefused for an error that stays."""
        word = message.split(" ", 1)[0]
        call.target, call.asking = None, False
        if word in {"MOVED", "ASK"}:
            self._redirected(call, link, message)
            if call.redirects % REDIRECTS_AT_ONCE_MAX == 0:
                await self._pause(call, PAUSE_MAX_S, link)
            return
        self._metrics.node_error(link.name, word)
        if word not in PASSING:
            raise EngineRefused(link.name, message, writing=call.writing)
        self._retry(call, word, f"{link.name} answered: {message}")
        if word == "NOREPLICAS":
            call.refusal = EngineRefused(link.name, message, writing=call.writing)
        elif word != "TRYAGAIN":
            self.topology.refresh_soon()
        await self._pause(call, random.uniform(PAUSE_MIN_S, PAUSE_MAX_S), link)  # noqa: S311 - jitter

    def _redirected(self, call: Call, link: NodeLink, message: str) -> None:
        kind, _, rest = message.partition(" ")
        self._metrics.redirected(kind)
        call.redirects += 1
        call.trouble = f"{link.name} answered: {message}"
        try:
            address = _address(rest.split()[1], link)
        except (IndexError, ValueError):
            self.topology.refresh_soon()
            return
        now_s = self._loop.time()
        if kind == "ASK":
            self._map.asked(call.slot, now_s)
            call.target, call.asking = self.topology.link(address), True
        elif self._map.moved(call.slot, address, now_s):
            self.topology.notify()
            self.topology.refresh_soon()

    # -- at the replicas -------------------------------------------------------------------

    async def _race(self, call: Call, route: ShardRoute) -> Reply | None:
        """Ask node after node until one gives a usable answer; None: look at the map again."""
        pending: dict[asyncio.Future[Any], NodeLink] = {}
        readers = self._readers(call.slot, route)
        for index, link in enumerate(readers):
            future = await self._ask(call, link, route)
            if future is None:
                continue
            pending[future] = link
            wait_s = HEDGE_AFTER_S if index + 1 < len(readers) else READ_ATTEMPT_S
            wait_s = min(wait_s, self._left(call))
            end_s = self._loop.time() + wait_s
            while pending and not call.asking:
                await _settled(pending, end_s - self._loop.time())
                reply = self._first_good(call, pending, route)
                if reply is not None:
                    return reply
                if self._loop.time() >= end_s:
                    self._slow(pending, route)
                    break
            if call.asking or self._map.owners[call.slot] is not route:
                return None
        return None

    def _readers(self, slot: int, route: ShardRoute) -> list[NodeLink]:
        """Who may answer, the best first; the master only when no replica can.

        At the end come replicas that failed lately, or lag: better than no answer.
        """
        now_s = self._loop.time()
        replicas = self._replicas(route, now_s)
        others = [link for link in route.replicas if not (link.suspect or link in replicas)]
        master = route.master
        if self._map.is_settling(slot, now_s) and not master.out_of_reach:
            return [master, *replicas, *others]
        if master.out_of_reach:
            return [*replicas, *others, master]
        return [*replicas, master, *others]

    def _replicas(self, route: ShardRoute, now_s: float) -> list[NodeLink]:
        """Those that may be read from, the one that fewest commands wait for first."""
        replicas = [link for link in route.replicas if link.readable(now_s)]
        if len(replicas) > 1:
            self._turn += 1
            turn = self._turn % len(replicas)
            replicas = sorted(replicas[turn:] + replicas[:turn], key=lambda link: link.waiting)
        return replicas

    async def _ask(
        self, call: Call, link: NodeLink, route: ShardRoute
    ) -> asyncio.Future[Any] | None:
        lane = Lane.MAIN if link is route.master else Lane.READONLY
        try:
            connection = link.connection(lane)
            if connection is None:
                connection = await link.open(lane, min(self._left(call), HEDGE_AFTER_S))
            return connection.send_packed(call.packed)
        except (NotReached, ConnectionLost, Overloaded) as error:
            self._retry(call, "NotReached", str(error))
            if link is route.master:
                self.topology.look_for_owner(link)
            else:
                link.leave_out(self._loop.time())
            return None

    def _first_good(
        self, call: Call, pending: dict[asyncio.Future[Any], NodeLink], route: ShardRoute
    ) -> Reply | None:
        """Of the answers that came the first that is one; the others leave `pending`."""
        for future, link in list(pending.items()):
            if not future.done():
                continue
            del pending[future]
            if future.exception() is not None:
                self._retry(call, "ConnectionLost", str(future.exception()))
                if link is not route.master:
                    link.leave_out(self._loop.time())
                continue
            value = future.result()
            if isinstance(value, hiredis.ReplyError):
                self._read_error(call, link, str(value))
                continue
            master = link is route.master
            reply = Reply(value, link, route.name, "master" if master else "replica")
            reply.stale = not master and (link.lagging or route.master.out_of_reach)
            return reply
        return None

    def _read_error(self, call: Call, link: NodeLink, message: str) -> None:
        word = message.split(" ", 1)[0]
        if word in {"MOVED", "ASK"}:
            self._redirected(call, link, message)
            return
        self._metrics.node_error(link.name, word)
        if word not in PASSING:
            raise EngineRefused(link.name, message, writing=call.writing)
        self._retry(call, word, f"{link.name} answered: {message}")
        link.leave_out(self._loop.time())
        self.topology.refresh_soon()

    def _slow(self, pending: dict[asyncio.Future[Any], NodeLink], route: ShardRoute) -> None:
        self._metrics.hedges.inc()
        for link in pending.values():
            if link is not route.master:
                link.leave_out(self._loop.time())

    # -- small things ----------------------------------------------------------------------

    def _reply(self, value: Any, link: NodeLink) -> Reply:
        return Reply(value, link, link.shard or str(link.address), "master")

    def _left(self, call: Call) -> float:
        return max(0.0, call.deadline_s - self._loop.time())

    def _retry(self, call: Call, reason: str, trouble: str) -> None:
        self._metrics.retried(reason)
        call.trouble, call.refusal = trouble, None

    async def _pause(self, call: Call, wait_s: float, link: NodeLink | None = None) -> None:
        """Wait for news of `link`, at most `wait_s` and longer each time.

        Raises NotServed (or what the engine said) when the deadline is over, TooBusy when too many
        wait already.
        """
        left_s = self._left(call) - ATTEMPT_MIN_S
        if left_s <= 0:
            if call.refusal is not None:
                raise call.refusal
            within = f"within {REQUEST_DEADLINE_S:.0f} s"
            message = f"No node served slot {call.slot} {within}: {call.trouble}."
            raise NotServed(message, writing=call.writing)
        held = self._held.get(link, 0)
        if held >= self.topology.limits.node_share:
            message = f"{held} requests already wait for the same node: {call.trouble}."
            raise TooBusy(message)
        call.pauses += 1
        self._held[link] = held + 1
        try:
            wait_s *= min(call.pauses, PAUSE_GROWTH_MAX)
            await self.topology.changed(min(wait_s, left_s))
        finally:
            self._held[link] -= 1
            if not self._held[link]:
                del self._held[link]


def _address(text: str, link: NodeLink) -> Address:
    """`host:port` of a redirect; an empty host means the node that answered."""
    host, _, port = text.rpartition(":")
    return Address(host if host not in {"", "?"} else link.address.host, int(port))


async def _settled(futures: Iterable[asyncio.Future[Any]], timeout_s: float) -> None:
    """Return once any of them is done or the time is over; cancels nothing."""
    futures = tuple(futures)
    if any(future.done() for future in futures):
        return
    loop = asyncio.get_running_loop()
    gate: asyncio.Future[None] = loop.create_future()

    def open_gate(*_: object) -> None:
        if not gate.done():
            gate.set_result(None)

    timer = loop.call_later(max(0.0, timeout_s), open_gate)
    for future in futures:
        future.add_done_callback(open_gate)
    try:
        await gate
    finally:
        timer.cancel()
        for future in futures:
            future.remove_done_callback(open_gate)
