"""Files that are made from the source: written, or with `--check` compared with what is there."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from shardcluster.engine_settings import SETTINGS, vet
from shardcluster.spec import parse
from shardcluster.spec_schema import Schema, spec_schema
from shardcluster_operator.crd import resource_definition
from shardcluster_runtime.desired import load_document
from shardcluster_runtime.platforms._server_config import NodeSettings, container_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # of a script, only its own folder is there

from tools.dashboard import dashboard  # noqa: E402 - needs the line above

COMPOSE_SPEC = ROOT / "deploy/compose/shardcluster.yaml"
NOTE = b"# Made by `make generate` from what ShardCluster gives its local nodes; don't edit.\n"


def compose_valkey_conf() -> bytes:
    """The settings of Compose's nodes, for the spec that Compose uses."""
    spec = parse(load_document(COMPOSE_SPEC))
    settings = NodeSettings(
        node_timeout_ms=spec.failover.node_timeout_ms,
        memory_only=spec.memory_only,
        max_memory_bytes=spec.max_memory_bytes,
    )
    return NOTE + container_config(settings)


SPEC_PAGE = """\
# The fields of a ShardCluster

<!-- Made by `make generate` from core/shardcluster/spec_schema.py; don't edit. -->

One document describes a store on every platform: `shardctl up -f FILE`, Docker Compose, Kubernetes.
[A complete example](../deploy/samples/shardcluster.yaml) is in the repository. Every field may be
left out. Unknown fields, wrong types and numbers out of range are refused, all at once, each with
its path and a sentence, and nothing changes; `shardctl plan -f FILE` tells what a document would
change without changing it.

`metadata.name` is the store's name: lower-case letters, digits and `-`, at most 40; `demo` if it
is left out. The fields below stand under `spec`.

{fields}
## Rules between fields

- `gateway.durability: replica` needs `replicasPerShard` of 1 or more; `disk` needs `storage`.
- A request under `resources` may not be more than its limit.
- `config.maxmemory` may not be more than the memory limit.
- `ring.virtualNodes` times the sum of all shards' weights may be 1,000,000.

## On local processes and Docker Compose

`image`, `storage.storageClassName`, `storage.keepOnDelete`, `gateway.replicas`, `auth`, `tls`,
`scheduling` and all of `resources` but the memory limit do nothing there; the controller says so
in an event. `storage.size` is not enforced, but with `storage` the nodes keep their data on disk.

## Engine settings

These may stand under `config`. Numbers of bytes may be written like `100mb`.

| setting | values |
|---|---|
{settings}
"""


def spec_page() -> bytes:
    """docs/spec.md."""
    fields = "\n".join(_field_lines("", spec_schema()))
    settings = "\n".join(f"| `{name}` | {_setting_values(name)} |" for name in SETTINGS)
    return SPEC_PAGE.format(fields=fields, settings=settings).encode()


def _field_lines(path: str, schema: Schema) -> Iterator[str]:
    for name, field in schema["properties"].items():
        inner = f"{path}.{name}" if path else name
        yield f"**`{inner}`** ({_kind(field, needed=name in schema.get('required', ()))}):"
        yield f"{field['description']}\n"
        if "properties" in field:
            yield from _field_lines(inner, field)


def _kind(field: Schema, *, needed: bool) -> str:
    words = [field.get("type", "quantity")]
    if "enum" in field:
        words = ["one of " + ", ".join(field["enum"])]
    elif words == ["object"]:
        words = ["mapping"]
    elif words == ["array"]:
        words = ["list"]
    if "minimum" in field:
        words.append(f"{field['minimum']:,} to {field['maximum']:,}")
    if "default" in field:
        words.append(f"default `{json.dumps(field['default']).strip(chr(34))}`")
    return ", ".join([*words, *(["needed"] if needed else [])])


def _setting_values(name: str) -> str:
    """What its check says to a value that is wrong for every setting."""
    try:
        vet(name, "?")
    except ValueError as error:
        return str(error).rpartition(", not ")[0].removeprefix("must be ")
    message = f"{name} takes anything"
    raise AssertionError(message)


CRD_NOTE = b"""\
# Made by `make generate` from core/shardcluster/spec_schema.py and
# operator/shardcluster_operator/crd.py; don't edit.
"""


class _Plain(yaml.SafeDumper):
    """Writes out what stands at several places, instead of referring to it."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def crd() -> bytes:
    """The resource definition, for kubectl; Helm has a copy of its own."""
    text = yaml.dump(
        resource_definition(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100
    )
    return CRD_NOTE + text.encode()


OPERATOR = ROOT / "deploy/operator.yaml"
RULES_NOTE = b"# Made by `make generate` from deploy/operator.yaml; don't edit.\n"
CLUSTER_WIDE = {"nodes", "customresourcedefinitions"}  # no namespace's Role can speak of them


def chart_rules() -> bytes:
    """The operator's rights, for the chart: those in any namespace, beyond them, in its own."""
    roles = {
        document["kind"]: document["rules"]
        for document in yaml.safe_load_all(OPERATOR.read_text(encoding="utf-8"))
        if "rules" in document
    }
    everywhere = roles["ClusterRole"]
    beyond = [rule for rule in everywhere if CLUSTER_WIDE.issuperset(rule["resources"])]
    rules = {
        "namespaced": [rule for rule in everywhere if rule not in beyond],
        "clusterWide": beyond,
        "ownNamespace": roles["Role"],
    }
    return RULES_NOTE + yaml.dump(rules, Dumper=_Plain, sort_keys=False).encode()


RULES = ROOT / "deploy/prometheus/rules.yaml"
ALERTS_NOTE = b"# Made by `make generate` from deploy/prometheus/rules.yaml; don't edit.\n"


def chart_alerts() -> bytes:
    """The alert rules, for the chart."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    text = yaml.dump(rules, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)
    return ALERTS_NOTE + text.encode()


def prometheus_rule() -> bytes:
    """The same for the Prometheus Operator."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "shardcluster",
            "namespace": "shardcluster-system",
            "labels": {"app.kubernetes.io/name": "shardcluster-operator"},
        },
        "spec": yaml.safe_load(RULES.read_text(encoding="utf-8")),
    }
    text = yaml.dump(manifest, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)
    return ALERTS_NOTE + text.encode()


def grafana_dashboard() -> bytes:
    """The dashboard; JSON has no place for a note."""
    return (json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n").encode()


GENERATED: dict[str, Callable[[], bytes]] = {
    "charts/shardcluster/crds/shardclusters.yaml": crd,
    "charts/shardcluster/files/alerts.yaml": chart_alerts,
    "charts/shardcluster/files/dashboard.json": grafana_dashboard,
    "charts/shardcluster/files/rules.yaml": chart_rules,
    "deploy/compose/valkey.conf": compose_valkey_conf,
    "deploy/crd.yaml": crd,
    "deploy/grafana/shardcluster.json": grafana_dashboard,
    "deploy/prometheus/prometheus-rule.yaml": prometheus_rule,
    "docs/spec.md": spec_page,
}


def main() -> int:
    """Write or compare; 1 when something differs."""
    arguments = argparse.ArgumentParser(description="Make the generated files.")
    arguments.add_argument("--check", action="store_true", help="only say what differs")
    check = arguments.parse_args().check
    differing = []
    for name, make in GENERATED.items():
        path, content = ROOT / name, make()
        if not path.exists() or path.read_bytes() != content:
            differing.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    if check and differing:
        sys.stderr.write(
            f"Not as the source has it: {', '.join(differing)}; run `make generate`.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
