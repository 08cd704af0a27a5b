"""Fake nodes that speak RESP as scripted, for answers that no real node gives on demand.

What a real node does is tested in tests/cluster.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster.observed import Address
from shardcluster_api.answers import Request
from shardcluster_api.gateway import Gateway
from shardcluster_api.limits import Limits
from shardcluster_api.links import Lane
from shardcluster_api.operations import OPERATIONS
from shardcluster_api.settings import Settings

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncIterator, Callable

    from shardcluster_api.answers import Answer
    from shardcluster_api.control_plane import ControlPlane

DEADLINE_S = 20.0
POLL_S = 0.01
CLOSE = object()  # a scripted reply: end the connection without an answer
HANG = object()  # a scripted reply: none, now or to what follows, but stay connected


@dataclass(frozen=True)
class Bytes:
    """A scripted reply: these bytes as they are, then CLOSE, or HANG on this connection."""

    content: bytes
    then: object


async def until(check: Callable[[], bool], what: str) -> None:
    """Poll until `check()` holds; AssertionError after a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not check():
            await asyncio.sleep(POLL_S)
    assert check(), what


class FakeNode:
    """A node whose answers to single commands can be scripted; else it is a small store."""

    def __init__(self, node_id: str) -> None:
        """`view` must be set before anyone asks for CLUSTER NODES."""
        self.node_id = node_id
        self.view: Callable[[FakeNode], str] = lambda _node: ""
        self.role = b"master"
        self.offset = 0  # of replication
        self.link = b"connected"  # a replica's to its master
        self.data: dict[bytes, bytes] = {}
        self.script: dict[bytes, deque[Any]] = {}  # command -> the next answers
        self.always: dict[bytes, Any] = {}  # command -> every answer
        self.seen: list[tuple[bytes, ...]] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address("127.0.0.1", self.port)

    async def start(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End the listener and every connection, as the end of a process does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.close()
        await until(lambda: not self._writers, "the fake node's connections end")

    def count(self, command: bytes) -> int:
        """How often it was sent."""
        return sum(seen[0] == command for seen in self.seen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    reply = self._reply(tuple(command))
                    if isinstance(reply, Bytes):
                        writer.write(reply.content)
                        while reply.then is HANG and await reader.read(65_536):
                            pass
                        return
                    if reply is CLOSE:
                        return
                    if reply is HANG:  # a node answers in order: nothing comes after it, either
                        while await reader.read(65_536):
                            pass
                        return
                    writer.write(_packed(reply))
        except ConnectionError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    def _reply(self, command: tuple[bytes, ...]) -> Any:
        self.seen.append(command)
        name = command[0]
        scripted = self.script.get(name)
        if scripted:
            return scripted.popleft()
        if name in self.always:
            return self.always[name]
        if name == b"PING":
            return command[1]
        if name == b"GET":
            return self.data.get(command[1])
        if name == b"SET":
            self.data[command[1]] = command[2]
        if name == b"UNLINK":
            return int(self.data.pop(command[1], None) is not None)
        plain: dict[bytes, Any] = {
            b"CLUSTER": self.view(self).encode(),
            b"ROLE": [b"master", self.offset, []]
            if self.role == b"master"
            else [self.role, b"127.0.0.1", 1, self.link, self.offset],
            b"WAIT": 1,
            b"WAITAOF": [1, 0],
        }
        return plain.get(name, "OK")


def _packed(reply: Any) -> bytes:
    if isinstance(reply, bytearray):
        return bytes(reply)  # as it is
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(_packed, reply))
    return b"-" + reply[1:].encode() + b"\r\n" if reply[:1] == "-" else b"+OK\r\n"


class FakeShard:
    """One master with replicas that owns all slots."""

    def __init__(self, replicas: int = 1) -> None:
        """Nothing is started yet."""
        self.master = FakeNode("a" * 40)
        self.replicas = [FakeNode(f"{index:x}" * 40) for index in range(1, replicas + 1)]
        self.epoch = 1
        for node in self.nodes:
            node.view = self.view
            node.role = b"master" if node is self.master else b"slave"

    @property
    def nodes(self) -> list[FakeNode]:
        """The master first."""
        return [self.master, *self.replicas]

    def view(self, asked: FakeNode) -> str:
        """CLUSTER NODES as `asked` tells it."""
        lines = []
        for node in self.nodes:
            master = node is self.master
            flags = ("myself," if node is asked else "") + ("master" if master else "slave")
            follows = "-" if master else self.master.node_id
            slots = "0-16383" if master else ""
            lines.append(
                f"{node.node_id} 127.0.0.1:{node.port}@1 {flags} {follows} 0 0 {self.epoch} "
                f"connected {slots}".strip()
            )
        return "\n".join(lines) + "\n"

    def promote(self, node: FakeNode) -> None:
        """The node takes over; the old master follows it, if it lives."""
        self.replicas = [other for other in self.nodes if other is not node]
        self.master = node
        self.epoch += 1
        for one in self.nodes:
            one.role = b"master" if one is node else b"slave"


@asynccontextmanager
async def fake_shard(replicas: int = 1) -> AsyncIterator[FakeShard]:
    """A started shard."""
    shard = FakeShard(replicas)
    try:
        for node in shard.nodes:
            await node.start()
        yield shard
    finally:
        for node in shard.nodes:
            await node.stop()


@asynccontextmanager
async def gateway_on(
    *seeds: Address,
    controller_url: str | None = None,
    control: ControlPlane | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway in this loop, ready when it was given seeds."""
    gateway = Gateway(Settings(controller_url, seeds, limits=limits or Limits()), control)
    gateway.start()
    try:
        if seeds:
            await until(lambda: _ready(gateway), "the gateway is ready")
        yield gateway
    finally:
        await gateway.close()


def _ready(gateway: Gateway) -> bool:
    """Also to read from replicas, or some reads would go to their master."""
    links = gateway.topology.links.values()
    replicas = [link for route in gateway.topology.map.routes() for link in route.replicas]
    return (
        not gateway.unready()
        and all(link.connected for link in links)
        and all(link.connection(Lane.READONLY) is not None for link in replicas)
    )


async def ask(gateway: Gateway, operation: str, **request: Any) -> Answer:
    """Carry out one operation by its name."""
    found = next(one for one in OPERATIONS if one.name == operation)
    return await gateway.answer(found, Request(**request))


def document(answer: Answer) -> dict[str, Any]:
    """The answer's JSON."""
    found: dict[str, Any] = json.loads(answer.body)
    return found


def header(answer: Answer, name: str) -> str | None:
    """One of our headers."""
    return dict(answer.headers).get(f"X-ShardCluster-{name}")
