"""The resource definition of ShardCluster, made from `shardcluster.spec_schema`.

Law: what the API server refuses here, `shardcluster.spec.parse` refuses too, except for what only
Kubernetes needs (a name that can be a Service's, storage that can't be changed later).  The rules
are CEL expressions with a sentence each, so that a wrong resource is refused at `kubectl apply`
and says why.  The API server estimates their cost before they ever run: a rule may only look at
what has a bound.

Ranges of engine settings, and sums over shards, are left to the parser, whose words stand in the
status then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardcluster.engine_settings import SETTINGS
from shardcluster.spec import API_VERSION, KIND
from shardcluster.spec_limits import SHARD_NAME
from shardcluster.spec_schema import spec_schema

if TYPE_CHECKING:
    from shardcluster.spec_schema import Schema

__all__ = ["PLURAL", "resource_definition"]

PLURAL = "shardclusters"
GROUP, _, VERSION = API_VERSION.partition("/")

# As `shardcluster.quantities` reads them; integers of YAML are no strings and pass by themselves.
_QUANTITY = (
    r"^(?:[0-9]{1,19}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})"
    r"(?:[eE][+-]?[0-9]{1,2}|[KMGTPE]i|[numkMGTPE])?$"
)
# Services are made with the name, and must begin with a letter.
_NAME = "^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "format": "int64"}
_FREE: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def resource_definition() -> dict[str, Any]:
    """The whole CustomResourceDefinition, as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["shc"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.shards",
                            "statusReplicasPath": ".status.readyShards",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _columns() -> list[dict[str, Any]]:
    def column(name: str, path: str, kind: str = "string", **more: Any) -> dict[str, Any]:
        return {"name": name, "type": kind, "jsonPath": path, **more}

    return [
        column("Shards", ".spec.shards", "integer"),
        column("Ready", ".status.readyShards", "integer"),
        column("Phase", ".status.phase"),
        column("Moving", ".status.progress"),
        column("Status", ".status.message", priority=1),
        column("Age", ".metadata.creationTimestamp", "date"),
    ]


def _rule(expression: str, message: str, **more: str) -> dict[str, str]:
    return {"rule": expression, "message": message, **more}


def _root() -> Schema:
    return {
        "type": "object",
        "description": "A key-value store of Valkey shards that grows, moves its data by itself and"
        " replaces failed masters.",
        "properties": {
            "apiVersion": _TEXT,
            "kind": _TEXT,
            "metadata": {"type": "object"},
            "spec": _spec(),
            "status": _status(),
        },
        "x-kubernetes-validations": [
            _rule(
                f"self.metadata.name.matches('{_NAME}')",
                "The name must be at most 40 lower-case letters, digits and '-', with a letter"
                " first and no '-' at the end: Services are named after it.",
            ),
            _rule(
                "!self.metadata.name.endsWith('-nodes')"
                " && !self.metadata.name.endsWith('-gateway')",
                "The name may not end with -nodes or -gateway: another ShardCluster's Services are"
                " named so.",
            ),
        ],
    }


def _spec() -> Schema:
    """The fields as everywhere, with what Kubernetes can check beyond each field."""
    spec = _with_quantity_patterns(spec_schema())
    fields = spec["properties"]
    spec["default"] = {}  # a document without a spec is one of defaults only
    spec["x-kubernetes-validations"] = [
        _rule(
            "!has(self.gateway) || self.gateway.durability != 'replica'"
            " || self.replicasPerShard >= 1",
            "gateway.durability replica needs replicasPerShard of 1 or more.",
        ),
        _rule(
            "!has(self.gateway) || self.gateway.durability != 'disk' || has(self.storage)",
            "gateway.durability disk needs storage.",
        ),
        # A field that is read and not obeyed would be worse than none.
        _rule("!has(self.tls)", "TLS is not to be had on Kubernetes yet: leave tls out."),
        _rule(
            "has(self.storage) == has(oldSelf.storage)",
            "storage can't be added or removed later: make a new ShardCluster and copy the data.",
        ),
    ]
    _check_fractions(fields["ring"]["properties"])
    fields["storage"]["x-kubernetes-validations"] = _storage_rules()
    fields["resources"]["x-kubernetes-validations"] = [
        _not_more_than_the_limit(name) for name in ("cpu", "memory")
    ]
    names = ", ".join(f"'{name}'" for name in SETTINGS)
    fields["config"]["x-kubernetes-validations"] = [
        _rule(
            f"self.all(name, name in [{names}])",
            "config has a setting that can't be set here; docs/spec.md lists those that can.",
        )
    ]
    return spec


def _check_fractions(ring: dict[str, Schema]) -> None:
    """Bounds of numbers with a fraction as rules.

    Kubernetes checks a whole number against `minimum` and `maximum` cut to whole numbers themselves
    (kube-openapi's `IsValueValidAgainstRange`): 0 would pass a minimum of 0.1.
    """
    bound, weights = ring["loadBound"], ring["weights"]
    weight = weights["additionalProperties"]
    low, high = bound.pop("minimum"), bound.pop("maximum")
    bound["x-kubernetes-validations"] = [
        _rule(
            f"self >= {float(low)} && self <= {float(high)}",
            f"ring.loadBound must be from {low} to {high}.",
        )
    ]
    low, high = weight.pop("minimum"), weight.pop("maximum")
    weights["x-kubernetes-validations"] = [
        _rule(
            f"self.all(name, name.matches('^{SHARD_NAME}$'))",
            "ring.weights has a name that no shard can have; theirs are shard-0, shard-1, ….",
        ),
        _rule(
            f"self.all(name, self[name] >= {float(low)} && self[name] <= {float(high)})",
            f"ring.weights must be from {low} to {high:g}.",
        ),
    ]


def _storage_rules() -> list[dict[str, str]]:
    return [
        _rule(
            "quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
            "storage.size can grow, but it can't shrink.",
        ),
        _rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName) &&"
            " (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "storage.storageClassName can't be changed: make a new ShardCluster and copy the data.",
        ),
    ]


def _not_more_than_the_limit(name: str) -> dict[str, str]:
    return _rule(
        f"!has(self.requests) || !has(self.limits) || !has(self.requests.{name})"
        f" || !has(self.limits.{name}) || quantity(string(self.requests.{name}))"
        f".compareTo(quantity(string(self.limits.{name}))) <= 0",
        f"resources.requests.{name} may not be more than resources.limits.{name}.",
    )


def _with_quantity_patterns(schema: Schema) -> Schema:
    """Amounts say how they are written; engine settings, which are no amounts, are left alone."""
    for field in schema.get("properties", {}).values():
        if "x-kubernetes-int-or-string" in field:
            field["pattern"] = _QUANTITY
        _with_quantity_patterns(field)
    return schema


def _listed(description: str, *, key: str, **properties: Schema) -> Schema:
    """A list of objects with these fields and whatever else there is to say."""
    return {
        "type": "array",
        "description": description,
        "items": {**_FREE, "properties": properties, "required": [key]},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }


def _status() -> Schema:
    return {
        "type": "object",
        "description": "How the store is; written by the operator.",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "observedGeneration": {
                **_COUNT, "description": "The generation of the spec that this status is about.",
            },
            "phase": {**_TEXT, "description": "What the store as a whole is doing, in one word."},
            "reason": {**_TEXT, "description": "Why, in one word that never changes its meaning."},
            "message": {**_TEXT, "description": "The same in one sentence."},
            "readyShards": {**_COUNT, "description": "How many shards serve their slots."},
            "selector": {**_TEXT, "description": "Selects the nodes' pods, for autoscalers."},
            "progress": {**_TEXT, "description": "How far moving slots is; empty at rest."},
            "conditions": _conditions(),
            "shards": _listed(
                "Each shard, with its slots, its master and its replicas.",
                key="name", name=_TEXT, state=_TEXT, slots=_COUNT, keys=_COUNT,
                movingOut={"type": "array", "items": _FREE},
            ),
            "nodes": _listed(
                "Each node, with its role and how it is.",
                key="name", name=_TEXT, shard=_TEXT, role=_TEXT, health=_TEXT,
            ),
            "notes": {
                "type": "array", "items": _TEXT, "description": "What people should know besides.",
            },
            "events": {"type": "array", "items": _FREE, "description": "What happened lately."},
            "formed": {
                "type": "boolean",
                "description": "Whether the store had its slots once: it is never formed anew.",
            },
            "rebalanceDone": {
                **_TEXT, "description": "The last rebalance asked for that is done.",
            },
        },
    }  # fmt: skip


def _conditions() -> Schema:
    condition = {
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {**_TEXT, "maxLength": 316},
            "status": {**_TEXT, "enum": ["True", "False", "Unknown"]},
            "observedGeneration": {**_COUNT, "minimum": 0},
            "lastTransitionTime": {**_TEXT, "format": "date-time"},
            "reason": {**_TEXT, "minLength": 1, "maxLength": 1024},
            "message": {**_TEXT, "maxLength": 32768},
        },
    }
    return {
        "type": "array",
        "description": "What holds and what doesn't, each since when and why.",
        "items": condition,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
