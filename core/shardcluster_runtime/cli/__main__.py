"""`python -m shardcluster_runtime.cli`: the same as `shardctl`."""

from __future__ import annotations

from shardcluster_runtime.cli import main

main(prog_name="shardctl")
