"""What changes the pods themselves: one at a time, each master after it has handed over."""

from __future__ import annotations

import base64
import itertools

from tests.e2e.curl import Curl
from tests.e2e.kube import SMALL, Document, Store, kubectl_json, next_engine_image, until
from tests.e2e.traffic import traffic


def _engine(store: Store, node: str, *command: str) -> str:
    """What the engine of a node answers."""
    secret = kubectl_json("-n", store.namespace, "get", "secret", f"{store.name}-auth")
    password = base64.b64decode(secret["data"]["password"]).decode()
    return store.kubectl(
        "exec", f"{store.name}-{node}", "--",
        "valkey-cli", "--no-auth-warning", "-a", password, *command,
    ).strip()  # fmt: skip


def _runs(pod: Document) -> bool:
    states = [c["state"] for c in pod["status"].get("containerStatuses", ())]
    return "deletionTimestamp" not in pod["metadata"] and any("running" in s for s in states)


def _one_at_a_time(store: Store, before: dict[str, str]) -> Document:
    """Wait until every pod is another; meanwhile at most one node may be away."""
    worst = itertools.count()
    steps = next(worst)

    def renewed() -> Document | None:
        nonlocal steps
        status = store.status()
        pods = store.pods()
        there = [pod for pod in pods if _runs(pod)]
        assert len(there) >= len(before) - 1, (status["message"], status["events"])
        steps += status["reason"] == "Updating"
        uids = {store.node_of(pod): pod["metadata"]["uid"] for pod in pods}
        done = len(uids) == len(before) and all(uids[name] != uid for name, uid in before.items())
        return status if done else None

    until(renewed, "all pods made anew")
    assert steps, "the status never said that nodes are replaced"
    return store.until_calm()


def test_a_new_image(store: Store) -> None:
    """Rolled out with no failed request."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        before = store.pod_uids()
        store.patch(image=next_engine_image())
        _one_at_a_time(store, before)
        clients.harmless()
    assert store.engine_images() == {next_engine_image()}
    assert "Updating" in store.event_reasons()


def test_an_image_that_is_not_there(store: Store) -> None:
    """One replica tries it, the rest lives on; the status says why, and going back mends it."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        before = store.pod_uids()
        store.patch(image="valkey/valkey:no-such-tag")
        stuck = store.until_status(
            lambda status: status["reason"] == "NodePending" and "no-such-tag" in status["message"],
            "told which image can't be had",
        )
        (waiting,) = (node for node in stuck["nodes"] if node["health"] != "Up")
        assert waiting["name"] in stuck["message"]
        assert store.conditions()["Available"] == "True"
        assert store.conditions()["Degraded"] == "True"
        unchanged = [name for name, uid in store.pod_uids().items() if before[name] == uid]
        assert len(unchanged) == 5
        store.apply()
        store.until_calm()
        clients.harmless()


def test_resources_and_settings(store: Store) -> None:
    """Memory needs new pods; a vetted setting and nodeTimeout take effect in those that run."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        before = store.pod_uids()
        store.patch(config={"maxmemory-policy": "allkeys-lru"}, failover={"nodeTimeoutMs": 3000})
        store.until_calm()
        for node in before:  # at rest with the new spec, so the nodes have it
            assert "allkeys-lru" in _engine(store, node, "CONFIG", "GET", "maxmemory-policy")
            assert "3000" in _engine(store, node, "CONFIG", "GET", "cluster-node-timeout")
        assert store.pod_uids() == before

        more = {**SMALL, "limits": {"memory": "160Mi"}}
        store.patch(resources=more)
        _one_at_a_time(store, before)
        clients.harmless()
    for pod in store.pods():
        assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "160Mi"
    assert int(_engine(store, "shard-0-0", "CONFIG", "GET", "maxmemory").split()[-1]) == (
        160 * 1024 * 1024 * 75 // 100
    )


def test_a_setting_the_engine_refuses(store: Store) -> None:
    """The schema lets its name pass; the parser's words stand in the status, nothing changes."""
    store.apply(shards=1, replicasPerShard=0)
    store.until_calm(shards=1, replicas=0)
    store.patch(config={"hz": "often"})
    told = store.until_status(
        lambda status: (
            {c["type"]: c["status"] for c in status["conditions"]}["Accepted"] == "False"
        ),
        "a spec that is not taken",
    )
    assert "config.hz" in told["message"]
    assert store.conditions()["Available"] == "True"
    store.patch(config=None)
    store.until_calm(shards=1, replicas=0)
    assert store.conditions()["Accepted"] == "True"


def test_the_gateway(store: Store) -> None:
    """More of them, none, and reading from masters; the nodes are not touched."""
    store.apply(shards=1)
    store.until_calm(shards=1)
    before = store.pod_uids()
    store.patch(gateway={"replicas": 2, "readFrom": "master"})
    store.kubectl("rollout", "status", "deploy/demo-gateway", "--timeout=90s")
    until(lambda: len(store.pods("gateway")) == 2, "two gateways")
    curl = Curl(store)
    until(lambda: curl("GET", "/readyz")[0] == 200, "a gateway that serves")
    assert curl("POST", "/write", {"key": "k", "value": "v"})[0] == 200
    until(lambda: curl("GET", "/read?key=k")[1]["role"] == "master", "reads from the master")
    store.patch(gateway={"replicas": 2, "readFrom": "replica"})
    until(lambda: curl("GET", "/read?key=k")[1]["role"] == "replica", "reads from the replica")
    with traffic(store) as clients:
        store.patch(gateway={"replicas": 1})
        until(lambda: len(store.pods("gateway")) == 1, "one gateway less")
        clients.harmless()
    store.patch(gateway={"replicas": 0})
    until(lambda: not store.pods("gateway"), "no gateway")
    assert store.pod_uids() == before
