"""Channels as a stream of server-sent events, in Upstash's form.

One connection to a node for each listener.  In cluster mode every node hears every PUBLISH, so any
node will do; when the one in use is gone, another is asked, and the events tell of the new
subscription (what was published in between is lost, as pub/sub is).

Law: a listener costs bounded memory.  Nothing is queued here: while the client does not read, the
node is not read either, and the node ends the connection of a subscriber that is too slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster_api.answers import Answer
from shardcluster_api.commands.asking import path_arguments
from shardcluster_api.commands.table import CommandRefused
from shardcluster_api.errors import NotServed, TooBusy
from shardcluster_api.limits import (
    CONNECT_TIMEOUT_S,
    REQUEST_DEADLINE_S,
    SUBSCRIBERS_MAX,
)
from shardcluster_api.links import NotReached
from shardcluster_runtime.wire import packed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shardcluster_api.answers import Request
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.links import NodeLink

__all__ = ["EVENT_STREAM", "subscribe"]

EVENT_STREAM = "text/event-stream"
LOOK_S = 1.0  # at the node's health, when no message comes
SUSPECT_S = 5.0  # a node that is silent for so long is left: changing it loses messages, too
HEARTBEAT_S = 15.0  # a comment, so that nobody between takes the connection for dead
RETRY_S = 0.1
READ_BYTES = 64 * 1024
CHANNELS_MAX = 100
_COMMENT = b":\n\n"
_NO_STORE = (("Cache-Control", "no-store"),)
_PING = packed((b"PING",))


async def subscribe(gateway: Gateway, request: Request) -> Answer:
    """`/subscribe/CHANNEL/…` and `/psubscribe/PATTERN/…`; a body is not looked at."""
    command, *channels = path_arguments(request.path[1:])
    if not channels or not all(channels) or len(channels) > CHANNELS_MAX:
        message = f"ERR {command.decode('ascii')} needs 1 to {CHANNELS_MAX} channels"
        raise CommandRefused(message)
    if gateway.subscribers >= SUBSCRIBERS_MAX:
        message = f"{SUBSCRIBERS_MAX} listeners are here already."
        raise TooBusy(message)
    listener = _Listener(gateway, packed((command, *channels)))
    gateway.subscribers += 1
    try:
        await listener.connect()
    except BaseException:
        gateway.subscribers -= 1
        raise
    return Answer(200, b"", EVENT_STREAM, _NO_STORE, listener.events())


class _Listener:
    def __init__(self, gateway: Gateway, command: bytes) -> None:
        self._gateway = gateway
        self._command = command
        self._link: NodeLink | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """To a node that answers; raises NotServed."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + REQUEST_DEADLINE_S
        while loop.time() < deadline_s:
            self._close()
            links = self._gateway.topology.links.values()
            usable = [link for link in links if link.connected and not link.suspect]
            if usable:
                link = random.choice(usable)  # noqa: S311 - spreads the listeners
                try:
                    self._reader, self._writer = await link.open_stream(CONNECT_TIMEOUT_S)
                except NotReached:
                    continue
                self._link = link
                self._writer.write(self._command)
                return
            await self._gateway.topology.changed(RETRY_S)
        message = "No node could be asked for the channels."
        raise NotServed(message, writing=False)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Until the client goes away or no node is left."""
        try:
            yield _COMMENT  # so that the client has the head of the answer
            while True:
                async for events in self._of_this_node():
                    yield events
                try:
                    await self.connect()
                except NotServed:
                    return
        finally:
            self._close()
            self._gateway.subscribers -= 1

    async def _of_this_node(self) -> AsyncGenerator[bytes, None]:
        assert self._reader is not None
        assert self._writer is not None
        assert self._link is not None
        parser = hiredis.Reader()
        loop = asyncio.get_running_loop()
        heartbeat_s = loop.time() + HEARTBEAT_S
        well_s = loop.time()  # when the node was last known to answer
        while not self._link.closed and loop.time() - well_s < SUSPECT_S:
            if not self._link.suspect:
                well_s = loop.time()
            if loop.time() >= heartbeat_s:
                heartbeat_s = loop.time() + HEARTBEAT_S
                self._writer.write(_PING)
                yield _COMMENT
            try:
                async with asyncio.timeout(LOOK_S):
                    data = await self._reader.read(READ_BYTES)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            parser.feed(data)
            events = []
            while (message := parser.gets()) is not False:
                events.append(_event(message))
            if found := b"".join(events):
                yield found

    def _close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None


def _event(message: Any) -> bytes:
    """`data: message,CHANNEL,CONTENT`; further lines of the content get their own `data:`."""
    if not isinstance(message, list) or message[0] == b"pong":
        return b""
    parts = (one if isinstance(one, bytes) else b"%d" % (one or 0) for one in message)
    text = b",".join(parts).decode("utf-8", "replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
