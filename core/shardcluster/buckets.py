"""Counts of values by size: what a Prometheus histogram is made of.

Law: plain numbers, no lock: whoever counts and whoever reads do so in one thread.  A value equal to
a bound belongs below it, as Prometheus' `le` says.
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["Buckets"]


class Buckets:
    """`counts[i]` values were at most `bounds[i]` and more than `bounds[i - 1]`."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` rise."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0  # the sum of all values

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Buckets) -> None:
        """Count all that `other`, of the same bounds, has counted."""
        self.counts = [
            ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.total += other.total

    def cumulative(self) -> list[tuple[str, float]]:
        """(bound as text, how many values were at most that), as Prometheus wants them."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found
