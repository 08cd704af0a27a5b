"""Clients that don't read, send ahead without end, or send in drops: what each may cost."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from shardcluster_api.limits import VALUE_BYTES_MAX
from tests.cluster.gateway_fixtures import gateway_process, small_cluster
from tests.cluster.wires import DEADLINE_S, Wire, get, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster

__all__ = ["small_cluster"]

MIB = 1024 * 1024
UNSENT_MAX = 20 * MIB
FLASK_THREADS_AND_MORE = 20
TIMEOUTS = {
    "shardcluster_api.flow.STALLED_AFTER_S": 0.5,
    "shardcluster_api.flow.RECEIVE_TIMEOUT_S": 1.5,
    "shardcluster_api.protocol.RECEIVE_TIMEOUT_S": 1.5,
}


@pytest.fixture(scope="module")
def gateway(small_cluster: MiniCluster) -> Iterator[GatewayProcess]:
    seeds = str(small_cluster.masters[0].address)
    environment = {"SHARDCLUSTER_UNSENT_BYTES_MAX": str(UNSENT_MAX)}
    with gateway_process("fast", seeds=seeds, environment=environment) as process:
        yield process


@pytest.fixture(scope="module")
def impatient(small_cluster: MiniCluster) -> Iterator[GatewayProcess]:
    """One with time limits that a test can wait for."""
    seeds = str(small_cluster.masters[0].address)
    with gateway_process("fast", seeds=seeds, changed=TIMEOUTS) as process:
        yield process


def _rss(gateway: GatewayProcess) -> int:
    return int(psutil.Process(gateway.process.pid).memory_info().rss)


def _metric(gateway: GatewayProcess, name: str) -> float:
    text = httpx.get(f"{gateway.url}/metrics", timeout=DEADLINE_S).text
    found = re.search(rf"^shardcluster_gateway_{name} (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def _until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_client_that_sends_ahead_and_never_reads_costs_a_bounded_buffer(
    gateway: GatewayProcess,
) -> None:
    """100,000 GETs, none of whose answers is read: the gateway stops to take them in."""
    with Wire(gateway.port) as wire:
        wire.send(put(b"ahead", b"x" * 1000))
        assert wire.answer()[0] == 204
    before = _rss(gateway)
    wires = [Wire(gateway.port, receive_buffer=4096) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for wire in wires:
            stack.enter_context(wire)
            wire.socket.settimeout(1.0)
            with contextlib.suppress(TimeoutError):  # it takes no more: that is the point
                wire.send(get(b"ahead") * 100_000)
            assert httpx.get(f"{gateway.url}/v1/keys/ahead", timeout=DEADLINE_S).status_code == 200
        assert _rss(gateway) - before < len(wires) * 8 * MIB
    assert httpx.get(f"{gateway.url}/v1/keys/ahead", timeout=DEADLINE_S).status_code == 200


def test_many_requests_sent_ahead_are_all_answered_in_order(gateway: GatewayProcess) -> None:
    """20,000 in one go, read by a client that takes its time; each gets its own answer."""
    count = 20_000
    with Wire(gateway.port) as setting:
        for number in range(100):
            setting.send(put(b"n%d" % number, b"%d" % number))
            assert setting.answer()[0] == 204
    with Wire(gateway.port) as wire:
        wire.socket.setblocking(False)
        data = b"".join(get(b"n%d?consistency=strong" % (number % 100)) for number in range(count))
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(data):
                sent += wire.socket.send(data[sent : sent + 65_536])
        wire.socket.settimeout(DEADLINE_S)
        for number in range(count):
            if number % 100 == 0 and sent < len(data):
                wire.send(data[sent : sent + 10_000])
                sent += 10_000
            assert wire.answer()[:2] == (200, b"%d" % (number % 100))


def test_answers_that_nobody_reads_are_bounded_and_small_ones_go_on(
    gateway: GatewayProcess,
) -> None:
    """Of many clients that ask for 8 MiB and don't read, those over the limit get a 503.

    When the slow ones are gone, large values are served again at once.
    """
    with Wire(gateway.port) as wire:
        wire.send(put(b"large", b"x" * VALUE_BYTES_MAX) + put(b"small", b"x"))
        assert wire.answer()[0] == wire.answer()[0] == 204
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Wire(gateway.port, receive_buffer=4096)) for _ in range(12)]
        for wire in slow:
            wire.send(get(b"large?consistency=strong"))
        _until(lambda: bool(_first_bytes(slow)), "some are refused")
        assert _metric(gateway, "unsent_bytes") <= UNSENT_MAX
        refused = _first_bytes(slow)[0].answer()
        assert (refused[0], refused[2][b"retry-after"]) == (503, b"1")
        assert b"TooBusy" in refused[1]
        small = httpx.get(f"{gateway.url}/v1/keys/small", timeout=DEADLINE_S)
        assert small.status_code == 200
    _until(lambda: _metric(gateway, "unsent_bytes") == 0, "the memory is given back")
    large = httpx.get(f"{gateway.url}/v1/keys/large?consistency=strong", timeout=DEADLINE_S)
    assert len(large.content) == VALUE_BYTES_MAX


def _first_bytes(wires: list[Wire]) -> list[Wire]:
    """Those whose answer begins with a refusal; nothing is taken from the sockets."""
    found = []
    for wire in wires:
        wire.socket.settimeout(DEADLINE_S)
        if wire.socket.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503":
            found.append(wire)
    return found


def test_a_client_that_stops_reading_is_cut_off(impatient: GatewayProcess) -> None:
    """One that reads on, however slowly, is not."""
    with Wire(impatient.port) as wire:
        wire.send(put(b"long", b"x" * VALUE_BYTES_MAX))
        assert wire.answer()[0] == 204
    with Wire(impatient.port, receive_buffer=4096) as stopped:
        stopped.send(get(b"long?consistency=strong"))
        _until(lambda: _metric(impatient, "unsent_bytes") > 0, "it piles up")
        _until(lambda: _metric(impatient, "unsent_bytes") == 0, "it is cut off")
    with Wire(impatient.port, receive_buffer=4096) as slow:
        slow.send(get(b"long?consistency=strong"))
        _until(lambda: _metric(impatient, "unsent_bytes") > 0, "it piles up")
        assert len(slow.answer()[1]) == VALUE_BYTES_MAX


@pytest.mark.parametrize("path", [b"PUT /v1/keys/drops", b"POST /write", b"POST /rebalance"])
def test_a_body_that_comes_in_drops_is_given_up(impatient: GatewayProcess, path: bytes) -> None:
    """408 at its time limit, whatever the operation; nothing is done."""
    with Wire(impatient.port) as wire:
        wire.send(path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        status, body, _ = wire.answer()
        assert (status, b"RequestTimeout" in body) == (408, True)
        assert wire.answer()[0] == 0
    assert httpx.get(f"{impatient.url}/v1/keys/drops", timeout=DEADLINE_S).status_code == 404


def test_bodies_that_come_in_drops_hold_up_nobody_else(gateway: GatewayProcess) -> None:
    """More of them than Flask has threads, at an operation that Flask answers."""
    with contextlib.ExitStack() as stack:
        for _ in range(FLASK_THREADS_AND_MORE):
            wire = stack.enter_context(Wire(gateway.port))
            wire.send(b"POST /rebalance HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        for path in ("/metrics", "/status", "/"):
            assert httpx.get(f"{gateway.url}{path}", timeout=DEADLINE_S).status_code == 200
