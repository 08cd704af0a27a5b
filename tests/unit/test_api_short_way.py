"""The ways without a parser: the same bytes as the long one, and only what surely may take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from uvicorn.server import ServerState

from shardcluster.slots import key_slot
from shardcluster.spec_model import Durability, ReadFrom
from shardcluster_api.__main__ import server_config
from shardcluster_api.fast import FastCycle
from shardcluster_api.limits import BODY_BYTES_MAX, Limits
from shardcluster_api.protocol import GatewayProtocol
from shardcluster_api.router import Policy
from tests.unit.api_fakes import CLOSE, HANG, FakeShard, fake_shard, gateway_on, until

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from shardcluster_api.gateway import Gateway

_HOST = b"Host: x\r\nAccept: */*\r\n"


class _Transport:
    """A client that reads at once."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False


class _Client:
    """One connection to the gateway, without sockets."""

    def __init__(self, gateway: Gateway) -> None:
        config = server_config(gateway, _no_app)
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"now"), *config.encoded_headers]
        self.protocol = GatewayProtocol(gateway, config=config, server_state=state, app_state={})
        self.transport = _Transport()
        self.protocol.connection_made(cast("asyncio.Transport", self.transport))

    def send(self, data: bytes) -> str:
        """Which way it takes: `fast`, `known` or `long`."""
        messages = self.protocol._messages
        self.protocol.data_received(data)
        if self.protocol._messages > messages:
            return "long"
        return "fast" if isinstance(self.protocol.cycle, FastCycle) else "known"

    async def answer(self) -> bytes:
        """To what was sent; its place is left out, for reads may come from either node."""
        await until(lambda: self.protocol.cycle.response_complete, "an answer comes")
        found = bytes(self.transport.written)
        self.transport.written.clear()
        return b"\r\n".join(
            line
            for line in found.split(b"\r\n")
            if not line.startswith((b"x-shardcluster-node", b"x-shardcluster-role"))
        )

    def leave(self) -> None:
        self.protocol.connection_lost(None)


async def _no_app(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError


def _get(key: bytes) -> bytes:
    return b"GET /v1/keys/%b HTTP/1.1\r\n%b\r\n" % (key, _HOST)


def _put(key: bytes, value: bytes) -> bytes:
    head = b"PUT /v1/keys/%b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n"
    return head % (key, _HOST, len(value)) + value


def _post(path: bytes, body: bytes, length: bytes | None = None) -> bytes:
    digits = b"%d" % len(body) if length is None else length
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %b\r\n\r\n%b" % (path, _HOST, digits, body)


async def _ways(client: _Client, requests: Iterable[bytes]) -> list[str]:
    found = []
    for request in requests:
        found.append(client.send(request))
        await client.answer()
    return found


@pytest.mark.parametrize(
    ("request_", "way"),
    [
        (_get(b"a"), "fast"), (_get(b"{t}a"), "fast"), (_get(b"%C3%A9%00"), "fast"),
        (_get(b"k" * 300), "fast"), (_get(b"wide"), "fast"),
        (_get(b"a?consistency=strong"), "long"),
        (_get(b"gone"), "fast"), (_get(b'a"b'), "long"),
        (_put(b"p", b"1\r\n\r\n2"), "fast"), (_put(b"p", b""), "fast"),
        (_put(b"p?ttl_seconds=5", b"1"), "long"), (_get(b""), "long"),
        (_post(b"/v1/batch", b'{"operations":[{"op":"get","key":"a"}]}'), "known"),
        (_post(b"/pipeline", b'[["GET","a"],["GET","b"]]'), "known"),
        (_post(b"/", b'["SET","q","1"]'), "known"), (_post(b"/", b"nonsense"), "known"),
        (_post(b"/write", b'{"key":"w","value":"1"}'), "known"),
        (_post(b"/?x=y", b'["SET","q","1"]'), "long"),
    ],
)  # fmt: skip
async def test_the_second_request_of_a_kind_is_answered_alike_without_a_parser(
    shard: FakeShard, gateway: Gateway, request_: bytes, way: str
) -> None:
    """Byte for byte, where the way may be taken."""
    data = {
        b"a": b"1",
        b"{t}a": b"2",
        "é\0".encode(): b"3",
        b"k" * 300: b"4",
        b"wide": b"x" * 20_000,
    }
    for node in shard.nodes:
        node.data.update(data)
    client = _Client(gateway)
    # What is learnt of one request holds for the others with the same lines.
    await _ways(client, [_get(b"other"), _put(b"o", b"1"), _put(b"o", b""), _put(b"o", b"123456")])
    slow = _Client(gateway)
    half = len(request_) // 2
    slow.send(request_[:half])
    slow.send(request_[half:])
    expected = await slow.answer()
    assert client.send(request_) == ("long" if way in {"known", "long"} else way)
    assert await client.answer() == expected
    assert client.send(request_) == way
    assert await client.answer() == expected
    assert gateway.fast.under_way == 0
    assert gateway.buffered_bytes == 0


async def test_only_the_length_of_a_known_head_may_differ(gateway: Gateway) -> None:
    """And it must be that of the body, written as it always is."""
    client = _Client(gateway)
    ways = await _ways(client, [_post(b"/", b'["GET","a"]'), _post(b"/", b'["GET","bc"]')])
    assert ways == ["long", "known"]
    assert client.send(_post(b"/", b'["GET","a"]', b"011")) == "long"
    await client.answer()
    assert client.send(_post(b"/", b'["GET","a"]').replace(b"Accept", b"Accepd")) == "long"
    await client.answer()
    assert client.send(_post(b"/", b'["GET","a"]', b"12")) == "long"  # the rest comes
    client.protocol.data_received(b" ")
    assert (await client.answer()).startswith(b"HTTP/1.1 200")
    two = _post(b"/", b'["GET","a"]')
    assert client.send(two + two) == "long"
    await client.answer()


async def test_a_body_over_the_limit_is_refused_by_the_parser_s_way(gateway: Gateway) -> None:
    """Of a known head, too."""
    client = _Client(gateway)
    await _ways(client, [_post(b"/", b'["GET","a"]')])
    assert client.send(_post(b"/", b"x" * (BODY_BYTES_MAX + 1))) == "long"
    assert (await client.answer()).startswith(b"HTTP/1.1 413")


async def test_a_client_s_next_request_gets_its_own_answer(
    shard: FakeShard, gateway: Gateway
) -> None:
    """Also after one whose node answered late, when the long way had taken over."""
    shard.master.data.update({b"a": b"1", b"b": b"2"})
    shard.replicas[0].data.update({b"a": b"1", b"b": b"2"})
    client = _Client(gateway)
    assert await _ways(client, [_get(b"a"), _get(b"a")]) == ["long", "fast"]
    shard.replicas[0].always[b"GET"] = HANG
    assert client.send(_get(b"a")) == "fast"
    assert (await client.answer()).endswith(b"\r\n1")  # from the master
    assert client.send(_get(b"b")) == "fast"
    assert (await client.answer()).endswith(b"\r\n2")
    assert gateway.fast.under_way == 0


@pytest.mark.parametrize("trouble", [CLOSE, bytearray(b":1\r\n")])
async def test_a_write_that_left_is_never_sent_again(
    shard: FakeShard, gateway: Gateway, trouble: Any
) -> None:
    """Its fate is unknown, and the client hears so."""
    client = _Client(gateway)
    assert await _ways(client, [_put(b"a", b"1"), _put(b"a", b"1")]) == ["long", "fast"]
    before = shard.master.count(b"SET")
    shard.master.always[b"SET"] = trouble
    assert client.send(_put(b"a", b"2")) == "fast"
    answer = await client.answer()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"outcome":"unknown"' in answer
    assert shard.master.count(b"SET") == before + 1


async def test_a_client_that_left_gets_nothing(shard: FakeShard, gateway: Gateway) -> None:
    """And its reply harms nobody."""
    client = _Client(gateway)
    assert await _ways(client, [_get(b"a"), _put(b"a", b"1")]) == ["long", "long"]
    assert client.send(_put(b"a", b"2")) == "fast"
    client.leave()
    await until(lambda: gateway.fast.under_way == 0, "the reply comes")
    assert not client.transport.written
    assert shard.master.data[b"a"] == b"2"


async def test_the_last_answers_end_their_connections(gateway: Gateway) -> None:
    """A request that was under way when the gateway began to end is answered with that word."""
    client = _Client(gateway)
    await _ways(client, [_put(b"a", b"1")])
    assert client.send(_put(b"a", b"2")) == "fast"
    gateway.draining = True
    assert (await client.answer()).startswith(
        b"HTTP/1.1 204 No Content\r\nconnection: close\r\ndate: now\r\n"
    )


async def test_several_replicas_are_read_in_turn() -> None:
    """All requests of one turn of the event loop from the same one."""
    async with fake_shard(2) as shard, gateway_on(shard.master.address) as gateway:
        clients = [_Client(gateway) for _ in range(4)]
        await _ways(clients[0], [_get(b"a")])
        for _ in range(4):
            assert [client.send(_get(b"a")) for client in clients] == ["fast"] * 4
            nodes = {client.protocol.cycle.way.link for client in clients}
            assert len(nodes) == 1
            for client in clients:
                await client.answer()
        assert all(replica.count(b"GET") for replica in shard.replicas)


async def test_reads_of_a_moving_slot_and_durable_writes_go_the_long_way(
    shard: FakeShard, gateway: Gateway
) -> None:
    """And what the policy reads at the master is read there."""
    client = _Client(gateway)
    await _ways(client, [_get(b"a"), _put(b"a", b"1")])
    gateway.topology.map.set_moving([key_slot(b"a")])
    assert await _ways(client, [_get(b"a"), _put(b"a", b"2"), _get(b"b")]) == [
        "long", "fast", "fast",
    ]  # fmt: skip
    gateway.topology.map.set_moving([])
    gateway.router.policy = Policy(ReadFrom.MASTER, Durability.REPLICA)
    reads = shard.master.count(b"GET")
    assert await _ways(client, [_get(b"a"), _put(b"a", b"3")]) == ["fast", "long"]
    assert shard.master.count(b"GET") == reads + 1
    assert (shard.master.count(b"WAIT"), shard.master.data[b"a"]) == (1, b"3")


async def test_over_the_limit_nothing_goes_the_short_way() -> None:
    """The long way refuses it in its own words."""
    async with (
        fake_shard() as shard,
        gateway_on(shard.master.address, limits=Limits(in_flight_max=1)) as gateway,
    ):
        clients = [_Client(gateway) for _ in range(2)]
        for client in clients:
            await _ways(client, [_put(b"a", b"1")])
        assert [client.send(_put(b"a", b"2")) for client in clients] == ["fast", "long"]
        assert (await clients[1].answer()).startswith(b"HTTP/1.1 503")
        assert (await clients[0].answer()).startswith(b"HTTP/1.1 204")
