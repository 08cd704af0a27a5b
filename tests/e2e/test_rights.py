"""What the operator may do, what it does, and what nobody may see."""

from __future__ import annotations

import base64
import json
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.e2e.installed import (
    OPERATOR,
    ROOT,
    SYSTEM,
    active_operator,
    operator_logs,
    without_operator,
)
from tests.e2e.kube import (
    Document,
    Refused,
    Store,
    engine_image,
    gateway_image,
    kubectl,
    kubectl_json,
    next_engine_image,
    operator_image,
    until,
)
from tests.e2e.traffic import traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

# Granted, and not asked for by the operator's own client.
OTHERS = {
    # kopf's: it watches the resource, and first its definition.
    ("customresourcedefinitions", "list"), ("customresourcedefinitions", "watch"),
    ("shardclusters", "list"), ("shardclusters", "watch"),
    # The gateways'; nobody can grant what they haven't got.
    ("shardclusters", "get"), ("shardclusters", "patch"),
    # To be the owner that blocks a deletion; looked at by an admission plugin.
    ("shardclusters/finalizers", "update"),
}  # fmt: skip
METRICS = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:8081/metrics").read().decode())
"""  # fmt: skip


@pytest.fixture
def growing_class(operator: str) -> Iterator[str]:
    """A storage class like the default one, whose volumes may be asked to grow."""
    assert operator
    found = next(
        item
        for item in kubectl_json("get", "storageclass")["items"]
        if item["metadata"].get("annotations", {}).get(
            "storageclass.kubernetes.io/is-default-class"
        ) == "true"
    )  # fmt: skip
    name = f"growing-{uuid.uuid4().hex[:6]}"
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": found["provisioner"],
        "reclaimPolicy": "Delete",
        "volumeBindingMode": found.get("volumeBindingMode", "Immediate"),
        "allowVolumeExpansion": True,
    }
    kubectl("apply", "-f", "-", text=json.dumps(made))
    try:
        yield name
    finally:
        kubectl("delete", "storageclass", name, "--wait=false")


@pytest.mark.serial
def test_no_right_is_granted_that_is_not_used(store: Store, growing_class: str) -> None:
    """A whole life of a store; every verb that the operator has is one that it needed."""
    disk = {"size": "64Mi", "storageClassName": growing_class, "keepOnDelete": False}
    begun = until(active_operator, "an active operator")
    store.apply(shards=2, storage=disk, gateway={"replicas": 2})
    store.until_calm(shards=2)
    kubectl("-n", SYSTEM, "delete", "lease", OPERATOR)  # the one who is active makes it anew
    with traffic(store) as clients:
        store.patch(storage={**disk, "size": "96Mi"})
        until(lambda: _claimed(store) == {"96Mi"}, "claims that ask for more")
        store.until_calm(shards=2)
        store.patch(image=next_engine_image())
        store.until_calm(shards=2)
        assert store.engine_images() == {next_engine_image()}
        store.patch(gateway=None)  # one gateway needs no budget
        store.kubectl("scale", "shc", "demo", "--replicas=1")
        store.until_calm(shards=1)
        clients.harmless()
    store.patch(replicasPerShard=0)
    store.until_calm(shards=1, replicas=0)
    assert active_operator() == begun
    used = _used(begun)
    granted = _granted()
    assert used <= granted
    assert granted - used <= OTHERS, granted - used - OTHERS


def _claimed(store: Store) -> set[str]:
    claims = kubectl_json("-n", store.namespace, "get", "pvc")["items"]
    return {claim["spec"]["resources"]["requests"]["storage"] for claim in claims}


def _used(pod: str) -> set[tuple[str, str]]:
    """(resource, verb) of every request that the operator has made so far."""
    text = kubectl("-n", SYSTEM, "exec", pod, "--", "python3", "-c", METRICS)
    used = set()
    for line in text.splitlines():
        if line.startswith("shardcluster_kube_requests_total{"):
            labels = dict(
                part.split("=") for part in line.partition("{")[2].partition("}")[0].split(",")
            )
            resource, verb = labels["resource"].strip('"'), labels["verb"].strip('"')
            verbs = ("patch", "create") if verb == "apply" else (verb,)
            used |= {(resource, word) for word in verbs}
    return used


def _granted() -> set[tuple[str, str]]:
    rules = [
        *kubectl_json("get", "clusterrole", OPERATOR)["rules"],
        *kubectl_json("-n", SYSTEM, "get", "role", OPERATOR)["rules"],
    ]
    return {
        (resource, verb)
        for rule in rules for resource in rule["resources"] for verb in rule["verbs"]
    }  # fmt: skip


def test_the_gateway_may_edit_its_own_store_alone(namespace: str) -> None:
    """And nothing else, by its ServiceAccount."""
    store = Store(namespace)
    store.apply(shards=1, replicasPerShard=0)
    store.until_calm(shards=1, replicas=0)
    account = f"--as=system:serviceaccount:{namespace}:demo-gateway"
    may = ("get", "watch", "patch")
    for verb in may:
        assert _can(store, verb, "shardclusters/demo", account), verb
    for verb, what in (
        ("patch", "shardclusters/other"), ("delete", "shardclusters/demo"),
        ("get", "secrets/demo-auth"), ("list", "secrets"), ("list", "pods"),
        ("patch", "statefulsets/demo-shard-0"), ("patch", "roles/demo-gateway"),
    ):  # fmt: skip
        assert not _can(store, verb, what, account), (verb, what)


def _can(store: Store, verb: str, what: str, account: str) -> bool:
    try:
        return store.kubectl("auth", "can-i", verb, what, account).strip() == "yes"
    except Refused:  # it says no, and fails
        return False


def test_the_password_is_nowhere_to_be_seen(store: Store) -> None:
    """Not in any object but the Secret, nor in arguments, environments, events or logs."""
    store.apply(shards=1)
    store.until_calm(shards=1)
    store.kubectl("rollout", "status", "deploy/demo-gateway", "--timeout=90s")
    secret = kubectl_json("-n", store.namespace, "get", "secret", "demo-auth")
    encoded = secret["data"]["password"]
    password = base64.b64decode(encoded).decode()
    kinds = "shc,sts,pods,deploy,rs,svc,cm,netpol,pdb,role,rolebinding,sa,pvc,events,endpoints"
    seen = {"objects": store.kubectl("get", kinds, "-o", "json"), "logs": operator_logs(2000)}
    dump = "tr '\\0' '\\n' < /proc/1/cmdline; tr '\\0' '\\n' < /proc/1/environ; env"
    for pod in (*store.pods(), *store.pods("gateway")):
        name = pod["metadata"]["name"]
        seen[f"{name}'s log"] = store.kubectl("logs", name)
        seen[f"{name}'s process"] = store.kubectl("exec", name, "--", "sh", "-c", dump)
    for place, text in seen.items():
        assert password not in text, place
        assert encoded not in text, place
    assert "server" in seen["demo-shard-0-0's process"]  # so there was something to see


def test_stores_of_one_name_in_two_namespaces(namespace: str) -> None:
    """They have nothing in common; what happens to one is no matter to the other."""
    other = f"{namespace}-b"
    kubectl("create", "namespace", other)
    try:
        first, second = Store(namespace), Store(other)
        for store in (first, second):
            store.apply(shards=1)
        for store in (first, second):
            store.until_calm(shards=1)
        ids = [{node["nodeId"] for node in s.status()["nodes"]} for s in (first, second)]
        assert not ids[0] & ids[1]
        with traffic(second) as clients:
            first.kubectl("delete", "shc", "demo", "--timeout=60s")
            until(lambda: not first.pods(), "the first one's end")
            clients.harmless()
        second.until_calm(shards=1)
    finally:
        kubectl("delete", "namespace", other, "--wait=false")


@pytest.mark.serial
def test_the_chart_bound_to_a_namespace(namespace: str) -> None:
    """Installed by helm without any right beyond the namespace, it runs a store there."""
    outside = f"{namespace}-x"
    kubectl("create", "namespace", outside)
    settings = [
        f"watchNamespaces={{{namespace}}}", "replicas=1", "cluster.create=true",
        "cluster.spec.shards=1", f"cluster.spec.image={engine_image()}",
        *_image("image", operator_image()), *_image("gatewayImage", gateway_image()),
    ]  # fmt: skip
    before = _cluster_rights()
    with without_operator():
        try:
            _helm(
                "install", "shc", str(ROOT / "charts" / "shardcluster"), "--namespace", namespace,
                "--wait", "--timeout", "120s",
                *(word for setting in settings for word in ("--set", setting)),
            )  # fmt: skip
            assert _cluster_rights() == before
            store = Store(namespace)
            store.until_calm(shards=1)
            foreign = Store(outside)
            foreign.apply(shards=1)
            with traffic(store) as clients:
                store.patch(shards=2)
                store.until_calm(shards=2)
                clients.harmless()
            assert not foreign.status()
            assert not foreign.pods()
            _helm("uninstall", "shc", "--namespace", namespace)
            until(lambda: not store.pods("operator"), "the operator's end")
            foreign.kubectl("delete", "shc", "demo", "--timeout=60s")
        finally:
            kubectl("delete", "namespace", outside, "--wait=false")


def _image(value: str, name: str) -> tuple[str, str]:
    repository, _, tag = name.rpartition(":")
    return f"{value}.repository={repository}", f"{value}.tag={tag}"


def _helm(*arguments: str) -> None:
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def _cluster_rights() -> set[str]:
    found: list[Document] = kubectl_json("get", "clusterrole,clusterrolebinding")["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in found}
