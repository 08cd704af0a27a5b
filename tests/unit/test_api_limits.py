"""What a client may take its time with, and how many may come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardcluster_api import protocol
from tests.fuzz.connections import Wire, running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fuzz.connections import Server

DEADLINE_S = 20.0
SOON_S = 0.05
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as server:
        yield server


async def _end(wire: Wire) -> bytes:
    """All that the client gets until the server ends the connection."""
    async with asyncio.timeout(DEADLINE_S):
        while not wire.ended:
            wire.news.clear()
            await wire.news.wait()
    await wire.leave()
    return bytes(wire.received)


@pytest.mark.parametrize("before", [b"", REQUEST], ids=["first", "second"])
@pytest.mark.parametrize(("start", "drop"), [(b"G", b""), (REQUEST[:-4], b"x"), (b"\r\n", b"\r\n")])
async def test_a_head_that_drips_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch, before: bytes, start: bytes, drop: bytes
) -> None:
    """However much of it comes, and be it only empty lines."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", SOON_S)
    wire = Wire(server)
    if before:
        await wire.send(before)
        while not wire.received:
            await wire.news.wait()
    wire.received.clear()
    await wire.send(start)
    while drop and not wire.ended:
        await wire.send(drop)
        await asyncio.sleep(0)
    answer = await _end(wire)
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("sent", [b"", REQUEST], ids=["silent", "after a request"])
async def test_an_idle_connection_ends(server: Server, sent: bytes) -> None:
    """Without a word, as keep-alive has it."""
    server.config.timeout_keep_alive = 0
    wire = Wire(server)
    if sent:
        await wire.send(sent)
    answer = await _end(wire)
    assert answer.count(b"HTTP/1.1 200") == bool(sent)


async def test_one_client_too_many_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 503 and when to come again; the others are served."""
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 1)
    first = Wire(server)
    answer = await _end(Wire(server))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in answer
    await first.send(REQUEST)
    while not first.received:
        await first.news.wait()
    assert first.received.startswith(b"HTTP/1.1 200 ")
    await first.leave()
