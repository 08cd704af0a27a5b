"""The fields of a ShardCluster's `spec` as an OpenAPI 3 schema, in words for people.

Law: says the same as `shardcluster.spec.parse` checks (`tests/unit/test_spec_schema.py` holds the
two together: names, defaults, limits).  docs/spec.md and the Kubernetes resource definition are
made from it by `make generate`, so each field is described in one place.
"""

from __future__ import annotations

from typing import Any

from shardcluster import spec_limits as limits
from shardcluster.spec_model import (
    API_VERSION,
    DEFAULT_IMAGE,
    KIND,
    Durability,
    ReadFrom,
    RebalanceMode,
)

__all__ = ["Schema", "spec_schema"]

Schema = dict[str, Any]


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _mapping(description: str, **properties: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": properties}


def _integer(description: str, default: int, low: int, high: int) -> Schema:
    return {
        "type": "integer", "format": "int64", "description": description, "default": default,
        "minimum": low, "maximum": high,
    }  # fmt: skip


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _choice(description: str, default: RebalanceMode | ReadFrom | Durability) -> Schema:
    return {
        "type": "string", "description": description, "default": default.value,
        "enum": [member.value for member in type(default)],
    }  # fmt: skip


def _quantity(description: str) -> Schema:
    return {
        "description": description, "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
    }  # fmt: skip


def _secret(description: str, content: str) -> Schema:
    return {**_mapping(description, secretName=_secret_name(content)), "required": ["secretName"]}


def _secret_name(content: str) -> Schema:
    return _text(content, maxLength=limits.SUBDOMAIN_CHARS_MAX, pattern=_whole(limits.SUBDOMAIN))


def spec_schema() -> Schema:
    """A fresh schema of `spec`; every field has a description, and a default unless it has none."""
    return _mapping(
        f"What a {KIND} ({API_VERSION}) shall be.",
        shards=_integer(
            "How many shards the store has. Each owns its share of the 16,384 hash slots and is one"
            " master with its replicas. Their names are shard-0, shard-1, …; lowering the number"
            " drains and removes those with the highest numbers.",
            3, 1, limits.SHARDS_MAX,
        ),
        replicasPerShard=_integer(
            "How many replicas each master has. They serve reads, and one of them takes over when"
            " the master fails. With 0 a failed master is only waited for.",
            1, 0, limits.REPLICAS_MAX,
        ),
        image=_text(
            "The Valkey or Redis server that the nodes run. When it changes, the nodes"
            " are replaced one at a time, each master after a hand-over to a replica.",
            default=DEFAULT_IMAGE, minLength=1, maxLength=limits.IMAGE_CHARS_MAX,
            pattern=_whole(limits.IMAGE),
        ),
        ring=_ring(),
        retire={
            "type": "array",
            "description": "Shards to drain and remove by name, whatever their number. Lower"
            " `shards` by as many, or others take their place. A name may be taken out again at"
            " any time before the shard is gone.",
            "items": {"type": "string", "pattern": _whole(limits.SHARD_NAME)},
            "maxItems": limits.RETIRED_MAX,
            "x-kubernetes-list-type": "set",
        },
        storage=_storage(),
        resources=_resources(),
        config=_config(),
        failover=_failover(),
        rebalance=_rebalance(),
        gateway=_gateway(),
        auth=_secret(
            "The password that nodes and clients need.",
            "The name of the Secret; its key `password` is the password.",
        ),
        tls=_secret(
            "TLS between nodes and towards clients.",
            "The name of the Secret with `tls.crt`, `tls.key` and `ca.crt`.",
        ),
        scheduling={
            "type": "object",
            "description": "Where nodes may run, as in a pod: nodeSelector, affinity, tolerations,"
            " topologySpreadConstraints, priorityClassName. Without it the nodes of one shard are"
            " kept apart, and those of the store spread over all machines.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
        paused={
            "type": "boolean", "default": False,
            "description": "true: look and report, but change nothing, failover included.",
        },
    )  # fmt: skip


def _ring() -> Schema:
    return _mapping(
        "How slots are spread over shards: consistent hashing with virtual nodes.",
        virtualNodes=_integer(
            "Points of a shard of weight 1 on the ring. More of them mean more, smaller pieces.",
            160, 1, limits.VIRTUAL_NODES_MAX,
        ),
        loadBound={
            "type": "number", "default": 0.02, "minimum": 0, "maximum": limits.LOAD_BOUND_MAX,
            "description": "How far a shard's slots may be from its fair share, as a part of it"
            " (0.02 is 2 %, at least one slot). Within it nothing moves.",
        },
        weights={
            "type": "object",
            "description": "Shards that shall carry more or less than the others, by name; 1 is"
            " usual. `shard-2: 2.0` gives shard-2 twice the slots.",
            "additionalProperties": {
                "type": "number", "minimum": limits.WEIGHT_MIN, "maximum": limits.WEIGHT_MAX,
            },
            "maxProperties": limits.SHARDS_MAX,
        },
    )  # fmt: skip


def _storage() -> Schema:
    storage = _mapping(
        "A disk for every node. Without it the store is in memory only, and a shard whose nodes"
        " all end at once has lost its data.",
        size=_quantity("How big, like 10Gi. It can grow where the storage class allows it."),
        storageClassName=_text(
            "Which storage class; without it the cluster's default.",
            maxLength=limits.SUBDOMAIN_CHARS_MAX, pattern=_whole(limits.SUBDOMAIN),
        ),
        keepOnDelete={
            "type": "boolean", "default": True,
            "description": "Whether the disks stay when the ShardCluster is deleted.",
        },
    )  # fmt: skip
    return {**storage, "required": ["size"]}


def _resources() -> Schema:
    def amounts(description: str) -> Schema:
        return _mapping(
            description,
            cpu=_quantity("Cores, like 500m."),
            memory=_quantity("Bytes, like 2Gi."),
        )

    return _mapping(
        "What each node asks for and may use at most. 75 % of the memory limit becomes the"
        " engine's maxmemory, unless `config` names one.",
        requests=amounts("What is kept free for it."),
        limits=amounts("What it may use."),
    )


def _gateway() -> Schema:
    return _mapping(
        "The HTTP API.",
        replicas=_integer("How many gateways serve it.", 1, 0, limits.GATEWAYS_MAX),
        readFrom=_choice(
            "Where reads go when the request does not say: a replica (it may be some milliseconds"
            " behind) or the master.",
            ReadFrom.REPLICA,
        ),
        durability=_choice(
            "When a write is answered if the request does not say. async: the master has it."
            " replica: a replica has it, too (needs replicasPerShard of 1 or more). disk: it is on"
            " the master's disk (needs storage).",
            Durability.ASYNC,
        ),
        tokensSecretName=_secret_name(
            "The name of a Secret whose key `tokens` has the lines that `shardctl token` makes."
            " With it every request needs a bearer token; a change counts within a minute or two,"
            " without a restart."
        ),
        tlsSecretName=_secret_name(
            "The name of a Secret of type kubernetes.io/tls (`tls.crt`, `tls.key`): the gateways"
            " then speak HTTPS. A renewed certificate is taken into use without a restart."
        ),
    )


def _config() -> Schema:
    return {
        "type": "object",
        "description": "Settings of the engine by their own names, out of the list below; all"
        " take effect at once, without a restart. Those that ShardCluster itself decides on"
        " (addresses, roles, what is written to disk) are refused.",
        "additionalProperties": {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
        },
        "maxProperties": limits.CONFIG_MAX,
    }


def _failover() -> Schema:
    return _mapping(
        "When a silent node counts as failed.",
        nodeTimeoutMs=_integer(
            "Milliseconds for which a node may be silent before a majority of the masters may"
            " vote a replica in. A node that is proven dead (its process or its machine is"
            " gone) is replaced at once, without this wait.",
            2000,
            limits.NODE_TIMEOUT_MIN_MS,
            limits.NODE_TIMEOUT_MAX_MS,
        ),
    )


def _rebalance() -> Schema:
    return _mapping(
        "When slots move, and how fast.",
        mode=_choice(
            "auto: slots move as soon as the shards' shares are out of their bounds. manual:"
            " only when asked for (`POST /rebalance`, `shardctl rebalance`); a shard that is"
            " to be removed is drained in both.",
            RebalanceMode.AUTO,
        ),
        maxKeysPerSecond=_integer(
            "The most keys that may move in a second, over all shards. 0: as fast as the"
            " engine goes. Any other number also spreads the slots' changes of hands over"
            " time, which is what keeps clients' latency low.",
            0,
            0,
            limits.KEYS_PER_SECOND_MAX,
        ),
    )
