"""A client that writes all the time and remembers every acknowledged write.

Each key is a register: its writer writes 1, 2, 3 … .  A write that failed may or may not have been
applied, so a key may hold any value from the last acknowledged one to the last one tried.

It is redis-py's synchronous cluster client, one in each thread: the asynchronous one may send
ASKING and the command it is meant for on two different connections, and then runs in circles.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

__all__ = ["Traffic"]

WRITERS = 2
KEYS_PER_WRITER = 100
PAUSE_S = 0.002
SOCKET_TIMEOUT_S = 2.0
ASK_ATTEMPTS = 500


@dataclass
class Traffic:
    """Registers written through redis-py's cluster client; `failed` has the errors seen."""

    port: int
    acknowledged: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        """Begin."""
        self._threads = [
            threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)
        ]
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End; `lost` says whether all is there."""
        self._ending.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    @property
    def writes(self) -> int:
        """How many writes were acknowledged."""
        return sum(self.acknowledged.copy().values())

    async def more(self, writes: int = 200, deadline_s: float = 30.0) -> None:
        """Wait until the registers went up by so many."""
        goal = self.writes + writes
        async with asyncio.timeout(deadline_s):
            while self.writes < goal:
                await asyncio.sleep(0.01)

    def _write(self, writer: int) -> None:
        client = redis.RedisCluster(
            host="127.0.0.1",
            port=self.port,
            socket_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(ConstantBackoff(0.02), 3),
        )
        with client:
            for number in itertools.count(KEYS_PER_WRITER):
                if self._ending.is_set():
                    return
                key = f"register:{writer}:{number % KEYS_PER_WRITER}"
                value = self.tried[key] = number // KEYS_PER_WRITER
                try:
                    _set(client, key, value)
                except (RedisError, OSError) as error:
                    self.failed.append(f"{key}={value}: {error!r}")
                else:
                    self.acknowledged[key] = value
                time.sleep(PAUSE_S)

    async def lost(self, port: int | None = None) -> list[str]:
        """Keys whose value is older than the last acknowledged write, in words; [] is right."""
        return await asyncio.to_thread(self._lost, port or self.port)

    def _lost(self, port: int) -> list[str]:
        found = []
        with redis.RedisCluster(host="127.0.0.1", port=port) as client:
            for key, acknowledged in self.acknowledged.items():
                value = client.get(key)
                number = int(value) if value is not None else None
                if number is None or not acknowledged <= number <= self.tried[key]:
                    found.append(f"{key}: {number}, acknowledged {acknowledged}")
        return found


def _set(client: redis.RedisCluster, key: str, value: int) -> None:
    """SET; around redis-py's bug 4015: an ASK to a node without slots is an AttributeError.

    Such a command was not sent on, so sending it again is what a right client would do.
    """
    for _ in range(ASK_ATTEMPTS):
        try:
            client.set(key, value)
        except AttributeError:
            time.sleep(PAUSE_S)
        else:
            return
    message = f"{key}: sent on by ASK {ASK_ATTEMPTS} times"
    raise RedisError(message)
