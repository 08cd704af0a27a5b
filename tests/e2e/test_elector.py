"""Of several operators one is active, against a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from shardcluster_operator.elector import LEASE_S, LEASES, RENEW_DEADLINE_S, Elector
from shardcluster_runtime.kube import ApiError, Kube

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LEASE = "contest"


class Gate(Kube):
    """The API server, which can be out of reach for one candidate alone."""

    shut = False

    async def get(self, *words: object, **more: object) -> object:  # type: ignore[override]
        """Or not."""
        self._pass()
        return await super().get(*words, **more)  # type: ignore[arg-type]

    async def merge(self, *words: object, **more: object) -> object:  # type: ignore[override]
        """Or not."""
        self._pass()
        return await super().merge(*words, **more)  # type: ignore[arg-type]

    def _pass(self) -> None:
        if self.shut:
            raise ApiError(0, "out of reach")


@pytest.fixture
async def candidate(namespace: str) -> AsyncIterator[Callable[..., tuple[Elector, Gate]]]:
    """Call it with a name; each has a connection of its own."""
    opened = [await Gate.open() for _ in range(3)]
    left = list(opened)

    def make(name: str) -> tuple[Elector, Gate]:
        gate = left.pop()
        assert isinstance(gate, Gate)
        return Elector(gate, namespace, LEASE, name), gate

    yield make
    for kube in opened:
        await kube.close()


async def _holder(gate: Gate, namespace: str) -> str:
    gate.shut = False
    lease = await Kube.get(gate, LEASES, namespace, LEASE)
    assert lease is not None
    holder: str = lease["spec"]["holderIdentity"]
    return holder


async def test_one_of_three_and_the_next_when_it_lets_go(
    candidate: Callable[..., tuple[Elector, Gate]], namespace: str
) -> None:
    """A lease given back is taken at once, by one."""
    electors = {name: candidate(name) for name in ("a", "b", "c")}
    waiting = {
        name: asyncio.create_task(elector.acquire()) for name, (elector, _) in electors.items()
    }
    done, _ = await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    (first,) = (name for name, task in waiting.items() if task.done())
    assert await _holder(electors[first][1], namespace) == first
    rest = [task for name, task in waiting.items() if name != first]
    await electors[first][0].release()
    done, undone = await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    for task in undone:
        task.cancel()


async def test_the_old_holder_stops_before_the_next_begins(
    candidate: Callable[..., tuple[Elector, Gate]], namespace: str
) -> None:
    """Out of reach it gives up in its own time; the other one waits for the whole lease."""
    (old, gate), (new, watching) = candidate("old"), candidate("new")
    await old.acquire()
    holding = asyncio.create_task(old.hold())
    acquiring = asyncio.create_task(new.acquire())
    await asyncio.sleep(RENEW_DEADLINE_S)
    assert not holding.done()
    assert not acquiring.done()
    gate.shut = True
    await holding
    stopped_s = time.monotonic()
    assert not acquiring.done()
    async with asyncio.timeout(4 * LEASE_S):
        await acquiring
    assert time.monotonic() > stopped_s
    assert await _holder(watching, namespace) == "new"


async def test_a_lease_deleted_by_hand_stays_with_its_holder(
    candidate: Callable[..., tuple[Elector, Gate]], namespace: str
) -> None:
    """Who stands by does not jump in before the holder has noticed."""
    (old, gate), (new, _) = candidate("old"), candidate("new")
    await old.acquire()
    acquiring = asyncio.create_task(new.acquire())
    await asyncio.sleep(1.5)  # it has seen who holds it
    await gate.delete(LEASES, namespace, LEASE)
    holding = asyncio.create_task(old.hold())
    await asyncio.sleep(RENEW_DEADLINE_S)
    assert not acquiring.done()
    assert not holding.done()
    assert await _holder(gate, namespace) == "old"
    for task in (acquiring, holding):
        task.cancel()


async def test_who_was_away_sees_that_another_has_it(
    candidate: Callable[..., tuple[Elector, Gate]], namespace: str
) -> None:
    """And does not take it back, nor give away what is not its own."""
    (old, gate), (new, watching) = candidate("old"), candidate("new")
    await old.acquire()
    gate.shut = True
    async with asyncio.timeout(4 * LEASE_S):
        await new.acquire()
    gate.shut = False
    keeping = asyncio.create_task(new.hold())
    async with asyncio.timeout(LEASE_S):
        await old.hold()
    await old.release()
    assert await _holder(watching, namespace) == "new"
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
