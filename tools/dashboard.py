"""The Grafana dashboard, as plain data: rows of panels, each a title, a unit and its queries.

Law: every query names `namespace` and `cluster` by the dashboard's variables, so that one dashboard
serves all stores; tests hold every name and label against real scrapes.  Panels stand in a grid of
24 columns; a row's panels share it evenly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PANELS", "dashboard"]

Json = dict[str, Any]

COLUMNS = 24
GRAPH_HEIGHT, STAT_HEIGHT = 8, 4
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF_STORE = 'namespace=~"$namespace", cluster=~"$cluster"'
KEYS = 'operation!~"healthz|readyz|metrics|openapi|page|status"'  # what clients of a store ask for
GATEWAY = "shardcluster_gateway_"
NOTHING_YET = "or vector(0)"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; a query is PromQL and the legend of its lines."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    good_from: float | None = None  # of a stat: red below


def _rate(name: str, by: str = "", where: str = "") -> str:
    labels = f"{OF_STORE}, {where}" if where else OF_STORE
    return f"sum by ({by}) (rate({name}{{{labels}}}[$__rate_interval]))"


def _quantile(share: float, name: str, by: str = "", where: str = "") -> str:
    inner = _rate(f"{name}_bucket", f"{by}, le" if by else "le", where)
    return f"histogram_quantile({share}, {inner})"


def _stat(
    title: str, query: str, unit: str = "short", good_from: float | None = None, about: str = ""
) -> Panel:
    return Panel(title, ((query, ""),), unit, about, "stat", good_from)


REQUESTS = f"{GATEWAY}requests_total"
FAILED = f'code=~"5..", {KEYS}'
DURATION = f"{GATEWAY}request_duration_seconds"
ROUND_TRIP = f"{GATEWAY}node_round_trip_seconds"

PANELS: dict[str, tuple[tuple[Panel, ...], ...]] = {
    "Overview": (
        (
            _stat(
                "Slots served", f"min(shardcluster_cluster_slots_served{{{OF_STORE}}})",
                good_from=16384, about="Of 16384, as the controller sees it; the worst store.",
            ),
            _stat(
                "Healthy", f"min(shardcluster_cluster_healthy{{{OF_STORE}}})", good_from=1,
                about="0 while a store is degraded.",
            ),
            _stat("Gateways ready", f"sum({GATEWAY}ready{{{OF_STORE}}})", good_from=1),
            _stat("Shards", f"count(shardcluster_shard_slots{{{OF_STORE}}} > 0)", good_from=1),
            _stat("Keys", f"sum(shardcluster_shard_keys{{{OF_STORE}}})"),
            _stat("Requests", _rate(REQUESTS, where=KEYS), "reqps"),
        ),
        (
            Panel(
                "Phase of each store",
                ((f"shardcluster_cluster_phase{{{OF_STORE}}} == 1", "{{cluster}}: {{phase}}"),),
                kind="timeseries",
            ),
            Panel(
                "Slots of each shard",
                ((f"shardcluster_shard_slots{{{OF_STORE}}}", "{{cluster}} {{shard}}"),),
            ),
        ),
    ),
    "Requests": (
        (
            Panel(
                "Requests by operation",
                ((_rate(REQUESTS, "operation"), "{{operation}}"),), "reqps",
            ),
            Panel(
                "Requests by status",
                ((_rate(REQUESTS, "code", KEYS), "{{code}}"),), "reqps",
            ),
            Panel(
                "Share of 5xx",
                (
                    (
                        (f"({_rate(REQUESTS, where=FAILED)} {NOTHING_YET}) "
                        f"/ {_rate(REQUESTS, where=KEYS)}"),
                        "5xx",
                    ),
                ),
                "percentunit",
            ),
        ),
        (
            Panel(
                "Errors by code",
                ((_rate(f"{GATEWAY}errors_total", "error"), "{{error}}"),), "reqps",
                "TooBusy, TooLarge and RequestTimeout are refusals by a limit.",
            ),
            Panel(
                "Redirects and retries",
                (
                    (_rate(f"{GATEWAY}redirects_total", "kind"), "{{kind}}"),
                    (_rate(f"{GATEWAY}retries_total", "reason"), "again: {{reason}}"),
                    (_rate(f"{GATEWAY}hedged_reads_total"), "hedged reads"),
                ),
                "reqps",
            ),
            Panel(
                "Unknown outcomes",
                ((_rate(f"{GATEWAY}unknown_outcomes_total"), "writes"),), "reqps",
                "Writes that were sent and got no answer.",
            ),
        ),
        (
            Panel(
                "Operations under way",
                (
                    (f"{GATEWAY}in_flight{{{OF_STORE}}}", "{{instance}}"),
                    (f"min({GATEWAY}in_flight_limit{{{OF_STORE}}})", "limit of one gateway"),
                ),
            ),
            Panel(
                "Bodies held", ((f"{GATEWAY}buffered_bytes{{{OF_STORE}}}", "{{instance}}"),),
                "bytes",
            ),
            Panel(
                "Client connections",
                ((f"{GATEWAY}connections{{{OF_STORE}}}", "{{instance}}"),),
            ),
        ),
    ),
    "Latency": (
        (
            Panel(
                "Latency of all operations on keys",
                tuple(
                    (_quantile(share, DURATION, where=KEYS), f"p{share * 100:g}")
                    for share in (0.5, 0.9, 0.99, 0.999)
                ),
                "s",
            ),
            Panel(
                "p99 by operation",
                ((_quantile(0.99, DURATION, "operation"), "{{operation}}"),), "s",
            ),
            Panel(
                "Mean by operation",
                (
                    (
                        (f"{_rate(DURATION + '_sum', 'operation')}"
                        f" / {_rate(DURATION + '_count', 'operation')}"),
                        "{{operation}}",
                    ),
                ),
                "s",
            ),
        ),
    ),
    "Nodes": (
        (
            Panel(
                "p99 of round trips to each node",
                ((_quantile(0.99, ROUND_TRIP, "cluster, node"), "{{cluster}} {{node}}"),), "s",
                "As the gateways see it; a sample of all commands.",
            ),
            Panel(
                "Replies awaited",
                (
                    (
                        f"sum by (cluster, node) ({GATEWAY}node_queue{{{OF_STORE}}})",
                        "{{cluster}} {{node}}",
                    ),
                ),
            ),
            Panel(
                "Errors of nodes",
                (
                    (
                        _rate(f"{GATEWAY}node_errors_total", "cluster, node, kind"),
                        "{{cluster}} {{node}} {{kind}}",
                    ),
                ),
                "ops",
            ),
        ),
        (
            Panel(
                "Commands a second",
                (
                    (
                        f"shardcluster_node_operations_per_second{{{OF_STORE}}}",
                        "{{cluster}} {{node}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Memory",
                ((f"shardcluster_node_memory_bytes{{{OF_STORE}}}", "{{cluster}} {{node}}"),),
                "bytes",
            ),
            Panel(
                "Replication lag",
                ((f"shardcluster_replica_lag_bytes{{{OF_STORE}}}", "{{cluster}} {{node}}"),),
                "bytes",
            ),
        ),
        (
            Panel(
                "Nodes that don't answer",
                (
                    (f"shardcluster_node_up{{{OF_STORE}}} == 0", "{{cluster}} {{node}}"),
                    (
                        f"{GATEWAY}node_up{{{OF_STORE}}} == 0",
                        "{{instance}}: {{cluster}} {{node}}",
                    ),
                ),
            ),
            Panel(
                "Replicas missing",
                (
                    (
                        (f"shardcluster_cluster_replicas_wanted{{{OF_STORE}}}"
                        " - on (namespace, cluster) group_right ()"
                        f" shardcluster_shard_replicas_ready{{{OF_STORE}}}"),
                        "{{cluster}} {{shard}}",
                    ),
                ),
            ),
        ),
    ),
    "Moves and failovers": (
        (
            Panel(
                "Slots left to move",
                ((f"shardcluster_cluster_slots_to_move{{{OF_STORE}}}", "{{cluster}}"),),
            ),
            Panel(
                "Slots and keys moved",
                (
                    (_rate("shardcluster_moved_slots_total", "cluster"), "{{cluster}} slots"),
                    (_rate("shardcluster_moved_keys_total", "cluster"), "{{cluster}} keys"),
                ),
                "ops",
            ),
            Panel(
                "Changes of masters",
                (
                    (
                        ("sum by (cluster) (increase("
                        f"shardcluster_master_changes_total{{{OF_STORE}}}[$__rate_interval]))"),
                        "{{cluster}}: all",
                    ),
                    (
                        ("sum by (cluster, reason, mode) (increase("
                        f"shardcluster_failovers_total{{{OF_STORE}}}[$__rate_interval]))"),
                        "{{cluster}}: {{reason}} ({{mode}})",
                    ),
                ),
            ),
        ),
    ),
    "Operator": (
        (
            _stat(
                "Leaders", "sum(shardcluster_operator_leader)", good_from=1,
                about="One for each operator that is installed; nothing where none is.",
            ),
            _stat("Stores with a loop", f"sum(shardcluster_cluster_loop_running{{{OF_STORE}}})"),
            _stat("Specs refused", f"sum(shardcluster_cluster_spec_refused{{{OF_STORE}}})"),
            _stat(
                "Oldest pass",
                f"time() - min(shardcluster_last_pass_timestamp_seconds{{{OF_STORE}}})", "s",
            ),
        ),
        (
            Panel(
                "p99 of a pass",
                (
                    (
                        _quantile(0.99, "shardcluster_pass_duration_seconds", "cluster"),
                        "{{cluster}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Passes that failed, actions that failed",
                (
                    (
                        _rate("shardcluster_passes_total", "cluster, result", 'result!="ok"'),
                        "{{cluster}} {{result}}",
                    ),
                    (
                        _rate("shardcluster_action_failures_total", "cluster, action"),
                        "{{cluster}} {{action}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Actions",
                (
                    (
                        _rate("shardcluster_actions_total", "cluster, action, reason"),
                        "{{cluster}} {{action}} ({{reason}})",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Requests to the API server",
                (
                    (
                        ("sum by (verb, resource) "
                        "(rate(shardcluster_kube_requests_total[$__rate_interval]))"),
                        "{{verb}} {{resource}}",
                    ),
                ),
                "reqps",
            ),
        ),
        (
            Panel(
                "CPU of gateways",
                (
                    (
                        ("rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) "
                        f"{GATEWAY}ready{{{OF_STORE}}}"),
                        "{{instance}}",
                    ),
                ),
                about="In cores; one gateway process serves from one.",
            ),
            Panel(
                "Memory of gateways",
                (
                    (
                        ("process_resident_memory_bytes and on (instance) "
                        f"{GATEWAY}ready{{{OF_STORE}}}"),
                        "{{instance}}",
                    ),
                ),
                "bytes",
            ),
            Panel(
                "CPU of operators and controllers",
                (
                    (
                        ("rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) "
                        "shardcluster_build_info"),
                        "{{instance}}",
                    ),
                ),
                about="In cores.",
            ),
        ),
    ),
}  # fmt: skip


def dashboard() -> Json:
    """Ready to be imported: the data source is a variable."""
    return {
        "uid": "shardcluster",
        "title": "ShardCluster",
        "description": "Stores, their gateways, and the operator; docs/metrics.md has the metrics.",
        "tags": ["shardcluster", "valkey"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def _variables() -> list[Json]:
    def named(name: str, label: str, query: str) -> Json:
        return {
            "name": name, "label": label, "type": "query", "datasource": SOURCE,
            "query": {"query": query, "refId": name}, "definition": query,
            "includeAll": True, "allValue": ".*", "multi": True, "refresh": 2, "sort": 1,
            "current": {"text": ["All"], "value": ["$__all"]},
        }  # fmt: skip

    source = {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "current": {}, "hide": 0,
    }  # fmt: skip
    # Gateways without a controller know their store, too, so both are asked.
    stores = '{__name__=~"shardcluster_cluster_loop_running|shardcluster_gateway_ready"'
    return [
        source,
        named("namespace", "Namespace", f"label_values({stores}}}, namespace)"),
        named("cluster", "Cluster", f'label_values({stores}, namespace=~"$namespace"}}, cluster)'),
    ]


def _panels() -> list[Json]:
    found: list[Json] = []
    top = 0
    for title, lines in PANELS.items():
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            }
        )
        top += 1
        for line in lines:
            width = COLUMNS // len(line)
            height = STAT_HEIGHT if line[0].kind == "stat" else GRAPH_HEIGHT
            for number, panel in enumerate(line):
                place = {"h": height, "w": width, "x": number * width, "y": top}
                found.append({"id": len(found) + 1, "gridPos": place, **_panel(panel)})
            top += height
    return found


def _panel(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0}
    options: Json = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if panel.kind == "stat":
        steps: list[Json] = [{"color": "text", "value": None}]
        if panel.good_from is not None:
            steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.good_from}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}}
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value", "graphMode": "area", "textMode": "value",
        }  # fmt: skip
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query,
                "legendFormat": legend or "__auto", "editorMode": "code", "range": True,
            }
            for number, (query, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip
