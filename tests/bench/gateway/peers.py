"""The other doors: Webdis before one unsharded node, Flask with redis-py, and a second of ours."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from shardcluster_runtime.server_binary import find_server

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ordinary_flask", "second_gateway", "webdis"]

DEADLINE_S = 20.0
HOST = "127.0.0.1"
FLASK_WORKERS, FLASK_THREADS = 2, 16
BATCH = 1000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    ends_s = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
            return
        if time.monotonic() > ends_s:
            message = f"nothing listens on {port}"
            raise TimeoutError(message)
        time.sleep(0.05)


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


@contextlib.contextmanager
def webdis(keys: int) -> Iterator[str]:
    """One thread, one node that holds `keys` keys; its URL."""
    node, port = _free_port(), _free_port()
    server = [str(find_server().path), "--port", str(node), "--save", "", "--bind", HOST]
    with tempfile.TemporaryDirectory() as folder, _running(server, node):
        _fill(node, keys)
        settings = {
            "redis_host": HOST, "redis_port": node, "http_host": HOST, "http_port": port,
            "threads": 1, "pool_size": 20, "daemonize": False, "websockets": False,
            "verbosity": 0, "logfile": "/dev/null", "acl": [{"enabled": ["*"]}],
        }  # fmt: skip
        path = Path(folder) / "webdis.json"
        path.write_text(json.dumps(settings))
        with _running(["webdis", str(path)], port):
            yield f"http://{HOST}:{port}"


def _fill(port: int, keys: int) -> None:
    with socket.create_connection((HOST, port)) as node, node.makefile("rb") as replies:
        for first in range(0, keys, BATCH):
            names = [b"key-%d" % number for number in range(first, min(first + BATCH, keys))]
            node.sendall(
                b"".join(
                    b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$5\r\nvalue\r\n" % (len(name), name)
                    for name in names
                )
            )
            for _ in names:
                replies.readline()


@contextlib.contextmanager
def ordinary_flask(seed: str) -> Iterator[str]:
    """Gunicorn with threads, Flask, redis-py's cluster client; `seed` is host:port of a node."""
    port = _free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--worker-class=gthread", f"--workers={FLASK_WORKERS}",
        f"--threads={FLASK_THREADS}", f"--bind={HOST}:{port}", "--keep-alive=60",
        f"tests.bench.gateway.ordinary:make('{seed}')",
    ]  # fmt: skip
    with _running(command, port):
        yield f"http://{HOST}:{port}"


@contextlib.contextmanager
def second_gateway(controller_url: str) -> Iterator[str]:
    """Another process before the same store; its URL, once it knows the store."""
    port = _free_port()
    command = [sys.executable, "-m", "shardcluster_api", "--controller", controller_url,
               "--port", str(port)]  # fmt: skip
    with _running(command, port):
        url = f"http://{HOST}:{port}"
        ends_s = time.monotonic() + DEADLINE_S
        while not _is_ready(url):
            assert time.monotonic() < ends_s, "the second gateway did not become ready"
            time.sleep(0.05)
        yield url


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=DEADLINE_S) as answer:  # noqa: S310 - ours
            return bool(answer.status == HTTPStatus.OK)
    except OSError:  # an HTTPError is one, too
        return False
