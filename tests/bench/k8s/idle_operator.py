"""The operator with another platform: every ShardCluster has the same nodes, on this machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from shardcluster.names import split_node_name
from shardcluster.observed import Address
from shardcluster_operator import session
from shardcluster_operator.__main__ import main
from shardcluster_operator.platform import KubernetesPlatform
from shardcluster_runtime.platforms.protocol import PlatformNode
from shardcluster_runtime.wire import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NODES_VARIABLE = "SHARDCLUSTER_BENCH_NODES"  # name → [host, port], as JSON


class _SharedNodes(KubernetesPlatform):
    """All that would read or change pods and StatefulSets is left out."""

    can_fence = False
    can_restart = False
    keeps_data = True
    credentials = Credentials()

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.formed_before = True
        self._shared = tuple(
            PlatformNode(name, *split_node_name(name), Address(host, port))
            for name, (host, port) in json.loads(os.environ[NODES_VARIABLE]).items()
        )

    def log_in_with(self, password: str) -> None:
        """They have none."""

    async def start(self, wake: Callable[[], None]) -> None:
        """They run."""

    async def nodes(self) -> tuple[PlatformNode, ...]:
        """Always the same."""
        return self._shared

    async def spare_nodes(self) -> int | None:
        """None are needed."""
        return None

    def as_applied(self, with_slots: Mapping[str, int]) -> bool:
        """There is nothing to apply."""
        del with_slots
        return True

    async def renew(self, with_slots: Mapping[str, int]) -> None:
        """There is nothing to renew."""

    async def mark_formed(self) -> None:
        """Nothing is written down anywhere else."""
        self.formed_before = True

    async def close(self, *, stop_nodes: bool) -> None:
        """They live on."""


if __name__ == "__main__":
    session.KubernetesPlatform = _SharedNodes  # type: ignore[assignment,attr-defined]
    main()
