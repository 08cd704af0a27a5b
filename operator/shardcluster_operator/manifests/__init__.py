"""The Kubernetes objects of one ShardCluster, as plain data for server-side apply.

Law: pure.  The same spec and place give the same objects, byte for byte; nothing is asked of a
cluster, no clock, no dice.  What the loop changes while nodes run (engine settings, roles) is in
no pod template, so that such a change restarts nothing.

`objects` gives everything that does not depend on shards, `stateful_set` one shard, `secret` the
password, which only the operator can make up, and which it makes up once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster_operator.manifests._access import access_objects
from shardcluster_operator.manifests._common import (
    CLIENT_LABEL,
    CLUSTER_LABEL,
    PASSWORD_KEY,
    SHARD_LABEL,
    Manifest,
    Place,
    secret_name,
)
from shardcluster_operator.manifests._configuration import config_map, secret
from shardcluster_operator.manifests._gateway import gateway_objects
from shardcluster_operator.manifests._network import network_objects
from shardcluster_operator.manifests._nodes import (
    CONFIG_HASH_ANNOTATION,
    claim_owners,
    config_hash,
    stateful_set,
    stateful_set_name,
)

if TYPE_CHECKING:
    from shardcluster.spec import Spec

__all__ = [
    "CLIENT_LABEL", "CLUSTER_LABEL", "CONFIG_HASH_ANNOTATION", "PASSWORD_KEY", "SHARD_LABEL",
    "Manifest", "Place", "claim_owners", "config_hash", "objects", "secret", "secret_name",
    "stateful_set", "stateful_set_name",
]  # fmt: skip


def objects(spec: Spec, place: Place) -> tuple[Manifest, ...]:
    """All objects but the Secret and the shards, each after what it refers to."""
    return (
        config_map(spec, place),
        *access_objects(spec, place),
        *network_objects(spec, place),
        *gateway_objects(spec, place),
    )
