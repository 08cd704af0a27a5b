"""What a user asks for: one `ShardCluster` document, checked and made plain data.

Law: `parse` accepts a document or raises SpecError with *all* that is wrong with it; what it
returns is complete (every default filled in), cannot change, and gives its document back such
that `parse(spec.document()) == spec`.  So the document that a user wrote, the one kept on the
controller's disk and the one in a Kubernetes resource mean the same on every platform.

`apiVersion`, `kind` and `metadata` may be left out, because a local store needs none of them;
where they stand they must be right.  Other Kubernetes metadata and `status` are not ours to judge.
Every field is described in `docs/spec.md`.
"""

from __future__ import annotations

import enum
import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Any

from shardcluster.engine_settings import vet
from shardcluster.names import shard_name, shard_number
from shardcluster.quantities import parse_quantity
from shardcluster.spec_fields import Fields, Problems, SpecError, shown

__all__ = [
    "API_VERSION", "DEFAULT_IMAGE", "DEFAULT_MAX_KEYS_PER_SECOND", "DEFAULT_NAME", "KIND",
    "REPLICAS_MAX", "RETIRED_MAX", "RING_POINTS_MAX", "SHARDS_MAX", "Amounts", "Durability",
    "FailoverSpec", "GatewaySpec", "ReadFrom", "RebalanceMode", "RebalanceSpec", "Resources",
    "RingSpec", "Spec", "SpecError", "Storage", "cross_field_problems", "ignored_on_local",
    "parse",
]  # fmt: skip

API_VERSION = "shardcluster.io/v1alpha1"
KIND = "ShardCluster"
DEFAULT_NAME = "demo"
DEFAULT_IMAGE = "valkey/valkey:8.1"
DEFAULT_MAX_KEYS_PER_SECOND = 0  # as fast as the engine goes

SHARDS_MAX = 1000  # the engine's own advice for the size of a cluster
REPLICAS_MAX = 5  # a shard
RETIRED_MAX = 10_000  # names in `retire`; with SHARDS_MAX it keeps shard numbers in five digits
VIRTUAL_NODES_MAX = 1000
LOAD_BOUND_MAX = 0.5
WEIGHT_MIN, WEIGHT_MAX = 0.1, 100.0
RING_POINTS_MAX = 1_000_000  # 1,000 shards of 1,000 virtual nodes; planning takes their sort
NODE_TIMEOUT_MIN_MS, NODE_TIMEOUT_MAX_MS = 500, 60_000
KEYS_PER_SECOND_MAX = 1_000_000_000  # more than any engine does: the same as no limit
GATEWAYS_MAX = 100
MEMORY_USED_PERCENT = 75  # of the limit; the rest is for buffers, copies on write, fragmentation
MEMORY_LEAST = "16Mi"  # an idle engine with its backlog; "100m" is a tenth of a byte
STORAGE_LEAST = "16Mi"
CPU_LEAST = "1m"  # what Kubernetes can count

# 40 characters, so that the names made from it fit into Kubernetes' 63.
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,38}[a-z0-9])?")
_SUBDOMAIN = re.compile(
    r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*"
)
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*")
_NAME_CHARS_MAX, _SUBDOMAIN_CHARS_MAX, _IMAGE_CHARS_MAX = 40, 253, 500
_A_NAME = "lower-case letters, digits and '-' (at most 40, no '-' at the ends)"
_AN_OBJECT = "the name of a Kubernetes object"

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
            "storage": self.storage and {
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


def parse(document: object) -> Spec:
    """Check one document, as YAML or JSON gives it; raises SpecError with all problems."""
    problems = Problems()
    top = Fields(document, "", problems)
    if top.take("apiVersion") not in (None, API_VERSION):
        top.note("apiVersion", f"must be {API_VERSION}, not {shown(top.take('apiVersion'))}")
    if top.take("kind") not in (None, KIND):
        top.note("kind", f"must be {KIND}, not {shown(top.take('kind'))}")
    if document is None:
        problems.note("document", "must be a mapping, not null")
    name = top.nested("metadata").text("name", _NAME, _NAME_CHARS_MAX, _A_NAME)
    top.take("status")
    spec = _read_spec(name or DEFAULT_NAME, top.nested("spec"))
    top.finish(_ELSEWHERE_AT_TOP)
    problems.raise_if_any()
    # Only a document that is right field by field can be judged as a whole.
    if crossing := cross_field_problems(spec):
        raise SpecError(crossing)
    return spec


def cross_field_problems(spec: Spec) -> tuple[tuple[str, str], ...]:
    """What is wrong between fields that are each right; as (path, sentence)."""
    found: list[tuple[str, str]] = []
    if spec.gateway.durability is Durability.REPLICA and not spec.replicas_per_shard:
        found.append(("spec.gateway.durability", "replica needs spec.replicasPerShard of 1 or more"))
    if spec.gateway.durability is Durability.DISK and spec.memory_only:
        found.append(("spec.gateway.durability", "disk needs spec.storage"))
    if len(spec.retire) > RETIRED_MAX:
        found.append(("spec.retire", f"has over {RETIRED_MAX} names"))
    points = sum(spec.ring.virtual_nodes * spec.weight(shard) for shard in spec.wanted_shards())
    if points > RING_POINTS_MAX:
        found.append((
            "spec.ring.virtualNodes",
            f"times the weights of all shards is {points:.0f}, and may be {RING_POINTS_MAX}",
        ))
    requests, limits = spec.resources.requests, spec.resources.limits
    for name, asked, most in (
        ("cpu", requests.cpu, limits.cpu), ("memory", requests.memory, limits.memory)
    ):  # fmt: skip
        if asked and most and parse_quantity(asked) > parse_quantity(most):
            path = f"spec.resources.requests.{name}"
            found.append((path, f"is more than the limit: {asked} against {most}"))
    own_limit = dict(spec.config).get("maxmemory")
    if own_limit is not None and limits.memory is not None:
        most_bytes = int(parse_quantity(limits.memory))
        if not 0 < int(own_limit) <= most_bytes:
            text = f"must be from 1 to the memory limit ({most_bytes} bytes), not {own_limit}"
            found.append(("spec.config.maxmemory", text))
    return tuple(found)


def ignored_on_local(spec: Spec) -> tuple[str, ...]:
    """One sentence for each field that is set and that local processes do not honour."""
    reasons = (
        (spec.image != DEFAULT_IMAGE, "image", "nodes run the server binary found here"),
        (
            spec.storage is not None, "storage.size",
            "nodes may fill the disk that the state folder is on",
        ),
        (
            spec.storage is not None and spec.storage.storage_class_name is not None,
            "storage.storageClassName", "data lies in the state folder",
        ),
        (
            spec.storage is not None and not spec.storage.keep_on_delete,
            "storage.keepOnDelete", "the state folder is deleted by hand only",
        ),
        (
            spec.resources.requests != Amounts() or spec.resources.limits.cpu is not None,
            "resources", "only the memory limit counts, as the engine's maxmemory",
        ),
        (spec.gateway.replicas != 1, "gateway.replicas", "one gateway runs"),
        (spec.auth_secret_name is not None, "auth", "nodes ask for no password"),
        (spec.tls_secret_name is not None, "tls", "nodes speak plain TCP"),
        (spec.scheduling_json != "{}", "scheduling", "all nodes run on this machine"),
    )  # fmt: skip
    return tuple(
        f"spec.{name} is ignored on this platform: {reason}."
        for is_set, name, reason in reasons
        if is_set
    )


def _read_spec(name: str, fields: Fields) -> Spec:
    image_text = "an image's name"
    spec = Spec(
        name=name,
        shards=fields.integer("shards", 3, 1, SHARDS_MAX),
        replicas_per_shard=fields.integer("replicasPerShard", 1, 0, REPLICAS_MAX),
        image=fields.text("image", _IMAGE, _IMAGE_CHARS_MAX, image_text) or DEFAULT_IMAGE,
        ring=_read_ring(fields.nested("ring")),
        retire=_read_retire(fields),
        storage=_read_storage(fields.optional("storage")),
        resources=_read_resources(fields.nested("resources")),
        config=_read_config(fields.nested("config")),
        failover=_read_failover(fields.nested("failover")),
        rebalance=_read_rebalance(fields.nested("rebalance")),
        gateway=_read_gateway(fields.nested("gateway")),
        auth_secret_name=_read_secret(fields.optional("auth")),
        tls_secret_name=_read_secret(fields.optional("tls")),
        scheduling_json=fields.free("scheduling"),
        paused=fields.flag("paused", default=False),
    )
    fields.finish(_ELSEWHERE_IN_SPEC)
    return spec


def _read_ring(fields: Fields) -> RingSpec:
    virtual_nodes = fields.integer("virtualNodes", 160, 1, VIRTUAL_NODES_MAX)
    load_bound = fields.number("loadBound", 0.02, 0.0, LOAD_BOUND_MAX)
    weights = fields.nested("weights")
    found: dict[str, float] = {}
    for key, _ in weights.items():
        if _is_shard(key):
            found[str(key)] = weights.number(str(key), 1.0, WEIGHT_MIN, WEIGHT_MAX)
        else:
            weights.note(key, 'must be a shard\'s name like "shard-3"')
    fields.finish()
    by_number = sorted(found.items(), key=lambda pair: shard_number(pair[0]))
    return RingSpec(virtual_nodes, load_bound, tuple(by_number))


def _read_retire(fields: Fields) -> tuple[str, ...]:
    value = fields.take("retire")
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        fields.note("retire", f"must be a list of shards' names, not {shown(value)}")
        return ()
    found: dict[str, None] = {}
    for index, item in enumerate(value[: RETIRED_MAX + 1]):
        if not _is_shard(item):
            sentence = f'must be a shard\'s name like "shard-3", not {shown(item)}'
            fields.note(f"retire[{index}]", sentence)
        elif item in found:
            fields.note(f"retire[{index}]", f"names {item} a second time")
        else:
            found[item] = None
    return tuple(found)


def _is_shard(name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        shard_number(name)
    except ValueError:
        return False
    return True


def _read_storage(fields: Fields | None) -> Storage | None:
    if fields is None:
        return None
    if fields.take("size") is None:
        fields.note("size", 'is missing; give it like "10Gi"')
    size = fields.quantity("size", STORAGE_LEAST, "10Gi")
    class_name = fields.text("storageClassName", _SUBDOMAIN, _SUBDOMAIN_CHARS_MAX, _AN_OBJECT)
    keep_on_delete = fields.flag("keepOnDelete", default=True)
    fields.finish()
    return Storage(size or STORAGE_LEAST, class_name, keep_on_delete)


def _read_resources(fields: Fields) -> Resources:
    found = []
    for name in ("requests", "limits"):
        amounts = fields.nested(name)
        cpu = amounts.quantity("cpu", CPU_LEAST, "500m")
        found.append(Amounts(cpu, amounts.quantity("memory", MEMORY_LEAST, "2Gi")))
        amounts.finish()
    fields.finish()
    return Resources(*found)


def _read_config(fields: Fields) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for key, value in fields.items():
        if not isinstance(key, str):
            fields.note(key, "must be an engine setting's name")
            continue
        try:
            found[key] = vet(key, value)
        except ValueError as error:
            fields.note(key, str(error))
    return tuple(sorted(found.items()))


def _read_failover(fields: Fields) -> FailoverSpec:
    timeout_ms = fields.integer("nodeTimeoutMs", 2000, NODE_TIMEOUT_MIN_MS, NODE_TIMEOUT_MAX_MS)
    fields.finish()
    return FailoverSpec(timeout_ms)


def _read_rebalance(fields: Fields) -> RebalanceSpec:
    mode = fields.choice("mode", RebalanceMode.AUTO)
    most = fields.integer("maxKeysPerSecond", DEFAULT_MAX_KEYS_PER_SECOND, 0, KEYS_PER_SECOND_MAX)
    fields.finish()
    return RebalanceSpec(mode, most)


def _read_gateway(fields: Fields) -> GatewaySpec:
    gateway = GatewaySpec(
        fields.integer("replicas", 1, 0, GATEWAYS_MAX),
        fields.choice("readFrom", ReadFrom.REPLICA),
        fields.choice("durability", Durability.ASYNC),
    )
    fields.finish()
    return gateway


def _read_secret(fields: Fields | None) -> str | None:
    if fields is None:
        return None
    if fields.take("secretName") is None:
        fields.note("secretName", "is missing")
    name = fields.text("secretName", _SUBDOMAIN, _SUBDOMAIN_CHARS_MAX, _AN_OBJECT)
    fields.finish()
    return name


# Fields that people look for one level too high, or under the engine's own name.
_ELSEWHERE_AT_TOP = {
    "name": "metadata.name",
    **{name: f"spec.{name}" for name in Spec().document()["spec"]},
    **{
        name: f"spec.{name}"
        for name in ("retire", "storage", "resources", "config", "auth", "tls", "scheduling")
    },
}
_ELSEWHERE_IN_SPEC = {
    "name": "metadata.name",
    "replicas": "spec.replicasPerShard",
    "weights": "spec.ring.weights",
    "virtualNodes": "spec.ring.virtualNodes",
    "loadBound": "spec.ring.loadBound",
    "nodeTimeoutMs": "spec.failover.nodeTimeoutMs",
    "maxKeysPerSecond": "spec.rebalance.maxKeysPerSecond",
    "durability": "spec.gateway.durability",
    "readFrom": "spec.gateway.readFrom",
    "maxmemory": "spec.config.maxmemory",
}
