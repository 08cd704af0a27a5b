"""Runs in a pod: writes and reads all the time, and knows what was acknowledged.

Each key is a register with one writer, who writes 1, 2, 3 ….  Half of the keys go through the
gateway, half directly by redis-py's cluster client.  `python3 traffic_pod.py ask WORD` tells the
one that runs: `report`, `reset` (count gaps and failures from here on) or `finish` (stop, read all
keys back from their masters, and say what is lost).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
import traceback
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from redis.asyncio.cluster import RedisCluster

PORT = 9000
KEYS = 6  # of each kind
PAUSE_S = 0.04
TIMEOUT_S = 8.0
READ_BACK_S = 60.0


class _Door(Protocol):
    """A way to the store; both raise what `TROUBLE` names."""

    async def put(self, key: str, value: int) -> None:
        """Acknowledged when it returns."""

    async def get(self, key: str, *, strong: bool) -> int | None:
        """The value."""


class _GatewayDoor:
    """The HTTP API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def put(self, key: str, value: int) -> None:
        async with self._session.put(f"{self._url}/v1/keys/{key}", data=str(value)) as answer:
            await _check(answer)

    async def get(self, key: str, *, strong: bool) -> int | None:
        query = "?consistency=strong" if strong else ""
        async with self._session.get(f"{self._url}/v1/keys/{key}{query}") as answer:
            if answer.status == 404:
                return None
            await _check(answer)
            return int(await answer.read())


class _OutcomeUnknown(OSError):
    """The gateway says honestly that a write may have been applied or not."""


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 300:
        message = f"{answer.status} {await answer.text()}"
        unknown = '"outcome":"unknown"' in message
        raise _OutcomeUnknown(message) if unknown else OSError(message[:300])


class _DirectDoor:
    """Redis-py; made anew when it is in trouble, as a pod that is restarted would."""

    def __init__(self, host: str, password: str) -> None:
        self._host = host
        self._password = password
        self._client: RedisCluster | None = None

    async def _open(self) -> RedisCluster:
        if self._client is None:
            self._client = RedisCluster(
                host=self._host, port=6379, password=self._password, socket_timeout=3.0,
                socket_connect_timeout=1.0, cluster_error_retry_attempts=5,
            )  # fmt: skip
        return self._client

    async def put(self, key: str, value: int) -> None:
        await self._call("SET", key, value)

    async def get(self, key: str, *, strong: bool) -> int | None:
        del strong  # it reads from masters
        found = await self._call("GET", key)
        return None if found is None else int(found)

    async def _call(self, *command: str | int) -> Any:
        client = await self._open()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await client.execute_command(*command)
        except Exception as error:  # in trouble it raises more than what it documents
            if self._client is client:
                self._client = None
                with contextlib.suppress(Exception):
                    await client.aclose()
            raise OSError(repr(error)) from error


TROUBLE = (OSError, TimeoutError, aiohttp.ClientError)
LAST_WORDS = Path("/dev/termination-log")


@dataclass
class _Kind:
    """All writers through one door."""

    door: _Door
    prefix: str
    failed: list[str] = field(default_factory=list)
    failures: int = 0
    unknown: int = 0  # failures whose writes may have been applied
    wrong: list[str] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    last_s: dict[str, float] = field(default_factory=dict)
    gap_s: dict[str, float] = field(default_factory=dict)
    writes: int = 0

    def reset(self) -> None:
        self.failed, self.failures, self.unknown = [], 0, 0
        self.gap_s = {}
        self.writes = 0

    def note(self, what: str, error: BaseException) -> None:
        self.failures += 1
        self.unknown += isinstance(error, _OutcomeUnknown)
        if len(self.failed) < 20:
            self.failed.append(f"{time.time():.2f} {what}: {error!r}"[:400])

    async def write(self, key: str, ending: asyncio.Event) -> None:
        number = 0
        while not ending.is_set():
            number += 1
            self.tried[key] = number
            try:
                await self.door.put(key, number)
            except TROUBLE as error:
                self.note(f"put {key}", error)
            else:
                now_s = time.monotonic()
                gap_s = now_s - self.last_s.get(key, now_s)
                self.gap_s[key] = max(gap_s, self.gap_s.get(key, 0.0))
                self.last_s[key], self.acknowledged[key] = now_s, number
                self.writes += 1
                await self.read(key)
            await asyncio.sleep(PAUSE_S)

    async def read(self, key: str) -> None:
        """From anywhere: never a value that nobody wrote."""
        try:
            found = await self.door.get(key, strong=False)
        except TROUBLE as error:
            self.note(f"get {key}", error)
            return
        if found is not None and not 1 <= found <= self.tried[key]:
            self.wrong.append(f"{key}: read {found}, tried {self.tried[key]}")

    def report(self) -> dict[str, Any]:
        now_s = time.monotonic()
        lasting = [now_s - last_s for last_s in self.last_s.values()]
        return {
            "writes": self.writes,
            "failures": self.failures,
            "unknown": self.unknown,
            "failed": self.failed,
            "wrong": self.wrong,
            "gap_s": round(max([0.0, *self.gap_s.values(), *lasting]), 3),
        }

    async def lost(self) -> list[str]:
        lost = []
        for key, number in self.acknowledged.items():
            found = await self.read_back(key)
            if found is None or not number <= found <= self.tried[key]:
                lost.append(f"{key}: {found}, acknowledged {number}, tried {self.tried[key]}")
        return lost

    async def read_back(self, key: str) -> int | None:
        ends_s = time.monotonic() + READ_BACK_S
        while True:
            try:
                return await self.door.get(key, strong=True)
            except TROUBLE:
                if time.monotonic() > ends_s:
                    raise
                await asyncio.sleep(0.2)


async def main() -> None:
    """Run until the pod ends."""
    name = os.environ["STORE"]
    ending = asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        kinds = {
            "gateway": _Kind(_GatewayDoor(f"http://{name}-gateway", session), "g"),
            "direct": _Kind(_DirectDoor(f"{name}-nodes", os.environ["PASSWORD"]), "d"),
        }
        writers = asyncio.gather(
            *(
                kind.write(f"{kind.prefix}-{socket.gethostname()}-{number}", ending)
                for kind in kinds.values()
                for number in range(KEYS)
            )
        )

        async def answer(request: web.Request) -> web.Response:
            word = request.match_info["word"]
            found: dict[str, Any] = {}
            if word == "finish":
                ending.set()
                await writers
            for title, kind in kinds.items():
                if word == "reset":
                    kind.reset()
                found[title] = kind.report()
                if word == "finish":
                    found[title]["lost"] = await kind.lost()
            return web.json_response(found)

        app = web.Application()
        app.router.add_get("/{word}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", PORT).start()
        await writers
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{sys.argv[2]}", timeout=140) as got:
            sys.stdout.write(json.dumps(json.load(got)))
    else:
        try:
            asyncio.run(main())
        except BaseException:
            LAST_WORDS.write_text(traceback.format_exc()[-3000:], "utf-8")
            raise
