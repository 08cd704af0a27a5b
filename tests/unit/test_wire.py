"""Commands that leave together: their replies, and what is left when the connection ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import hiredis
import pytest

from shardcluster.observed import Address
from shardcluster_runtime.wire import ConnectionLost, NodeConnection, Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PING = hiredis.pack_command(("PING",))


@asynccontextmanager
async def _node(*replies: bytes) -> AsyncIterator[NodeConnection]:
    """A connection to a node that gives these replies once asked, and then ends."""
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(len(PING))
            writer.write(b"".join(replies))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # nobody asked
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            ended.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await NodeConnection.open(Address("127.0.0.1", port), timeout_s=10)
        yield connection
        connection.close()
        await ended.wait()


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_replies_come_in_the_order_of_the_commands(count: int) -> None:
    """An error is a value like any other."""
    async with _node(*(b":%d\r\n" % number for number in range(count - 1)), b"-ERR no\r\n") as node:
        volley = node.send_many(PING * count, count)
        assert node.waiting == count
        await asyncio.wait([volley.last])
        *numbers, last = volley.replies()
        assert numbers == list(range(count - 1))
        assert isinstance(last, hiredis.ReplyError)
        assert volley.lost() is None


async def test_what_came_before_the_end_is_there() -> None:
    """And the others are lost after they were sent."""
    async with _node(b":0\r\n", b":1\r\n") as node:
        volley = node.send_many(PING * 5, 5)
        assert volley.lost() is None
        await asyncio.wait([volley.last])
        assert volley.replies() == [0, 1]
        lost = volley.lost()
        assert isinstance(lost, ConnectionLost)
        assert lost.sent
        assert node.waiting == 0


async def test_what_never_left_says_so() -> None:
    """Closed in the same turn of the event loop, by the other side's word or ours."""
    async with _node() as node:
        volley = node.send_many(PING * 3, 3)
        node.connection_lost(None)
        lost = volley.lost()
        assert isinstance(lost, ConnectionLost)
        assert not lost.sent
        assert volley.replies() == []
        with pytest.raises(ConnectionLost):
            node.send_many(PING, 1)


async def test_too_many_are_refused_whole() -> None:
    """Nothing of them is sent."""
    async with _node(b":0\r\n") as node:
        node.pending_max = 3
        first = node.send_many(PING, 1)
        with pytest.raises(Overloaded):
            node.send_many(PING * 3, 3)
        assert node.waiting == 1
        await asyncio.wait([first.last])
        assert first.replies() == [0]
