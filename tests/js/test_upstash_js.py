"""The public npm client `@upstash/redis`, unchanged, against the gateway.

A tier of its own, since it needs Node and npm: `pytest tests/js`.  Without them it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.gateway_fixtures import front, small_cluster

if TYPE_CHECKING:
    from tests.cluster.gateway_fixtures import GatewayProcess

__all__ = ["front", "small_cluster"]

HERE = Path(__file__).parent
TIMEOUT_S = 90


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program with the client of package-lock.json beside it."""
    folder = tmp_path_factory.mktemp("js")
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(HERE / name, folder)
    subprocess.run(
        ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        check=True,
        timeout=TIMEOUT_S,
    )
    return folder / "client.mjs"


def test_the_npm_client_works_unchanged(front: GatewayProcess, program: Path) -> None:
    """Values of all types, many shards, pipelines, transactions, its own writes, channels."""
    done = subprocess.run(
        ["node", program],
        env={**os.environ, "URL": front.url, "TOKEN": "any"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    steps = done.stdout.split()
    assert steps == ["values", "overShards", "together", "ownWrites", "channels"]
