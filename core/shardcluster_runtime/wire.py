"""One multiplexed connection to one node.

Why not redis-py here: this connection is kept open for the life of the node so that the kernel
tells of a death at once (`on_closed`), and all commands of one event-loop tick leave as one
write, which the gateway's and the migrator's hot paths live on.  hiredis packs and parses.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

import hiredis

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from shardcluster.observed import Address

__all__ = [
    "ConnectionLost",
    "Credentials",
    "NodeConnection",
    "NodeReplyError",
    "Overloaded",
    "Receiver",
    "Volley",
    "ask_once",
    "packed",
]

TIMED_EVERY = 4  # writes; each timing costs two looks at the clock
PENDING_MAX = 65_536  # replies awaited on one connection; more means the node is not keeping up

_KEEP_ALIVE = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    # Seconds without traffic until the kernel asks, between two questions; milliseconds until it
    # gives up.  Only Linux knows them all by these names.
    **{
        (socket.IPPROTO_TCP, getattr(socket, name)): value
        for name, value in (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_USER_TIMEOUT", 1500))
        if hasattr(socket, name)
    },
}

# What the parser raises for a reply that can't be, or for one that nobody asked for (IndexError). A
# map with a map as key is RESP, but no dict (TypeError); a length may be beyond all memory.
_NOT_RESP = (hiredis.ProtocolError, IndexError, TypeError, ValueError, OverflowError, MemoryError)

_MORE = object()  # from the parser: no whole reply is left.  Its own word for it, False, is a reply

Argument = bytes | str | int | float


class ConnectionLost(ConnectionError):
    """The connection ended. `sent` is False when the command surely never left this process."""

    def __init__(self, message: str, *, sent: bool) -> None:
        """`sent` decides whether sending again could apply the command twice."""
        super().__init__(message)
        self.sent = sent


class NodeReplyError(Exception):
    """The node answered with an error; `code` is its first word (MOVED, CLUSTERDOWN, ERR …)."""

    def __init__(self, message: str) -> None:
        """`message` is the engine's own sentence."""
        super().__init__(message)
        self.code = message.split(" ", 1)[0]


class Overloaded(Exception):
    """More than `pending_max` commands wait for an answer; nothing was sent."""


class Credentials:
    """How to log in to nodes; kept out of every repr, log and status."""

    __slots__ = ("password_of", "tls_of", "username")

    def __init__(
        self,
        password: str | Callable[[], str] | None = None,
        username: str | None = None,
        tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """No password means no AUTH is sent; `tls` None means plain TCP.

        A function is asked at every login, for a password or certificate that can change.
        """
        self.password_of = password
        self.username = username
        self.tls_of = tls

    @property
    def password(self) -> str | None:
        """As it is now."""
        return self.password_of() if callable(self.password_of) else self.password_of

    @property
    def tls(self) -> ssl.SSLContext | None:
        """As it is now."""
        return self.tls_of() if callable(self.tls_of) else self.tls_of

    def __repr__(self) -> str:
        """Nothing of the secret."""
        return "Credentials(…)"


class Receiver(Protocol):
    """What a reply is given to: a future, or what looks like one.  Its methods don't raise."""

    def done(self) -> bool:
        """Whether `set_exception` is of no use any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """The reply, an error as a `hiredis.ReplyError`; who wants it no more lets it go."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """ConnectionLost."""
        ...

    def exception(self) -> BaseException | None:
        """Asked for after `set_exception`, so that nobody is warned of an exception not seen."""
        ...


class Volley:
    """The replies to commands that left together: the receiver of all but the last one.

    `last` is the last one's future.  Once it is done, every reply is there that will ever be.
    """

    __slots__ = ("last", "values")

    def __init__(self, last: asyncio.Future[Any]) -> None:
        """Nothing has come."""
        self.last = last
        self.values: list[Any] = []

    def replies(self) -> list[Any]:
        """Those that came so far, in the commands' order."""
        last = self.last
        if last.done() and last.exception() is None:
            return [*self.values, last.result()]
        return self.values

    def lost(self) -> BaseException | None:
        """Why the replies that are not there won't come any more, if that is so."""
        return self.last.exception() if self.last.done() else None

    def done(self) -> bool:
        """As a receiver: every reply is wanted."""
        return False

    def set_result(self, result: Any, /) -> None:
        """As a receiver."""
        self.values.append(result)

    def set_exception(self, exception: BaseException, /) -> None:
        """As a receiver: nothing to do, for `last` gets it too."""

    def exception(self) -> None:
        """As a receiver."""


class NodeConnection(asyncio.Protocol):
    """A pipelined RESP connection; make one with `open`."""

    def __init__(
        self, address: Address, on_closed: Callable[[NodeConnection], None] | None
    ) -> None:
        """Use `open`, which also connects and logs in."""
        self.address = address
        self.closed = False
        self.pending_max = PENDING_MAX
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._waiting: deque[Receiver] = deque()
        self._sent = 0  # how many at the left end of _waiting are not in _outgoing any more
        # Told how long a command took, s: the first one of every few writes, and never two at once,
        # so that it costs the others next to nothing.  None: nothing is measured.
        self.on_round_trip: Callable[[float], None] | None = None
        self._writes = 0
        self._timed_after = 0  # replies until that of the command being timed; 0: none is
        self._timed_since_s = 0.0

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        timeout_s: float,
        credentials: Credentials | None = None,
        on_closed: Callable[[NodeConnection], None] | None = None,
    ) -> NodeConnection:
        """Connect and log in within `timeout_s`.

        Raises ConnectionRefusedError when nobody listens, TimeoutError or OSError otherwise,
        NodeReplyError when the login is refused.
        """
        loop = asyncio.get_running_loop()
        credentials = credentials or Credentials()
        async with asyncio.timeout(timeout_s):
            try:
                _, connection = await loop.create_connection(
                    lambda: cls(address, on_closed), address.host, address.port, ssl=credentials.tls
                )
            except (UnicodeError, OverflowError) as error:  # of a host or port that can't be one
                message = f"{address} is no address"
                raise OSError(message) from error
            try:
                if (password := credentials.password) is not None:
                    user = (credentials.username,) if credentials.username else ()
                    await connection.call("AUTH", *user, password)
            except BaseException:
                connection.close()
                raise
        return connection

    def watch_closely(self) -> None:
        """Let the kernel ask the other machine all the time: `on_closed` in about 2 s if it's gone.

        It answers for its processes even if these hang, so this is about machines and networks.
        """
        if self._transport is None:
            return
        for option, value in _KEEP_ALIVE.items():
            self._transport.get_extra_info("socket").setsockopt(*option, value)

    @property
    def waiting(self) -> int:
        """How many commands wait for their answer: the node's queue as seen from here."""
        return len(self._waiting)

    def send(self, *command: Argument) -> asyncio.Future[Any]:
        """Queue a command; the future yields the reply, an error as a `hiredis.ReplyError` value.

        Raises ConnectionLost(sent=False) on a closed connection and Overloaded over the limit.
        """
        return self.send_packed(packed(command))

    def send_packed(self, packed: bytes) -> asyncio.Future[Any]:
        """`send` for one command already in RESP form."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send_packed_to(packed, future)
        return future

    def send_packed_to(self, packed: bytes, receiver: Receiver) -> None:
        """`send_packed` whose reply is handed to `receiver` in the moment it comes.

        A future costs its making and a turn of the event loop; the gateway's hot path has neither.
        """
        if self.closed:
            message = f"no connection to {self.address}"
            raise ConnectionLost(message, sent=False)
        if len(self._waiting) >= self.pending_max:
            message = f"{self.pending_max} commands already wait for {self.address}"
            raise Overloaded(message)
        # As in `_queue`, without the call.
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packed)
        self._waiting.append(receiver)

    def send_many(self, packed: bytes, count: int) -> Volley:
        """Queue `count` commands in RESP form, at least one.

        Raises like `send`, and then sends none.
        """
        if self.closed:
            message = f"no connection to {self.address}"
            raise ConnectionLost(message, sent=False)
        if self._waiting and len(self._waiting) + count > self.pending_max:
            message = f"{len(self._waiting)} commands already wait for {self.address}"
            raise Overloaded(message)
        volley = Volley(self._loop.create_future())
        self._queue(packed, volley.last)
        if count > 1:
            last = self._waiting.pop()
            self._waiting.extend([volley] * (count - 1))
            self._waiting.append(last)
        return volley

    def ping(self, word: bytes) -> asyncio.Future[Any]:
        """`send("PING", word)` over the limit, too: whether a node lives shows when it is busiest.

        Any answer but `word` or an error was meant for another command.
        """
        if self.closed:
            message = f"no connection to {self.address}"
            raise ConnectionLost(message, sent=False)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue(b"*2\r\n$4\r\nPING\r\n$%d\r\n%b\r\n" % (len(word), word), future)
        return future

    def _queue(self, packed: bytes, receiver: Receiver) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packed)
        self._waiting.append(receiver)

    async def call(self, *command: Argument, timeout_s: float | None = None) -> Any:
        """Send and wait; raises NodeReplyError for an error reply, TimeoutError when late."""
        async with asyncio.timeout(timeout_s):
            return _raised(await self.send(*command))

    async def calls(
        self, commands: Iterable[tuple[Argument, ...]], *, timeout_s: float | None = None
    ) -> list[Any]:
        """Send all at once and wait for all; error replies stay values (`hiredis.ReplyError`)."""
        futures = [self.send(*command) for command in commands]
        try:
            async with asyncio.timeout(timeout_s):
                return [await future for future in futures]
        finally:
            for future in futures:
                if not future.done():
                    future.cancel()
                elif not future.cancelled():
                    future.exception()  # seen: the first one was raised already

    def close(self) -> None:
        """End the connection; commands still waiting fail with ConnectionLost."""
        if self._transport is not None:
            self._flush()
            self._transport.close()
        self._ended("closed here")

    def abort(self) -> None:
        """`close`, but what hasn't left by now never does."""
        if self._transport is not None:
            self._outgoing.clear()
            self._transport.abort()
        self._ended("given up here")

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None:
            self._writes += 1
            if not (self._writes % TIMED_EVERY or self._timed_after or self.on_round_trip is None):
                self._timed_after = self._sent + 1
                self._timed_since_s = time.perf_counter()
            self._transport.write(b"".join(self._outgoing))
            self._outgoing.clear()
            self._sent = len(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's callback."""
        # uvloop's transports are no asyncio.Transport by inheritance, only by what they can do.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback: hand each whole reply to the command that waits longest."""
        self._reader.feed(data)
        gets, next_receiver = self._reader.gets, self._waiting.popleft
        replies = 0
        try:
            while (reply := gets()) is not _MORE:
                replies += 1  # what is waited for can grow meanwhile: a receiver may send
                receiver = next_receiver()
                if type(receiver) is Volley:  # without the call: there may be thousands
                    receiver.values.append(reply)
                elif type(receiver) is not asyncio.Future or not receiver.done():
                    receiver.set_result(reply)
            self._sent -= replies
        except _NOT_RESP as error:
            self._sent -= replies
            if self._transport is not None:
                self._transport.abort()
            self._ended(f"not RESP: {error}")
            return
        if self._timed_after:
            self._timed_after -= replies
            if self._timed_after <= 0:
                self._timed_after = 0
                if self.on_round_trip is not None:
                    self.on_round_trip(time.perf_counter() - self._timed_since_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's callback, in the moment the kernel knows."""
        self._ended(str(exc) if exc else "the node closed the connection")

    def _ended(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        for index, future in enumerate(self._waiting):
            if not future.done():
                future.set_exception(
                    ConnectionLost(f"{self.address}: {why}", sent=index < self._sent)
                )
                future.exception()  # a caller that has gone away must not cause a warning
        self._waiting.clear()
        self._outgoing.clear()
        if self._on_closed is not None:
            self._on_closed(self)


def packed(command: Iterable[Argument]) -> bytes:
    """The command in RESP form."""
    # Its type hints know tuples of one item only.
    found: bytes = hiredis.pack_command(cast("Any", tuple(command)))
    return found


def _raised(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise NodeReplyError(str(reply))
    return reply


async def ask_once(
    address: Address, *command: Argument, timeout_s: float, credentials: Credentials | None = None
) -> Any:
    """One command on a connection of its own, which takes at most twice `timeout_s`.

    Raises what `NodeConnection.open` and `NodeConnection.call` raise.
    """
    connection = await NodeConnection.open(address, timeout_s=timeout_s, credentials=credentials)
    try:
        return await connection.call(*command, timeout_s=timeout_s)
    finally:
        connection.close()
