"""What /metrics tells, of a store as a user starts it, and everything that is made of it.

Dashboard, alert rules and docs/metrics.md are held against scrapes of a real gateway and a real
controller after real traffic, a move of slots and the death of a master.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shardcluster.actions import Decision, MoveSlots, Reason
from shardcluster_api.metrics import Metrics
from shardcluster_operator.handlers import Operator, Settings
from shardcluster_operator.metrics import OperatorMetrics
from shardcluster_runtime import kube
from shardcluster_runtime.cli.client import read_whereabouts
from shardcluster_runtime.metrics import LoopCounts, StoreView, exposition
from tests.bench.local_store import local_store
from tests.cluster.ports import free_block
from tests.cluster.promql import WrongQuery, labels_of
from tests.cluster.stores import document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from tests.bench.local_store import LocalStore

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
POLL_S = 0.05
KEYS = 400
# What Prometheus itself adds to each series, and what docs/metrics.md asks of the scrapes.
OF_TARGET = frozenset({"instance", "job"})
OF_STORE = frozenset({"namespace", "cluster"})


class Family(NamedTuple):
    """A metric as scraped: how it is described, and the labels of its series, if it has any."""

    kind: str
    about: str
    labels: frozenset[str] | None


class Scrapes(NamedTuple):
    """What each process told."""

    gateway: dict[str, Family]
    controller: dict[str, Family]
    operator: dict[str, Family]

    def exposed(self) -> dict[str, frozenset[str]]:
        """The name of every sample, and the labels that Prometheus stores it with."""
        found: dict[str, frozenset[str]] = {}
        for families in self:
            for name, family in families.items():
                labels = (family.labels or frozenset()) | OF_TARGET
                if families is self.gateway:
                    labels |= OF_STORE
                for sample, more in _samples(name, family.kind):
                    # `process_…` is told by all; it has what it has everywhere.
                    found[sample] = (labels | more) & found.get(sample, labels | more)
        return found


def _samples(name: str, kind: str) -> list[tuple[str, frozenset[str]]]:
    if kind == "counter":
        return [(f"{name}_total", frozenset())]
    if kind == "histogram":
        plain = [(f"{name}_{part}", frozenset[str]()) for part in ("sum", "count")]
        return [*plain, (f"{name}_bucket", frozenset({"le"}))]
    return [(name, frozenset())]


def _families(text: str, rare: str = "") -> dict[str, Family]:
    """Those of a scrape; the labels of series that it has none of are taken from `rare`."""
    found = {family.name: _family(family) for family in text_string_to_metric_families(rare)}
    for family in text_string_to_metric_families(text):
        if family.samples or family.name not in found:
            found[family.name] = _family(family)
    return found


def _family(family: Metric) -> Family:
    labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
    assert len(labels) < 2, f"{family.name} has series with different labels"
    return Family(family.type, family.documentation, next(iter(labels), None))


# -- a store that lives through something ---------------------------------------------------


@pytest.fixture(scope="module")
def scrapes() -> Iterator[Scrapes]:
    """After traffic, an added shard with redirects, and the end of a master."""
    with local_store(document(shards=2, replicas=1), free_block()) as store:
        control = read_whereabouts(store.folder).control_url
        _traffic(store)
        assert store.ask("POST", "/add_node", b"{}")[0] == 202
        _until(lambda: _gateway_count(store, "redirects_total", kind="MOVED"), store)
        store.calm(3)
        victim = store.state()["shards"][0]["master"]
        killed = httpx.post(f"{control}/kill", json={"node": victim, "signal": "KILL"})
        assert killed.status_code == 202
        _until(
            lambda: "shardcluster_failovers_total{" in httpx.get(f"{control}/metrics").text, store
        )
        _until(lambda: _gateway_count(store, "slots_served") == 16384, store)
        yield Scrapes(
            _families(store.ask("GET", "/metrics")[1].decode(), _rare_of_a_gateway()),
            _families(httpx.get(f"{control}/metrics").text, _rare_of_a_controller()),
            _operator(),
        )


def _traffic(store: LocalStore) -> None:
    for number in range(KEYS):
        store.ask("PUT", f"/v1/keys/key-{number}", b"v")
        store.ask("GET", f"/v1/keys/key-{number}")
    store.ask("PUT", "/v1/keys/", b"v")  # an error: a key has at least one byte


def _gateway_count(store: LocalStore, name: str, **labels: str) -> float:
    text = store.ask("GET", "/metrics")[1].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"shardcluster_gateway_{name}" and labels.items() <= sample.labels.items()
    )


def _until(holds: Any, store: LocalStore) -> None:
    """Go on with traffic until it holds."""
    ends_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < ends_s, store.state()["message"]
        _traffic(store)
        time.sleep(POLL_S)


def _rare_of_a_gateway() -> str:
    """What may not have happened, counted by the gateway's own code."""
    metrics = Metrics()
    metrics.nodes_known = lambda: frozenset({"shard-0-0"})
    metrics.retried("TRYAGAIN")
    metrics.node_error("shard-0-0", "LOADING")
    return metrics.expose().decode()


def _rare_of_a_controller() -> str:
    counts = LoopCounts()
    counts.failed(Decision(MoveSlots((), 0), Reason.REBALANCING, "Moving."))
    return exposition(lambda: [StoreView("", "demo", counts, None)], "controller").decode()


def _operator() -> dict[str, Family]:
    """What an operator alone tells; of stores it tells what a controller does."""
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry)
    metrics.operator = Operator(Settings("image", "system"))
    registry.register(kube._REQUESTS)
    kube._REQUESTS.labels("get", "pods").inc()
    found = _families(generate_latest(registry).decode())
    own = ("shardcluster_operator_", "shardcluster_kube_requests")
    return {name: family for name, family in found.items() if name.startswith(own)}


# -- what is made of it ---------------------------------------------------------------------


def _rules(name: str = "rules.yaml") -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_asks_for_what_is_there(scrapes: Scrapes) -> None:
    """Metrics, labels in the query, and labels in the sentences."""
    exposed = scrapes.exposed()
    for rule in _rules():
        labels = labels_of(rule["expr"], exposed)
        for text in rule["annotations"].values():
            said = set(re.findall(r"\$labels\.(\w+)", text))
            assert said <= labels, f"{rule['alert']} says {said - labels}"


def test_every_panel_asks_for_what_is_there(scrapes: Scrapes) -> None:
    """Metrics, labels in the queries, and labels in the legends."""
    exposed = scrapes.exposed()
    dashboard = json.loads((ROOT / "deploy/grafana/shardcluster.json").read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in panels:
        for target in panel["targets"]:
            labels = labels_of(target["expr"].replace("$__rate_interval", "5m"), exposed)
            said = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert said <= labels, f"{panel['title']} says {said - labels}"
    assert len(panels) > 30


def test_a_query_for_what_is_not_there_is_found(scrapes: Scrapes) -> None:
    """The check itself: a name, a matcher, a label of an aggregation and one of a join."""
    exposed = scrapes.exposed()
    for wrong in (
        "shardcluster_gateway_request_total",
        'shardcluster_gateway_requests_total{status="200"}',
        "sum by (shard) (shardcluster_gateway_requests_total)",
        "shardcluster_gateway_ready and on (node) shardcluster_gateway_in_flight",
        "histogram_quantile(0.9, sum by (node) (shardcluster_gateway_node_up))",
    ):
        with pytest.raises(WrongQuery):
            labels_of(wrong, exposed)


def test_every_alert_says_what_to_do() -> None:
    """A severity, two sentences, and a section of docs/metrics.md that is there."""
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    sections = {line[4:].strip() for line in page.splitlines() if line.startswith("### ")}
    names = [rule["alert"] for rule in _rules()]
    assert len(set(names)) == len(names)
    for rule in _rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}
        assert notes["description"].endswith(".")
        assert notes["runbook"] == f"docs/metrics.md#{rule['alert'].lower()}"
    assert sections >= set(names)


def test_metrics_are_named_as_prometheus_wants(scrapes: Scrapes) -> None:
    """A prefix that is ours, base units, and a description that ends."""
    for families in scrapes:
        for name, family in families.items():
            if name.startswith(("process_", "python_")):
                continue
            assert name.startswith("shardcluster_")
            assert not name.endswith(("_ms", "_milliseconds", "_kilobytes", "_percent", "_total"))
            assert family.about.endswith("."), name
            assert family.kind in {"counter", "gauge", "histogram"}


def test_the_page_lists_every_metric(scrapes: Scrapes) -> None:
    """With its kind, its labels and its description, and none besides."""
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    listed = {line for line in page.splitlines() if line.startswith("| `shardcluster_")}
    told = {
        _line(name, family)
        for families in scrapes
        for name, family in families.items()
        if name.startswith("shardcluster_")
    }
    assert listed == told


def _line(name: str, family: Family) -> str:
    full = f"{name}_total" if family.kind == "counter" else name
    labels = ", ".join(f"`{label}`" for label in sorted(family.labels or ()))
    return f"| `{full}` | {family.kind} | {labels} | {family.about} |"
