"""Each story ends as its file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.story import live, rewritten

HERE = Path(__file__).parent
STORIES = sorted(HERE.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, request: pytest.FixtureRequest) -> None:
    """What is printed under every `----` is what happens."""
    if request.config.getoption("--rewrite", default=False):
        path.write_text(rewritten(path))
        return
    blocks = list(live(path))
    assert [stands for stands, _ in blocks] == [happens for _, happens in blocks]


def test_there_are_stories() -> None:
    """A lost glob would pass silently."""
    assert len(STORIES) > 20
