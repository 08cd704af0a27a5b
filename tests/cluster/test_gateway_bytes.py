"""The fast protocol, byte by byte: split packets, pipelines, limits, and how the process ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from shardcluster_api.limits import HEAD_BYTES_MAX, VALUE_BYTES_MAX
from tests.cluster.gateway_fixtures import gateway_process, small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster

__all__ = ["small_cluster"]

DEADLINE_S = 20.0
STRONG = b"?consistency=strong"


def _seeds(cluster: MiniCluster) -> str:
    return str(cluster.masters[0].address)


@pytest.fixture(scope="module")
def gateway(small_cluster: MiniCluster) -> Iterator[GatewayProcess]:
    with gateway_process("fast", seeds=_seeds(small_cluster)) as process:
        yield process


class _Wire:
    """A raw connection that reads whole answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, head_only: bool = False) -> tuple[int, bytes, dict[bytes, bytes]]:
        status = int(self._file.readline().split()[1])
        headers: dict[bytes, bytes] = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        length = 0 if head_only else int(headers.get(b"content-length", 0))
        return status, self._file.read(length), headers

    def at_end(self) -> bool:
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@contextmanager
def _wire(gateway: GatewayProcess) -> Iterator[_Wire]:
    wire = _Wire(gateway.port)
    try:
        yield wire
    finally:
        wire.close()


def _put(key: bytes, value: bytes) -> bytes:
    head = b"PUT /v1/keys/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    return head % (key, len(value)) + value


def _get(key: bytes) -> bytes:
    return b"GET /v1/keys/%b%b HTTP/1.1\r\nHost: x\r\n\r\n" % (key, STRONG)


def test_requests_in_pieces_of_one_byte(gateway: GatewayProcess) -> None:
    """Head and body may be split anywhere."""
    with _wire(gateway) as wire:
        for byte in _put(b"split%20key", b"va\r\nlue") + _get(b"split%20key"):
            wire.send(bytes([byte]))
        assert wire.answer()[0] == 204
        assert wire.answer()[:2] == (200, b"va\r\nlue")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_requests_cut_in_two(gateway: GatewayProcess, cut: int) -> None:
    """The second half comes in another packet."""
    data = _put(b"cut", b"0123456789") + _get(b"cut")
    with _wire(gateway) as wire:
        wire.send(data[:cut])
        wire.send(data[cut:])
        assert wire.answer()[0] == 204
        assert wire.answer()[:2] == (200, b"0123456789")


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    """Hot ones and those that Flask answers, mixed, in one packet."""
    page = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    data = b"".join(
        _put(b"p%d" % number, b"%d" % number) + page + _get(b"p%d" % number) for number in range(20)
    )
    with _wire(gateway) as wire:
        wire.send(data)
        for number in range(20):
            assert wire.answer()[0] == 204
            status, body, _ = wire.answer()
            assert (status, b"ShardCluster" in body) == (200, True)
            assert wire.answer()[:2] == (200, b"%d" % number)


def test_head_and_keep_alive(gateway: GatewayProcess) -> None:
    """HEAD has a length and no body; `Connection: close` and HTTP/1.0 end the connection."""
    with _wire(gateway) as wire:
        wire.send(_put(b"h", b"12345"))
        assert wire.answer()[0] == 204
        wire.send(b"HEAD /v1/keys/h?consistency=strong HTTP/1.1\r\nHost: x\r\n\r\n" + _get(b"h"))
        status, _, headers = wire.answer(head_only=True)
        assert (status, headers[b"content-length"]) == (200, b"5")
        assert wire.answer()[:2] == (200, b"12345")
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert wire.answer()[2][b"connection"] == b"close"
        assert wire.at_end()
    with _wire(gateway) as wire:
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert wire.answer()[0] == 200
        assert wire.at_end()


def test_expect_continue_is_answered_before_the_body(gateway: GatewayProcess) -> None:
    """And with the refusal in place of it when the body will be too long."""
    head = (
        b"PUT /v1/keys/e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )
    with _wire(gateway) as wire:
        wire.send(head % 3)
        assert wire.answer()[0] == 100
        wire.send(b"abc")
        assert wire.answer()[0] == 204
        wire.send(head % (VALUE_BYTES_MAX + 1))
        assert wire.answer()[0] == 413
        assert wire.at_end()


def test_a_refused_body_ends_the_connection(gateway: GatewayProcess) -> None:
    """What follows is never taken for a request."""
    with _wire(gateway) as wire:
        head = b"PUT /v1/keys/r HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        wire.send(head % 10**12 + _put(b"smuggled", b"1"))
        assert wire.answer()[0] == 413
        assert wire.at_end()
    assert httpx.get(f"{gateway.url}/v1/keys/smuggled?consistency=strong").status_code == 404


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (HEAD_BYTES_MAX + 1),
        b"GET /v1/keys/" + b"k" * (HEAD_BYTES_MAX + 1),
        b"GET /healthz HTTP/1.1\r\n" + b"X-A: b\r\n" * (HEAD_BYTES_MAX // 8 + 1),
    ],
    ids=["header", "path", "many headers"],
)
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["endless", "ended"])
def test_a_head_over_the_limit_is_refused(gateway: GatewayProcess, head: bytes, end: bytes) -> None:
    """Whether it ends or not."""
    with _wire(gateway) as wire:
        wire.send(head + end)
        assert wire.answer()[0] in {400, 414, 431}
        assert wire.at_end()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"PUT /v1/keys/k HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
    ids=["TLS", "RESP", "HTTP/9.9", "negative", "no number", "two", "two kinds", "bad chunk"],
)
def test_what_is_not_http_gets_a_400_in_json(gateway: GatewayProcess, data: bytes) -> None:
    """And the connection ends."""
    with _wire(gateway) as wire:
        wire.send(data)
        status, body, headers = wire.answer()
        assert (status, headers[b"content-type"]) == (400, b"application/json")
        assert b'"BadRequest"' in body
        assert wire.at_end()


def test_a_client_that_leaves_in_the_middle_hurts_nobody(gateway: GatewayProcess) -> None:
    """Half a body is not stored."""
    for _ in range(5):
        with _wire(gateway) as wire:
            wire.send(b"PUT /v1/keys/half HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
    assert httpx.get(f"{gateway.url}/v1/keys/half?consistency=strong").status_code == 404
    metrics = httpx.get(f"{gateway.url}/metrics").text
    assert "shardcluster_gateway_in_flight 0.0" in metrics
    assert "shardcluster_gateway_buffered_bytes 0.0" in metrics


def test_chunked_bodies_arrive_whole(gateway: GatewayProcess) -> None:
    """In any pieces."""
    with _wire(gateway) as wire:
        wire.send(b"PUT /v1/keys/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"1\r\na\r\n", b"3\r\nb", b"cd\r\n0\r", b"\n\r\n"):
            wire.send(piece)
        assert wire.answer()[0] == 204
        wire.send(_get(b"c"))
        assert wire.answer()[:2] == (200, b"abcd")


def test_a_busy_port_is_told_in_a_sentence(gateway: GatewayProcess) -> None:
    """And in the exit code."""
    ended = _run("--seeds", "127.0.0.1:1", "--port", str(gateway.port))
    assert ended.returncode == 1
    assert f"127.0.0.1:{gateway.port} is in use" in ended.stderr


def test_a_start_without_a_store_is_refused() -> None:
    """With what to give."""
    ended = _run()
    assert ended.returncode == 2
    assert "--controller" in ended.stderr
    assert _run("--seeds", "nonsense").returncode == 2
    assert _run("--seeds", "a:1", "--port", "x").returncode == 2


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shardcluster_api", *arguments],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip


def test_sigterm_drains_and_ends_with_zero(small_cluster: MiniCluster) -> None:
    """Not ready at once, a request under way is answered, then the process ends."""
    arguments = ("--drain-seconds", "0.5")
    with gateway_process("fast", *arguments, seeds=_seeds(small_cluster)) as process:
        with _wire(process) as wire:
            wire.send(b"PUT /v1/keys/d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
            process.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + DEADLINE_S
            while httpx.get(f"{process.url}/readyz").status_code != 503:
                assert time.monotonic() < deadline
            finishing = threading.Timer(1.0, wire.send, (b"cd",))  # after it stopped listening
            finishing.start()
            assert wire.answer()[0] == 204
            finishing.join()
        assert process.process.wait(DEADLINE_S) == 0
        assert process.said().startswith(f"ShardCluster gateway: {process.url} ")
