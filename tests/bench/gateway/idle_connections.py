"""Ten thousand clients that keep their connection and say nothing: memory, and what others feel."""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
from typing import TYPE_CHECKING, Any

import psutil

from tests.bench.gateway.load import wrk
from tests.bench.gateway.speed import store

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["gateway_of", "run"]

IDLE = 10_000
FILES_WANTED = IDLE + 1000  # at both ends, each in its own process
MEMORY_MAX_MIB = 150
FACTOR_MAX = 1.5
CONNECTIONS = 32
REPETITIONS = 3
WINDOW_S = 3
AT_ONCE = 500  # connections opened before their answers are read
REQUEST = b"GET /v1/keys/key-1 HTTP/1.1\r\nHost: bench\r\n\r\n"
MIB = 1024 * 1024


def gateway_of(port: int) -> psutil.Process:
    """The process that listens there."""
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid:
            return psutil.Process(one.pid)
    message = f"nobody listens on {port}"
    raise LookupError(message)


@contextlib.contextmanager
def _idle(port: int) -> Iterator[None]:
    """Connections that have asked once and been answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE // AT_ONCE):
            row = []
            for _ in range(AT_ONCE):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
                one.sendall(REQUEST)
                row.append(one)
            for one in row:
                assert one.recv(4096).startswith(b"HTTP/1.1 200")
        yield


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES_WANTED:
        message = f"{FILES_WANTED} open files are needed; `ulimit -Hn` says {hard}"
        raise OSError(message)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the gateway inherits it
    try:
        with store() as made:
            return _measured(made.port)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _measured(port: int) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}"
    gateway = gateway_of(port)
    wrk(url, "get", CONNECTIONS, 1)
    before_ms, during_ms, more_mib = [], [], []
    for _ in range(REPETITIONS):
        before_ms.append(wrk(url, "get", CONNECTIONS, WINDOW_S).p99_ms)
        alone = gateway.memory_info().rss
        with _idle(port):
            more_mib.append((gateway.memory_info().rss - alone) / MIB)
            during_ms.append(wrk(url, "get", CONNECTIONS, WINDOW_S).p99_ms)
    before, during = statistics.median(before_ms), statistics.median(during_ms)
    # Memory that was given back is taken again by the next repetition, so the first tells most.
    most = max(more_mib)
    return [
        {
            "measure": f"memory for {IDLE:,} idle keep-alive connections",
            "value": f"{most:.0f} MiB",
            "limit": f"≤ {MEMORY_MAX_MIB} MiB",
            "ok": most <= MEMORY_MAX_MIB,
            "detail": f"{most * 1024 / IDLE:.1f} KiB each",
        },
        {
            "measure": "  p99 of GET for others meanwhile",
            "value": f"{during / before:.2f}×",
            "limit": f"≤ {FACTOR_MAX}×",
            "ok": during / before <= FACTOR_MAX,
            "detail": f"{before:.2f} → {during:.2f} ms at {CONNECTIONS} connections",
        },
    ]
