"""One shard's nodes: a StatefulSet whose pods are replaced by the operator alone.

Law: Kubernetes starts pods and gives them their disks; which of them may end, and when, is the
loop's decision (`OnDelete`).  The annotation `shardcluster.io/config-hash` on a pod says with what
it was started; a pod with another one than `config_hash` gives is outdated.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from shardcluster.spec import API_VERSION, KIND
from shardcluster_operator.manifests._common import (
    CLUSTER_LABEL,
    NODE,
    SHARD_LABEL,
    Manifest,
    Place,
    labels,
    metadata,
    nodes_name,
    selector,
)
from shardcluster_operator.manifests._configuration import restart_relevant
from shardcluster_operator.manifests._pod import DATA, node_pod

if TYPE_CHECKING:
    from shardcluster.spec import Spec, Storage

__all__ = [
    "CONFIG_HASH_ANNOTATION", "claim_owners", "config_hash", "stateful_set", "stateful_set_name",
]  # fmt: skip

CONFIG_HASH_ANNOTATION = "shardcluster.io/config-hash"
HASH_CHARS = 16
_ANY_SHARD = "shard-0"


def stateful_set_name(spec: Spec, shard: str) -> str:
    """The shard's StatefulSet; its pods are `<this>-<ordinal>`."""
    return f"{spec.name}-{shard}"


def config_hash(spec: Spec) -> str:
    """A short name for all that a node can take over by a restart only; one for all shards.

    That is the whole pod and the files it reads at its start, less the settings that the loop sets
    while nodes run.
    """
    content = {"pod": node_pod(spec, _ANY_SHARD), "files": restart_relevant(spec)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]


def stateful_set(spec: Spec, place: Place, shard: str, nodes: int) -> Manifest:
    """The shard with so many nodes."""
    shard_labels = {SHARD_LABEL: shard}
    about = metadata(spec, place, stateful_set_name(spec, shard), NODE)
    about["labels"] |= shard_labels
    pod_labels = {**labels(spec, NODE), CLUSTER_LABEL: spec.name, **shard_labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": about,
        "spec": {
            "serviceName": nodes_name(spec),
            "replicas": nodes,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {**selector(spec, NODE), **shard_labels}},
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {CONFIG_HASH_ANNOTATION: config_hash(spec)},
                },
                "spec": node_pod(spec, shard),
            },
            **(_claims(spec, place, spec.storage, shard) if spec.storage is not None else {}),
        },
    }


def claim_owners(spec: Spec, place: Place, storage: Storage) -> list[Manifest]:
    """Whose end is the end of a volume: the ShardCluster's, or nobody's.

    Never a StatefulSet's: that can be deleted by mistake and made anew.
    """
    if storage.keep_on_delete:
        return []
    return [{"apiVersion": API_VERSION, "kind": KIND, "name": spec.name, "uid": place.uid}]


def _claims(spec: Spec, place: Place, storage: Storage, shard: str) -> Manifest:
    claim: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        claim["storageClassName"] = storage.storage_class_name
    about: Manifest = {
        "name": DATA,
        "labels": {**labels(spec, NODE), CLUSTER_LABEL: spec.name, SHARD_LABEL: shard},
    }
    if owners := claim_owners(spec, place, storage):
        about["ownerReferences"] = owners
    return {
        "persistentVolumeClaimRetentionPolicy": {
            # Whoever deletes or scales a StatefulSet by hand has not decided about data.
            "whenDeleted": "Retain",
            "whenScaled": "Retain",
        },
        "volumeClaimTemplates": [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": about,
                "spec": claim,
            }
        ],
    }
