"""A client that writes and reads all the time and remembers every acknowledged write.

Each key is a register: its writer writes 1, 2, 3 … .  A write that failed may or may not have been
applied, so a key may hold any value from the last acknowledged one to the last one tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

__all__ = ["Traffic"]

WRITERS = 4
KEYS_PER_WRITER = 50
PAUSE_S = 0.002
SOCKET_TIMEOUT_S = 2.0


@dataclass
class Traffic:
    """Registers written through redis-py's cluster client; `failed` counts errors seen."""

    port: int
    acknowledged: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    writes: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _client: redis.asyncio.RedisCluster | None = None

    async def __aenter__(self) -> Traffic:
        """Begin."""
        self._client = redis.asyncio.RedisCluster(
            host="127.0.0.1",
            port=self.port,
            socket_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(ConstantBackoff(0.02), 3),
        )
        await self._client.initialize()
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End; `check` says whether all is there."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._client is not None:
            await self._client.aclose()

    async def more(self, writes: int = 200, deadline_s: float = 30.0) -> None:
        """Wait until so many more writes were acknowledged."""
        goal = self.writes + writes
        async with asyncio.timeout(deadline_s):
            while self.writes < goal:  # noqa: ASYNC110 - a counter, not an event
                await asyncio.sleep(0.01)

    async def _write(self, writer: int) -> None:
        assert self._client is not None
        for number in itertools.count(1):
            key = f"register:{writer}:{number % KEYS_PER_WRITER}"
            self.tried[key] = number
            try:
                await self._client.set(key, number)
            except (RedisError, OSError, TimeoutError) as error:
                self.failed.append(f"{key}={number}: {error!r}")
                await asyncio.sleep(0.05)
                continue
            self.acknowledged[key] = number
            self.writes += 1
            await asyncio.sleep(PAUSE_S)

    async def lost(self, port: int | None = None) -> list[str]:
        """Keys whose value is older than the last acknowledged write, in words; [] is right."""
        client = redis.asyncio.RedisCluster(host="127.0.0.1", port=port or self.port)
        found = []
        try:
            for key, acknowledged in self.acknowledged.items():
                value = await client.get(key)
                number = int(value) if value is not None else None
                if number is None or not acknowledged <= number <= self.tried[key]:
                    found.append(f"{key}: {number}, acknowledged {acknowledged}")
        finally:
            await client.aclose()
        return found
