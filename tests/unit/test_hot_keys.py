"""The sketch of hot keys."""

from __future__ import annotations

import random

from shardcluster_api.hot_keys import EVERY_MAX, HALVE_S, KEYS_MAX, SAMPLES_PER_S_MAX, HotKeys


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_few_requests_are_all_counted() -> None:
    """Exact shares, the hottest first; nothing at the start."""
    hot = HotKeys(_Clock())
    assert hot.top(3) == []
    for key, times in ((b"a", 6), (b"b", 3), (b"c", 1)):
        for _ in range(times):
            hot.saw(key)
    assert [(found.key, found.share, found.error) for found in hot.top(2)] == [
        (b"a", 0.6, 0.0), (b"b", 0.3, 0.0),
    ]  # fmt: skip


def test_many_requests_cost_few_looks_and_shares_stay_true() -> None:
    """100,000 requests a second: about the wanted looks, a bounded sketch, true shares."""
    clock = _Clock()
    hot = HotKeys(clock, seed=1)
    rng = random.Random(1)
    looks = 0
    look = hot._look

    def counted(key: bytes) -> None:
        nonlocal looks
        looks += 1
        look(key)

    hot._look = counted  # type: ignore[method-assign]
    for number in range(300_000):
        clock.now_s = number / 100_000
        hot.saw(b"hot" if rng.random() < 0.2 else b"cold:%d" % rng.randrange(100_000))
    assert looks < 3 * 5 * SAMPLES_PER_S_MAX
    assert 1 < hot.every <= EVERY_MAX
    assert len(hot._counts) <= KEYS_MAX
    first = hot.top(1)[0]
    assert first.key == b"hot"
    assert abs(first.share - 0.2) < 0.05


def test_what_was_hot_fades() -> None:
    """Counts are halved in time, and forgotten in the end."""
    clock = _Clock()
    hot = HotKeys(clock)
    for _ in range(100):
        hot.saw(b"old")
    clock.now_s += HALVE_S
    for _ in range(100):
        hot.saw(b"new")
    assert [found.key for found in hot.top(2)] == [b"new", b"old"]
    clock.now_s += 20 * HALVE_S
    assert hot.top(2) == []


def test_a_lull_is_not_slept_through() -> None:
    """After a burst, single requests are soon looked at again."""
    clock = _Clock()
    hot = HotKeys(clock, seed=2)
    for number in range(200_000):
        clock.now_s = number / 1_000_000
        hot.saw(b"burst")
    assert hot.every > 50
    for _ in range(20):
        clock.now_s += 5.0  # somebody looks at the dashboard
        hot.top(1)
    assert hot.every == 1
    hot.saw(b"single")
    hot.saw(b"single")
    assert b"single" in {found.key for found in hot.top(KEYS_MAX)}
