"""The HTTP gateway of ShardCluster: routed reads and writes, and the store's shape.

`python -m shardcluster_api` serves it on its fast protocol; `flask --app shardcluster_api run`
serves the same answers with Flask alone.
"""

from __future__ import annotations

from shardcluster_api.app import create_app

__all__ = ["create_app"]
