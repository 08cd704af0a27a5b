"""What the API server itself refuses: each rule of the schema, with a sentence to act on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.kube import Refused, Store, kubectl, manifest

# Each: what is wrong in a new resource, and what the answer must say.
NEW: tuple[tuple[dict[str, Any], str], ...] = (
    ({"shards": 0}, "spec.shards in body should be greater than or equal to 1"),
    ({"shards": "three"}, 'spec.shards in body must be of type integer: "string"'),
    ({"replicasPerShard": -1}, "spec.replicasPerShard in body should be greater than or"),
    ({"shard": 3}, 'unknown field "spec.shard"'),
    ({"image": "two words"}, "spec.image in body should match"),
    ({"ring": {"virtualNodes": 0}}, "spec.ring.virtualNodes in body should be greater than"),
    ({"ring": {"loadBound": 2}}, "ring.loadBound must be from 0 to 0.5."),
    ({"ring": {"weights": {"shard-0": 0}}}, "ring.weights must be from 0.1 to 100."),
    ({"ring": {"weights": {"big": 2}}}, "ring.weights has a name that no shard can have"),
    ({"retire": ["the-second"]}, "spec.retire[0] in body should match"),
    ({"retire": ["shard-1", "shard-1"]}, 'spec.retire[1]: Duplicate value: "shard-1"'),
    ({"storage": {}}, "spec.storage.size: Required value"),
    ({"storage": {"size": "much"}}, "spec.storage.size in body should match"),
    ({"storage": {"size": "1Gi", "storageClassName": "Fast!"}}, "spec.storage.storageClassName"),
    (
        {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "500m"}}},
        "resources.requests.cpu may not be more than resources.limits.cpu.",
    ),
    (
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1G"}}},
        "resources.requests.memory may not be more than resources.limits.memory.",
    ),
    ({"config": {"port": 7000}}, "config has a setting that can't be set here"),
    ({"failover": {"nodeTimeoutMs": 499}}, "spec.failover.nodeTimeoutMs in body should be greater"),
    ({"rebalance": {"mode": "sometimes"}}, 'supported values: "auto", "manual"'),
    ({"rebalance": {"maxKeysPerSecond": -1}}, "spec.rebalance.maxKeysPerSecond in body should be"),
    ({"gateway": {"replicas": -1}}, "spec.gateway.replicas in body should be greater"),
    ({"gateway": {"readFrom": "slave"}}, 'supported values: "replica", "master"'),
    (
        {"gateway": {"durability": "replica"}, "replicasPerShard": 0},
        "gateway.durability replica needs replicasPerShard of 1 or more.",
    ),
    (
        {"gateway": {"durability": "disk"}, "storage": None},
        "gateway.durability disk needs storage.",
    ),
    ({"auth": {}}, "spec.auth.secretName: Required value"),
    ({"tls": {"secretName": "certs"}}, "TLS is not to be had on Kubernetes yet: leave tls out."),
    ({"paused": "yes"}, 'spec.paused in body must be of type boolean: "string"'),
)  # fmt: skip
NAMES = (
    ("1st", "The name must be at most 40 lower-case letters, digits and '-'"),
    ("a" * 41, "The name must be at most 40 lower-case letters, digits and '-'"),
    ("has.dot", "The name must be at most 40 lower-case letters, digits and '-'"),
    ("demo-nodes", "The name may not end with -nodes or -gateway"),
    ("demo-gateway", "The name may not end with -nodes or -gateway"),
)
# Of a store that stands.
CHANGES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"storage": None}, "storage can't be added or removed later: make a new ShardCluster"),
    ({"storage": {"size": "32Mi"}}, "storage.size can grow, but it can't shrink."),
    ({"storage": {"storageClassName": "fast"}}, "storage.storageClassName can't be changed"),
)  # fmt: skip


@pytest.mark.parametrize(("wrong", "sentence"), NEW, ids=lambda value: json.dumps(value)[:40])
def test_a_wrong_resource_is_refused(operator: str, wrong: dict[str, Any], sentence: str) -> None:
    """By schema or rule, and nothing is made."""
    assert operator
    with pytest.raises(Refused) as refused:
        _try(manifest("default", **wrong))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("name", "sentence"), NAMES)
def test_a_wrong_name_is_refused(operator: str, name: str, sentence: str) -> None:
    """Services are named after it."""
    assert operator
    with pytest.raises(Refused) as refused:
        _try(manifest("default", name))
    assert sentence in str(refused.value)


def test_what_cannot_change_is_refused(store: Store) -> None:
    """A store stands; what it can't become is said, and it stays as it is."""
    store.apply(shards=1, replicasPerShard=0, gateway={"replicas": 0})
    before = store.read()["metadata"]["generation"]
    for change, sentence in CHANGES:
        with pytest.raises(Refused) as refused:
            store.patch(**change)
        assert sentence in str(refused.value)
    assert store.read()["metadata"]["generation"] == before
    store.until_calm(shards=1, replicas=0)


def _try(document: dict[str, Any]) -> None:
    kubectl("apply", "--dry-run=server", "-f", "-", text=json.dumps(document))
