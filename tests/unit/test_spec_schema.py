"""The schema and the parser say the same: names, defaults, limits, patterns."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster.engine_settings import SETTINGS
from shardcluster.names import SHARD_NUMBER_MAX
from shardcluster.spec import SpecError, parse
from shardcluster.spec_limits import CONFIG_MAX
from shardcluster.spec_schema import Schema, spec_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

# What else a field needs to be right by itself.
BESIDE: dict[str, dict[str, Any]] = {"storage.": {"size": "1Gi"}}
SAMPLES: dict[str, Any] = {
    "image": "valkey/valkey:9", "retire": ["shard-9"], "config": {"hz": "10"},
    "ring.weights": {"shard-0": 0.5}, "storage.storageClassName": "fast",
    "auth.secretName": "password", "gateway.tokensSecretName": "tokens",
    "gateway.tlsSecretName": "web", "tls.secretName": "certificate",
    "scheduling": {"nodeSelector": {"disk": "ssd"}},
}  # fmt: skip


def _leaves(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    for name, field in schema["properties"].items():
        inner = f"{path}.{name}" if path else name
        if "properties" in field:
            yield from _leaves(inner, field)
        else:
            yield inner, field


LEAVES = dict(_leaves("", spec_schema()))


def _document(path: str, value: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    for prefix, more in BESIDE.items():
        if path.startswith(prefix):
            spec[prefix.rstrip(".")] = dict(more)
    *outer, name = path.split(".")
    place = spec
    for step in outer:
        place = place.setdefault(step, {})
    place[name] = value
    return {"spec": spec}


def _at(document: dict[str, Any], path: str) -> Any:
    value: Any = document["spec"]
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _sample(path: str, field: Schema) -> Any:
    if path in SAMPLES:
        return SAMPLES[path]
    if "enum" in field:
        return field["enum"][0]  # the last durability needs storage
    if "maximum" in field:
        return field["maximum"]
    return True if field.get("type") == "boolean" else "1Gi"


@pytest.mark.parametrize("path", LEAVES)
def test_every_described_field_is_read(path: str) -> None:
    """A document with just that field gives it back."""
    value = _sample(path, LEAVES[path])
    assert _at(parse(_document(path, value)).document(), path) == value


def test_every_field_that_is_read_is_described() -> None:
    """No leaf of a document with everything in it is missing from the schema."""
    everything: dict[str, Any] = {}
    for path, field in LEAVES.items():
        for name, value in _document(path, _sample(path, field))["spec"].items():
            kept = everything.setdefault(name, value)
            if isinstance(kept, dict) and isinstance(value, dict):
                _merge(kept, value)
    written = parse({"spec": everything}).document()["spec"]

    def check(path: str, value: Any) -> None:
        if path in LEAVES:
            return
        assert isinstance(value, dict), path
        for name, inner in value.items():
            check(f"{path}.{name}" if path else name, inner)

    check("", written)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and name in into:
            _merge(into[name], value)
        else:
            into[name] = value


@pytest.mark.parametrize("path", [path for path, field in LEAVES.items() if "default" in field])
def test_defaults_are_the_parsers(path: str) -> None:
    """What the schema fills in is what the parser would have."""
    beside = next((more for prefix, more in BESIDE.items() if path.startswith(prefix)), None)
    spec = {path.partition(".")[0]: beside} if beside else {}
    assert _at(parse({"spec": spec}).document(), path) == LEAVES[path]["default"]


@pytest.mark.parametrize("path", [path for path, field in LEAVES.items() if "maximum" in field])
def test_ranges_are_the_parsers(path: str) -> None:
    """Both ends are accepted, and what is beyond them is not."""
    low, high = LEAVES[path]["minimum"], LEAVES[path]["maximum"]
    for value in (low, high):
        parse(_document(path, value))
    for value in (low - 1, high + 1):
        with pytest.raises(SpecError):
            parse(_document(path, value))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("image", "a/b:c@d"), ("image", "-x"), ("image", ""), ("image", "x y"),
        ("storage.storageClassName", "a.b"), ("storage.storageClassName", "A"),
        ("auth.secretName", "a" * 253), ("auth.secretName", "a-"),
    ],
)  # fmt: skip
def test_patterns_are_the_parsers(path: str, text: str) -> None:
    """The schema accepts a text exactly when the parser does."""
    field = LEAVES[path]
    fits = bool(re.search(field["pattern"], text)) and len(text) <= field["maxLength"]
    try:
        parse(_document(path, text))
        read = True
    except SpecError:
        read = False
    assert fits == read


@pytest.mark.parametrize(
    "name", ["shard-0", f"shard-{SHARD_NUMBER_MAX}", "shard-01", "shard-100000"]
)
def test_names_of_shards_are_the_parsers(name: str) -> None:
    """Likewise for the items of `retire`."""
    fits = bool(re.search(LEAVES["retire"]["items"]["pattern"], name))
    try:
        parse({"spec": {"retire": [name]}})
        assert fits
    except SpecError:
        assert not fits


def test_a_schema_is_json_and_describes_all() -> None:
    """Every field has words; every bound on settings leaves room for all of them."""
    schema = spec_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert all(len(field["description"]) > 10 for field in LEAVES.values())
    assert len(SETTINGS) <= CONFIG_MAX
