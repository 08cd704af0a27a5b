"""Draw the slots as a circle: who owns which arc, one self-contained SVG that suits light and dark.

Law: pure text out of plain data; a shard's colour depends on its name alone, so it stays when
others come and go.
"""

from __future__ import annotations

import hashlib
import math
from html import escape
from typing import TYPE_CHECKING

from shardcluster.slots import SLOT_COUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster.slots import SlotSet

__all__ = ["ring_svg", "shard_colour"]

RING_SIZE = 520  # pixels, the circle's square
RADIUS_OUTER, RADIUS_INNER = 240, 170
LEGEND_ROW = 22
LEGEND_COLUMN = 200
LEGEND_ROWS_MAX = 22
GOLDEN_ANGLE = 137.508  # degrees; numbers that follow each other get far-apart hues
SATURATION = 0.62
_STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1b1f24}"
    ".bare{fill:#d9dde3}.small{font-size:12px;fill:#59636e}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f3f6}.bare{fill:#3d444d}.small{fill:#9198a1}}"
)


def shard_colour(name: str) -> str:
    """A colour that reads on light and dark, by the shard's number (or its name's hash)."""
    digits = name.rpartition("-")[2]
    number = (
        int(digits)
        if digits.isdigit()
        else hashlib.blake2b(name.encode(), digest_size=1).digest()[0]
    )
    hue = number * GOLDEN_ANGLE % 360
    lightness = 48 + 10 * (number // 8 % 2)
    return _hex_colour(hue, lightness / 100)


def _hex_colour(hue: float, lightness: float) -> str:
    """HSL as `#rrggbb`: browsers know hsl(), but most other readers of SVG paint it black."""
    reach = SATURATION * min(lightness, 1 - lightness)
    channels = []
    for offset in (0, 8, 4):  # red, green, blue (CSS Color 4, "HSL to sRGB")
        turn = (offset + hue / 30) % 12
        channel = lightness - reach * max(-1.0, min(turn - 3, 9 - turn, 1.0))
        channels.append(f"{round(channel * 255):02x}")
    return "#" + "".join(channels)


def ring_svg(ownership: Mapping[str, SlotSet], *, title: str = "") -> str:
    """The picture of who owns which slots; slots that nobody owns stay grey."""
    names = list(ownership)
    columns = max(1, math.ceil(len(names) / LEGEND_ROWS_MAX))
    width = RING_SIZE + columns * LEGEND_COLUMN
    heading = title or f"{len(names)} shards"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {RING_SIZE}" role="img">',
        f"<title>{escape(heading)}</title><style>{_STYLE}</style>",
        _arc(0, SLOT_COUNT, 'class="bare"'),
    ]
    for name in names:
        slots = ownership[name]
        share = f"{name}: {len(slots):,} slots, {len(slots) / SLOT_COUNT:.1%}"
        arcs = "".join(
            _arc(first, last + 1, f'fill="{shard_colour(name)}"') for first, last in slots.ranges()
        )
        parts.append(f"<g><title>{escape(share)}</title>{arcs}</g>")
    centre = RING_SIZE / 2
    parts.append(
        f'<text x="{centre}" y="{centre - 4}" text-anchor="middle">{escape(heading)}</text>'
        f'<text x="{centre}" y="{centre + 16}" text-anchor="middle" class="small">'
        f"{SLOT_COUNT:,} slots, 0 at the top</text>"
    )
    parts += [_legend_entry(number, name, ownership[name]) for number, name in enumerate(names)]
    return "".join([*parts, "</svg>\n"])


def _legend_entry(number: int, name: str, slots: SlotSet) -> str:
    column, row = divmod(number, LEGEND_ROWS_MAX)
    x, y = RING_SIZE + column * LEGEND_COLUMN, 24 + row * LEGEND_ROW
    return (
        f'<rect x="{x}" y="{y - 11}" width="13" height="13" rx="3" fill="{shard_colour(name)}"/>'
        f'<text x="{x + 20}" y="{y}">{escape(name)} <tspan class="small">{len(slots):,} · '
        f"{len(slots) / SLOT_COUNT:.1%}</tspan></text>"
    )


def _arc(first: int, end: int, attributes: str) -> str:
    """The piece of the ring from slot `first` up to before `end`, clockwise from the top."""
    if end - first == SLOT_COUNT:
        half = SLOT_COUNT // 2
        return _arc(0, half, attributes) + _arc(half, SLOT_COUNT, attributes)
    centre = RING_SIZE / 2
    points = [
        f"{centre + radius * math.sin(angle):.2f} {centre - radius * math.cos(angle):.2f}"
        for radius, slot in (
            (RADIUS_OUTER, first), (RADIUS_OUTER, end), (RADIUS_INNER, end), (RADIUS_INNER, first),
        )
        for angle in (slot / SLOT_COUNT * math.tau,)
    ]  # fmt: skip
    large = int(end - first > SLOT_COUNT // 2)
    return (
        f'<path {attributes} d="M{points[0]}A{RADIUS_OUTER} {RADIUS_OUTER} 0 {large} 1 {points[1]}'
        f'L{points[2]}A{RADIUS_INNER} {RADIUS_INNER} 0 {large} 0 {points[3]}Z"/>'
    )
