"""A browser, and gateways for it to look at.

Debian's Chromium, or the one that CHROMIUM names; that it is missing is an error, never a skip.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.async_api import async_playwright

from tests.cluster.conftest import base_port, end_nodes_of, free_folder
from tests.cluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

__all__ = ["base_port", "end_nodes_of", "free_folder"]

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
DEADLINE_MS = 1000 * DEADLINE_S
POLL_S = 0.05
# It asks nothing but the page under test, and needs no graphics card.
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A fresh one for each test."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert found, "These tests need Chromium (Debian: apt-get install chromium), or CHROMIUM=path."
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=found, args=[*OPTIONS])
        try:
            yield opened
        finally:
            await opened.close()


class Watched:
    """A page; what its console and the network complained of is in `complaints`."""

    def __init__(self, page: Page) -> None:
        """Listens from now on."""
        self.page = page
        self.complaints: list[str] = []
        page.set_default_timeout(DEADLINE_MS)
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self._heard("error", str(error)))

    def _heard(self, kind: str, words: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(f"{kind}: {words}")

    async def text(self, selector: str) -> str:
        """What stands there."""
        return (await self.page.locator(selector).inner_text()).strip()

    async def shows(self, selector: str, words: str) -> None:
        """Wait until an element that fits says it."""
        await self.page.locator(selector).filter(has_text=words).first.wait_for()

    async def until(self, expression: str) -> None:
        """Wait until it is true in the page, whose own policy forbids Playwright's way to wait."""
        async with asyncio.timeout(DEADLINE_S):
            while not await self.page.evaluate(expression):
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def looking_at(browser: Browser, url: str, **context: Any) -> AsyncIterator[Watched]:
    """The dashboard at `url`, once it has drawn shards; `context` is the browser's."""
    opened = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    try:
        watched = Watched(await opened.new_page())
        await watched.page.goto(url)
        yield watched
    finally:
        await opened.close()


@asynccontextmanager
async def gateway(*arguments: str, environment: dict[str, str] | None = None) -> AsyncIterator[str]:
    """A gateway process that answers, ready or not; its URL."""
    port = free_ports(1)[0]
    paths = os.pathsep.join((str(ROOT / "core"), str(ROOT / "api")))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shardcluster_api", "--port", str(port), *arguments,
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    try:
        async with httpx.AsyncClient() as client, asyncio.timeout(DEADLINE_S):
            while not await _answers(client, url):
                assert process.returncode is None, "the gateway ended"
                await asyncio.sleep(POLL_S)
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}healthz")).status_code == 200
    except httpx.TransportError:
        return False
