"""`python -m tests.fuzz --requests N`: N malformed requests, and as many replies of nodes.

Ends with exit code 1 and what repeats it when an answer was wrong, something was raised or left
over, or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from typing import TYPE_CHECKING

import psutil
import uvloop

from tests.fuzz.connections import running_server
from tests.fuzz.http_fuzz import CLIENTS, Tally, fuzz_requests
from tests.fuzz.resp_fuzz import fuzz_gateway, fuzz_replies

if TYPE_CHECKING:
    from collections.abc import Coroutine

GROWTH_BYTES_MAX = 16 << 20
WARM_PART = 0.1  # of the run, until memory is measured for the first time
TOLD_EVERY_S = 30.0
THROUGH_A_GATEWAY = 1000  # one reply in so many meets a whole gateway, which is slow


def _memory_bytes() -> int:
    gc.collect()
    used: int = psutil.Process().memory_info().rss
    return used


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _Progress:
    """Time and memory of a run."""

    def __init__(self, wanted: int, what: str) -> None:
        self._wanted, self._what = wanted, what
        self._began_s = self._told_s = time.monotonic()
        self._before = 0

    def seen(self, done: int) -> None:
        if not self._before and done >= self._wanted * WARM_PART:
            self._before = _memory_bytes()
        if time.monotonic() - self._told_s > TOLD_EVERY_S:
            self._told_s = time.monotonic()
            _say(f"  {done} {self._what} after {self._told_s - self._began_s:.0f} s")

    def ended(self, words: str) -> None:
        grown = _memory_bytes() - self._before
        taken_s = time.monotonic() - self._began_s
        _say(f"{words} in {taken_s:.0f} s; memory {grown / 1048576:+.1f} MiB")
        assert grown < GROWTH_BYTES_MAX, "memory grew"


async def _requests(seed: int, wanted: int) -> None:
    tally, progress = Tally(), _Progress(wanted, "malformed requests")
    async with running_server() as server:
        while tally.malformed < wanted:
            await fuzz_requests(server, seed, tally.requests, tally)
            progress.seen(tally.malformed)
    progress.ended(
        f"requests: {tally.malformed} malformed of {tally.requests}, {tally.refused} connections "
        f"refused, {tally.carried_on} answered the next request"
    )


async def _replies(seed: int, wanted: int) -> None:
    progress = _Progress(wanted, "replies")
    for number in range(wanted):
        await fuzz_replies(random.Random(seed * 1_000_003 + number))
        progress.seen(number)
    progress.ended(f"replies: {wanted} streams, on one connection each")
    through = max(100, wanted // THROUGH_A_GATEWAY)
    await fuzz_gateway(random.Random(seed), through)
    progress.ended(f"replies: {through} through a gateway")


def _run(work: Coroutine[None, None, None]) -> bool:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except AssertionError as error:
        _say(f"FAILED: {error}")
        return False
    return True


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--only", choices=["requests", "replies"])
    options = parser.parse_args()
    _say(f"seed {options.seed} ({CLIENTS} clients at once)")
    work = {"requests": _requests, "replies": _replies}
    wanted = [name for name in work if options.only in {None, name}]
    failed = [name for name in wanted if not _run(work[name](options.seed, options.requests))]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
