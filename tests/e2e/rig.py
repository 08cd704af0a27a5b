"""Faults that only a rig can cause: machines without power, cut networks, no API server."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

from tests.e2e.kube import kubectl_json

__all__ = ["REQUIRE_RIG", "RIG", "Rig", "all_machines_ready", "machines"]

RIG = "SHARDCLUSTER_E2E_RIG"  # names the command
REQUIRE_RIG = "SHARDCLUSTER_E2E_REQUIRE_RIG"
_OPPOSITE = {"kill": "start", "partition": "heal"}


class Rig:
    """`rig("kill", "node1")`; what is to be undone is remembered."""

    def __init__(self) -> None:
        """Raises KeyError when the environment names none."""
        self._command = shlex.split(os.environ[RIG])
        self._undo: list[tuple[str, ...]] = []

    def __call__(self, *words: Any) -> None:
        """Returns when it is done."""
        given = tuple(str(word) for word in words)
        if given[0] in _OPPOSITE:
            self._undo.append((_OPPOSITE[given[0]], *given[1:]))
        subprocess.run([*self._command, *given], check=True, capture_output=True)
        if given in self._undo:
            self._undo.remove(given)

    def undo(self) -> None:
        """Everything that was not undone."""
        for words in reversed(self._undo.copy()):
            self(*words)


def machines() -> list[str]:
    """All Kubernetes nodes."""
    return sorted(item["metadata"]["name"] for item in kubectl_json("get", "nodes")["items"])


def all_machines_ready() -> bool:
    """Whether each of them says so."""
    return all(
        condition["status"] == "True"
        for machine in kubectl_json("get", "nodes")["items"]
        for condition in machine["status"]["conditions"]
        if condition["type"] == "Ready"
    )
