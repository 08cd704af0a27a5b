"""The house rules that no linter knows: sizes, docstrings that stay true, clean tracked files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("core", "api", "operator", "tools")
PACKAGE_ROOTS = (ROOT / "core", ROOT / "api", ROOT / "operator", ROOT)

FUNCTION_LINES_MAX = 60
PARAMETERS_MAX = 6
MODULE_LINES_MAX = 500
TEST_MODULE_LINES_MAX = 600

# What core may take from the standard library: nothing with a clock, dice, a wire or a file.
CORE_MAY_IMPORT = {
    "__future__", "abc", "array", "binascii", "bisect", "collections", "copy", "dataclasses",
    "datetime", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac",
    "html", "ipaddress",
    "itertools", "json", "math", "operator", "re", "statistics", "string", "struct", "textwrap",
    "types", "typing", "unicodedata", "zlib",
    "shardcluster",
}  # fmt: skip

# Written in pieces, so that this file doesn't find itself.
FORBIDDEN_TEXT = re.compile(
    "|".join(
        [
            r"py" + r"pi\.org|python" + r"hosted\.org",
            r"registry\." + r"npm" + r"js|npm" + r"js\.org",
            r"proxy\." + r"gol" + r"ang|crates" + r"\.io|repo1?\." + r"maven",
            r"deb\." + r"debian\.org|ubuntu" + r"\.com/ubuntu",
            r"docker" + r"\.io/|ghcr" + r"\.io|quay" + r"\.io|gcr" + r"\.io",
            r"/ro" + r"ot/|/ho" + r"me/|/wo" + r"rk/|/Us" + r"ers/",
            r"pragma: no " + r"cover",
            r"\bTO" + r"DO\b|\bFIX" + r"ME\b",
        ]
    )
)

CITED = re.compile(r"``?([A-Za-z_][\w./-]*)``?")
# `shardcluster_runtime` before `shardcluster`: the first that fits is taken.
DOTTED = re.compile(r"(?:shardcluster_runtime|shardcluster_api|shardcluster)(?:\.\w+)+")


class Module(NamedTuple):
    """A Python file of ours."""

    path: Path
    tree: ast.Module
    lines: int

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def is_test(self) -> bool:
        """Whether it is for tests only."""
        return self.name.startswith("tests/")


def _tracked() -> list[Path]:
    """Files that are, or with the next commit would be, part of the project."""
    if not (ROOT / ".git").exists():
        hidden = {".venv", "build", "dist", ".shardcluster"}
        found = [path for path in ROOT.rglob("*") if path.is_file()]
        return [path for path in found if hidden.isdisjoint(path.relative_to(ROOT).parts)]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return sorted({ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()})


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    return _tracked()


@pytest.fixture(scope="module")
def modules(tracked: list[Path]) -> list[Module]:
    found = []
    for path in tracked:
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            found.append(Module(path, ast.parse(text), text.count("\n")))
    return found


def test_functions_stay_short(modules: list[Module]) -> None:
    """A function has at most 60 lines and 6 parameters, self and cls aside."""
    faults = []
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            where = f"{module.name}:{node.lineno} {node.name}"
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                faults.append(f"{where} has {lines} lines")
            if (parameters := _parameters(node)) > PARAMETERS_MAX:
                faults.append(f"{where} has {parameters} parameters")
    assert not faults, "\n".join(faults)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(argument.arg not in {"self", "cls"} for argument in arguments)


def test_modules_stay_short(modules: list[Module]) -> None:
    """A module has at most 500 lines, a test module 600."""
    faults = [
        f"{module.name} has {module.lines} lines"
        for module in modules
        if module.lines > (TEST_MODULE_LINES_MAX if module.is_test else MODULE_LINES_MAX)
    ]
    assert not faults, "\n".join(faults)


def test_every_module_says_what_it_is(modules: list[Module]) -> None:
    """Every module that is no test opens with a docstring."""
    faults = [
        module.name
        for module in modules
        if not module.is_test and not (ast.get_docstring(module.tree) or "").strip()
    ]
    assert not faults, "\n".join(faults)


def test_docstrings_cite_what_exists(modules: list[Module], tracked: list[Path]) -> None:
    """A module or file that a docstring names in backticks exists."""
    names = {path.relative_to(ROOT).as_posix() for path in tracked}
    faults = [
        f"{module.name} cites {cited}"
        for module in modules
        for cited in _cited(module.tree)
        if not _exists(cited, module.path, names)
    ]
    assert not faults, "\n".join(faults)


def _cited(tree: ast.Module) -> set[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, documented):
            for cited in CITED.findall(ast.get_docstring(node) or ""):
                if cited.endswith(".py") or DOTTED.fullmatch(cited):
                    found.add(cited)
    return found


def _exists(cited: str, citing: Path, names: set[str]) -> bool:
    if cited.endswith(".py"):
        beside = citing.parent.relative_to(ROOT).as_posix()
        return f"{beside}/{cited}" in names or any(
            name == cited or name.endswith(f"/{cited}") for name in names
        )
    return any(_defines(root, cited.split(".")) for root in PACKAGE_ROOTS)


def _defines(root: Path, parts: list[str]) -> bool:
    """Whether `a.b.c` is a module, or a name that the module `a.b` (or `a`) defines."""
    for taken in range(len(parts), 0, -1):
        base = root.joinpath(*parts[:taken])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.is_file():
            rest = parts[taken:]
            return not rest or re.search(rf"\b{rest[0]}\b", file.read_text("utf-8")) is not None
    return False


def test_core_takes_only_what_cannot_act(modules: list[Module]) -> None:
    """Core imports itself and a short list of the standard library, nothing else."""
    faults = [
        f"{module.name} imports {name}"
        for module in modules
        if module.name.startswith("core/shardcluster/")
        for name in _imported(module.tree)
        if name.partition(".")[0] not in CORE_MAY_IMPORT
    ]
    assert not faults, "\n".join(faults)
    assert {"shardcluster"} | sys.stdlib_module_names >= CORE_MAY_IMPORT


def _imported(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def test_tracked_files_name_no_machine_and_no_registry(tracked: list[Path]) -> None:
    """No file names a registry's host, a machine's paths, or work left undone."""
    faults = []
    for path in tracked:
        text = path.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if found := FORBIDDEN_TEXT.search(line):
                faults.append(f"{path.relative_to(ROOT)}:{number} says {found.group()}")
    assert not faults, "\n".join(faults)


def test_tests_are_neither_skipped_nor_expected_to_fail(modules: list[Module]) -> None:
    """No test is skipped, expected to fail, or run again."""
    refused = {"skip", "skipif", "xfail", "flaky", "importorskip"}
    faults = [
        f"{module.name}:{node.lineno} {node.attr}"
        for module in modules
        if module.is_test
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in refused
    ]
    assert not faults, "\n".join(faults)


def test_every_test_states_its_fact(modules: list[Module]) -> None:
    """Every test function has a docstring: the list of tests is the specification."""
    faults = [
        f"{module.name}:{node.lineno} {node.name}"
        for module in modules
        if module.path.name.startswith("test_")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not faults, "\n".join(faults)
