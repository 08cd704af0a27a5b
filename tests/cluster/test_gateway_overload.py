"""A gateway that is asked for more than it may do at once, and right after."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from tests.cluster.mini_cluster import mini_cluster
from tests.cluster.troubled import Asked, keys_of, served

if TYPE_CHECKING:
    import httpx

IN_FLIGHT = {"SHARDCLUSTER_IN_FLIGHT_MAX": "32"}
PAUSE_MS = 500  # that the node holds writes back, so that they pile up


def _busy(answer: httpx.Response) -> bool:
    """Whether it was refused, in the one right way."""
    if answer.status_code != 503 or answer.json()["error"]["code"] != "TooBusy":
        return False
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["outcome"] == "not_applied"
    return True


async def test_what_is_too_much_is_refused_and_all_is_well_right_after() -> None:
    """100 clients at once at a limit of 32: each answer is a success or a refusal, none is lost.

    Then every request succeeds again, the first one included.
    """
    async with (
        mini_cluster(1, owners=1) as cluster,
        served(cluster, environment=IN_FLIGHT) as asked,
    ):
        refused = served_well = 0
        while not (refused and served_well):
            await cluster.masters[0].call("CLIENT", "PAUSE", PAUSE_MS, "WRITE")
            answers = await asyncio.gather(*(asked.put(f"k{number}") for number in range(100)))
            assert all(answer.status_code == 204 or _busy(answer) for answer in answers)
            refused += sum(map(_busy, answers))
            served_well += sum(answer.status_code == 204 for answer in answers)
        assert {(await asked.put(f"k{number}")).status_code for number in range(100)} == {204}
        assert await asked.metric("in_flight") == 0


async def test_a_batch_over_the_limit_is_refused_whole() -> None:
    """Nothing of it is stored; a smaller one is carried out."""
    async with (
        mini_cluster(1, owners=1) as cluster,
        served(cluster, environment=IN_FLIGHT) as asked,
    ):
        puts = [{"op": "put", "key": f"k{number}", "value": "v"} for number in range(33)]
        assert _busy(await asked.client.post("/v1/batch", json={"operations": puts}))
        assert await cluster.masters[0].call("DBSIZE") == 0
        batch = await asked.client.post("/v1/batch", json={"operations": puts[:8]})
        assert (batch.status_code, batch.json()["failed"]) == (200, 0)


async def test_one_hung_node_does_not_use_up_what_the_others_need() -> None:
    """Far more requests wait for it than may be under way: those to other shards all succeed."""
    async with (
        mini_cluster(3, owners=3, options=("--cluster-require-full-coverage", "no")) as cluster,
        served(cluster, environment=IN_FLIGHT) as asked,
    ):
        hung, *others = (keys_of(3, number, 20) for number in range(3))
        for key in (hung[0], others[0][0], others[1][0]):
            assert (await asked.put(key)).status_code == 204
        cluster.masters[0].signal(signal.SIGSTOP)
        try:
            stuck = [asyncio.create_task(_until_done(asked, key)) for key in hung for _ in "123"]
            await asked.until_metric(bool, "requests_total", operation="put_key", code="503")
            for keys in others:
                for key in keys:
                    assert (await asked.put(key)).status_code == 204
                    assert (await asked.get(key)).status_code == 200
            assert not all(task.done() for task in stuck)
        finally:
            cluster.masters[0].signal(signal.SIGCONT)
        await asyncio.gather(*stuck)
        assert {(await asked.put(key)).status_code for key in hung} == {204}


async def _until_done(asked: Asked, key: str) -> None:
    """Come again, as Retry-After says, until it is stored."""
    while (answer := await asked.put(key)).status_code != 204:
        assert _busy(answer) or answer.json()["error"]["code"] in {"OutcomeUnknown", "NotServed"}
        await asyncio.sleep(1)
