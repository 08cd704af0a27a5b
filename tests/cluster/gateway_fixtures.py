"""The gateway as people run it, in processes of its own, for tests over HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx
import pytest

from tests.cluster.mini_cluster import MiniCluster, mini_cluster
from tests.cluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FRONT_ENDS", "GatewayProcess", "front", "gateway_process", "small_cluster"]

DEADLINE_S = 60.0  # for a start on a machine that does much else
POLL_S = 0.02
FRONT_ENDS = ("fast", "flask")
ROOT = Path(__file__).resolve().parents[2]


class GatewayProcess:
    """A running gateway."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, log: IO[bytes], scheme: str = "http"
    ) -> None:
        """`port` is where it listens."""
        self.process = process
        self._log = log
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"

    def said(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read().decode()


@contextmanager
def gateway_process(
    kind: str,
    *arguments: str,
    seeds: str = "",
    environment: dict[str, str] | None = None,
    changed: dict[str, float] | None = None,
) -> Iterator[GatewayProcess]:
    """Start it, wait until it is ready, end it.

    `changed` are constants by their full names, for limits that no test can wait for.
    """
    port = free_ports(1)[0]
    module = {
        "fast": [*_started(changed or {}), "--port", str(port), *arguments],
        "flask": ["-m", "flask", "--app", "shardcluster_api", "run", "--port", str(port)],
    }[kind]
    log = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up
    paths = os.pathsep.join((str(ROOT / "core"), str(ROOT / "api")))
    process = subprocess.Popen(
        [sys.executable, *module],
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "SHARDCLUSTER_SEEDS": seeds,
            **(environment or {}),
        },
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    scheme = "https" if "SHARDCLUSTER_HTTPS_CERT" in (environment or {}) else "http"
    gateway = GatewayProcess(process, port, log, scheme)
    try:
        _wait_ready(gateway)
        yield gateway
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        log.close()


def _started(changed: dict[str, float]) -> list[str]:
    if not changed:
        return ["-m", "shardcluster_api"]
    lines = ["import importlib, sys", "from shardcluster_api.__main__ import main"]
    for name, value in changed.items():
        module, _, constant = name.rpartition(".")
        lines.append(f"setattr(importlib.import_module({module!r}), {constant!r}, {value!r})")
    return ["-c", "\n".join([*lines, "sys.exit(main(sys.argv[1:]))"])]


def _wait_ready(gateway: GatewayProcess) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            answer = httpx.get(f"{gateway.url}/readyz", timeout=DEADLINE_S, verify=False)  # noqa: S501 - looks only
            if answer.status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert gateway.process.poll() is None, f"it ended: {gateway.said()}"
        assert time.monotonic() < deadline, "the gateway did not become ready"
        time.sleep(POLL_S)


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[MiniCluster]:
    """Three masters with a replica each, for tests without an event loop of their own."""
    with asyncio.Runner() as runner:
        context = mini_cluster(3, owners=3, replicas=1, options=("--appendfsync", "everysec"))
        cluster = runner.run(context.__aenter__())
        try:
            yield cluster
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture(scope="module", params=FRONT_ENDS)
def front(request: pytest.FixtureRequest, small_cluster: MiniCluster) -> Iterator[GatewayProcess]:
    """Each front end on the same cluster."""
    seeds = ",".join(str(node.address) for node in small_cluster.masters[:2])
    with gateway_process(request.param, seeds=seeds) as gateway:
        yield gateway
