"""Which keys are asked for most, by looking at a few of them.

Law: `saw` costs next to nothing and the memory is bounded, whatever passes.  One request in `every`
is looked at; `every` follows the traffic, so that few requests are all looked at and many cost no
more than `SAMPLES_PER_S_MAX` looks a second.  The looked-at keys go into a space-saving sketch
(Metwally, Agrawal, El Abbadi 2005): `KEYS_MAX` counters, where a new key takes over the smallest
one and inherits its count as its error.  Counts are halved every `HALVE_S`: what was hot fades.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HotKey", "HotKeys"]

KEYS_MAX = 256
SAMPLES_PER_S_MAX = 200
EVERY_MAX = 4096
HALVE_S = 30.0
FADED = 0.5  # a count below is forgotten


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key and its part of all requests, which is too high by at most `error`."""

    key: bytes
    share: float
    error: float


class HotKeys:
    """The sketch of one gateway process."""

    def __init__(
        self, now_s: Callable[[], float] = time.monotonic, seed: int | None = None
    ) -> None:
        """`now_s` is any steady clock; `seed` is for tests."""
        self.every = 1
        self._left = 1  # requests until the next look
        self._now_s = now_s
        self._random = random.Random(seed)  # noqa: S311 - spreads the looks
        self._counts: dict[bytes, float] = {}
        self._errors: dict[bytes, float] = {}
        self._total = 0.0
        self._second_s = self._halved_s = now_s()
        self._looks = 0

    def saw(self, key: bytes) -> None:
        """A request for `key` passes; called for each one."""
        self._left -= 1
        if self._left <= 0:
            self._look(key)

    def saw_all(self, keys: list[bytes]) -> None:
        """Requests for all of them pass."""
        if len(keys) < self._left:
            self._left -= len(keys)
            return
        for key in keys:
            self.saw(key)

    def _look(self, key: bytes) -> None:
        weight = self.every
        counts = self._counts
        self._total += weight
        self._looks += 1
        if key in counts:
            counts[key] += weight
        elif len(counts) < KEYS_MAX:
            counts[key], self._errors[key] = weight, 0.0
        else:
            smallest = min(counts, key=counts.__getitem__)
            count = counts.pop(smallest)
            del self._errors[smallest]
            counts[key], self._errors[key] = count + weight, count
        self._follow_time()
        self._left = self._random.randint(1, 2 * self.every - 1)

    def _follow_time(self) -> None:
        now_s = self._now_s()
        elapsed_s = now_s - self._second_s
        if elapsed_s >= 1.0 or self._looks >= SAMPLES_PER_S_MAX:
            wanted = self.every * self._looks / (SAMPLES_PER_S_MAX * max(elapsed_s, 1e-3))
            # It grows at once and shrinks slowly: a burst must not cost a look for each request.
            self.every = min(EVERY_MAX, max(1, self.every // 2, round(wanted)))
            self._left = min(self._left, 2 * self.every)  # else a lull would be slept through
            self._second_s, self._looks = now_s, 0
        while now_s - self._halved_s >= HALVE_S and self._counts:
            self._halved_s += HALVE_S
            self._total /= 2
            self._counts = {k: n / 2 for k, n in self._counts.items() if n / 2 >= FADED}
            self._errors = {key: self._errors[key] / 2 for key in self._counts}
        if not self._counts:
            self._halved_s, self._total = now_s, 0.0

    def top(self, count: int) -> list[HotKey]:
        """The keys that are asked for most, the hottest first."""
        self._follow_time()
        if not self._total:
            return []
        first = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [HotKey(key, n / self._total, self._errors[key] / self._total) for key, n in first]
