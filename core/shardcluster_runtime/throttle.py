"""A token bucket: how long to wait before `n` more units may go.

Law: pure; the time is an argument.  Over any span the units let through are at most
`rate × span + burst`.  A caller may take more than the burst at once (a big batch): it then runs
the bucket into debt and the next one waits for it, so that the mean rate holds for any batch size.
"""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """`rate_per_s` units a second, `burst` at once; a rate of 0 means no limit."""

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        """Starts full."""
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._level = burst
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next `take` is due; 0 when it is due now."""
        if self.rate_per_s <= 0:
            return 0.0
        self._refill(now_s)
        return max(0.0, -self._level / self.rate_per_s)

    def take(self, units: float, now_s: float) -> None:
        """Count `units` as gone; call it when `wait_s` is 0."""
        if self.rate_per_s <= 0:
            return
        self._refill(now_s)
        self._level -= units

    def _refill(self, now_s: float) -> None:
        # A clock that runs backwards gives nothing and takes nothing.
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        self._level = min(self.burst, self._level + elapsed_s * self.rate_per_s)
