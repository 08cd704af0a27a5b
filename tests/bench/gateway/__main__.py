"""The gateway beside its peers: a table, `build/bench-gateway.json`, 1 when a line is missed.

`python -m tests.bench.gateway [NAME …]` runs those named.  wrk and webdis must be on PATH.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.table import run

NAMES = ("speed", "workers", "trouble", "idle_connections", "memory")
RESULT = Path("build/bench-gateway.json")

if __name__ == "__main__":
    modules = {name: f"tests.bench.gateway.{name}" for name in NAMES}
    sys.exit(run(modules, sys.argv[1:], RESULT))
