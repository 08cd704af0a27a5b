"""Channels by server-sent events: what is heard, and what a listener costs."""

from __future__ import annotations

import signal
import socket
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import redis

from tests.cluster.gateway_fixtures import front, gateway_process, small_cluster
from tests.cluster.plain_nodes import until_true

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster

__all__ = ["front", "small_cluster"]

MESSAGES = 100
MESSAGE_BYTES = 1024 * 1024
GROWTH_BYTES_MAX = 48 * 1024 * 1024


def _seeds(cluster: MiniCluster) -> str:
    return ",".join(str(node.address) for node in cluster.masters)


def _listeners(cluster: MiniCluster, channel: str) -> int:
    found = 0
    for node in cluster.nodes:
        with redis.Redis(port=node.port) as direct:
            found += direct.pubsub_numsub(channel)[0][1]
    return found


def _data(lines: Iterator[str]) -> str:
    return next(line for line in lines if line.startswith("data: "))


def test_a_listener_hears_what_any_node_is_told(
    front: GatewayProcess, small_cluster: MiniCluster
) -> None:
    """In Upstash's form, by channel and by pattern, with a body that is not looked at."""
    channel = uuid.uuid4().hex
    with (
        httpx.Client(base_url=front.url, timeout=30) as client,
        client.stream("POST", f"/subscribe/{channel}/other", content="[]") as answer,
        client.stream("GET", f"/psubscribe/{channel[:9]}*") as pattern,
    ):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines, matched = answer.iter_lines(), pattern.iter_lines()
        assert _data(lines) == f"data: subscribe,{channel},1"
        assert _data(lines) == "data: subscribe,other,2"
        assert _data(matched) == f"data: psubscribe,{channel[:9]}*,1"
        for index in range(5):
            client.post(f"/publish/{channel}", content=f"hello, {index}")
        for index in range(5):
            assert _data(lines) == f"data: message,{channel},hello, {index}"
            assert _data(matched) == f"data: pmessage,{channel[:9]}*,{channel},hello, {index}"
        for node in small_cluster.nodes:  # by another client of the cluster
            with redis.Redis(port=node.port) as direct:
                direct.publish(channel, "two\r\nlines")
            assert _data(lines) == f"data: message,{channel},two"
            assert _data(lines) == "data: lines"


def test_a_listener_that_goes_away_frees_its_connection(
    front: GatewayProcess, small_cluster: MiniCluster
) -> None:
    """At the latest when there is something to say to it."""
    channel = uuid.uuid4().hex
    with httpx.Client(base_url=front.url, timeout=30) as client:
        with client.stream("GET", f"/subscribe/{channel}") as answer:
            lines = answer.iter_lines()  # httpx ends the request when nobody holds this
            assert _data(lines) == f"data: subscribe,{channel},1"
            until_true(lambda: _listeners(small_cluster, channel) == 1, "a node has a listener")

        def gone() -> bool:
            client.get(f"/publish/{channel}/x")
            return _listeners(small_cluster, channel) == 0

        until_true(gone, "the node has no listener any more")


def test_the_end_of_the_gateway_ends_the_streams(small_cluster: MiniCluster) -> None:
    """In good order, and no process waits for them."""
    with (
        gateway_process("fast", seeds=_seeds(small_cluster)) as gateway,
        httpx.Client(base_url=gateway.url, timeout=30) as client,
        client.stream("GET", "/subscribe/news") as answer,
    ):
        lines = answer.iter_lines()
        assert _data(lines) == "data: subscribe,news,1"
        gateway.process.send_signal(signal.SIGTERM)
        assert not [line for line in lines if line.startswith("data:")]
        assert gateway.process.wait(20) == 0


def test_a_listener_that_does_not_read_costs_little(small_cluster: MiniCluster) -> None:
    """What it does not take stays with the node, which ends its subscription at its limit."""
    with gateway_process("fast", seeds=_seeds(small_cluster)) as gateway:
        lazy = socket.create_connection(("127.0.0.1", gateway.port))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b"GET /subscribe/flood HTTP/1.1\r\nHost: x\r\n\r\n")
        until_true(lambda: _listeners(small_cluster, "flood") == 1, "it listens")
        process = psutil.Process(gateway.process.pid)
        before = process.memory_info().rss
        message: Any = b"x" * MESSAGE_BYTES
        with redis.Redis(port=small_cluster.masters[0].port) as direct:
            for _ in range(MESSAGES):
                direct.publish("flood", message)
        assert httpx.get(f"{gateway.url}/ping", timeout=30).json() == {"result": "PONG"}
        assert process.memory_info().rss - before < GROWTH_BYTES_MAX
        lazy.close()
