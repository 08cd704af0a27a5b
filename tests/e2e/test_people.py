"""What people do with a store, and what they see."""

from __future__ import annotations

from tests.e2e.curl import Curl
from tests.e2e.kube import Store, kubectl, kubectl_json, until

FIELDS = (
    "shards", "replicasPerShard", "image", "ring", "ring.virtualNodes", "ring.weights", "retire",
    "storage", "storage.size", "resources", "config", "failover.nodeTimeoutMs", "rebalance.mode",
    "rebalance.maxKeysPerSecond", "gateway.replicas", "gateway.readFrom", "gateway.durability",
    "auth", "scheduling", "paused",
)  # fmt: skip


def test_a_store_is_applied_used_scaled_and_deleted(store: Store) -> None:
    """Apply, wait, look, write, read, scale, delete: the whole way of the README."""
    store.apply(gateway={"replicas": 2})
    store.kubectl("wait", "--for=condition=Available", "shc/demo", "--timeout=120s")
    store.until_calm()
    row = store.kubectl("get", "shc").splitlines()
    assert row[0].split() == ["NAME", "SHARDS", "READY", "PHASE", "MOVING", "AGE"]
    assert row[1].split()[:4] == ["demo", "3", "3", "Ready"]
    told = store.kubectl("describe", "shc", "demo")
    for words in ("AllSlotsServed", "Each of 3 shards serves its slots with 1 replica.", "Forming"):
        assert words in told
    store.kubectl("rollout", "status", "deploy/demo-gateway", "--timeout=60s")

    curl = Curl(store)
    status, written = curl("POST", "/write", {"key": "greeting", "value": "hello"})
    assert (status, written["shard"] in store.masters()) == (200, True)
    assert curl("GET", "/read?key=greeting&consistency=strong")[1]["value"] == "hello"
    status, refused = curl("POST", "/remove_node", {"node": "shard-9"})
    assert (status, refused["error"]["code"]) == (404, "UnknownShard")
    status, added = curl("POST", "/add_node")
    assert (status, added["shard"]) == (202, "shard-3")
    assert store.read()["spec"]["shards"] == 4
    store.until_calm(shards=4)
    status, removed = curl("POST", "/remove_node", {"node": "shard-0"})
    assert (status, removed["accepted"]) == (202, True)
    store.until_calm(shards=3)
    assert set(store.masters()) == {"shard-1", "shard-2", "shard-3"}
    assert curl("POST", "/rebalance")[0] == 202
    assert curl("GET", "/read?key=greeting&consistency=strong")[1]["value"] == "hello"
    # Removing by name left its mark in the spec; `shards` counts on.
    store.kubectl("scale", "shc", "demo", "--replicas=2")
    store.until_calm(shards=2)

    store.kubectl("delete", "shc", "demo", "--timeout=60s")
    until(lambda: not store.pods() and not store.pods("gateway"), "all pods are gone")
    kinds = "sts,deploy,svc,cm,secret,netpol,pdb,role,rolebinding,sa,pvc"
    labels = "app.kubernetes.io/instance=demo"
    until(
        lambda: not kubectl_json("-n", store.namespace, "get", kinds, "-l", labels)["items"],
        "all objects and volumes are gone",
    )


def test_volumes_outlive_a_store_that_keeps_them(store: Store) -> None:
    """A new store of the same name, with the old password gone, has the data again."""
    disk = {"size": "64Mi", "keepOnDelete": True}
    store.apply(shards=1, replicasPerShard=0, storage=disk)
    store.until_calm(shards=1, replicas=0)
    curl = Curl(store)
    until(lambda: curl("GET", "/readyz")[0] == 200, "a gateway that serves")
    assert curl("POST", "/write", {"key": "kept", "value": "here"})[0] == 200
    store.kubectl("delete", "shc", "demo", "--timeout=60s")
    until(lambda: not store.pods() and not store.pods("gateway"), "its pods are gone")
    claims = kubectl_json("-n", store.namespace, "get", "pvc")["items"]
    assert [claim["metadata"]["name"] for claim in claims] == ["data-demo-shard-0-0"]

    store.apply(shards=1, replicasPerShard=0, storage=disk)
    store.until_calm(shards=1, replicas=0)
    until(lambda: curl("GET", "/readyz")[0] == 200, "a gateway that serves")
    assert curl("GET", "/read?key=kept")[1]["value"] == "here"


def test_every_field_is_explained(operator: str) -> None:
    """`kubectl explain` has a sentence for each."""
    assert operator
    for field in FIELDS:
        text = kubectl("explain", f"shardcluster.spec.{field}")
        assert "DESCRIPTION:" in text, field
        described = text.partition("DESCRIPTION:")[2].split("FIELDS:")[0]
        assert len(described.split()) > 3, field
        assert "<empty>" not in described, field
