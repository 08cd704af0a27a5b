"""A soak as a picture: latencies, failures, memory and open files over time, faults below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["plot"]

WIDTH, LEFT, RIGHT = 960, 70, 150
PANEL, GAP, TOP = 130, 34, 30
COLOURS = ("#1f77b4", "#d62728", "#9467bd", "#2ca02c")

Window = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    lines: dict[str, Callable[[Window], float]]
    logarithmic: bool = False


_PANELS = (
    _Panel(
        "latency, ms (logarithmic)",
        {
            "p50": lambda window: window["p50_ms"],
            "p99": lambda window: window["p99_ms"],
            "p99.9": lambda window: window["p999_ms"],
        },
        logarithmic=True,
    ),
    _Panel("requests/s", {"answered": lambda window: window["rate"]}),
    _Panel("failed, %", {"failed": lambda w: 100 * w["failed"] / max(1, w["requests"])}),
    _Panel(
        "memory, MiB",
        {
            "gateway": lambda window: window.get("gateway", {}).get("mib", math.nan),
            "controller": lambda window: window.get("controller", {}).get("mib", math.nan),
        },
    ),
    _Panel(
        "open files",
        {
            "gateway": lambda window: window.get("gateway", {}).get("files", math.nan),
            "controller": lambda window: window.get("controller", {}).get("files", math.nan),
        },
    ),
)


def plot(seen: dict[str, Any]) -> str:
    """An SVG document."""
    windows: Sequence[Window] = seen["windows"]
    end_s = max(window["at_s"] for window in windows) or 1.0
    height = TOP + len(_PANELS) * (PANEL + GAP) + 20

    def x(at_s: float) -> float:
        return LEFT + at_s / end_s * (WIDTH - LEFT - RIGHT)

    share, limit = f"{seen['share']:.0%}", f"{seen['limit']:,.0f}"
    title = f"A fault every 20 s (grey) under {share} of the gateway's limit, {limit} requests/s"
    box, font = f'viewBox="0 0 {WIDTH} {height}"', 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} {font}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="18">{escape(title)}</text>',
    ]
    for number, panel in enumerate(_PANELS):
        parts += _drawn(panel, windows, TOP + number * (PANEL + GAP) + 16, x)
    bottom = TOP + len(_PANELS) * (PANEL + GAP)
    for fault in seen["faults"]:
        at = x(min(fault["at_s"], end_s))
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP + 16}" y2="{bottom - GAP + 16}"'
            f' stroke="#888" stroke-opacity=".35"><title>{escape(fault["kind"])}</title></line>'
        )
    for minute in range(0, int(end_s / 60) + 1, max(1, int(end_s / 600))):
        parts.append(
            f'<text x="{x(minute * 60):.1f}" y="{bottom}" text-anchor="middle">{minute} min</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _drawn(
    panel: _Panel, windows: Sequence[Window], top: float, x: Callable[[float], float]
) -> list[str]:
    def scaled(value: float) -> float:
        return math.log10(max(value, 0.1)) if panel.logarithmic else value

    values = {name: [scaled(of(window)) for window in windows] for name, of in panel.lines.items()}
    finite = [value for row in values.values() for value in row if math.isfinite(value)]
    low, high = min([*finite, 0.0]), max([*finite, scaled(1.0)])

    def y(value: float) -> float:
        return top + PANEL - (value - low) / (high - low or 1.0) * PANEL

    most, least = (f"{10**end if panel.logarithmic else end:,.0f}" for end in (high, low))
    size, at = f'width="{WIDTH - LEFT - RIGHT}" height="{PANEL}"', f'x="{LEFT - 6}"'
    parts = [
        f'<rect x="{LEFT}" y="{top}" {size} fill="none" stroke="#ccc"/>',
        f'<text x="{LEFT}" y="{top - 4}">{escape(panel.title)}</text>',
        f'<text {at} y="{top + 10}" text-anchor="end">{most}</text>',
        f'<text {at} y="{top + PANEL}" text-anchor="end">{least}</text>',
    ]
    for number, (name, row) in enumerate(values.items()):
        points = " ".join(
            f"{x(window['at_s']):.1f},{y(value):.1f}"
            for window, value in zip(windows, row, strict=True)
            if math.isfinite(value)
        )
        colour = COLOURS[number]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{top + 14 + 16 * number}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return parts
