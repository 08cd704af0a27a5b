"""The plain data that a ShardCluster document becomes, and the document it gives back.

Law: complete (every default is filled in), frozen, and hashable, so that a spec can be a key of
what was planned for it.  Nothing is checked here: `shardcluster.spec.parse` makes these values,
`dataclasses.replace` and `shardcluster.edits` change them.
"""

from __future__ import annotations

import enum
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from shardcluster.names import shard_name
from shardcluster.quantities import parse_quantity

__all__ = [
    "API_VERSION", "DEFAULT_IMAGE", "DEFAULT_MAX_KEYS_PER_SECOND", "DEFAULT_NAME", "KIND",
    "Amounts", "Document", "Durability", "FailoverSpec", "GatewaySpec", "ReadFrom",
    "RebalanceMode", "RebalanceSpec", "Resources", "RingSpec", "Spec", "Storage",
]  # fmt: skip

API_VERSION = "shardcluster.io/v1alpha1"
KIND = "ShardCluster"
DEFAULT_NAME = "demo"
DEFAULT_IMAGE = "valkey/valkey:8.1"
DEFAULT_MAX_KEYS_PER_SECOND = 0  # as fast as the engine goes
MEMORY_USED_PERCENT = 75  # of the limit; the rest is for buffers, copies on write, fragmentation

Document = dict[str, Any]


class RebalanceMode(enum.StrEnum):
    """When slots move by themselves."""

    AUTO = "auto"
    MANUAL = "manual"


class ReadFrom(enum.StrEnum):
    """Where the gateway reads."""

    REPLICA = "replica"
    MASTER = "master"


class Durability(enum.StrEnum):
    """When the gateway says that a write is done."""

    ASYNC = "async"  # the master has it
    REPLICA = "replica"  # a replica has it too
    DISK = "disk"  # it is on the master's disk


@dataclass(frozen=True, slots=True)
class RingSpec:
    """How slots are spread over shards."""

    virtual_nodes: int = 160
    load_bound: float = 0.02
    weights: tuple[tuple[str, float], ...] = ()  # of shards that differ from 1, by shard number
    _weight_of: dict[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Keep the weights where they are found at once."""
        object.__setattr__(self, "_weight_of", dict(self.weights))

    def weight(self, shard: str) -> float:
        """How much of the store the shard shall carry, relative to 1."""
        return self._weight_of.get(shard, 1.0)


@dataclass(frozen=True, slots=True)
class Storage:
    """A disk for every node."""

    size: str
    storage_class_name: str | None = None
    keep_on_delete: bool = True


@dataclass(frozen=True, slots=True)
class Amounts:
    """Compute resources, as Kubernetes quantities."""

    cpu: str | None = None
    memory: str | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What every node asks for and may use at most."""

    requests: Amounts = Amounts()
    limits: Amounts = Amounts()


@dataclass(frozen=True, slots=True)
class FailoverSpec:
    """How long a silent node is waited for."""

    node_timeout_ms: int = 2000


@dataclass(frozen=True, slots=True)
class RebalanceSpec:
    """When and how fast slots move."""

    mode: RebalanceMode = RebalanceMode.AUTO
    max_keys_per_second: int = DEFAULT_MAX_KEYS_PER_SECOND  # 0 = no limit


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """The HTTP gateway."""

    replicas: int = 1
    read_from: ReadFrom = ReadFrom.REPLICA
    durability: Durability = Durability.ASYNC
    tokens_secret_name: str | None = None
    tls_secret_name: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A valid ShardCluster; made by `parse`, changed by `dataclasses.replace` and `edits`."""

    name: str = DEFAULT_NAME
    shards: int = 3
    replicas_per_shard: int = 1
    image: str = DEFAULT_IMAGE
    ring: RingSpec = RingSpec()
    retire: tuple[str, ...] = ()  # unique, in the user's order
    storage: Storage | None = None  # None: memory only
    resources: Resources = Resources()
    config: tuple[tuple[str, str], ...] = ()  # vetted engine settings, by name
    failover: FailoverSpec = FailoverSpec()
    rebalance: RebalanceSpec = RebalanceSpec()
    gateway: GatewaySpec = GatewaySpec()
    auth_secret_name: str | None = None
    tls_secret_name: str | None = None
    scheduling_json: str = "{}"  # canonical JSON text, because a mapping could be changed
    paused: bool = False
    _wanted: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Keep the wanted shards, which are asked for many times a pass."""
        gone = set(self.retire)
        names = (name for name in map(shard_name, itertools.count()) if name not in gone)
        object.__setattr__(self, "_wanted", tuple(itertools.islice(names, self.shards)))

    def wanted_shards(self) -> tuple[str, ...]:
        """The first `shards` of shard-0, shard-1, … that are not retired, by number."""
        return self._wanted

    def weight(self, shard: str) -> float:
        """How much of the store the shard shall carry, relative to 1."""
        return self.ring.weight(shard)

    @property
    def memory_only(self) -> bool:
        """Whether a node's data ends with its process."""
        return self.storage is None

    @property
    def max_memory_bytes(self) -> int | None:
        """What the engine may fill of the memory limit; None without a limit."""
        limit = self.resources.limits.memory
        return None if limit is None else int(parse_quantity(limit) * MEMORY_USED_PERCENT / 100)

    @property
    def read_from(self) -> ReadFrom:
        """Where the gateway really reads: without replicas, at the masters."""
        return self.gateway.read_from if self.replicas_per_shard else ReadFrom.MASTER

    @property
    def scheduling(self) -> Document:
        """A copy of the scheduling wishes."""
        wishes: Document = json.loads(self.scheduling_json)
        return wishes

    def document(self) -> Document:
        """The whole document: every default written out, what is empty left out."""
        spec: Document = {
            "shards": self.shards,
            "replicasPerShard": self.replicas_per_shard,
            "image": self.image,
            "ring": {
                "virtualNodes": self.ring.virtual_nodes,
                "loadBound": self.ring.load_bound,
                "weights": dict(self.ring.weights),
            },
            "retire": list(self.retire),
            "storage": self.storage
            and {
                "size": self.storage.size,
                "storageClassName": self.storage.storage_class_name,
                "keepOnDelete": self.storage.keep_on_delete,
            },
            "resources": {
                "requests": _amounts_document(self.resources.requests),
                "limits": _amounts_document(self.resources.limits),
            },
            "config": dict(self.config),
            "failover": {"nodeTimeoutMs": self.failover.node_timeout_ms},
            "rebalance": {
                "mode": self.rebalance.mode.value,
                "maxKeysPerSecond": self.rebalance.max_keys_per_second,
            },
            "gateway": {
                "replicas": self.gateway.replicas,
                "readFrom": self.gateway.read_from.value,
                "durability": self.gateway.durability.value,
                "tokensSecretName": self.gateway.tokens_secret_name,
                "tlsSecretName": self.gateway.tls_secret_name,
            },
            "auth": {"secretName": self.auth_secret_name},
            "tls": {"secretName": self.tls_secret_name},
            "paused": self.paused,
        }
        spec = _without_empty(spec)
        if self.scheduling_json != "{}":
            spec["scheduling"] = self.scheduling  # free: what is empty in it may mean something
        return {
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": self.name}, "spec": spec
        }  # fmt: skip


def _amounts_document(amounts: Amounts) -> Document:
    return {"cpu": amounts.cpu, "memory": amounts.memory}


def _without_empty(values: Document) -> Document:
    """Leave out None, empty lists and mappings, and mappings that become empty so."""
    kept: Document = {}
    for name, value in values.items():
        inner = _without_empty(value) if isinstance(value, dict) else value
        if inner is not None and inner not in ([], {}):
            kept[name] = inner
    return kept
