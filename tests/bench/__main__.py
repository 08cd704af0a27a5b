"""All benchmarks in one run: a table, `build/bench.json`, exit code 1 when a line is missed.

`python -m tests.bench [NAME …]` runs those named (ring, decide, migrate, latency, failover).
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

NAMES = ("ring", "decide", "migrate", "latency", "failover")
RESULT = Path("build/bench.json")


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = set(names) - set(NAMES)
    if unknown:
        Console(stderr=True).print(f"No such benchmark: {', '.join(sorted(unknown))}")
        return 2
    console = Console()
    rows: list[dict[str, Any]] = []
    for name in names or NAMES:
        began_s = time.monotonic()
        console.print(f"{name} …", end=" ", style="dim")
        rows += importlib.import_module(f"tests.bench.bench_{name}").run()
        console.print(f"{time.monotonic() - began_s:.0f} s", style="dim")
    _print(console, rows)
    RESULT.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    RESULT.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    return 0 if all(row["ok"] for row in rows) else 1


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table()
    for title in ("measure", "value", "limit", "", "detail"):
        table.add_column(title)
    for row in rows:
        mark = "ok" if row["ok"] else "MISSED"
        table.add_row(row["measure"], row["value"], row["limit"], mark, row["detail"])
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
