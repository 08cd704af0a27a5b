"""Malformed replies of nodes: against the connection to a node, and against a whole gateway.

What must hold: commands get the replies that stand in their places, and nothing else; after what
is no RESP the connection ends and whoever waits hears it; a client of the gateway gets an answer
that is documented, and never the value of another key.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import hiredis

from shardcluster.observed import Address
from shardcluster_runtime.wire import ConnectionLost, NodeConnection
from tests.unit.api_fakes import FakeShard, ask, gateway_on

if TYPE_CHECKING:
    import random

    from shardcluster_api.gateway import Gateway

__all__ = ["fuzz_gateway", "fuzz_replies"]

NODE = Address("192.0.2.1", 6379)  # never connected to
COMMANDS_MAX = 4
RECOVERY_S = 60.0
AT_ONCE = 20  # one wrong reply ends the connection for all of them
STATUSES = frozenset({200, 204, 404, 409, 502, 503, 507})
_MORE = object()
_GOOD = [
    b"+OK\r\n", b":1\r\n", b"$5\r\nhello\r\n", b"$-1\r\n", b"$0\r\n\r\n",
    b"*2\r\n:1\r\n$1\r\na\r\n", b"*-1\r\n", b"*0\r\n", b"-ERR no\r\n",
    b"-MOVED 1 192.0.2.9:6379\r\n", b"-ASK 1 192.0.2.9:6379\r\n",
    b"-TRYAGAIN x\r\n", b"-LOADING x\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"%1\r\n+a\r\n:1\r\n",
]  # fmt: skip
_BYTES = [
    b"\r", b"\n", b"\r\n", b"\0", b"+", b"-", b":", b"$", b"*", b"%", b"~", b">", b"(", b"=", b"!",
    b"0", b"1", b"-1", b"99999", b"9" * 25, b"$3\r\n", b"*3\r\n", b"-MOVED 70000 x:y\r\n",
    b"-MOVED\r\n", b"-ASK 5\r\n", b"-MOVED 5 :0\r\n", b"\xff", b"*1\r\n" * 12,
]  # fmt: skip


def _reply(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(_GOOD))
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        how = chance.randrange(4)
        if how == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            del data[at : at + chance.choice((1, 2, 4))]
        elif how == 2:
            del data[at:]
        else:
            data[at:at] = chance.choice(_BYTES)
    return bytes(data)


class _Wire(asyncio.Transport):
    """Only memory."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def write(self, data: Any) -> None:
        """The connection's call."""

    def abort(self) -> None:
        """The connection's call."""
        self.ended = True

    close = abort


class _Replies(NamedTuple):
    """What a stream of replies holds."""

    whole: list[Any]
    wrong: bool


def _read(data: bytes) -> _Replies:
    """All at once by a parser of its own; the connection gets the same in pieces."""
    reader = hiredis.Reader(notEnoughData=_MORE)
    reader.feed(data)
    found: list[Any] = []
    try:
        while (reply := reader.gets()) is not _MORE:
            found.append(reply)
    except (hiredis.ProtocolError, TypeError):
        return _Replies(found, wrong=True)
    return _Replies(found, wrong=False)


async def fuzz_replies(chance: random.Random) -> None:
    """One connection with some commands; raises AssertionError with what was sent."""
    count = chance.randint(1, COMMANDS_MAX)
    data = b"".join(_reply(chance) for _ in range(count))
    closed: list[NodeConnection] = []
    connection = NodeConnection(NODE, closed.append)
    wire = _Wire()
    connection.connection_made(wire)
    futures = [connection.send("GET", f"k{number}") for number in range(count)]
    at = 0
    while at < len(data):
        size = chance.choice((1, 3, len(data)))
        if not wire.ended:
            connection.data_received(data[at : at + size])
        at += size
    expected = _read(data)
    wrong = expected.wrong or len(expected.whole) > count
    try:
        assert connection.closed == wire.ended == bool(closed) == wrong
        for number, future in enumerate(futures):
            if number < len(expected.whole):
                assert repr(future.result()) == repr(expected.whole[number])
            elif wrong:
                assert isinstance(future.exception(), ConnectionLost)
            else:
                assert not future.done()
    except AssertionError as error:
        message = f"replies {data!r} to {count} commands: {error}"
        raise AssertionError(message) from error
    connection.close()
    assert connection.waiting == 0
    await asyncio.sleep(0)  # what it wanted to write


async def _in_step(gateway: Gateway) -> bool:
    """Whether a key is stored and read back."""
    stored = await ask(gateway, "put_key", key=b"k", body=b"v")
    return stored.status == 204 and (await ask(gateway, "get_key", key=b"k")).body == b"v"


async def fuzz_gateway(chance: random.Random, requests: int) -> None:
    """A gateway whose node answers data commands with anything; raises AssertionError."""
    shard = FakeShard(0)
    node = shard.master
    sent: dict[bytes, bytes] = {}

    def reply(command: tuple[bytes, ...]) -> Any:
        if command[0] not in {b"GET", b"SET", b"UNLINK"}:
            return plain(command)
        sent[command[1]] = _reply(chance)
        return bytearray(sent[command[1]])

    plain = node._reply
    node._reply = reply  # type: ignore[method-assign]
    await node.start()
    try:
        async with gateway_on(node.address) as gateway:

            async def one(number: int) -> None:
                key = b"key-%d" % number
                what = chance.choice(("get_key", "put_key", "delete_key"))
                answer = await ask(gateway, what, key=key, body=b"v")
                assert answer.status in STATUSES, (what, sent.get(key), answer)
                assert isinstance(answer.body, bytes), (what, sent.get(key), answer)

            for first in range(0, requests, AT_ONCE):
                await asyncio.gather(*map(one, range(first, first + AT_ONCE)))
            assert gateway.in_flight == 0
            node._reply = plain  # type: ignore[method-assign]
            # A node that sent half a reply and goes on as if it had been whole is out of step. By
            # itself the gateway sees that and takes another connection; then all is well for good.
            async with asyncio.timeout(RECOVERY_S):
                while not await _in_step(gateway):
                    await asyncio.sleep(0.05)
            for _ in range(5):
                assert await _in_step(gateway)
    finally:
        await node.stop()
