"""A gateway process on bare nodes, asked over HTTP, for tests of what goes wrong below it."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from shardcluster.slots import key_slot
from tests.cluster.gateway_fixtures import gateway_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster

__all__ = ["CLIENT_TIMEOUT_S", "Asked", "keys_of", "served"]

CLIENT_TIMEOUT_S = 30.0
DEADLINE_S = 20.0
POLL_S = 0.02
SLOTS = 16_384
CONNECTIONS_MAX = 500


class Asked:
    """The gateway as a client sees it."""

    def __init__(self, gateway: GatewayProcess, client: httpx.AsyncClient) -> None:
        """`client` has the gateway's URL."""
        self.gateway = gateway
        self.client = client

    async def put(self, key: str, value: bytes = b"v", query: str = "") -> httpx.Response:
        """PUT /v1/keys/KEY."""
        return await self.client.put(f"/v1/keys/{key}{query}", content=value)

    async def get(self, key: str, query: str = "") -> httpx.Response:
        """GET /v1/keys/KEY."""
        return await self.client.get(f"/v1/keys/{key}{query}")

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        text = (await self.client.get("/metrics")).text
        found = 0.0
        for line in text.splitlines():
            match = re.match(rf"shardcluster_gateway_{name}(?:{{(.*)}})? (\S+)$", line)
            if match and all(f'{k}="{v}"' in (match[1] or "") for k, v in labels.items()):
                found += float(match[2])
        return found

    async def until_metric(self, check: Callable[[float], bool], name: str, **labels: str) -> None:
        """Wait until the metric's value is so."""
        deadline = time.monotonic() + DEADLINE_S
        while not check(value := await self.metric(name, **labels)):
            assert time.monotonic() < deadline, f"{name}{labels} is still {value}"
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def served(
    cluster: MiniCluster, *, environment: dict[str, str] | None = None
) -> AsyncIterator[Asked]:
    """The gateway on this cluster."""
    seeds = ",".join(str(node.address) for node in cluster.masters)
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=None)
    with gateway_process("fast", seeds=seeds, environment=environment) as gateway:
        async with httpx.AsyncClient(
            base_url=gateway.url, timeout=CLIENT_TIMEOUT_S, limits=limits
        ) as client:
            yield Asked(gateway, client)


def keys_of(masters: int, number: int, count: int = 1) -> list[str]:
    """Keys whose slots belong to the `number`-th of so many masters."""
    share = SLOTS // masters
    last = SLOTS if number == masters - 1 else (number + 1) * share
    found = (f"key-{index}" for index in range(1_000_000))
    wanted = (key for key in found if number * share <= key_slot(key.encode()) < last)
    return [next(wanted) for _ in range(count)]
