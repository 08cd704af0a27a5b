"""The resource definition, and the operator's rights that go with it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shardcluster.engine_settings import SETTINGS
from shardcluster.quantities import parse_quantity
from shardcluster.spec import parse
from shardcluster_operator.crd import resource_definition
from shardcluster_operator.manifests import Place, objects

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = resource_definition()
(VERSION,) = DEFINITION["spec"]["versions"]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]


def _fields(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from _fields(f"{path}.{name}", field)
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from _fields(f"{path}[]", schema[inner])


FIELDS = dict(_fields("", SCHEMA))


def _at(schema: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The schema of a JSON path like `.spec.shards`."""
    found: dict[str, Any] | None = schema
    for name in path.strip(".").split("."):
        found = (found or {}).get("properties", {}).get(name)
    return found


def test_the_definition_is_structural() -> None:
    """Every field has a type, or is a number or text, or free; no construct that is not allowed."""
    for path, field in FIELDS.items():
        typed = "type" in field or field.get("x-kubernetes-int-or-string")
        assert typed, f"{path} has no type"
        assert not {"$ref", "oneOf", "allOf", "not", "nullable"} & set(field), path
        if field.get("type") == "array":
            assert "items" in field, path
        assert not ("properties" in field and "additionalProperties" in field), path
    assert json.loads(json.dumps(DEFINITION)) == DEFINITION


def test_every_field_of_the_spec_is_described() -> None:
    """`kubectl explain` has words for all of them, and for the status."""
    for path, field in FIELDS.items():
        items = "[]" in path
        top = path.count(".") == 2
        if not items and (path.startswith(".spec") or (path.startswith(".status.") and top)):
            assert len(field.get("description", "")) > 9, path


def test_names_and_paths_of_the_definition_hold_together() -> None:
    """Columns and the scale subresource point at fields that are there."""
    spec = DEFINITION["spec"]
    assert DEFINITION["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert spec["names"]["shortNames"] == ["shc"]
    paths = [column["jsonPath"] for column in VERSION["additionalPrinterColumns"]]
    paths += VERSION["subresources"]["scale"].values()
    for path in paths:
        assert path.startswith(".metadata.") or _at(SCHEMA, path) is not None, path


def test_every_rule_has_a_sentence() -> None:
    """Whoever is refused learns why."""
    rules = [
        rule for field in FIELDS.values() for rule in field.get("x-kubernetes-validations", ())
    ]
    assert len(rules) == 14
    for rule in rules:
        assert rule["message"].endswith("."), rule
        assert rule["rule"].count("(") == rule["rule"].count(")"), rule


def test_the_rule_for_settings_names_them_all() -> None:
    """The list in the rule is the parser's list."""
    (rule,) = FIELDS[".spec.config"]["x-kubernetes-validations"]
    assert re.findall(r"'([^']+)'", rule["rule"]) == list(SETTINGS)


@pytest.mark.parametrize(
    "text",
    [
        "1", "10Gi", "1.5G", ".5", "1e9", "1E+3", "100m", "1k", "5.",
        "-1", "1Gib", "", "Gi", "1K", "1e",
    ],
)  # fmt: skip
def test_quantities_are_the_parsers(text: str) -> None:
    """The pattern accepts what the parser reads."""
    fits = re.search(FIELDS[".spec.storage.size"]["pattern"], text) is not None
    try:
        parse_quantity(text)
        read = True
    except ValueError:
        read = False
    assert fits == read


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("demo", True), ("a", True), ("a-1", True), ("a" * 40, True), ("a" * 41, False),
        ("1a", False), ("a-", False), ("a.b", False), ("A", False),
    ],
)  # fmt: skip
def test_a_name_can_be_a_services(name: str, right: bool) -> None:  # noqa: FBT001
    """The rule's pattern is narrower than the parser's by the first letter only."""
    rule = SCHEMA["x-kubernetes-validations"][0]["rule"]
    found = re.search(r"matches\('(.*)'\)", rule)
    assert found is not None
    assert bool(re.search(found[1], name)) == right


# -- the operator's own files ---------------------------------------------------------------


def _operator_documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy/operator.yaml").read_text("utf-8")))


def _rules(kind: str) -> list[dict[str, Any]]:
    (found,) = (item for item in _operator_documents() if item["kind"] == kind)
    rules: list[dict[str, Any]] = found["rules"]
    return rules


def _allowed(group: str, resource: str) -> set[str]:
    return {
        verb
        for rule in _rules("ClusterRole")
        if group in rule["apiGroups"] and resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_may_make_what_it_makes() -> None:
    """Each kind of object can be applied; a Secret is made once and never changed."""
    place = Place("shop", "uid", "image", "system")
    kinds = {(item["apiVersion"], item["kind"]) for item in objects(parse({}), place)}
    kinds |= {("apps/v1", "StatefulSet")}
    for version, kind in kinds:
        group = version.rpartition("/")[0]
        plural = kind.lower() + "s" if kind != "NetworkPolicy" else "networkpolicies"
        assert {"list", "watch", "create", "patch"} <= _allowed(group, plural), kind
    assert _allowed("", "secrets") == {"get", "create"}


def test_the_operator_has_what_it_grants() -> None:
    """Kubernetes lets nobody grant a right that he lacks; no right is for everything."""
    place = Place("shop", "uid", "image", "system")
    (role,) = (item for item in objects(parse({}), place) if item["kind"] == "Role")
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert set(rule["verbs"]) <= _allowed(group, resource)
    for kind in ("ClusterRole", "Role"):
        for rule in _rules(kind):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    assert "list" not in _allowed("", "secrets")


def test_versions_agree() -> None:
    """The images in the manifest and the chart have the project's version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (deployment,) = (item for item in _operator_documents() if item["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    images = [container["image"]]
    images += [item["value"] for item in container["env"] if item["name"] == "GATEWAY_IMAGE"]
    assert [image.rpartition(":")[2] for image in images] == [project["version"]] * 2
    chart = yaml.safe_load((ROOT / "charts/shardcluster/Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (project["version"],) * 2
