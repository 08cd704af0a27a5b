"""The token bucket, counted with a clock of our own."""

from __future__ import annotations

import random

import pytest

from shardcluster_runtime.throttle import TokenBucket


def _let_through(rate: float, burst: float, batches: list[int], span_s: float) -> int:
    """How many units go in `span_s` when a caller always takes the next batch as soon as it may."""
    bucket, now, sent = TokenBucket(rate, burst, 0.0), 0.0, 0
    for batch in batches:
        now += bucket.wait_s(now)
        if now > span_s:
            break
        bucket.take(batch, now)
        sent += batch
    return sent


def test_a_rate_of_zero_never_waits() -> None:
    """A rate of 0 means no limit."""
    bucket = TokenBucket(0, 1, 0.0)
    bucket.take(1_000_000, 0.0)
    assert bucket.wait_s(0.0) == 0.0


def test_it_starts_full_and_then_makes_the_caller_wait_for_the_debt() -> None:
    """A batch larger than the burst goes at once, and the next waits until it is paid."""
    bucket = TokenBucket(100, 10, 5.0)
    assert bucket.wait_s(5.0) == 0.0
    bucket.take(60, 5.0)
    assert bucket.wait_s(5.0) == pytest.approx(0.5)
    assert bucket.wait_s(5.25) == pytest.approx(0.25)
    assert bucket.wait_s(5.5) == 0.0


def test_idle_time_saves_up_no_more_than_the_burst() -> None:
    """After an hour of nothing only the burst may go at once."""
    bucket = TokenBucket(100, 10, 0.0)
    bucket.take(10, 0.0)
    bucket.take(20, 3600.0)
    assert bucket.wait_s(3600.0) == pytest.approx(0.1)


def test_a_clock_that_runs_backwards_gives_nothing() -> None:
    """A step back of the clock neither fills nor empties the bucket."""
    bucket = TokenBucket(100, 10, 10.0)
    bucket.take(20, 10.0)
    assert bucket.wait_s(3.0) == pytest.approx(0.1)
    assert bucket.wait_s(10.0) == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_rate_holds_for_any_batches(seed: int) -> None:
    """In any span at most rate × span + burst + one batch go, and hardly less."""
    dice = random.Random(seed)
    rate, burst, span_s = dice.uniform(10, 1e5), dice.uniform(1, 500), dice.uniform(0.5, 20)
    batches = [dice.randint(1, 300) for _ in range(int(rate * span_s) + 1000)]
    sent = _let_through(rate, burst, batches, span_s)
    assert rate * span_s + burst - 1 <= sent <= rate * span_s + burst + 300
