"""The gateway's connections to one node, and what it knows of the node's health.

Two multiplexed connections a node: `MAIN` for writes and strong reads, `READONLY` for reads from
a replica.  They are kept apart because a connection that said READONLY would read on, stale, from
a master that was demoted a moment ago, where the other is told MOVED.  WAIT blocks the connection
it is sent on, so writes that wait for durability borrow one of a small pool of their own.

Law: a node that doesn't answer is *suspect* and gets no new writes until it answers again; whether
it is down is not ours to decide.
"""

from __future__ import annotations

import asyncio
import enum
import random
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import hiredis

from shardcluster.buckets import Buckets
from shardcluster_api.limits import CONNECT_TIMEOUT_S, REQUEST_DEADLINE_S, WAIT_CONNECTIONS_MAX
from shardcluster_runtime.wire import (
    PENDING_MAX,
    ConnectionLost,
    Credentials,
    NodeConnection,
    NodeReplyError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.observed import Address

__all__ = ["Lane", "NodeLink", "NotReached"]

SUSPECT_AFTER_S = 1.0  # a PING unanswered for so long
LEFT_OUT_S = 1.0  # a replica that failed a read gets none for so long
REOPEN_MIN_S, REOPEN_MAX_S = 0.01, 0.02  # between two attempts to connect, jittered
REOPEN_GROWTH_MAX = 16  # attempts slow down up to so many times the above
ROUND_TRIP_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)


class Lane(enum.IntEnum):
    """What a connection is for; an int, whose hash costs no call into Python."""

    MAIN = 0
    READONLY = 1


class NotReached(Exception):
    """The node could not be reached; nothing was sent."""


class NodeLink:
    """One node as the gateway sees it."""

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        on_lost: Callable[[NodeLink], None],
        on_opened: Callable[[NodeLink], None],
    ) -> None:
        """`on_lost` is called in the moment a connection of a lane ends."""
        self.address = address
        self.node_id = ""
        self.name = str(address)  # until the controller tells its name
        self.shard = ""
        self.suspect = False  # a PING is overdue
        self.lagging = False  # a replica too far behind; lag.py says so
        self.lag_bytes = 0
        self.left_out_until_s = 0.0
        self.closed = False
        self.round_trips = Buckets(ROUND_TRIP_BOUNDS_S)  # of a sample of all commands
        self.pending_max = PENDING_MAX  # replies awaited on one connection
        self._credentials = credentials
        self._on_lost = on_lost
        self._on_opened = on_opened
        self._lanes: dict[Lane, NodeConnection] = {}
        self._opening: dict[Lane, asyncio.Task[NodeConnection]] = {}
        self._failures = 0
        self._reopen_at_s = 0.0
        self._last_failure = ""
        self._idle: list[NodeConnection] = []
        self._pool = asyncio.Semaphore(WAIT_CONNECTIONS_MAX)
        self._ping: asyncio.Future[object] | None = None
        self._ping_since_s = 0.0
        self._pings = 0

    def connection(self, lane: Lane) -> NodeConnection | None:
        """The lane's connection if it is open."""
        connection = self._lanes.get(lane)
        return None if connection is None or connection.closed else connection

    @property
    def connected(self) -> bool:
        """Whether any lane is open."""
        return any(not connection.closed for connection in self._lanes.values())

    @property
    def usable(self) -> bool:
        """Whether a write would go out now."""
        return not self.suspect and self.connection(Lane.MAIN) is not None

    @property
    def out_of_reach(self) -> bool:
        """Whether the node is suspect, or the last attempt to reach it failed."""
        return self.suspect or (self._failures > 0 and not self.connected)

    @property
    def waiting(self) -> int:
        """Replies awaited on all lanes."""
        return sum(connection.waiting for connection in self._lanes.values())

    def readable(self, now_s: float) -> bool:
        """Whether reads may be sent to this replica."""
        return not (self.suspect or self.lagging) and now_s >= self.left_out_until_s

    def leave_out(self, now_s: float) -> None:
        """A read failed here: send the next ones elsewhere for a while."""
        self.left_out_until_s = now_s + LEFT_OUT_S

    async def open(self, lane: Lane, timeout_s: float = CONNECT_TIMEOUT_S) -> NodeConnection:
        """The lane's connection, opened if need be; callers share one attempt.

        Raises NotReached when that fails, at once when an attempt failed a moment ago.
        """
        connection = self.connection(lane)
        if connection is not None:
            return connection
        task = self.start_opening(lane)
        if task is None:
            raise NotReached(self._last_failure)
        done, _ = await asyncio.wait({task}, timeout=max(0.0, timeout_s))
        if not done:
            message = f"{self.name} ({self.address}) did not accept a connection in time"
            raise NotReached(message)
        if task.cancelled():  # the link was closed meanwhile
            raise NotReached(self._last_failure)
        return task.result()

    def start_opening(self, lane: Lane) -> asyncio.Task[NodeConnection] | None:
        """Begin to connect, or join the attempt under way; None so soon after a failure."""
        task = self._opening.get(lane)
        if task is None:
            if self.closed or asyncio.get_running_loop().time() < self._reopen_at_s:
                return None
            task = asyncio.create_task(self._open(lane))
            self._opening[lane] = task
            task.add_done_callback(lambda done: self._opened(lane, done))
        return task

    def _opened(self, lane: Lane, task: asyncio.Task[NodeConnection]) -> None:
        del self._opening[lane]
        if task.cancelled() or task.exception() is not None:
            return  # whoever waits for the task gets the exception
        connection = task.result()
        if self.closed:
            connection.close()
            return
        connection.on_round_trip = self.round_trips.observe
        self._lanes[lane] = connection
        self._failures = 0
        self._on_opened(self)

    async def _open(self, lane: Lane) -> NodeConnection:
        try:
            connection = await self._connect(self._lost)
            if lane is Lane.READONLY:
                try:
                    await connection.call("READONLY", timeout_s=CONNECT_TIMEOUT_S)
                except BaseException:
                    connection.close()
                    raise
        except (OSError, NodeReplyError) as error:
            self._failures += 1
            growth = min(self._failures, REOPEN_GROWTH_MAX)
            wait_s = random.uniform(REOPEN_MIN_S, REOPEN_MAX_S) * growth  # noqa: S311 - jitter
            self._reopen_at_s = asyncio.get_running_loop().time() + wait_s
            why = str(error) or type(error).__name__
            self._last_failure = f"{self.name} ({self.address}) is not reachable: {why}"
            raise NotReached(self._last_failure) from error
        return connection

    async def _connect(self, on_closed: Callable[[NodeConnection], None] | None) -> NodeConnection:
        connection = await NodeConnection.open(
            self.address,
            timeout_s=CONNECT_TIMEOUT_S,
            credentials=self._credentials,
            on_closed=on_closed,
        )
        connection.pending_max = self.pending_max
        return connection

    def _lost(self, connection: NodeConnection) -> None:
        if not self.closed and connection in self._lanes.values():
            self._on_lost(self)

    async def borrow(self, timeout_s: float) -> NodeConnection:
        """A connection for one caller alone; give it back with `give_back` in any case."""
        ends_s = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(ends_s):
                await self._pool.acquire()
        except TimeoutError as error:
            message = f"{WAIT_CONNECTIONS_MAX} durable writes already wait for {self.name}"
            raise NotReached(message) from error
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        try:
            async with asyncio.timeout_at(ends_s):
                return await self._connect(None)
        except (OSError, NodeReplyError) as error:  # TimeoutError is an OSError
            self._pool.release()
            why = str(error) or type(error).__name__
            message = f"{self.name} ({self.address}) is not reachable: {why}"
            raise NotReached(message) from error
        except BaseException:
            self._pool.release()
            raise

    async def open_stream(
        self, timeout_s: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that is logged in and read as a stream, for pub/sub; raises NotReached."""
        credentials = self._credentials
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(
                    self.address.host, self.address.port, ssl=credentials.tls
                )
                if (password := credentials.password) is not None:
                    user = (credentials.username,) if credentials.username else ()
                    writer.write(hiredis.pack_command(cast("Any", ("AUTH", *user, password))))
                    _check_login(await reader.readuntil(b"\r\n"))
        except (OSError, NodeReplyError, asyncio.IncompleteReadError) as error:
            if writer is not None:
                writer.close()
            message = f"{self.name} ({self.address}) is not reachable: {error}"
            raise NotReached(message) from error
        return reader, writer

    def give_back(self, connection: NodeConnection) -> None:
        """The caller is done; a connection with answers still due is closed."""
        self._pool.release()
        if connection.waiting or self.closed:
            connection.close()
        else:
            self._idle.append(connection)

    def check(self, now_s: float) -> None:
        """Send a PING if none is under way; one that is overdue makes the node suspect."""
        if self._ping is not None and not self._ping.done():
            if now_s - self._ping_since_s >= SUSPECT_AFTER_S:
                self.suspect = True
            if now_s - self._ping_since_s >= REQUEST_DEADLINE_S:
                # Nobody waits so long.  A path that ends without a word (power cut, a forgotten
                # NAT entry) would hold the socket for minutes after the node is back.
                self.give_up()
            return
        connection = self.connection(Lane.MAIN) or self.connection(Lane.READONLY)
        if connection is None:
            self.suspect = False  # then it is unreachable, which is another matter
            return
        try:
            self._pings += 1
            word = b"%d" % self._pings
            self._ping = connection.ping(word)
        except ConnectionLost:
            return
        self._ping_since_s = now_s
        self._ping.add_done_callback(partial(self._answered, word))

    def _answered(self, word: bytes, ping: asyncio.Future[object]) -> None:
        # An error answer (LOADING) is an answer, too; a lost connection is not.
        if ping.cancelled() or ping.exception() is not None:
            return
        answer = ping.result()
        if answer != word and not isinstance(answer, hiredis.ReplyError):
            self.give_up()  # it is another command's, so who knows whose the others are
        elif self.suspect:
            self.suspect = False
            self._on_opened(self)

    def give_up(self) -> None:
        """End the connections: whoever waits on them hears now, not at their deadline."""
        for connection in self._lanes.values():
            connection.close()

    def close(self) -> None:
        """Close every connection; the link can't be used after."""
        self.closed = True
        for task in list(self._opening.values()):
            task.cancel()
        for connection in (*self._lanes.values(), *self._idle):
            connection.close()
        self._lanes.clear()
        self._idle.clear()


def _check_login(answer: bytes) -> None:
    if answer != b"+OK\r\n":
        raise NodeReplyError(answer[1:-2].decode("utf-8", "replace"))
