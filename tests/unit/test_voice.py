"""What the operator says of a ShardCluster: an Event for what happens, not for each repetition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from shardcluster_operator.voice import Voice
from shardcluster_runtime.state import EventLog

if TYPE_CHECKING:
    from shardcluster_operator.informer import Informer
    from shardcluster_runtime.kube import Kube, Manifest

RESOURCE = {"metadata": {"namespace": "here", "name": "demo", "uid": "u-1"}}


class _Paper:
    """Takes what would go to the API server."""

    def __init__(self) -> None:
        self.created: list[Manifest] = []

    async def create(self, _kind: object, manifest: Manifest) -> None:
        self.created.append(manifest)


class _Teller:
    """A voice with a clock that stands, and the log it tells of."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.paper = _Paper()
        self._voice = Voice(
            cast("Kube", self.paper), cast("Informer", None), RESOURCE, lambda: self.now_s
        )
        self._log = EventLog(lambda: self.now_s)

    async def tell(self, reason: str, message: str = "It is so.") -> None:
        self._log.add(reason, message)
        state: dict[str, Any] = {"events": self._log.documents()}
        await self._voice._tell_events(state)

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(event["reason"], event["count"]) for event in self.paper.created]


@pytest.fixture
def teller() -> _Teller:
    """Nothing is told yet."""
    return _Teller()


async def test_what_goes_on_is_told_ever_more_seldom(teller: _Teller) -> None:
    """Two sentences in turn, again and again: each is told when its count has doubled."""
    for _ in range(9):
        await teller.tell("Fencing")
        await teller.tell("ActionFailed", "It did not end.")
        teller.now_s += 1.0
    expected = [(reason, times) for times in (1, 2, 4, 8) for reason in ("Fencing", "ActionFailed")]
    assert teller.told == expected
    last = teller.paper.created[-1]
    assert last["firstTimestamp"] == "1970-01-01T00:16:40Z"
    assert last["lastTimestamp"] == "1970-01-01T00:16:47Z"


async def test_what_comes_again_later_is_told(teller: _Teller) -> None:
    """A third failover of the same nodes, an hour after the second, is no repetition."""
    for _ in range(3):
        await teller.tell("Failover")
        teller.now_s += 3600.0
    assert teller.told == [("Failover", 1), ("Failover", 2), ("Failover", 3)]


async def test_an_operator_that_finds_all_well_says_nothing(teller: _Teller) -> None:
    """But that all is well again, it says."""
    await teller.tell("Idle")
    assert teller.told == []
    await teller.tell("Failover")
    await teller.tell("Idle", "All is well again.")
    assert teller.told == [("Failover", 1), ("Idle", 1)]
