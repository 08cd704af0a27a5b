"""On a real Kubernetes: a table, `build/bench-k8s.json`, exit code 1 when a line is missed.

`python -m tests.bench.k8s [NAME …]` runs those named (apply, scale, faults, idle).  The operator is
installed, its images are there, and the Kubernetes nodes are on this machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.k8s.cluster import NAMESPACE, kubectl
from tests.bench.table import run

NAMES = ("apply", "scale", "faults", "idle")
RESULT = Path("build/bench-k8s.json")

if __name__ == "__main__":
    kubectl("create", "namespace", NAMESPACE)
    try:
        modules = {name: f"tests.bench.k8s.{name}" for name in NAMES}
        code = run(modules, sys.argv[1:], RESULT)
    finally:
        kubectl("delete", "namespace", NAMESPACE)
    sys.exit(code)
