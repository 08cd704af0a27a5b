"""Files that are made from the source: written, or with `--check` compared with what is there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shardcluster.spec import parse
from shardcluster_runtime.desired import load_document
from shardcluster_runtime.platforms._server_config import NodeSettings, container_config

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
COMPOSE_SPEC = ROOT / "deploy/compose/shardcluster.yaml"
NOTE = b"# Made by `make generate` from what ShardCluster gives its local nodes; don't edit.\n"


def compose_valkey_conf() -> bytes:
    """The settings of Compose's nodes, for the spec that Compose uses."""
    spec = parse(load_document(COMPOSE_SPEC))
    settings = NodeSettings(
        node_timeout_ms=spec.failover.node_timeout_ms,
        memory_only=spec.memory_only,
        max_memory_bytes=spec.max_memory_bytes,
    )
    return NOTE + container_config(settings)


GENERATED: dict[str, Callable[[], bytes]] = {"deploy/compose/valkey.conf": compose_valkey_conf}


def main() -> int:
    """Write or compare; 1 when something differs."""
    arguments = argparse.ArgumentParser(description="Make the generated files.")
    arguments.add_argument("--check", action="store_true", help="only say what differs")
    check = arguments.parse_args().check
    differing = []
    for name, make in GENERATED.items():
        path, content = ROOT / name, make()
        if not path.exists() or path.read_bytes() != content:
            differing.append(name)
            if not check:
                path.write_bytes(content)
    if check and differing:
        sys.stderr.write(
            f"Not as the source has it: {', '.join(differing)}; run `make generate`.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
