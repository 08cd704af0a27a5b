"""Pods and processes that end."""

from __future__ import annotations

import pytest

from tests.e2e.hand import kill_engine
from tests.e2e.kube import Store, kubectl_json, until
from tests.e2e.traffic import BOTH, traffic


def test_each_master_deleted(store: Store) -> None:
    """One after the other: a replica takes over before the pod ends, and no request fails."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        for shard in ("shard-0", "shard-1", "shard-2"):
            master = store.masters()[shard]
            life = store.life_of(master)
            store.delete_pods(master)
            store.until_another_life(master, life)
            store.until_calm()
        clients.harmless()


def test_kill_nine_of_each_master(store: Store) -> None:
    """The engine's process alone: a replica leads in its place, and the events tell of it."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        for shard in ("shard-0", "shard-1", "shard-2"):
            master = store.masters()[shard]
            life = store.life_of(master)
            kill_engine(store, master)
            store.until_another_life(master, life)
            store.until_calm()
            assert store.life_of(master)[0] == life[0]  # restarted in its place
        clients.harmless(kills=True)
    assert "MasterLost" in store.event_reasons()


def test_all_pods_at_once_with_volumes(store: Store) -> None:
    """All come back with other addresses; nothing is lost."""
    store.apply()
    before = {node["name"]: node["host"] for node in store.until_calm()["nodes"]}
    with traffic(store) as clients:
        uids = store.pod_uids()
        store.delete_pods(*uids, grace_s=1)  # in their own time they might hand over without a gap
        down = store.until_status(
            lambda status: any(
                c["type"] == "Available" and c["status"] == "False" for c in status["conditions"]
            ),
            "told that it is not available",
        )
        assert down["phase"] not in {"Ready", "Paused"}
        until(lambda: not set(uids.values()) & set(store.pod_uids().values()), "other pods")
        after = {node["name"]: node["host"] for node in store.until_calm()["nodes"]}
        assert all(after[name] != host for name, host in before.items())
        clients.goes_on()
    assert store.conditions()["Available"] == "True"


def test_one_shard_at_a_time_in_memory(store: Store) -> None:
    """Without volumes a pod comes back empty: it must copy, never lead, and nothing is lost."""
    store.apply(storage=None)
    store.until_calm()
    with traffic(store) as clients:
        for shard in ("shard-0", "shard-1", "shard-2"):
            for _ in range(2):
                master = store.masters()[shard]
                life = store.life_of(master)
                store.delete_pods(master)
                store.until_another_life(master, life)
                store.until_calm()
            master = store.masters()[shard]
            life = store.life_of(master)
            kill_engine(store, master)
            store.until_another_life(master, life)
            store.until_calm()
        clients.harmless(kills=True)


@pytest.mark.parametrize("shards", [1, 2])
def test_kill_nine_in_memory_where_nobody_can_vote(store: Store, shards: int) -> None:
    """Nobody has to come: the old master is fenced, and its place answers as another node."""
    store.apply(shards=shards, storage=None)
    store.until_calm(shards=shards)
    with traffic(store) as clients:
        for shard in sorted(store.masters()):
            master = store.masters()[shard]
            life = store.life_of(master)
            kill_engine(store, master)
            store.until_another_life(master, life)
            store.until_calm(shards=shards)
            assert store.masters()[shard] != master
            clients.goes_on()


def test_a_whole_shard_in_memory_is_lost(store: Store) -> None:
    """Its data is gone, which is said and not hidden; the others keep theirs."""
    store.apply(storage=None)
    store.until_calm()
    with traffic(store, may_lose=BOTH) as clients:
        store.end_pods("shard-1-0", "shard-1-1")
        until(
            lambda: {"ShardLost", "DataLost"} & store.event_reasons(),
            "told that the data of shard-1 is lost",
        )
        store.until_calm()
        clients.goes_on()


def test_all_pods_deleted_at_once_in_memory(store: Store) -> None:
    """They wait for each other as long as they may; what is lost nevertheless is reported."""
    store.apply(storage=None)
    store.until_calm()
    with traffic(store, may_lose=BOTH) as clients:
        uids = store.pod_uids()
        store.delete_pods(*uids)
        until(lambda: not set(uids.values()) & set(store.pod_uids().values()), "other pods")
        store.until_calm()
        clients.goes_on()
    assert {"ShardLost", "DataLost"} & store.event_reasons() or not clients.lost


def test_all_processes_killed_at_once_in_memory(store: Store) -> None:
    """All data is lost: it is reported, and the empty store serves again."""
    store.apply(storage=None)
    store.until_calm()
    with traffic(store, may_lose=BOTH) as clients:
        store.end_pods(*store.pod_uids())
        told = store.until_status(
            lambda status: any(event["reason"] == "DataLost" for event in status["events"]),
            "told that the data is lost",
        )
        assert told["formed"]
        store.until_calm()
        clients.goes_on()
    warnings = {event["reason"] for event in store.events() if event["type"] == "Warning"}
    assert "DataLost" in warnings


@pytest.mark.parametrize("leads", [True, False], ids=["master", "replica"])
def test_a_volume_lost(store: Store, leads: bool) -> None:  # noqa: FBT001 - two cases
    """The claim and the pod of one node go: it comes back empty and copies."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        shard = store.status()["shards"][0]
        node = shard["master"] if leads else shard["replicas"][0]
        claim = f"data-demo-{node}"
        uid = kubectl_json("-n", store.namespace, "get", "pvc", claim)["metadata"]["uid"]
        store.kubectl("delete", "pvc", claim, "--wait=false")
        store.delete_pods(node)
        until(
            lambda: (
                kubectl_json("-n", store.namespace, "get", "pvc", claim)["metadata"]["uid"] != uid
            ),
            "another volume",
        )
        store.until_calm()
        joined = [event["message"] for event in store.events()
                  if event["reason"] == "ReplicaJoining"]  # fmt: skip
        assert any(node in message for message in joined[-3:]), joined
        clients.harmless()
