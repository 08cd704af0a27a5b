"""How far replicas are behind, while the topology changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from shardcluster_api.lag import measure_lag

LIMIT = 100


class _Link:
    """A node that answers ROLE, and does something meanwhile."""

    def __init__(self, role: list[Any], meanwhile: Any = None) -> None:
        self.suspect = self.lagging = False
        self.lag_bytes = 0
        self._role, self._meanwhile = role, meanwhile

    def connection(self, _lane: object) -> _Link:
        return self

    async def call(self, *_command: str, timeout_s: float) -> list[Any]:
        del timeout_s
        if self._meanwhile is not None:
            self._meanwhile()
        return self._role


async def test_replicas_that_go_while_they_are_asked_are_measured_no_more_but_all_others_are() -> (
    None
):
    """The route is another by the time they answer; it stopped all measuring for good."""
    route = SimpleNamespace()
    behind = _Link([b"slave", b"host", 1, b"connected", 700])

    def goes() -> None:
        route.replicas = (behind,)

    leaves = _Link([b"slave", b"host", 1, b"connected", 1000], goes)
    route.master, route.replicas = _Link([b"master", 1000, []]), (behind, leaves)
    await measure_lag([cast("Any", route)], LIMIT)
    assert (behind.lag_bytes, behind.lagging) == (300, True)
    assert (leaves.lag_bytes, leaves.lagging) == (0, False)
