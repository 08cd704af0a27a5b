"""One kept-alive HTTP/1.1 connection that never sends anything twice and knows whether it sent.

Libraries send a request again when a kept-alive connection turns out to be closed.  A history can't
bear that: then one write could take effect twice, and nobody would know whose fault it was.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster.observed import Address

__all__ = ["Http", "NotSent", "Unanswered"]

CONNECT_TIMEOUT_S = 2.0
HEAD_BYTES_MAX = 1 << 16


class NotSent(Exception):
    """Nobody listens: the request has not left and will have no effect."""


class Unanswered(Exception):
    """The request may have been carried out; no whole answer came."""


class Http:
    """Connects when it has to; one request at a time."""

    def __init__(self, address: Address) -> None:
        """Nothing is opened yet."""
        self.address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        """End the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> tuple[int, bytes]:
        """(status, body); raises NotSent or Unanswered."""
        reader, writer = await self._connected()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.address.host}",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        try:
            async with asyncio.timeout(timeout_s):
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
                await writer.drain()
                return await _answer(reader)
        except (OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Unanswered(repr(error)) from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def ask_json(
        self, method: str, path: str, document: object = None, *, timeout_s: float
    ) -> tuple[int, Any]:
        """The same with JSON both ways."""
        body = b"" if document is None else json.dumps(document).encode()
        status, answer = await self.ask(
            method, path, body, headers={"Content-Type": "application/json"}, timeout_s=timeout_s
        )
        return status, json.loads(answer or b"null")

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        if self._streams is None:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    self._streams = await asyncio.open_connection(
                        self.address.host, self.address.port, limit=HEAD_BYTES_MAX
                    )
            except (OSError, TimeoutError) as error:
                raise NotSent(repr(error)) from error
        return self._streams


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status, length = int(head[0].split(" ", 2)[1]), 0
    for line in head[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return status, await reader.readexactly(length)
