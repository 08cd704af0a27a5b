"""`--rewrite`: write what the stories really lead to into their files; the diff is reviewed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `pytest tests/scenarios --rewrite`."""
    parser.addoption(
        "--rewrite", action="store_true", default=False, help="rewrite tests/scenarios/*.txt"
    )
