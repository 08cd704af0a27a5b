"""The operator ends, in any way and at any moment; the store does not notice."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.hand import kill_container
from tests.e2e.installed import OPERATOR, SYSTEM, active_operator, without_operator
from tests.e2e.kube import Document, Store, kubectl, kubectl_json, operator_image, until
from tests.e2e.traffic import traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.serial

LIVES_S = 600.0  # for more than a hundred operators, each of which is started anew

SCRIPT = Path(__file__).with_name("doomed_operator.py")


@contextlib.contextmanager
def _doomed(mode: str) -> Iterator[None]:
    """In the operator's place, with its rights."""
    script = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "doomed", "namespace": SYSTEM},
        "data": {SCRIPT.name: SCRIPT.read_text("utf-8")},
    }
    deployed = kubectl_json("-n", SYSTEM, "get", f"deploy/{OPERATOR}")
    spec = deployed["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container["command"] = ["python3", f"/doomed/{SCRIPT.name}"]
    container["args"] = []
    container["image"] = operator_image()
    container["env"].append({"name": "MODE", "value": mode})
    container["volumeMounts"] = [
        *container.get("volumeMounts", ()), {"name": "doomed", "mountPath": "/doomed"},
    ]  # fmt: skip
    container.pop("livenessProbe", None)
    spec["volumes"] = [
        *spec.get("volumes", ()), {"name": "doomed", "configMap": {"name": "doomed"}}
    ]  # fmt: skip
    spec["terminationGracePeriodSeconds"] = 0
    spec["restartPolicy"] = "Never"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "doomed", "namespace": SYSTEM},
        "spec": spec,
    }
    items = {"apiVersion": "v1", "kind": "List", "items": [script, pod]}
    kubectl("apply", "-f", "-", text=json.dumps(items))
    try:
        yield
    finally:
        kubectl("-n", SYSTEM, "delete", "pod/doomed", "cm/doomed", "--force", "--grace-period=0")


def _deaths() -> list[str]:
    """What the operator was at when it was killed, in order."""
    text = kubectl("-n", SYSTEM, "exec", "doomed", "--", "cat", "/tmp/deaths")  # noqa: S108
    return [line.split()[1] for line in text.splitlines()]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["after", "amid"])
def test_killed_at_every_action(store: Store, mode: str) -> None:
    """Of a scale-out and a scale-in; every operator does one action (or a part of one) and dies."""
    store.apply(shards=2)
    store.until_calm(shards=2)
    with traffic(store) as clients, without_operator(), _doomed(mode):
        store.patch(shards=3)
        store.until_calm(shards=3, deadline_s=LIVES_S)
        out = _deaths()
        assert {"ScaleShard", "Introduce", "Replicate", "MoveSlots"} <= set(out), out
        store.patch(shards=2)
        status = store.until_calm(shards=2, deadline_s=LIVES_S)
        # One dies some milliseconds after its work is done, and seen.
        until(
            lambda: {"MoveSlots", "Release"} <= set(_deaths()[len(out) :]),
            lambda: f"an operator killed at each action; {_deaths()[len(out) :]}",
        )
        assert sum(shard["slots"] for shard in status["shards"]) == 16384
        assert not any(shard["movingOut"] for shard in status["shards"])
        clients.harmless()
    store.until_calm(shards=2)


def test_the_standby_takes_over(store: Store) -> None:
    """The active operator's process is killed amid work; the other one ends it."""
    store.apply(shards=2, replicasPerShard=0, rebalance={"maxKeysPerSecond": 1000})
    store.until_calm(shards=2, replicas=0)
    with traffic(store) as clients:
        first = until(active_operator, "an active operator")
        store.patch(shards=3)
        store.until_status(lambda status: status["reason"] == "Rebalancing", "slots that move")
        kill_container(SYSTEM, first, "python")
        until(
            lambda: _told(store) and active_operator() not in {"", first},
            "another active operator",
        )
        until(lambda: _told(store)["reason"] == "Idle", "the end of the work")
        store.until_calm(shards=3, replicas=0)
        clients.harmless()


def _told(store: Store) -> Document:
    """The status; an operator that begins doesn't say that it knows of no node."""
    status = store.status()
    assert status["nodes"], status
    return status


def test_an_upgrade_of_the_operator_touches_no_pod(store: Store) -> None:
    """Its Deployment is rolled out anew; nodes and gateways stay as they are."""
    store.apply()
    store.until_calm()
    before = {**store.pod_uids(), **{p["metadata"]["name"]: p["metadata"]["uid"]
                                     for p in store.pods("gateway")}}  # fmt: skip
    with traffic(store) as clients:
        ruled = until(active_operator, "an active operator")
        kubectl("-n", SYSTEM, "rollout", "restart", f"deploy/{OPERATOR}")
        kubectl("-n", SYSTEM, "rollout", "status", f"deploy/{OPERATOR}", "--timeout=120s")
        until(lambda: active_operator() not in {"", ruled}, "a new active operator")
        store.patch(replicasPerShard=1, rebalance={"maxKeysPerSecond": 100000})
        store.until_calm()
        clients.harmless()
    after = {**store.pod_uids(), **{p["metadata"]["name"]: p["metadata"]["uid"]
                                    for p in store.pods("gateway")}}  # fmt: skip
    assert after == before


def test_without_an_operator(namespace: str) -> None:
    """The store lives on, pods come back, gossip fails over; a deletion removes everything."""
    store = Store(namespace)
    store.apply()
    store.until_calm()
    with without_operator():
        with traffic(store) as clients:
            master = store.masters()["shard-0"]
            store.delete_pods(master)
            clients.goes_on()
        store.kubectl("delete", "shc", "demo", "--timeout=60s")
        until(lambda: not _left(store), lambda: f"everything to go: {_left(store)}")


def test_a_placed_pod_whose_claim_is_gone_is_made_anew(namespace: str) -> None:
    """It waits for its claim, and another one for a pod to be placed: for ever, if left alone."""
    store = Store(namespace)
    store.apply()
    store.until_calm()
    replica = next(
        node for node in map(store.node_of, store.pods()) if node not in store.masters().values()
    )
    claim = f"data-demo-{replica}"
    with without_operator():
        before = store.pod_of(replica)["metadata"]["uid"]
        store.kubectl("delete", "cm", f"{store.name}-config")  # so that it does not start
        store.delete_pods(replica)
        stuck = until(lambda: _placed(store, replica, before), "the pod has a machine")
        store.kubectl("delete", "pvc", claim, "--wait=false")
        store.kubectl("patch", "pvc", claim, "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
        until(lambda: claim not in _bound_claims(store), "the claim is gone")
    until(lambda: _placed(store, replica, stuck), "it is made anew")
    store.until_calm()


def _placed(store: Store, node: str, before: str) -> str | None:
    """The uid of the node's new pod once it has a machine."""
    for pod in store.pods():
        uid: str = pod["metadata"]["uid"]
        if store.node_of(pod) == node and uid != before and pod["spec"].get("nodeName"):
            return uid
    return None


def _bound_claims(store: Store) -> list[str]:
    found = kubectl_json("-n", store.namespace, "get", "pvc")["items"]
    return [claim["metadata"]["name"] for claim in found if claim["status"]["phase"] == "Bound"]


def _left(store: Store) -> list[str]:
    kinds = "sts,pods,deploy,svc,cm,secret,netpol,pdb,role,rolebinding,sa,pvc"
    labels = "app.kubernetes.io/instance=demo"
    found = kubectl_json("-n", store.namespace, "get", kinds, "-l", labels)["items"]
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found]
