"""What every object of a ShardCluster has in common: its labels, its owner, its place.

Law: an object is found by its labels and removed by its owner.  Selectors use a part of the labels
that never changes, because Kubernetes does not let a StatefulSet's or a Deployment's selector
change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardcluster.spec import API_VERSION, KIND

if TYPE_CHECKING:
    from shardcluster.spec import Spec

__all__ = [
    "AUTH_FOLDER", "CLIENT_LABEL", "CLUSTER_LABEL", "GATEWAY", "NODE", "OPERATOR_NAME",
    "PASSWORD_KEY", "SHARD_LABEL", "Manifest", "Place", "gateway_name", "labels", "metadata",
    "nodes_name", "secret_name", "selector",
]  # fmt: skip

Manifest = dict[str, Any]

NODE, GATEWAY = "node", "gateway"  # app.kubernetes.io/component
APP_NAME = "shardcluster"
OPERATOR_NAME = "shardcluster-operator"
CLUSTER_LABEL = "shardcluster.io/cluster"
SHARD_LABEL = "shardcluster.io/shard"
CLIENT_LABEL = "shardcluster.io/client"  # on pods of others that may reach the nodes
AUTH_FOLDER = "/etc/shardcluster-auth"
PASSWORD_KEY = "password"  # noqa: S105 - the key's name in the Secret


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ShardCluster lives, and what the operator gives to its objects."""

    namespace: str
    uid: str  # of the ShardCluster, which owns everything made for it
    gateway_image: str
    operator_namespace: str
    gateway_image_pull_policy: str = "IfNotPresent"


def nodes_name(spec: Spec) -> str:
    """The name of what belongs to the nodes as a whole: headless Service, policies."""
    return f"{spec.name}-nodes"


def gateway_name(spec: Spec) -> str:
    """The name of everything of the gateway."""
    return f"{spec.name}-gateway"


def secret_name(spec: Spec) -> str:
    """The Secret with the password: the user's own, or the one that the operator makes."""
    return spec.auth_secret_name or f"{spec.name}-auth"


def selector(spec: Spec, component: str) -> dict[str, str]:
    """The labels that all pods of the component have, and no other pod."""
    return {
        "app.kubernetes.io/name": APP_NAME,
        "app.kubernetes.io/instance": spec.name,
        "app.kubernetes.io/component": component,
    }


def labels(spec: Spec, component: str) -> dict[str, str]:
    """The labels of an object of the component."""
    return {**selector(spec, component), "app.kubernetes.io/managed-by": OPERATOR_NAME}


def metadata(spec: Spec, place: Place, name: str, component: str) -> Manifest:
    """The metadata of an object that goes when the ShardCluster goes."""
    return {
        "name": name,
        "namespace": place.namespace,
        "labels": {**labels(spec, component), CLUSTER_LABEL: spec.name},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": spec.name,
                "uid": place.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
