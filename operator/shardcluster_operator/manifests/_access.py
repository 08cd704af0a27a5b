"""What the gateway may do with the API server: read and change its one ShardCluster.

Law: the rights are named with the object's name, so a gateway taken over by an attacker sees no
other store.  The operator can grant only what it has itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster_operator.manifests._common import (
    GATEWAY,
    Manifest,
    Place,
    gateway_name,
    metadata,
)

if TYPE_CHECKING:
    from shardcluster.spec import Spec

__all__ = ["access_objects"]

_GROUP = "rbac.authorization.k8s.io"


def access_objects(spec: Spec, place: Place) -> tuple[Manifest, ...]:
    """The gateway's ServiceAccount, Role and RoleBinding."""
    name = gateway_name(spec)
    return (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(spec, place, name, GATEWAY),
            "automountServiceAccountToken": False,  # the Deployment says where it is needed
        },
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "Role",
            "metadata": metadata(spec, place, name, GATEWAY),
            "rules": [
                {
                    "apiGroups": ["shardcluster.io"],
                    "resources": ["shardclusters"],
                    # list and watch work with the field selector metadata.name=<name> only.
                    "resourceNames": [spec.name],
                    "verbs": ["get", "list", "watch", "patch"],
                }
            ],
        },
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": metadata(spec, place, name, GATEWAY),
            "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": place.namespace}],
        },
    )
