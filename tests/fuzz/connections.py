"""The gateway in this process, with connections that are only memory.

A node behind it answers GET with a value made from the key, so that every answer can be checked
against its own request.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from uvicorn.server import ServerState

from shardcluster_api.__main__ import server_config
from tests.unit.api_fakes import FakeNode, FakeShard, gateway_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardcluster_api.gateway import Gateway

__all__ = ["Server", "Wire", "cold_answer", "running_server", "value_of"]

DEADLINE_S = 20.0


def value_of(key: bytes) -> bytes:
    """What every key holds."""
    return b"value of " + key


def cold_answer(method: str, path: bytes, body: bytes) -> bytes:
    """What the app behind the protocol answers."""
    return b"cold %b %b %b" % (method.encode(), path, body)


async def _cold_app(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = cold_answer(scope["method"], scope["raw_path"], body)
    length = str(len(answer)).encode()
    headers = [(b"content-length", length), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


class _Node(FakeNode):
    """Holds every key, and notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__("a" * 40)
        self.asked: set[tuple[bytes, bytes]] = set()

    def _reply(self, command: tuple[bytes, ...]) -> Any:
        if command[0] in {b"GET", b"SET", b"UNLINK"}:
            self.asked.add((command[0], command[1]))
            return {b"GET": value_of(command[1]), b"SET": "OK", b"UNLINK": 1}[command[0]]
        self.seen.clear()
        return super()._reply(command)


class Wire(asyncio.Transport):
    """One client's connection, seen from the client."""

    def __init__(self, server: Server) -> None:
        """Connected at once."""
        super().__init__()
        self.received = bytearray()
        self.ended = False  # the server sends nothing more
        self._closed = self._left = False
        self._reading = asyncio.Event()
        self._reading.set()
        self.news = asyncio.Event()
        self._protocol: Any = server.protocol()
        self._protocol.connection_made(self)

    async def send(self, data: bytes) -> None:
        """As the kernel would hand it to the server: not while it does not read."""
        await self._reading.wait()
        if not self._closed:
            self._protocol.data_received(data)

    async def leave(self) -> None:
        """The client goes."""
        self._left = True
        self.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def write(self, data: Any) -> None:
        """The server's call."""
        if self._left:
            return
        assert not self.ended, "the server wrote after its end"
        self.received += data
        self.news.set()

    def close(self) -> None:
        """The server's call."""
        if not self._closed:
            self._closed = self.ended = True
            self._reading.set()
            self.news.set()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def write_eof(self) -> None:
        """The server's call."""
        self.ended = True
        self.news.set()

    def can_write_eof(self) -> bool:
        """The server's question."""
        return True

    def is_closing(self) -> bool:
        """The server's question."""
        return self._closed

    def pause_reading(self) -> None:
        """The server's call."""
        self._reading.clear()

    def resume_reading(self) -> None:
        """The server's call."""
        self._reading.set()

    def get_write_buffer_size(self) -> int:
        """The server's question; the client reads at once."""
        return 0


class Server:
    """A gateway and what its connections share."""

    def __init__(self, gateway: Gateway, node: _Node) -> None:
        """Use `running_server`."""
        self.gateway = gateway
        self.node = node
        self.state = ServerState()
        self.config = server_config(gateway, _cold_app)
        self.config.load()

    def protocol(self) -> Any:
        """The protocol of one more connection."""
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.state, app_state={})

    async def at_rest(self) -> None:
        """Wait until nothing is under way; then nothing may be held."""
        async with asyncio.timeout(DEADLINE_S):
            while self.state.tasks or self.state.connections:
                await asyncio.sleep(0)
        assert self.gateway.in_flight == 0
        assert self.gateway.buffered_bytes == 0


@asynccontextmanager
async def running_server() -> AsyncIterator[Server]:
    """Fails when anything was raised where nobody catches it."""
    loop = asyncio.get_running_loop()
    raised: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: raised.append(context))
    node = _Node()
    shard = FakeShard(0)
    shard.master = node
    node.view = shard.view
    await node.start()
    try:
        async with gateway_on(node.address) as gateway:
            server = Server(gateway, node)
            yield server
            await server.at_rest()
    finally:
        with contextlib.suppress(TimeoutError):
            await node.stop()
        loop.set_exception_handler(None)
    assert not raised, raised
