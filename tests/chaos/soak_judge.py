"""What a soak has to show: the load was held, and nothing grew."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["judged"]

HELD_MIN = 0.9  # of the wanted rate, in the median window
GROWTH_MAX = 1.1  # of memory, the last quarter against the second: the first fills caches
FILES_MAX = 20  # more open files in the last quarter than in the second
NAMES = ("gateway", "controller")

Row = dict[str, Any]


def judged(seen: dict[str, Any]) -> list[Row]:
    """The rows of the table."""
    windows = seen["windows"]
    quarter = max(1, len(windows) // 4)
    early, late = windows[quarter : 2 * quarter] or windows, windows[-quarter:]
    rows = [*_load(seen, windows)]
    for name in NAMES:
        rows += _flat(name, early, late)
    rows.append(
        {
            "measure": "promises broken", "value": str(len(seen["broken"])), "limit": "0",
            "ok": not seen["broken"], "detail": f"{len(seen['faults'])} faults",
        }
    )  # fmt: skip
    return rows


def _load(seen: dict[str, Any], windows: Sequence[Row]) -> list[Row]:
    wanted = seen["share"] * seen["limit"]
    held = statistics.median(window["rate"] for window in windows) / wanted
    asked = sum(window["requests"] for window in windows)
    failed = sum(window["failed"] for window in windows)
    spread = [
        f"{statistics.median(window[part] for window in windows):.2f}"
        for part in ("p50_ms", "p99_ms", "p999_ms")
    ]
    return [
        {
            "measure": f"load, of {seen['share']:.0%} of {seen['limit']:,.0f}/s",
            "value": f"{held:.0%}", "limit": f"≥ {HELD_MIN:.0%}", "ok": held >= HELD_MIN,
            "detail": f"{asked:,} requests, {failed:,} failed",
        },
        {
            "measure": "p50, p99, p99.9 of the median window", "value": " / ".join(spread) + " ms",
            "limit": "reported", "ok": True,
            "detail": f"worst p99.9 {max(window['p999_ms'] for window in windows):.0f} ms",
        },
    ]  # fmt: skip


def _flat(name: str, early: Sequence[Row], late: Sequence[Row]) -> list[Row]:
    def of(windows: Sequence[Row], part: str) -> float:
        return float(statistics.median(w[name][part] for w in windows if name in w))

    before, after = of(early, "mib"), of(late, "mib")
    opened, still = of(early, "files"), of(late, "files")
    return [
        {
            "measure": f"memory of the {name}", "value": f"{after:.0f} MiB",
            "limit": f"≤ {GROWTH_MAX * before:.0f} MiB", "ok": after <= GROWTH_MAX * before,
            "detail": f"{before:.0f} MiB in the second quarter",
        },
        {
            "measure": "  its open files and connections", "value": f"{still:.0f}",
            "limit": f"≤ {opened + FILES_MAX:.0f}", "ok": still <= opened + FILES_MAX,
            "detail": f"{opened:.0f} in the second quarter",
        },
    ]  # fmt: skip
