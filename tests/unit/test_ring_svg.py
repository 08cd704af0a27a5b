"""The picture of the ring is well-formed, names everybody, and keeps its colours."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from shardcluster.ring import plan_ownership
from shardcluster.ring_svg import ring_svg, shard_colour
from shardcluster.slots import SlotSet

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("count", [1, 4, 100])
def test_every_shard_is_drawn_and_named(count: int) -> None:
    """One group a shard with a title for screen readers, one legend entry each."""
    plan = plan_ownership({f"shard-{number}": 1.0 for number in range(count)}, {})
    picture = ET.fromstring(ring_svg(plan))  # noqa: S314 - our own text
    titles = [group.findtext(f"{SVG}title") for group in picture.iter(f"{SVG}g")]
    assert [title.split(":")[0] for title in titles if title] == list(plan)
    assert len(list(picture.iter(f"{SVG}rect"))) == count
    assert picture.findtext(f"{SVG}title") == f"{count} shards"


def test_slots_of_nobody_stay_bare() -> None:
    """The grey circle below shows."""
    picture = ET.fromstring(ring_svg({"shard-0": SlotSet.of([5])}, title="a <b>"))  # noqa: S314 - our own text
    bare = [path for path in picture.iter(f"{SVG}path") if path.get("class") == "bare"]
    assert len(bare) == 2
    assert picture.findtext(f"{SVG}title") == "a <b>"


def test_a_colour_belongs_to_a_name() -> None:
    """It stays when others come and go, and neighbours differ."""
    assert shard_colour("shard-3") == shard_colour("shard-3")
    assert len({shard_colour(f"shard-{number}") for number in range(60)}) > 50
    assert shard_colour("odd") != shard_colour("even")
    assert shard_colour("shard-0") == "#c62f2f"


def test_colours_are_in_the_notation_every_reader_knows() -> None:
    """Outside browsers hsl() comes out black."""
    colours = [shard_colour(f"shard-{number}") for number in range(360)]
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
