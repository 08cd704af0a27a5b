"""The page's own reckoning, held against ours: its modules run in the browser."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from shardcluster.slots import SlotSet, key_slot
from tests.browser.canned import CannedController, canned_state, serving
from tests.browser.conftest import gateway, looking_at

if TYPE_CHECKING:
    from playwright.async_api import Browser

_SLOTS = "async (keys) => (keys.map((await import('/dashboard/slots.js')).keySlot))"
_RANGES = "async (words) => (await import('/dashboard/slots.js')).ranges(words)"
_P99 = "async (buckets) => (await import('/dashboard/history.js')).percentile99(buckets)"
_HISTORY = """async (looks) => {
  const { History } = await import('/dashboard/history.js');
  const history = new History();
  looks.forEach((look, index) => history.add(look, 1000 * index));
  return [history.now('s', 'ops'), history.now('s', 'p99'), history.now('s', 'keys')];
}"""


async def test_keys_slots_and_numbers_are_reckoned_right(browser: Browser) -> None:
    """CRC16 with hash tags as core has it; ranges; a percentile; rates from counters."""
    rng = random.Random(7)
    letters = "ab{}{}é☃0:"
    keys = ["".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(3000)]
    async with (
        serving(CannedController(canned_state(1))) as controller,
        gateway("--controller", controller) as url,
        looking_at(browser, url) as watched,
    ):
        run = watched.page.evaluate
        assert await run(_SLOTS, keys) == [key_slot(key.encode()) for key in keys]
        some = SlotSet.of(rng.sample(range(16384), 5000))
        assert await run(_RANGES, str(some)) == [list(pair) for pair in some.ranges()]
        assert await run(_P99, []) is None
        fast_and_slow = [[1000, 1], [8, 98], [64, 1]]
        assert 32 <= await run(_P99, fast_and_slow) <= 64
        assert await run(_P99, [[16, 100]]) <= 16

        def look(at_s: float, reads: int, writes: int) -> object:
            counted = {"at_s": at_s, "keys": 5, "reads": reads, "writes": writes}
            took = {"took_us": [[8, reads + writes]]}
            return {
                "shards": [{"name": "s", "master": "m"}],
                "nodes": [{"name": "m", "shard": "s"}, {"name": "r", "shard": "s"}],
                "numbers": {
                    "m": {**counted, **took, "role": "master"},
                    "r": {**counted, **took, "role": "slave"},
                },
            }

        ops, p99, count = await run(_HISTORY, [look(10, 100, 50), look(12, 140, 70)])
        assert (ops, count) == (20 + 10 + 20, 5)  # a replica's writes are copies
        assert 4 < p99 <= 8
        restarted = [look(10, 100, 50), look(12, 1, 1)]
        assert (await run(_HISTORY, restarted))[:2] == [None, None]
