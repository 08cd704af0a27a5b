"""All benchmarks in one run: a table, `build/bench.json`, exit code 1 when a line is missed.

`python -m tests.bench [NAME …]` runs those named (ring, decide, migrate, latency, failover).
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.table import run

NAMES = ("ring", "decide", "migrate", "latency", "failover")
RESULT = Path("build/bench.json")

if __name__ == "__main__":
    modules = {name: f"tests.bench.bench_{name}" for name in NAMES}
    sys.exit(run(modules, sys.argv[1:], RESULT))
