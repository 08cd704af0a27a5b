"""The dashboard on a real store, in a real browser, while clients work."""

from __future__ import annotations

import copy
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from shardcluster.slots import SlotSet, key_slot
from tests.browser.canned import serving
from tests.browser.conftest import gateway, looking_at
from tests.cluster.stores import document, running_store
from tests.cluster.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser

    from tests.browser.conftest import Watched
    from tests.cluster.stores import Store

KEYS = 1500
# So slow that the move is not over before a busy machine's browser has drawn it.
SLOW: dict[str, Any] = {"rebalance": {"maxKeysPerSecond": 5}, "failover": {"nodeTimeoutMs": 1000}}

# What is said aloud: each piece of news takes the place of the one before.
_HEAR = """() => {
  const news = document.querySelector('#events-news');
  window.heard = [];
  new MutationObserver(() => heard.push(news.textContent))
    .observe(news, {childList: true, characterData: true, subtree: true});
}"""


@asynccontextmanager
async def _looked_at(
    browser: Browser, folder: Path, base_port: int
) -> AsyncIterator[tuple[Store, Watched, str]]:
    """Three shards with keys and a working client, and the dashboard on them."""
    async with running_store(folder, base_port, document(**SLOW)) as store:
        await store.calm(3)
        async with (
            serving(store.controller) as controller,
            gateway("--controller", controller) as url,
            Traffic(store.master_port("shard-0")) as traffic,
            looking_at(browser, url) as watched,
        ):
            await traffic.more(50)
            await watched.page.locator(".shard-row").nth(2).wait_for()
            yield store, watched, url


async def test_the_page_shows_the_store_at_work(
    browser: Browser, free_folder: Path, base_port: int
) -> None:
    """Ring, rows, figures, events, hot slots and keys, and nothing in the browser's console."""
    async with _looked_at(browser, free_folder, base_port) as (store, watched, url):
        page = watched.page
        async with httpx.AsyncClient(base_url=url) as client:
            for _ in range(60):
                await client.put("/v1/keys/hottest", content=b"v")
        assert await watched.text("#cluster") == "test"
        assert await watched.text("#phase") == "Ready"
        assert await page.locator("#ring .shard").count() == 3
        owned = [shard["slots"] for shard in store.state["shards"]]
        for number, slots in enumerate(owned):
            row = page.locator(".shard-row").nth(number)
            assert f"{slots:,}" in await row.locator("[data-title=Slots]").inner_text()
            await row.locator(
                "[data-title='Ops/s'] > span", has_text=re.compile("[1-9]")
            ).wait_for()
            await row.locator("[data-title='p99'] > span", has_text="µs").wait_for()
            assert await row.locator(".chip").count() == 2
        line = page.locator(".tile .line").first
        await page.locator(".tile .line[d*=L]").first.wait_for(state="attached")
        assert await line.get_attribute("d")
        await watched.shows("#events .event", "The store test is formed.")
        await watched.shows("#hot-keys tr", "hottest")
        await page.locator("#hot-slots tbody tr").first.wait_for()
        assert watched.complaints == []


async def test_a_key_is_found_where_the_store_has_it(
    browser: Browser, free_folder: Path, base_port: int
) -> None:
    """Slot, shard and node of each key, with and without a hash tag; nothing is sent for it."""
    async with _looked_at(browser, free_folder, base_port) as (store, watched, _url):
        for key in ("plain", "user:{42}:cart", "{}empty", "{half", "é☃", "a b+c%"):
            slot = key_slot(key.encode())
            shard = next(
                shard for shard in store.state["shards"]
                if slot in SlotSet.parse(shard["slot_ranges"])
            )  # fmt: skip
            await watched.page.fill("#key", key)
            await watched.shows("#found", f"Slot {slot:,}")
            found = await watched.text("#found")
            assert f"on {shard['name']};" in found
            assert f"writes go to {shard['master']}" in found
            assert shard["replicas"][0] in found
        assert await watched.page.locator("#ring .pin line").count() == 1
        assert watched.complaints == []


async def test_a_shard_is_added_after_a_preview(
    browser: Browser, free_folder: Path, base_port: int
) -> None:
    """The preview changes nothing; after the confirmation slots are seen to move, and arrive."""
    async with _looked_at(browser, free_folder, base_port) as (store, watched, url):
        page = watched.page
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            puts = [{"op": "put", "key": f"k{n}", "value": "v" * 50} for n in range(KEYS)]
            for first in range(0, KEYS, 500):
                batch = {"operations": puts[first : first + 500]}
                assert (await client.post("/v1/batch", json=batch)).json()["failed"] == 0
        await page.click("#add")
        await watched.shows("#dialog", "shard-3 would be added;")
        told = re.search(r"([\d,]+) slots with about ([\d,]+) keys", await watched.text("#dialog"))
        assert told is not None
        assert int(told[1].replace(",", "")) > 3000
        assert int(told[2].replace(",", "")) > 100
        assert await page.locator("#dialog tbody tr").count() == 3
        assert "shard-3-0, shard-3-1" in await watched.text("#dialog")
        assert store.state["spec"]["spec"]["shards"] == 3
        await page.click("#dialog .primary")
        await watched.shows("#dialog", "shard-3 is being added.")
        await page.keyboard.press("Escape")
        await page.locator("#ring .ribbon").first.wait_for(state="attached")
        await watched.shows("#progress", "slots")
        hurried = copy.deepcopy(store.state["spec"])
        hurried["spec"]["rebalance"]["maxKeysPerSecond"] = 0  # it was there to be seen moving
        await store.controller.put_spec(hurried)
        await store.calm(4)
        await page.locator("#progress").wait_for(state="hidden")
        await watched.shows("#shards-count", "4 shards, 8 nodes")
        row = page.locator(".shard-row", has_text="shard-3")
        slots = f"{store.slots('shard-3'):,}"
        await row.locator("[data-title=Slots]", has_text=slots).wait_for()
        assert watched.complaints == []


async def test_a_killed_master_is_an_event(
    browser: Browser, free_folder: Path, base_port: int
) -> None:
    """It is told in the story, said to screen readers, and the new master stands in the row."""
    async with _looked_at(browser, free_folder, base_port) as (store, watched, _url):
        page = watched.page
        row = page.locator(".shard-row", has_text="shard-1")
        await row.locator(".chip", has_text="master -0").wait_for()
        await page.evaluate(_HEAR)
        await store.controller.kill("shard-1-0", "KILL")
        await watched.shows("#events .event", "MasterLost")
        await watched.shows("#events .event.bad", "shard-1-0")
        await watched.until("heard.some((words) => words.includes('shard-1'))")
        await row.locator(".chip", has_text="master -1").wait_for()
        await store.calm(3)
        await row.locator(".chip[data-health=Up]", has_text="replica -0").wait_for()
        await page.locator("#banners .banner.bad").first.wait_for(state="detached")
