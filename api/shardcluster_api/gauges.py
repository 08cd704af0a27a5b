"""What the gateway is like at the moment somebody asks, for Prometheus.

Law: read at each scrape and kept nowhere, so what is gone (a node, a shard) is told no more.  Two
links may bear one name for a moment, when a node came back at another address: they are told as
one, because a scrape that names a series twice is refused as a whole.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

from shardcluster.buckets import Buckets
from shardcluster_api.control_plane import NoControlPlane
from shardcluster_api.links import ROUND_TRIP_BOUNDS_S
from shardcluster_api.metrics import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from shardcluster_api.gateway import Gateway
    from shardcluster_api.links import NodeLink

__all__ = ["attach_gauges"]

Labels = tuple[str, ...]
_NODE = ("node", "shard")


def attach_gauges(gateway: Gateway) -> None:
    """Let the gateway's metrics tell these, too."""
    gateway.metrics.nodes_known = lambda: frozenset(
        link.name for link in gateway.topology.links.values()
    )
    for families in (_build, _work, _slots, _nodes, _from_controller):
        gateway.metrics.attach(partial(families, gateway))


def _gauge(
    name: str, what: str, values: Mapping[Labels, float], labels: Labels = ()
) -> GaugeMetricFamily:
    found = GaugeMetricFamily(f"{PREFIX}{name}", what, labels=labels)
    for label_values, value in values.items():
        found.add_metric(label_values, value)
    return found


def _one(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", what, value=value)


def _build(_gateway: Gateway) -> Iterator[Metric]:
    try:
        version = importlib.metadata.version("shardcluster")
    except importlib.metadata.PackageNotFoundError:  # run from its source
        version = "unknown"
    yield _gauge(
        "build_info", "Always 1; the labels say what runs.",
        {(version, platform.python_version()): 1}, ("version", "python"),
    )  # fmt: skip


def _work(gateway: Gateway) -> Iterator[Metric]:
    yield _one("ready", "1 when it serves.", not gateway.unready())
    yield _one("in_flight", "Operations under way.", gateway.under_way)
    yield _one(
        "in_flight_limit", "Operations that may be under way at once.", gateway.limits.in_flight_max
    )
    yield _one("buffered_bytes", "Of request bodies, held now.", gateway.buffered_bytes)
    yield _one(
        "buffered_bytes_limit",
        "Of request bodies, that may be held.",
        gateway.limits.buffered_bytes_max,
    )
    yield _one("unsent_bytes", "Of answers, that clients have not taken yet.", gateway.unsent_bytes)
    yield _one(
        "unsent_bytes_limit",
        "Of answers not taken yet, that may be held.",
        gateway.limits.unsent_bytes_max,
    )
    yield _one(
        "broken_files",
        "Files of tokens or certificates that can't be read; what they said before still counts.",
        sum(bool(file.broken) for file in gateway.followed),
    )
    yield _one(
        "connections", "Connections of clients that are open; 0 under Flask alone.",
        gateway.connections(),
    )  # fmt: skip


def _slots(gateway: Gateway) -> Iterator[Metric]:
    slots = gateway.topology.map
    counts = Counter(slots.owners)
    del counts[None]
    served = sum(count for route, count in counts.items() if route and route.master.usable)
    by_shard: Counter[Labels] = Counter()
    for route, count in counts.items():
        if route is not None:
            by_shard[(route.name,)] += count
    yield _one("map_version", "Changes of the slot map since the start.", slots.version)
    yield _one("slots_owned", "Slots with a known owner.", slots.slots_owned())
    yield _one("slots_served", "Slots whose master answers.", served)
    yield _one("slots_moving", "Slots on their way to another shard.", slots.moving_count())
    yield _gauge("shard_slots", "Slots of a shard.", by_shard, ("shard",))


def _nodes(gateway: Gateway) -> Iterator[Metric]:
    by_name: dict[Labels, list[NodeLink]] = {}
    for link in gateway.topology.links.values():
        by_name.setdefault((link.name, link.shard), []).append(link)
    yield _one(
        "nodes_connected", "Nodes with an open connection.",
        sum(any(link.connected for link in links) for links in by_name.values()),
    )  # fmt: skip
    yield _gauge(
        "node_up", "1 when the node is connected and answers.",
        {n: any(one.connected and not one.suspect for one in li) for n, li in by_name.items()},
        _NODE,
    )  # fmt: skip
    yield _gauge(
        "node_queue", "Replies awaited from the node.",
        {name: sum(link.waiting for link in links) for name, links in by_name.items()}, _NODE,
    )  # fmt: skip
    found = HistogramMetricFamily(
        f"{PREFIX}node_round_trip_seconds",
        "From sending a command to a node to its answer; a sample of all commands.",
        labels=_NODE,
    )
    for name, links in by_name.items():
        taken = Buckets(ROUND_TRIP_BOUNDS_S)
        for link in links:
            taken.add(link.round_trips)
        found.add_metric(name, taken.cumulative(), taken.total)
    yield found


def _from_controller(gateway: Gateway) -> Iterator[Metric]:
    if isinstance(gateway.control, NoControlPlane):
        return
    yield _one(
        "controller_reachable", "1 when the controller answered when it was asked last.",
        gateway.controller_reachable,
    )  # fmt: skip
    nodes = (gateway.state or {}).get("nodes", ())
    yield _gauge(
        "replica_lag_bytes", "How far a replica is behind its master; not known on Kubernetes.",
        # The status of the resource on Kubernetes carries no offsets, and a lag of 0 then says
        # nothing; the operator's own metrics have it there.
        {
            (node["name"], node["shard"]): node["lag_bytes"]
            for node in nodes
            if node["role"] == "replica" and "offset" in node
        },
        _NODE,
    )  # fmt: skip
