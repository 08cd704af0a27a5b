"""Runs in a pod of the cluster: the round's clients, and the campaign's eyes.

Pods can't be reached from everywhere, and what is asked through the API server takes long; so
clients write from here, nodes are looked at from here, and masters are watched from here, also
while the API server is away.  The campaign asks over HTTP, through the API server's own proxy
(`k8s_pod.py`), and tells where nodes and gateways are: that is Kubernetes' own knowledge.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from aiohttp import web
from redis.asyncio.cluster import ClusterNode, RedisCluster

from shardcluster.observed import Address
from shardcluster_runtime.wire import (
    ConnectionLost,
    Credentials,
    NodeConnection,
    NodeReplyError,
    Overloaded,
)
from tests.chaos.history import Kind, Outcome
from tests.chaos.k8s_documents import (
    Document,
    operation_document,
    reading_document,
    seen_document,
    written_document,
)
from tests.chaos.look import look_at_all
from tests.chaos.reach import NodeRecord, Trouble, ask_node, now_ms
from tests.chaos.readout import read_once
from tests.chaos.taken import Takeover
from tests.chaos.writers import (
    FIRST_NUMBER,
    Answer,
    Writers,
    command_of,
    delete_keys,
    write_ballast,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["PORT"]

PORT = 9000
PAUSE_S = 0.2  # of each of the clients
WATCH_EVERY_S = 0.1
WATCH_TIMEOUT_S = 0.5
LIBRARY_TIMEOUT_S = 8.0
MEBIBYTE = 1 << 20

_TROUBLE = (OSError, TimeoutError, ConnectionLost, NodeReplyError, Overloaded)


class Whereabouts:
    """The way to the store, as the campaign last told it."""

    def __init__(self, password: str | None) -> None:
        """Nothing was told."""
        self.credentials = Credentials(password)
        self.gateway = Address("", 0)
        self._nodes: dict[str, NodeRecord] = {}

    def nodes(self) -> list[NodeRecord]:
        """Those that may answer, by name."""
        return list(self._nodes.values())

    def node(self, name: str) -> NodeRecord | None:
        """That one, if it has an address."""
        return self._nodes.get(name)

    def told(self, found: Document) -> None:
        """From now on."""
        self.gateway = Address(*found["gateway"])
        self._nodes = {
            name: NodeRecord(name, Address(*address))
            for name, address in sorted(found["nodes"].items())
        }


class Library:
    """Asks by redis-py; made anew when it is in trouble, as a pod that is restarted would.

    It may ask twice by itself: so a failure says nothing of what has become of the write.
    """

    def __init__(self, whereabouts: Whereabouts) -> None:
        """Nothing is opened yet."""
        self._whereabouts = whereabouts
        self._client: RedisCluster | None = None
        self._given_up: list[RedisCluster] = []
        self._opening = asyncio.Lock()

    def close(self) -> None:
        """What it has opened is closed by `end`."""

    async def end(self) -> None:
        """Close everything."""
        for client in (*self._given_up, self._client):
            if client is not None:
                with contextlib.suppress(Exception):
                    await client.aclose()
        self._client, self._given_up = None, []

    async def ask(self, kind: Kind, key: str, number: int) -> Answer:
        """One request."""
        try:
            async with asyncio.timeout(LIBRARY_TIMEOUT_S):
                client = await self._opened()
        except Exception as error:  # noqa: BLE001 - in trouble it raises more than what it documents
            return Outcome.FAILED, f"redis-py: {error!r}"
        try:
            async with asyncio.timeout(LIBRARY_TIMEOUT_S):
                return Outcome.OK, await client.execute_command(*command_of(kind, key, number))
        except Exception as error:  # noqa: BLE001 - as above
            if self._client is client:
                self._client = None
                self._given_up.append(client)  # others may be at something
            return Outcome.UNKNOWN, f"redis-py: {type(error).__name__}"

    async def _opened(self) -> RedisCluster:
        async with self._opening:
            if self._client is None:
                client = RedisCluster(
                    startup_nodes=[
                        ClusterNode(node.address.host, node.address.port)
                        for node in self._whereabouts.nodes()
                    ],
                    password=self._whereabouts.credentials.password, socket_timeout=3.0,
                    socket_connect_timeout=1.0,
                )  # fmt: skip
                self._given_up.append(client)  # should it come to nothing
                await client.initialize()
                self._given_up.remove(client)
                self._client = client
            return self._client


class Watch:
    """Knows when a node became a master that owns slots."""

    def __init__(self, whereabouts: Whereabouts) -> None:
        """Nobody is watched yet."""
        self._whereabouts = whereabouts
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.takeovers: list[Takeover] = []

    def all(self) -> None:
        """Watch all nodes that are known now; those that are gone have no address."""
        for node in self._whereabouts.nodes():
            if node.name not in self._tasks:
                self._tasks[node.name] = asyncio.create_task(self._one(node))

    async def _one(self, node: NodeRecord) -> None:
        connection: NodeConnection | None = None
        leads, at_ms = True, now_ms()
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            present = self._whereabouts.node(node.name)
            if present is None:
                continue
            try:
                async with asyncio.timeout(WATCH_TIMEOUT_S):
                    if connection is None or connection.address != present.address:
                        connection = await self._open(present, connection)
                    text = await connection.call("CLUSTER", "NODES")
            except _TROUBLE:
                if connection is not None:
                    connection.close()
                connection = None
                continue
            before, before_ms = leads, at_ms
            leads, at_ms = _leads(text.decode()), now_ms()
            if leads and not before:
                self.takeovers.append(Takeover(node.shard, before_ms, at_ms))

    async def _open(self, node: NodeRecord, old: NodeConnection | None) -> NodeConnection:
        if old is not None:
            old.close()
        return await NodeConnection.open(
            node.address, timeout_s=WATCH_TIMEOUT_S, credentials=self._whereabouts.credentials
        )


def _leads(cluster_nodes: str) -> bool:
    """Whether the node says of itself that it is a master and owns slots."""
    for line in cluster_nodes.splitlines():
        words = line.split()
        if len(words) > 2 and "myself" in words[2]:
            return "master" in words[2] and any(not word.startswith("[") for word in words[8:])
    return False


class Inside:
    """What the campaign may ask for."""

    def __init__(self, password: str | None) -> None:
        """No round has begun."""
        self.where = Whereabouts(password)
        self.watch = Watch(self.where)
        self._library = Library(self.where)
        self._numbers = [FIRST_NUMBER]
        self._writers: Writers | None = None
        self._writing: asyncio.Task[None] | None = None

    def answers(self) -> dict[str, Callable[[Document], Awaitable[Document]]]:
        """By word."""
        return {
            "clock": self.clock, "tell": self.tell, "look": self.look, "begin": self.begin,
            "end": self.end, "ballast": self.ballast, "read": self.read, "forget": self.forget,
            "views": self.views,
        }  # fmt: skip

    async def clock(self, _: Document) -> Document:
        """Now."""
        return {"now": now_ms()}

    async def tell(self, found: Document) -> Document:
        """Where nodes and gateways are."""
        self.where.told(found)
        self.watch.all()
        return {}

    async def look(self, found: Document) -> Document:
        """The same, and what the nodes say."""
        await self.tell(found)
        seen = await look_at_all(self.where, self.where.nodes())
        return {"nodes": [seen_document(node) for node in seen]}

    async def begin(self, found: Document) -> Document:
        """Clients write from now on."""
        self.watch.takeovers.clear()
        self._writers = Writers(
            self.where, tuple(found["keys"]), self._numbers, self._library, PAUSE_S
        )
        self._writing = asyncio.create_task(self._writers.run())
        return {}

    async def end(self, _: Document) -> Document:
        """They stop; what they have done."""
        if self._writers is None or self._writing is None:
            raise web.HTTPConflict
        self._writers.end()
        await self._writing
        await self._library.end()
        return written_document(self._writers.written, self.watch.takeovers)

    async def ballast(self, found: Document) -> Document:
        """Write it; the first that is refused is the last."""
        operations = await write_ballast(self.where, found["count"])
        return {"operations": [operation_document(operation) for operation in operations]}

    async def read(self, found: Document) -> Document:
        """What stands there, at every copy."""
        seen = await look_at_all(self.where, self.where.nodes())
        reading = await read_once(self.where, seen, found["keys"], found["leads"])
        return reading_document(reading)

    async def forget(self, found: Document) -> Document:
        """Delete keys."""
        await delete_keys(self.where, found["keys"])
        return {}

    async def views(self, _: Document) -> Document:
        """Every node's CLUSTER NODES and replication."""
        return {node.name: await _view(self.where, node) for node in self.where.nodes()}


async def _view(where: Whereabouts, node: NodeRecord) -> str:
    try:
        replies = await ask_node(where, node, ("CLUSTER", "NODES"), ("INFO", "replication"))
    except Trouble as error:
        return str(error)
    return "\n".join(reply.decode() for reply in replies if isinstance(reply, bytes))


async def _serve() -> None:
    inside = Inside(os.environ["PASSWORD"])
    answers = inside.answers()

    async def answer(request: web.Request) -> web.Response:
        asked: Any = await request.json() if request.can_read_body else {}
        return web.json_response(await answers[request.match_info["word"]](asked))

    app = web.Application(client_max_size=MEBIBYTE)
    app.router.add_route("*", f"/{{word:{'|'.join(answers)}}}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", PORT).start()  # noqa: S104 - the pod's own network
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
