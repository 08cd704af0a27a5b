"""The judge of a soak, its picture and its schedules; a soak itself needs wrk and half an hour."""

from __future__ import annotations

import itertools
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.chaos.figures import markdown
from tests.chaos.soak import EVERY_MS, KILL_WATCHED, schedules
from tests.chaos.soak_judge import judged
from tests.chaos.soak_plot import plot


def _seen(**changes: Any) -> dict[str, Any]:
    windows = [
        {
            "at_s": 10.0 * number, "requests": 70_000, "failed": 0, "rate": 7_000.0,
            "p50_ms": 1.0, "p99_ms": 9.0, "p999_ms": 30.0,
            "gateway": {"mib": 60.0, "files": 40}, "controller": {"mib": 50.0, "files": 20},
        }
        for number in range(8)
    ]  # fmt: skip
    windows[-1].update(changes)
    windows[-2].update(changes)
    return {
        "seed": 0, "limit": 10_000.0, "share": 0.7, "windows": windows,
        "faults": [{"at_s": 5.0, "kind": "hang <master>"}], "broken": [],
    }  # fmt: skip


def _missed(seen: dict[str, Any]) -> list[str]:
    return [row["measure"].strip() for row in judged(seen) if not row["ok"]]


def test_a_soak_that_held_is_good() -> None:
    """Also where a window or two were slow: the median counts."""
    assert _missed(_seen()) == []
    assert _missed(_seen(rate=1_000.0)) == []


@pytest.mark.parametrize(
    ("changes", "measure"),
    [
        ({"gateway": {"mib": 80.0, "files": 40}}, "memory of the gateway"),
        ({"controller": {"mib": 50.0, "files": 90}}, "its open files and connections"),
    ],
)
def test_what_grows_is_found(changes: dict[str, Any], measure: str) -> None:
    """In the last quarter."""
    assert _missed(_seen(**changes)) == [measure]


def test_what_was_not_held_or_kept_is_found() -> None:
    """The load, and the promises."""
    seen = _seen()
    for window in seen["windows"]:
        window["rate"] = 5_000.0
    seen["broken"] = ["a write is lost"]
    assert _missed(seen) == ["load, of 70% of 10,000/s", "promises broken"]


def test_the_picture_is_xml_with_every_fault() -> None:
    """Whatever it is called."""
    picture = ET.fromstring(plot(_seen()))  # noqa: S314 - our own
    titles = picture.iter("{http://www.w3.org/2000/svg}title")
    assert [title.text for title in titles] == ["hang <master>"]


def test_faults_come_every_so_often_and_let_the_watched_processes_live() -> None:
    """Their memory would begin anew."""
    for plan in schedules(0, 50):
        times = [fault.at_ms for fault in plan.faults]
        assert {late - early for early, late in itertools.pairwise(times)} == {EVERY_MS}
        assert not KILL_WATCHED & {fault.kind for fault in plan.faults}


def test_a_soak_becomes_a_part_of_the_page() -> None:
    """Its rows and its faults, and where the picture is."""
    seen = _seen()
    page = markdown([{**seen, "rows": judged(seen)}])
    assert "| promises broken | 0 | 0 | ok | 1 faults |" in page
    assert "Faults from seed 0 on: 1 × hang <master>." in page
    assert "(soak.svg)" in page
