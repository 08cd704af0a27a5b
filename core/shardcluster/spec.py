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

import re

from shardcluster.engine_settings import vet
from shardcluster.names import shard_number
from shardcluster.quantities import parse_quantity
from shardcluster.spec_fields import Fields, Problems, SpecError, shown
from shardcluster.spec_limits import (
    CPU_LEAST,
    GATEWAYS_MAX,
    IMAGE,
    IMAGE_CHARS_MAX,
    KEYS_PER_SECOND_MAX,
    LOAD_BOUND_MAX,
    MEMORY_LEAST,
    NAME,
    NAME_CHARS_MAX,
    NODE_TIMEOUT_MAX_MS,
    NODE_TIMEOUT_MIN_MS,
    REPLICAS_MAX,
    RETIRED_MAX,
    RING_POINTS_MAX,
    SHARDS_MAX,
    STORAGE_LEAST,
    SUBDOMAIN,
    SUBDOMAIN_CHARS_MAX,
    VIRTUAL_NODES_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
)
from shardcluster.spec_model import (
    API_VERSION,
    DEFAULT_IMAGE,
    DEFAULT_MAX_KEYS_PER_SECOND,
    DEFAULT_NAME,
    KIND,
    Amounts,
    Durability,
    FailoverSpec,
    GatewaySpec,
    ReadFrom,
    RebalanceMode,
    RebalanceSpec,
    Resources,
    RingSpec,
    Spec,
    Storage,
)  # fmt: skip

__all__ = [
    "API_VERSION", "DEFAULT_IMAGE", "DEFAULT_MAX_KEYS_PER_SECOND", "DEFAULT_NAME", "KIND",
    "Amounts", "Durability",
    "FailoverSpec", "GatewaySpec", "ReadFrom", "RebalanceMode", "RebalanceSpec", "Resources",
    "RingSpec", "Spec", "SpecError", "Storage", "cross_field_problems", "ignored_on_local",
    "parse",
]  # fmt: skip

_NAME, _SUBDOMAIN, _IMAGE = (re.compile(text) for text in (NAME, SUBDOMAIN, IMAGE))
_A_NAME = "lower-case letters, digits and '-' (at most 40, no '-' at the ends)"
_AN_OBJECT = "the name of a Kubernetes object"

# Fields that people look for one level too high, or beside their place.
_ELSEWHERE_AT_TOP = {
    "name": "metadata.name",
    **{
        name: f"spec.{name}"
        for name in (
            "shards", "replicasPerShard", "image", "ring", "retire", "storage", "resources",
            "config", "failover", "rebalance", "gateway", "auth", "tls", "scheduling", "paused",
        )
    },
}  # fmt: skip
_ELSEWHERE_IN_SPEC = {
    "name": "metadata.name",
    "weights": "spec.ring.weights",
    "virtualNodes": "spec.ring.virtualNodes",
    "loadBound": "spec.ring.loadBound",
    "nodeTimeoutMs": "spec.failover.nodeTimeoutMs",
    "maxKeysPerSecond": "spec.rebalance.maxKeysPerSecond",
    "durability": "spec.gateway.durability",
    "readFrom": "spec.gateway.readFrom",
    "maxmemory": "spec.config.maxmemory",
}


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
    name = top.nested("metadata").text("name", _NAME, NAME_CHARS_MAX, _A_NAME)
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
        text = "replica needs spec.replicasPerShard of 1 or more"
        found.append(("spec.gateway.durability", text))
    if spec.gateway.durability is Durability.DISK and spec.memory_only:
        found.append(("spec.gateway.durability", "disk needs spec.storage"))
    if len(spec.retire) > RETIRED_MAX:
        found.append(("spec.retire", f"has over {RETIRED_MAX} names"))
    points = sum(spec.ring.virtual_nodes * spec.weight(shard) for shard in spec.wanted_shards())
    if points > RING_POINTS_MAX:
        found.append(
            (
                "spec.ring.virtualNodes",
                f"times the weights of all shards is {points:.0f}, and may be {RING_POINTS_MAX}",
            )
        )
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
        (
            spec.gateway.tokens_secret_name is not None, "gateway.tokensSecretName",
            "the environment's SHARDCLUSTER_TOKENS_FILE names the tokens",
        ),
        (
            spec.gateway.tls_secret_name is not None, "gateway.tlsSecretName",
            "the environment's SHARDCLUSTER_HTTPS_CERT and SHARDCLUSTER_HTTPS_KEY name the files",
        ),
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
        image=fields.text("image", _IMAGE, IMAGE_CHARS_MAX, image_text) or DEFAULT_IMAGE,
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
    for key, _ in weights.entries():
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
    class_name = fields.text("storageClassName", _SUBDOMAIN, SUBDOMAIN_CHARS_MAX, _AN_OBJECT)
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
    for key, value in fields.entries():
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
        fields.text("tokensSecretName", _SUBDOMAIN, SUBDOMAIN_CHARS_MAX, _AN_OBJECT),
        fields.text("tlsSecretName", _SUBDOMAIN, SUBDOMAIN_CHARS_MAX, _AN_OBJECT),
    )
    fields.finish()
    return gateway


def _read_secret(fields: Fields | None) -> str | None:
    if fields is None:
        return None
    if fields.take("secretName") is None:
        fields.note("secretName", "is missing")
    name = fields.text("secretName", _SUBDOMAIN, SUBDOMAIN_CHARS_MAX, _AN_OBJECT)
    fields.finish()
    return name
