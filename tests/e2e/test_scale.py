"""More and fewer shards and replicas, while clients write and read."""

from __future__ import annotations

from tests.e2e.kube import Document, Store, kubectl_json
from tests.e2e.traffic import traffic


def _shares(status: Document) -> list[int]:
    return [shard["slots"] for shard in status["shards"]]


def _claims(store: Store) -> set[str]:
    found = kubectl_json("-n", store.namespace, "get", "pvc")["items"]
    return {claim["metadata"]["name"] for claim in found}


def test_scale_three_to_five_to_two(store: Store) -> None:
    """By `kubectl scale`; the status tells how far it is, and no request fails."""
    store.apply(rebalance={"maxKeysPerSecond": 1500})  # slow enough to be seen
    store.until_calm()
    with traffic(store) as clients:
        store.kubectl("scale", "shc", "demo", "--replicas=5")
        seen = store.until_status(
            lambda status: status["reason"] == "Rebalancing" and "/" in status["progress"],
            "told how many slots have moved",
        )
        assert seen["phase"] == "Rebalancing"
        assert {c["type"]: c["status"] for c in seen["conditions"]}["Progressing"] == "True"
        store.patch(rebalance={"maxKeysPerSecond": 0})  # seen; the rest may be fast
        grown = store.until_calm(shards=5)
        assert min(_shares(grown)) > 16384 / 5 * 0.97
        assert store.conditions()["Available"] == "True"

        store.kubectl("scale", "shc", "demo", "--replicas=2")
        store.until_status(
            lambda status: any(shard["state"] == "Draining" for shard in status["shards"]),
            "a shard that is drained",
        )
        shrunk = store.until_calm(shards=2)
        clients.harmless()
    assert [shard["name"] for shard in shrunk["shards"]] == ["shard-0", "shard-1"]
    assert sum(_shares(shrunk)) == 16384
    assert {"Rebalancing", "Shrinking", "Idle"} <= store.event_reasons()
    assert _claims(store) == {f"data-demo-shard-{s}-{n}" for s in (0, 1) for n in (0, 1)}


def test_replicas_come_and_go(store: Store) -> None:
    """One more for each shard, then none; each shard's data stays."""
    store.apply(shards=2)
    store.until_calm(shards=2)
    with traffic(store) as clients:
        store.patch(replicasPerShard=2)
        status = store.until_calm(shards=2, replicas=2)
        assert any("shard-0-2 becomes a replica" in e["message"] for e in store.events())
        assert status["message"] == "Each of 2 shards serves its slots with 2 replicas."
        store.patch(replicasPerShard=0)
        status = store.until_calm(shards=2, replicas=0)
        clients.harmless()
    # Names count from 0, so a master with a higher number handed its shard over first.
    assert set(store.masters().values()) == {"shard-0-0", "shard-1-0"}
    assert len(_claims(store)) == 2


def test_retire_a_shard_and_revert_half_way(store: Store) -> None:
    """A slow move is seen, taken back, and the shard has its share again."""
    store.apply(shards=3, replicasPerShard=0, rebalance={"maxKeysPerSecond": 400})
    store.until_calm(replicas=0)
    with traffic(store) as clients:
        store.patch(shards=2, retire=["shard-1"])
        half = store.until_status(
            lambda status: any(
                shard["state"] == "Draining" and 500 < shard["slots"] < 4500
                for shard in status["shards"]
            ),
            "shard-1 half empty",
        )
        (leaving,) = (shard for shard in half["shards"] if shard["state"] == "Draining")
        assert leaving["name"] == "shard-1"
        assert {part["to"] for part in leaving["movingOut"]} <= {"shard-0", "shard-2"}
        store.patch(shards=3, retire=None)
        status = store.until_calm(replicas=0)
        assert min(_shares(status)) > 16384 / 3 * 0.97
        store.patch(shards=2, retire=["shard-0"])
        status = store.until_calm(shards=2, replicas=0)
        clients.harmless()
    assert [shard["name"] for shard in status["shards"]] == ["shard-1", "shard-2"]


def test_weights_and_modes(store: Store) -> None:
    """A weighted shard; a manual rebalance waits and says so; a paused store does nothing."""
    store.apply(replicasPerShard=0, ring={"weights": {"shard-1": 2.0}})
    status = store.until_calm(replicas=0)
    assert abs(_shares(status)[1] - 16384 / 2) <= 16384 / 2 * 0.02 + 1

    store.patch(ring=None, rebalance={"mode": "manual"})
    waiting = store.until_status(
        lambda status: status["reason"] == "RebalanceWanted", "a rebalance that is wanted"
    )
    assert "rebalance" in waiting["message"]
    assert _shares(waiting) == _shares(status)
    store.patch(rebalance={"mode": "auto"}, paused=True)
    paused = store.until_status(lambda status: status["phase"] == "Paused", "paused")
    assert store.conditions()["Paused"] == "True"
    assert _shares(paused) == _shares(status)
    store.patch(paused=False)
    even = store.until_calm(replicas=0)
    assert max(_shares(even)) - min(_shares(even)) < 16384 * 0.03
