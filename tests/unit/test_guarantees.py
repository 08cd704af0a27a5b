"""What the documents promise is held by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("guarantees.md", "security.md")
CITED = re.compile(r"`(tests/[^`]+)`")


def _cited(document: str) -> list[str]:
    return CITED.findall((ROOT / "docs" / document).read_text(encoding="utf-8"))


def _tests_in(path: Path) -> set[str]:
    """The test functions of a file, also those of its classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    """By file and function; a file alone, such as a story, exists."""
    cited = _cited(document)
    assert cited
    for one in cited:
        name, _, function = one.partition("::")
        path = ROOT / name
        assert path.is_file(), one
        assert not function or function in _tests_in(path), one


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_names_what_holds_it(document: str) -> None:
    """In tables whose last column is for that: a test, or the word that there is none."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    rows, held = 0, False
    for line in text.splitlines():
        if not line.startswith("|"):
            held = False
        elif line.endswith("| held by |"):
            held = True
        elif held and not line.startswith("|---"):
            rows += 1
            last = line.removesuffix("|").rpartition("| ")[2]
            assert CITED.search(last) or last.startswith("no test"), line
    assert rows > 10
