"""What nodes read at their start: the engine's settings, their scripts, the password.

Law: the ConfigMap says what a node that starts now begins with, so it follows the spec at once.
Only the part of it that a running node can't take over (`restart_relevant`) makes nodes outdated.
The password is in the Secret alone.
"""

from __future__ import annotations

import base64
import functools
from importlib.resources import files
from typing import TYPE_CHECKING

from shardcluster.spec_model import FailoverSpec
from shardcluster_operator.manifests._common import (
    NODE,
    PASSWORD_KEY,
    Manifest,
    Place,
    metadata,
    secret_name,
)
from shardcluster_runtime.platforms._server_config import NodeSettings, container_config

if TYPE_CHECKING:
    from shardcluster.spec import Spec

__all__ = ["config_map", "config_map_name", "restart_relevant", "secret"]

ENGINE_FILE = "valkey.conf"
SCRIPTS = ("common.sh", "probe.sh", "start.sh", "stop.sh")


def config_map_name(spec: Spec) -> str:
    """The ConfigMap that every node mounts."""
    return f"{spec.name}-config"


def config_map(spec: Spec, place: Place) -> Manifest:
    """The engine's settings and the scripts."""
    settings = NodeSettings(
        node_timeout_ms=spec.failover.node_timeout_ms,
        memory_only=spec.memory_only,
        max_memory_bytes=spec.max_memory_bytes,
        config=spec.config,
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(spec, place, config_map_name(spec), NODE),
        "data": {ENGINE_FILE: container_config(settings).decode("ascii"), **_scripts()},
    }


def restart_relevant(spec: Spec) -> dict[str, str]:
    """The files that a node reads at its start, without what the loop sets while it runs."""
    settings = NodeSettings(
        # Always the same: the loop sets the real one.
        node_timeout_ms=FailoverSpec().node_timeout_ms,
        memory_only=spec.memory_only,
        max_memory_bytes=None,
    )
    return {ENGINE_FILE: container_config(settings).decode("ascii"), **_scripts()}


def secret(spec: Spec, place: Place, password: str) -> Manifest:
    """The password, under the key that a user's own Secret has, too."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(spec, place, secret_name(spec), NODE),
        "type": "Opaque",
        # Not stringData: the API server keeps none of it, so an apply would never be at rest.
        "data": {PASSWORD_KEY: base64.b64encode(password.encode()).decode("ascii")},
    }


@functools.cache
def _scripts() -> dict[str, str]:
    folder = files("shardcluster_operator.manifests") / "scripts"
    return {name: (folder / name).read_text(encoding="utf-8") for name in SCRIPTS}
