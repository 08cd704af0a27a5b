"""What people do to a store's objects by hand, and what a cluster has no room for."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.e2e.kube import SMALL, Document, Store, kubectl_json, until
from tests.e2e.traffic import traffic


def _object(store: Store, kind: str, name: str) -> Document:
    return kubectl_json("-n", store.namespace, "get", kind, name)


def _patch(store: Store, kind: str, name: str, patch: Any) -> None:
    store.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch))


def test_objects_edited_and_deleted(store: Store) -> None:
    """They are back, in their form, and no request fails."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        _patch(store, "svc", "demo", {"spec": {"ports": [{"port": 1, "name": "client"}]}})
        until(
            lambda: [p["port"] for p in _object(store, "svc", "demo")["spec"]["ports"]] == [6379],
            "the Service's own port",
        )
        _patch(store, "cm", "demo-config", {"data": {"start.sh": "exit 1"}})
        until(
            lambda: _object(store, "cm", "demo-config")["data"]["start.sh"] != "exit 1",
            "the ConfigMap's own script",
        )
        _patch(store, "pdb", "demo-nodes", {"spec": {"maxUnavailable": 6}})
        until(
            lambda: _object(store, "pdb", "demo-nodes")["spec"]["maxUnavailable"] == 1,
            "the budget of one",
        )
        _patch(store, "sts", "demo-shard-0", {"spec": {"replicas": 3}})
        until(
            lambda: _object(store, "sts", "demo-shard-0")["spec"]["replicas"] == 2,
            "a StatefulSet of two",
        )
        names = ("svc/demo-nodes", "svc/demo", "netpol/demo-nodes", "cm/demo-config",
                 "rolebinding/demo-gateway", "role/demo-gateway")  # fmt: skip
        uids = {name: _object(store, *name.split("/"))["metadata"]["uid"] for name in names}
        store.kubectl("delete", *names)
        for name, uid in uids.items():
            until(
                lambda name=name, uid=uid: (
                    _object(store, *name.split("/"))["metadata"]["uid"]  # type: ignore[misc]
                    != uid
                ),
                f"another {name}",
            )
        store.until_calm()
        clients.harmless()


def test_a_stateful_set_deleted(store: Store) -> None:
    """With its pods: the volumes stay, so both nodes come back with all data."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        uid = _object(store, "sts", "demo-shard-1")["metadata"]["uid"]
        store.kubectl("delete", "sts", "demo-shard-1", "--wait=false")
        until(
            lambda: _object(store, "sts", "demo-shard-1")["metadata"]["uid"] != uid,
            "another StatefulSet",
        )
        store.until_calm()
        clients.goes_on()


def test_the_secret_changed_and_deleted(store: Store) -> None:
    """Nodes take the new password while clients are connected; a deleted one comes back."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        before = store.pod_uids()
        word = base64.b64encode(b"another-password-1").decode()
        _patch(store, "secret", "demo-auth", {"data": {"password": word}})
        until(lambda: _takes(store, "another-password-1"), "nodes with the new password")
        store.until_calm()
        assert store.pod_uids() == before
        assert not clients.ask("report")["gateway"]["failures"]

        store.kubectl("delete", "secret", "demo-auth")
        found = until(lambda: _object(store, "secret", "demo-auth"), "the Secret")
        password = base64.b64decode(found["data"]["password"]).decode()
        until(lambda: _takes(store, password), "nodes with the Secret's password")
        store.until_calm()
        clients.harmless()
    assert password == "another-password-1"  # noqa: S105 - they had it: nobody is locked out


def _takes(store: Store, password: str) -> bool:
    return all(
        store.kubectl(
            "exec", f"demo-{node}", "--",
            "valkey-cli", "--no-auth-warning", "-a", password, "PING",
        ).strip() == "PONG"
        for node in store.pod_uids()
    )  # fmt: skip


def test_no_room_for_a_new_shard(store: Store) -> None:
    """Its pods are Pending: a condition says why, the rest is unharmed, and going back works."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        before = store.pod_uids()
        greedy = {"requests": {"cpu": "10m", "memory": "900Gi"}, "limits": {"memory": "900Gi"}}
        store.patch(shards=4, resources=greedy)
        stuck = store.until_status(
            lambda status: status["reason"] == "NodePending", "told that a node has no place"
        )
        assert "Insufficient memory" in stuck["message"], stuck["message"]
        words = store.conditions()
        assert (words["Available"], words["Degraded"]) == ("True", "True")
        unharmed = [name for name, uid in store.pod_uids().items() if before.get(name) == uid]
        assert len(unharmed) >= 5  # at most one replica has tried the new form
        store.patch(shards=3, resources=SMALL)
        store.until_calm()
        clients.harmless()


def test_a_quota_in_the_way(store: Store) -> None:
    """Pods are not even made: the status tells what the quota says; with room it goes on."""
    store.apply(shards=2)
    store.until_calm(shards=2)
    pods = len(kubectl_json("-n", store.namespace, "get", "pods")["items"])
    with traffic(store) as clients:
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "tight"},
            "spec": {"hard": {"pods": str(pods + 1)}},
        }
        store.kubectl("apply", "-f", "-", text=json.dumps(quota))
        store.patch(shards=3)
        stuck = store.until_status(
            lambda status: status["reason"] == "NodePending" and "quota" in status["message"],
            "told of the quota",
        )
        assert "tight" in stuck["message"]
        assert store.conditions()["Available"] == "True"
        store.kubectl("delete", "quota", "tight")
        store.until_calm(shards=3)
        clients.harmless()


def test_an_immutable_field(store: Store) -> None:
    """Bigger disks need another StatefulSet: it is made anew around pods that live on."""
    store.apply(shards=1)
    store.until_calm(shards=1)
    with traffic(store) as clients:
        before = store.pod_uids()
        store.patch(storage={"size": "96Mi"})
        until(
            lambda: "resize" in store.status()["message"] or _template_size(store) == "96Mi",
            "disks that grow, or why they can't",
        )
        if _template_size(store) != "96Mi":  # this storage class can't, or not yet
            words = store.conditions()
            assert (words["Accepted"], words["Available"]) == ("False", "True")
        else:
            store.until_calm(shards=1)
        assert store.pod_uids() == before
        clients.harmless()


def _template_size(store: Store) -> str:
    (template,) = _object(store, "sts", "demo-shard-0")["spec"]["volumeClaimTemplates"]
    size: str = template["spec"]["resources"]["requests"]["storage"]
    return size
