"""Replies that no real node gives on demand: cut off in the middle, or not RESP at all.

The gateway is a process of its own, asked over HTTP; only the nodes are scripted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.cluster.gateway_fixtures import gateway_process
from tests.cluster.troubled import CLIENT_TIMEOUT_S, Asked
from tests.unit.api_fakes import CLOSE, HANG, Bytes, FakeShard, fake_shard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BROKEN = {
    "half, then the end": Bytes(b"$5\r\nhal", CLOSE),
    "half, then nothing": Bytes(b"$5\r\nhal", HANG),
    "half a status": Bytes(b"+O", CLOSE),
    "not RESP": Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n", HANG),
    "another's reply": Bytes(b"$5\r\nwrong\r\n", CLOSE),
    "one reply too many": Bytes(b"+OK\r\n+OK\r\n", HANG),
}


@asynccontextmanager
async def _served(shard: FakeShard) -> AsyncIterator[Asked]:
    context = gateway_process("fast", seeds=str(shard.master.address))
    # In a thread: the nodes that it asks live in this event loop.
    gateway = await asyncio.to_thread(context.__enter__)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=CLIENT_TIMEOUT_S) as client:
            yield Asked(gateway, client)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@pytest.mark.parametrize("reply", [*list(BROKEN.values())[:4]], ids=list(BROKEN)[:4])
async def test_a_broken_reply_to_a_read_is_asked_of_another_node(reply: Bytes) -> None:
    """And what comes after it is right."""
    async with fake_shard() as shard, _served(shard) as asked:
        for node in shard.nodes:
            node.data |= {b"k": b"value", b"other": b"different"}
        for _ in range(3):
            assert (await asked.get("k")).content == b"value"
        shard.replicas[0].script[b"GET"] = deque([reply])
        while shard.replicas[0].script[b"GET"]:  # one that was slow gets no reads for a second
            found = await asked.get("k")
            assert (found.status_code, found.content) == (200, b"value")
        for _ in range(3):
            assert (await asked.get("other")).content == b"different"


@pytest.mark.parametrize(
    ("name", "durable"),
    [*((name, "") for name in BROKEN), ("half, then the end", "?durability=replica")],
)
async def test_a_broken_reply_to_a_write_leaves_its_fate_unknown(name: str, durable: str) -> None:
    """503 and `unknown`, and it is not sent again; what comes after it is right.

    A whole reply with one too many behind it is a success: the write was answered.
    """
    async with fake_shard() as shard, _served(shard) as asked:
        for number in range(3):
            assert (await asked.put("k", b"%04d" % number, durable)).status_code == 204
        before = shard.master.count(b"SET")
        shard.master.script[b"SET"] = deque([BROKEN[name]])
        answer = await asked.put("k", b"lost", durable)
        if name != "one reply too many":
            assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown"), answer.text
            assert answer.json()["error"]["code"] == "OutcomeUnknown"
        assert shard.master.count(b"SET") == before + 1
        shard.master.data[b"other"] = b"different"
        assert (await asked.put("k", b"new", durable)).status_code == 204
        for _ in range(3):
            found = await asked.get("other", "?consistency=strong")
            assert (found.status_code, found.content) == (200, b"different")
