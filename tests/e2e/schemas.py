"""JSON schemas for kubeconform, made from what the API server itself publishes.

kubeconform usually fetches its schemas from the net; here they are those of the very cluster the
tests run on, its own resources included, so nothing is fetched and nothing is out of date.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.kube import kubectl

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LOCATION", "write_schemas"]

LOCATION = "{{.ResourceKind}}{{.KindSuffix}}.json"  # kubeconform's own words for a file's name
_REFERENCE = "#/definitions/"
_ANY = {"type": ["string", "integer", "number"]}
_MACHINERY = "io.k8s.apimachinery.pkg"
_WRITTEN_ALSO_AS_NUMBERS = frozenset(
    {f"{_MACHINERY}.util.intstr.IntOrString", f"{_MACHINERY}.api.resource.Quantity"}
)


def write_schemas(folder: Path) -> None:
    """A file for each kind and version, with all that it refers to; unknown fields are wrong."""
    definitions: dict[str, Any] = json.loads(kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    strict = {
        name: _ANY if name in _WRITTEN_ALSO_AS_NUMBERS else _strict(definition)
        for name, definition in definitions.items()
    }
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            parts = (kind["kind"], kind["group"].split(".")[0], kind["version"])
            file = "-".join(filter(None, parts)).lower() + ".json"
            needed = {used: strict[used] for used in _used(strict, name)}
            schema = {"$ref": f"{_REFERENCE}{name}", "definitions": needed}
            (folder / file).write_text(json.dumps(schema), encoding="utf-8")


def _used(definitions: dict[str, Any], name: str) -> set[str]:
    """The definition itself and all that it refers to, however far."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(definitions[name])
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return [reference.removeprefix(_REFERENCE)]
    return [name for value in schema.values() for name in _references(value)]


def _strict(schema: Any) -> Any:
    """The same, with the fields that are named as the only ones."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _strict(value) for name, value in schema.items()}
    if isinstance(found.get("$ref"), str):
        return {"$ref": found["$ref"]}
    if schema.get("x-kubernetes-int-or-string"):
        return _ANY
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not open_ended:
        found.setdefault("additionalProperties", False)
    return found
