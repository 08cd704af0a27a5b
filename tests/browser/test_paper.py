"""The dashboard on stores on paper: sizes, troubles, tokens, keyboard, accessibility."""

from __future__ import annotations

import copy
import secrets
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster.slots import key_slot
from shardcluster.tokens import token_line
from tests.browser.canned import (
    CannedController,
    canned_state,
    fake_masters,
    on_kubernetes,
    serving,
)
from tests.browser.conftest import gateway, looking_at

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from tests.browser.conftest import Watched

NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
_OVERFLOW = """() => [document.documentElement.scrollWidth - innerWidth,
  ...[...document.querySelectorAll('main > *, .tile, .shard-row, .event, footer')]
    .map((node) => Math.ceil(node.getBoundingClientRect().right - innerWidth))]"""


async def _faults(page: Page) -> list[str]:
    """What axe-core finds wrong: WCAG 2.2 A and AA, and its best practices."""
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {node['html']} {node['failureSummary']}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]


async def _fits(page: Page) -> None:
    assert max(await page.evaluate(_OVERFLOW)) <= 0


async def _rows(watched: Watched, count: int) -> None:
    await watched.page.locator(".shard-row").nth(count - 1).wait_for(state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_everybody_can_use_it(browser: Browser, size: dict[str, int], scheme: str) -> None:
    """Axe-core finds nothing wrong, with details and dialog open as well; nothing overflows."""
    state = canned_state(5, moving=True, weights={"shard-1": 2.0})
    state["nodes"][3]["health"] = "Unknown"
    state["shards"][2]["state"] = "Lost"
    state["notes"] = ["A note."]
    async with (
        fake_masters(state),
        serving(CannedController(state)) as controller,
        gateway("--controller", controller) as url,
        looking_at(browser, url, viewport=size, color_scheme=scheme) as watched,
    ):
        page = watched.page
        await _rows(watched, 5)
        await page.locator(".tile .line[d*=L]").first.wait_for(state="attached")
        assert await _faults(page) == []
        await _fits(page)
        await page.locator(".shard-row").nth(1).locator(".shard-name").click()
        await page.click("#numbers summary")
        await page.fill("#key", "user:{42}:cart")
        assert await _faults(page) == []
        await _fits(page)
        await page.click("#add")
        await page.locator("#dialog .primary").wait_for()
        assert await _faults(page) == []
        assert watched.complaints == []


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_a_hundred_shards_are_readable(browser: Browser, size: dict[str, int]) -> None:
    """All are in the ring and in a list that scrolls, filters and orders; the page stays short."""
    state = canned_state(100)
    async with (
        fake_masters(state),
        serving(CannedController(state)) as controller,
        gateway("--controller", controller) as url,
        looking_at(browser, url, viewport=size) as watched,
    ):
        page = watched.page
        await _rows(watched, 100)
        assert await page.locator("#ring .shard").count() == 100
        await _fits(page)
        assert await page.evaluate("document.documentElement.scrollHeight") < 4000
        await page.locator("#tiles .band[d*=Z]").first.wait_for(state="attached")
        await page.fill("#filter", "shard-42")
        await watched.shows("#shards-count", "1 of 100 shards, 200 nodes match")
        assert await page.locator(".shard-row").count() == 1
        await page.fill("#filter", "")
        await page.select_option("#sort", "keys")
        await page.locator(".shard-row:first-child", has_text="shard-99").wait_for()
        await page.locator(".shard-row:first-child .shard-name").click()
        await watched.shows("#ring .big", "shard-99")
        assert watched.complaints == []


async def test_what_kubernetes_does_not_tell_is_left_out(browser: Browser) -> None:
    """A state made from the resource's status alone: all is drawn, progress as well."""
    state = on_kubernetes(canned_state(4, moving=True))
    async with (
        serving(CannedController(state)) as controller,
        gateway("--controller", controller) as url,
        looking_at(browser, url) as watched,
    ):
        await _rows(watched, 4)
        await watched.shows("#progress", "1,234 of 4,000 slots moved.")
        row = watched.page.locator(".shard-row").first
        await row.locator("[data-title=Keys] > span", has_text="1,000").wait_for()
        assert await row.locator("[data-title='p99'] > span").inner_text() == "–"
        await row.locator(".shard-name").click()
        await watched.shows(".detail", "10.0.0.1:7000")
        assert watched.complaints == []


async def test_trouble_is_said_at_the_top(browser: Browser) -> None:
    """Slots without an owner, then a controller that is away, then a gateway that is away."""
    state = canned_state(3)
    lost = copy.deepcopy(state)
    lost["shards"][1] |= {"slots": 0, "slot_ranges": ""}
    lost |= {"healthy": False, "message": "shard-1 has lost its slots.", "version": 2}
    controller = CannedController(state)
    async with (
        serving(controller) as controller_url,
        gateway("--controller", controller_url) as url,
        looking_at(browser, url) as watched,
    ):
        page = watched.page
        await _rows(watched, 3)
        controller.document = lost
        unowned = state["shards"][1]["slots"]
        await watched.shows("#banners .bad", f"{unowned:,} of 16,384 slots have no owner")
        await watched.shows("#banners .warning", "shard-1 has lost its slots.")
        await page.fill("#key", next(_keys_of(state["shards"][1]["slot_ranges"])))
        await watched.shows("#found", "no shard owns now")
        controller.broken = True
        await watched.shows("#banners .bad", "The controller is away.")
        assert await page.locator("#add").is_disabled()
        await watched.shows("#admin-why", "Changes wait until the controller is back.")
        assert await page.locator(".shard-row").count() == 3
        await page.route("**/v1/**", lambda route: route.abort())
        await watched.shows("#banners .bad", "The gateway does not answer. What is shown is from")
        await watched.shows("#pulse", "Not live")
        await page.unroute("**/v1/**")
        await watched.shows("#pulse", "Live")


def _keys_of(ranges: str) -> Any:
    first, _, last = ranges.split(maxsplit=1)[0].partition("-")
    wanted = range(int(first), int(last or first) + 1)
    return (f"k{n}" for n in range(10**6) if key_slot(f"k{n}".encode()) in wanted)


async def test_a_token_is_asked_for_and_kept_in_the_tab(browser: Browser, tmp_path: Path) -> None:
    """Without one nothing is shown; a reader may not change anything, and is told so."""
    reader, admin = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    file = tmp_path / "tokens"
    lines = [token_line("eve", "read", reader), token_line("ann", "admin", admin)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    canned = CannedController(canned_state(3))
    async with (
        serving(canned) as controller,
        gateway(
            "--controller", controller, environment={"SHARDCLUSTER_TOKENS_FILE": str(file)}
        ) as url,
        looking_at(browser, url) as watched,
    ):
        page = watched.page
        await watched.shows("#dialog", "This store wants a token.")
        assert await page.locator(".shard-row").count() == 0
        await page.fill("#token-field", "wrong" * 8)
        await page.keyboard.press("Enter")
        await watched.shows("#dialog", "The token was not taken.")
        await page.fill("#token-field", reader)
        await page.keyboard.press("Enter")
        await _rows(watched, 3)
        await watched.shows("#admin-why", "need a token with the role admin; yours has read.")
        assert await page.locator("#add").is_disabled()
        await page.click("#token")
        await page.fill("#token-field", admin)
        await page.click("#dialog .primary")
        await page.locator("#add:enabled").click()
        await page.click("#dialog .primary")
        await watched.shows("#dialog", "shard-3 is being added.")
        assert canned.wishes == ["add"]
        kept = await page.evaluate("[JSON.stringify(sessionStorage), JSON.stringify(localStorage)]")
        assert admin in kept[0]
        assert admin not in kept[1]
        assert admin not in page.url
        assert await page.context.cookies() == []


async def test_the_keyboard_is_enough(browser: Browser) -> None:
    """Skip link, buttons, details and dialogs; the focus is seen, and comes back."""
    canned = CannedController(canned_state(3))
    async with (
        serving(canned) as controller,
        gateway("--controller", controller) as url,
        looking_at(browser, url, reduced_motion="reduce") as watched,
    ):
        page = watched.page
        await _rows(watched, 3)
        press = page.keyboard.press
        await press("Tab")
        assert await _focused(page) == "Skip to the dashboard"
        await press("Enter")
        await press("Tab")
        assert await _focused(page) == "Add shard"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await page.evaluate(outline) == "solid"
        await press("Enter")
        await page.locator("#dialog .primary").wait_for()
        await press("Escape")
        assert await _focused(page) == "Add shard"
        assert canned.wishes == []
        await page.locator(".shard-name").first.focus()
        await press("Enter")
        remove = page.locator(".detail .danger")
        await remove.focus()
        await press("Space")
        await watched.shows("#dialog", "shard-0 would be drained and removed")
        await page.locator("#dialog .primary").focus()
        await press("Enter")
        await watched.shows("#dialog", "shard-0 is being drained and removed.")
        assert canned.wishes == ["remove shard-0"]


async def _focused(page: Page) -> Any:
    return await page.evaluate("document.activeElement.textContent.trim()")


async def test_a_refresh_moves_nothing(browser: Browser) -> None:
    """Rows, scrolling, focus and open details are the same elements after many refreshes."""
    state = canned_state(40)
    controller = CannedController(state)
    async with (
        serving(controller) as controller_url,
        gateway("--controller", controller_url) as url,
        looking_at(browser, url) as watched,
    ):
        page = watched.page
        await _rows(watched, 40)
        name = page.locator(".shard-row .shard-name", has_text="shard-20")
        await name.click()
        await name.focus()
        await page.evaluate("""() => {
          document.querySelector('.shard-row').marked = true;
          document.querySelector('#shards').scrollTop = 900;
        }""")
        newer = copy.deepcopy(state)
        for shard in newer["shards"]:
            shard["keys"] = 99_000 - shard["keys"]
        controller.document = newer | {"version": 2}
        await watched.shows(".shard-row:first-child [data-title=Keys]", "98.0k")
        assert await page.evaluate("document.querySelector('.shard-row').marked")
        assert await page.evaluate("document.querySelector('#shards').scrollTop") == 900
        assert await _focused(page) == "shard-20"
        assert await page.locator(".detail").count() == 1


async def test_the_theme_can_be_chosen(browser: Browser) -> None:
    """Light or dark, kept for the next visit; else as the system says."""
    async with (
        serving(CannedController(canned_state(1))) as controller,
        gateway("--controller", controller) as url,
        looking_at(browser, url, color_scheme="light") as watched,
    ):
        page = watched.page
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(ground)
        await page.click("#theme")
        assert await watched.text("#theme") == "Theme: light"
        await page.click("#theme")
        dark = await page.evaluate(ground)
        assert dark != light
        await page.reload()
        assert await page.evaluate(ground) == dark
