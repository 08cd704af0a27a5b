"""Run benchmarks one after the other, print one table, write one file."""

from __future__ import annotations

import importlib
import json
import platform
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["run", "show"]


def run(modules: Mapping[str, str], wanted: list[str], result: Path) -> int:
    """`modules` by name; `wanted` names, none for all.  0, 1 when a line is missed, 2 for a name.

    Each module has a `run() -> list[row]`; a row has measure, value, limit, ok and detail.
    """
    unknown = set(wanted) - set(modules)
    if unknown:
        Console(stderr=True).print(f"No such benchmark: {', '.join(sorted(unknown))}")
        return 2
    console = Console()
    rows: list[dict[str, Any]] = []
    for name in wanted or modules:
        began_s = time.monotonic()
        console.print(f"{name} …", end=" ", style="dim")
        try:
            rows += importlib.import_module(modules[name]).run()
        except Exception as error:  # noqa: BLE001 - what the others found is told all the same
            rows.append(_broken(name, error))
        console.print(f"{time.monotonic() - began_s:.0f} s", style="dim")
    show(rows, console)
    result.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    result.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    return 0 if all(row["ok"] for row in rows) else 1


def _broken(name: str, error: Exception) -> dict[str, Any]:
    return {
        "measure": name, "value": "-", "limit": "-", "ok": False,
        "detail": f"ended by {type(error).__name__}: {error}",
    }  # fmt: skip


def show(rows: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Print them."""
    table = Table()
    for title in ("measure", "value", "limit", "", "detail"):
        table.add_column(title)
    for row in rows:
        mark = "ok" if row["ok"] else "MISSED"
        table.add_row(row["measure"], row["value"], row["limit"], mark, row["detail"])
    (console or Console()).print(table)
