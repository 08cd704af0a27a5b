"""The two ways in which `shardctl bench` reaches a store: HTTP, or the nodes themselves.

The HTTP side writes requests by hand on plain streams: a full client library would spend more
time on a request than the gateway does, and the numbers would be its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlsplit

import hiredis

from shardcluster.observed import Address
from shardcluster.slots import SLOT_COUNT, SlotSet, key_slot
from shardcluster_runtime.cli.client import token
from shardcluster_runtime.wire import ConnectionLost, NodeConnection

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HttpLane", "Lane", "NodeRoutes", "RequestFailed"]

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 5.0
REDIRECTS_MAX = 5
REFRESH_INTERVAL_S = 0.2  # of the slot map, after a connection was lost
HTTP_OK = (200, 201, 202, 204)
HTTP_NOT_FOUND = 404

Document = dict[str, Any]


class RequestFailed(Exception):
    """The store answered with an error, or not at all."""


class Lane(Protocol):
    """One caller's way to the store; each method raises RequestFailed."""

    async def set(self, key: str, value: bytes) -> None:
        """Write."""
        ...

    async def get(self, key: str) -> None:
        """Read; a key that isn't there is a good answer."""
        ...

    async def delete(self, key: str) -> None:
        """Remove."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...


class HttpLane:
    """One keep-alive connection to the gateway's `/v1/keys/…`."""

    def __init__(self, url: str) -> None:
        """Connects with the first request."""
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._path = f"{parts.path.rstrip('/')}/v1/keys/"
        self._authority = parts.netloc
        self._login = f"Authorization: Bearer {known}\r\n" if (known := token()) else ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def set(self, key: str, value: bytes) -> None:
        """PUT /v1/keys/KEY."""
        await self._request("PUT", key, value)

    async def get(self, key: str) -> None:
        """GET /v1/keys/KEY."""
        await self._request("GET", key)

    async def delete(self, key: str) -> None:
        """DELETE /v1/keys/KEY."""
        await self._request("DELETE", key)

    async def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _request(self, method: str, key: str, body: bytes = b"") -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                status = await self._exchange(method, key, body)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            await self.close()
            message = f"{method}: {str(error) or type(error).__name__}"
            raise RequestFailed(message) from error
        if status not in HTTP_OK and not (status == HTTP_NOT_FOUND and method != "PUT"):
            message = f"{method}: HTTP {status}"
            raise RequestFailed(message)

    async def _exchange(self, method: str, key: str, body: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls or None
            )
        reader, writer = self._streams
        head = (
            f"{method} {self._path}{quote(key, safe='')} HTTP/1.1\r\nHost: {self._authority}\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: application/octet-stream\r\n"
            f"{self._login}\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(answer[9:12])
        length = answer.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if length:
            await reader.readexactly(int(length))
        elif status not in {204, 304}:
            message = "an answer without Content-Length"
            raise ValueError(message)
        if b"\r\nconnection: close" in answer:
            await self.close()
        return status


class NodeRoutes:
    """Slot map and connections to the masters, shared by all callers as one Lane."""

    def __init__(self, read_state: Callable[[], Document]) -> None:
        """`read_state` fetches the state document; it may block, so it runs in a thread."""
        self._read_state = read_state
        self._connections: dict[Address, NodeConnection] = {}
        self._owners: list[Address | None] = [None] * SLOT_COUNT
        self._opening = asyncio.Lock()
        self._refreshed_s = -REFRESH_INTERVAL_S

    async def refresh(self) -> None:
        """Read who owns which slot, but not more often than `REFRESH_INTERVAL_S`."""
        now_s = time.monotonic()
        if now_s - self._refreshed_s < REFRESH_INTERVAL_S:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            return
        self._refreshed_s = now_s
        state = await asyncio.to_thread(self._read_state)
        addresses = {
            node["name"]: Address(node["host"], node["port"])
            for node in state["nodes"]
            if node.get("host")
        }
        for shard in state["shards"]:
            for slot in SlotSet.parse(shard["slot_ranges"]):
                self._owners[slot] = addresses.get(shard["master"])

    async def set(self, key: str, value: bytes) -> None:
        """SET at the slot's master."""
        await self._call(key, ("SET", key, value))

    async def get(self, key: str) -> None:
        """GET at the slot's master."""
        await self._call(key, ("GET", key))

    async def delete(self, key: str) -> None:
        """DEL at the slot's master."""
        await self._call(key, ("DEL", key))

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    async def _call(self, key: str, command: tuple[str | bytes, ...]) -> None:
        slot = key_slot(key.encode())
        address, asking = self._owners[slot], False
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                for _ in range(REDIRECTS_MAX):
                    reply = await self._send(address, command, asking=asking)
                    if not isinstance(reply, hiredis.ReplyError):
                        return
                    word, _, rest = str(reply).partition(" ")
                    if word not in {"MOVED", "ASK"}:
                        raise RequestFailed(str(reply))
                    host, _, port = rest.split()[1].rpartition(":")
                    address = Address(host, int(port))
                    asking = word == "ASK"
                    if not asking:
                        self._owners[slot] = address
        except (ConnectionLost, OSError) as error:
            await self.refresh()
            raise RequestFailed(str(error) or type(error).__name__) from error
        message = f"more than {REDIRECTS_MAX} redirects"
        raise RequestFailed(message)

    async def _send(
        self, address: Address | None, command: tuple[str | bytes, ...], *, asking: bool
    ) -> object:
        if address is None:
            await self.refresh()
            message = "no master is known for the slot"
            raise RequestFailed(message)
        connection = self._connections.get(address)
        if connection is None or connection.closed:
            async with self._opening:
                connection = self._connections.get(address)
                if connection is None or connection.closed:
                    connection = await NodeConnection.open(address, timeout_s=CONNECT_TIMEOUT_S)
                    self._connections[address] = connection
        if asking:
            connection.send("ASKING")
        return await connection.send(*command)
