"""A steady load through the HTTP API, in a process of its own, and what each request took.

Open loop: requests begin at fixed times, whether or not earlier ones have ended, and a latency
counts from the time a request was due, so that a stall is seen by all requests it delays.

Run as `python -m tests.bench.steady_load PORT REQUESTS_PER_SECOND`.  It reads commands on standard
input: `mark` prints a JSON line with the figures since the last mark, `end` ends it after a check
that every acknowledged write is there.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from dataclasses import dataclass, field

import aiohttp

__all__ = ["main"]

KEYS = 5000
CONNECTIONS = 64
TIMEOUT_S = 10.0


@dataclass
class _Load:
    url: str
    took_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    acknowledged: dict[int, int] = field(default_factory=dict)
    tried: dict[int, int] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)  # keys with a write under way: one at a time

    async def one(self, session: aiohttp.ClientSession, number: int, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        key = number * 7919 % KEYS
        write = number % 2 == 0 and key not in self.busy
        try:
            if write:
                self.busy.add(key)
                self.tried[key] = number
                await self.put(session, key, number)
                self.acknowledged[key] = number
            else:
                async with session.get(f"{self.url}/v1/keys/steady-{key}") as answer:
                    await answer.read()
                    if answer.status not in (200, 404):
                        self.failed.append(f"GET {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(repr(error))
        finally:
            if write:
                self.busy.discard(key)
        self.took_s.append(loop.time() - due_s)

    async def put(self, session: aiohttp.ClientSession, key: int, number: int) -> None:
        async with session.put(f"{self.url}/v1/keys/steady-{key}", data=str(number)) as answer:
            if answer.status >= 300:
                self.failed.append(f"PUT {answer.status}: {await answer.text()}")
                raise aiohttp.ClientPayloadError

    def mark(self) -> str:
        took_s, self.took_s = self.took_s, []
        failed, self.failed = self.failed, []
        centiles = statistics.quantiles(took_s, n=1000)
        figures = {
            "requests": len(took_s),
            "p50_ms": centiles[499] * 1000,
            "p99_ms": centiles[989] * 1000,
            "max_ms": max(took_s) * 1000,
            "failed": len(failed),
            "first_failures": failed[:3],
        }
        return json.dumps(figures)

    async def lost(self, session: aiohttp.ClientSession) -> int:
        lost = 0
        for key, acknowledged in self.acknowledged.items():
            url = f"{self.url}/v1/keys/steady-{key}?consistency=strong"
            async with session.get(url) as answer:
                body = await answer.read()
                found = answer.status == 200 and acknowledged <= int(body) <= self.tried[key]
                lost += not found
        return lost


async def main(port: int, rate: float) -> None:
    """Run until `end` is read."""
    loop = asyncio.get_running_loop()
    load = _Load(f"http://127.0.0.1:{port}")
    commands: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin, lambda: commands.put_nowait(sys.stdin.readline().strip()))
    tasks: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        began_s = loop.time()
        number = 0
        while True:
            due_s = began_s + number / rate
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            task = asyncio.create_task(load.one(session, number, due_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
            if not commands.empty():
                command = commands.get_nowait()
                if command == "end":
                    break
                sys.stdout.write(load.mark() + "\n")
                sys.stdout.flush()
        await asyncio.gather(*tasks)
        sys.stdout.write(json.dumps({"lost": await load.lost(session)}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
