"""What control loops have done and what their stores are like, for Prometheus.

`LoopCounts` is kept by each loop; `store_families` makes families of the counts and the state
documents of any number of stores: one under `shardctl`, all those of an operator.  Law: what is
told of a store, a shard or a node comes from its present state document, so it is gone when they
are; all of it carries `namespace` (empty outside Kubernetes) and `cluster`.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from shardcluster.actions import Failover
from shardcluster.buckets import Buckets
from shardcluster.slots import SLOT_COUNT
from shardcluster_runtime.state import NodeHealth, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from shardcluster.actions import Decision

__all__ = ["LoopCounts", "StoreView", "build_family", "exposition", "store_families"]

PREFIX = "shardcluster_"
PASS_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SERVING_STATES = frozenset({"Ready", "Draining", "Starting"})

Document = dict[str, Any]
Labels = tuple[str, ...]
_STORE = ("namespace", "cluster")
_SHARD = (*_STORE, "shard")
_NODE = (*_SHARD, "node")


class LoopCounts:
    """What one control loop has done since it started."""

    def __init__(self) -> None:
        """Everything at zero."""
        self.passes = Counter({"ok": 0, "platform_unable": 0, "error": 0})
        self.pass_seconds = Buckets(PASS_BOUNDS_S)
        self.last_pass_at_s = 0.0  # Unix time
        self.actions: Counter[tuple[str, str]] = Counter()  # (action, reason)
        self.failed_actions: Counter[tuple[str, str]] = Counter()
        self.failovers: Counter[tuple[str, str]] = Counter()  # (reason, mode)
        self.moved_slots = 0
        self.moved_keys = 0
        self.master_changes = 0
        self._masters: dict[str, str] = {}  # of each shard, the last one known

    def passed(self, result: str, seconds: float, now_s: float) -> None:
        """A pass ended: ok, platform_unable or error."""
        self.passes[result] += 1
        self.pass_seconds.observe(seconds)
        self.last_pass_at_s = now_s

    def acted(self, decision: Decision) -> None:
        """An action was done."""
        self.actions[_named(decision)] += 1
        if isinstance(decision.action, Failover):
            self.failovers[decision.reason.value, decision.action.mode.name.lower()] += 1

    def failed(self, decision: Decision) -> None:
        """An action could not be done."""
        self.failed_actions[_named(decision)] += 1

    def saw(self, state: Document) -> None:
        """A state was published: count masters that are others than before, whoever did that."""
        masters = {shard["name"]: shard["master"] for shard in state["shards"]}
        for shard, master in masters.items():
            if master is not None and self._masters.setdefault(shard, master) != master:
                self.master_changes += 1
                self._masters[shard] = master
        self._masters = {shard: node for shard, node in self._masters.items() if shard in masters}


def _named(decision: Decision) -> tuple[str, str]:
    return type(decision.action).__name__, decision.reason.value


class StoreView(NamedTuple):
    """One store at the moment of a scrape; `counts` and `state` None: no loop runs for it."""

    namespace: str
    cluster: str
    counts: LoopCounts | None
    state: Document | None
    refused: bool = False  # its present spec; the loop goes on with the one before, if any


class _Stores(Collector):
    def __init__(self, stores: Callable[[], Iterable[StoreView]], component: str) -> None:
        self._stores = stores
        self._component = component

    def describe(self) -> Iterable[Metric]:
        """Nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield build_family(self._component)
        yield from store_families(list(self._stores()))


def exposition(stores: Callable[[], Iterable[StoreView]], component: str) -> bytes:
    """The text that Prometheus reads, of a process that has no other metrics."""
    registry = CollectorRegistry()
    registry.register(_Stores(stores, component))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def build_family(component: str) -> Metric:
    """What runs here."""
    try:
        version = importlib.metadata.version("shardcluster")
    except importlib.metadata.PackageNotFoundError:  # run from its source
        version = "unknown"
    return _gauge(
        "build_info", "Always 1; the labels say what runs.", ("component", "version", "python"),
        {(component, version, platform.python_version()): 1},
    )  # fmt: skip


def store_families(stores: Sequence[StoreView]) -> Iterator[Metric]:
    """Everything about these stores."""
    yield _gauge(
        "cluster_loop_running", "1 when a control loop cares for the store; 0: its spec or the "
        "platform does not let it.", _STORE,
        {store[:2]: store.state is not None for store in stores},
    )  # fmt: skip
    yield _gauge(
        "cluster_spec_refused", "1 while the present spec of the store can't be carried out.",
        _STORE, {store[:2]: store.refused for store in stores},
    )  # fmt: skip
    yield from _loop_families(stores)
    told = [(store[:2], store.state) for store in stores if store.state is not None]
    yield from _cluster_families(told)
    yield from _shard_families(told)
    yield from _node_families(told)


def _loop_families(stores: Sequence[StoreView]) -> Iterator[Metric]:
    counted = [(store[:2], store.counts) for store in stores if store.counts is not None]
    yield _counter(
        "passes", "Passes of the control loop: observe, decide, act, report.",
        (*_STORE, "result"), _by(counted, lambda counts: _single(counts.passes)),
    )  # fmt: skip
    durations = HistogramMetricFamily(
        f"{PREFIX}pass_duration_seconds", "Time of one pass, its action included.", labels=_STORE
    )
    for store, counts in counted:
        durations.add_metric(store, counts.pass_seconds.cumulative(), counts.pass_seconds.total)
    yield durations
    yield _gauge(
        "last_pass_timestamp_seconds", "Unix time of the end of the last pass.", _STORE,
        {store: counts.last_pass_at_s for store, counts in counted},
    )  # fmt: skip
    yield _counter(
        "actions", "Actions that were done, by what was done and why.",
        (*_STORE, "action", "reason"), _by(counted, lambda counts: counts.actions),
    )  # fmt: skip
    yield _counter(
        "action_failures", "Actions that could not be done; the loop tries again.",
        (*_STORE, "action", "reason"), _by(counted, lambda counts: counts.failed_actions),
    )  # fmt: skip
    yield _counter(
        "failovers", "Replicas made master by the controller, by why and how.",
        (*_STORE, "reason", "mode"), _by(counted, lambda counts: counts.failovers),
    )  # fmt: skip
    yield _counter(
        "master_changes", "Shards that got another master, by the controller or by themselves.",
        _STORE, {store: counts.master_changes for store, counts in counted},
    )  # fmt: skip
    yield _counter(
        "moved_slots", "Slots moved from one shard to another.", _STORE,
        {store: counts.moved_slots for store, counts in counted},
    )  # fmt: skip
    yield _counter(
        "moved_keys", "Keys moved with their slots.", _STORE,
        {store: counts.moved_keys for store, counts in counted},
    )  # fmt: skip


def _single(counts: Mapping[str, int]) -> dict[Labels, int]:
    return {(name,): count for name, count in counts.items()}


def _by(
    counted: Iterable[tuple[Labels, LoopCounts]],
    counts_of: Callable[[LoopCounts], Mapping[Any, int]],
) -> dict[Labels, int]:
    return {
        (*store, *labels): count
        for store, counts in counted
        for labels, count in counts_of(counts).items()
    }


Told = Sequence[tuple[Labels, Document]]


def _cluster_families(told: Told) -> Iterator[Metric]:
    yield _gauge(
        "cluster_phase", "1 for the phase that the store is in, 0 for the others.",
        (*_STORE, "phase"),
        {
            (*store, phase.value): state["phase"] == phase.value
            for store, state in told
            for phase in Phase
        },
    )  # fmt: skip
    yield _gauge(
        "cluster_healthy", "0 while the store is degraded.", _STORE,
        {store: state["healthy"] for store, state in told},
    )  # fmt: skip
    yield _gauge(
        "cluster_slots_served", f"Of {SLOT_COUNT} slots, those whose shard has a master.", _STORE,
        {
            store: sum(shard["slots"] for shard in state["shards"] if _serves(shard))
            for store, state in told
        },
    )  # fmt: skip
    yield _gauge(
        "cluster_replicas_wanted", "Replicas that each shard shall have.", _STORE,
        {store: state["spec"].get("spec", {}).get("replicasPerShard", 1) for store, state in told},
    )  # fmt: skip
    yield _gauge(
        "cluster_slots_to_move", "Slots that the present work still has to move.", _STORE,
        {store: _to_move(state["progress"]) for store, state in told},
    )  # fmt: skip


def _serves(shard: Document) -> bool:
    return shard["master"] is not None and shard["state"] in SERVING_STATES


def _to_move(progress: Document | None) -> int:
    return progress["total_slots"] - progress["moved_slots"] if progress is not None else 0


def _shard_families(told: Told) -> Iterator[Metric]:
    shards = [
        ((*store, shard["name"]), shard) for store, state in told for shard in state["shards"]
    ]
    ready = Counter(
        (*store, node["shard"])
        for store, state in told
        for node in state["nodes"]
        if node["role"] == "replica" and node["link_up"] and node["health"] == NodeHealth.UP.value
    )
    yield _gauge(
        "shard_master_up", "1 when the shard has a master that answers.", _SHARD,
        {name: _serves(shard) for name, shard in shards},
    )  # fmt: skip
    yield _gauge(
        "shard_replicas_ready", "Replicas of the shard that follow their master.", _SHARD,
        {name: ready[name] for name, _ in shards},
    )  # fmt: skip
    for field, what in (
        ("slots", "Slots of the shard."),
        ("keys", "Keys of the shard."),
        ("memory_bytes", "Memory that the shard's master uses."),
    ):
        yield _gauge(f"shard_{field}", what, _SHARD, {name: shard[field] for name, shard in shards})


def _node_families(told: Told) -> Iterator[Metric]:
    nodes = [
        ((*store, node["shard"], node["name"]), node)
        for store, state in told
        for node in state["nodes"]
    ]
    replicas = [(name, node) for name, node in nodes if node["role"] == "replica"]
    yield _gauge(
        "node_up", "1 when the node answers the controller.", _NODE,
        {name: node["health"] == NodeHealth.UP.value for name, node in nodes},
    )  # fmt: skip
    yield _gauge(
        "node_master", "1 when the node says it is a master.", _NODE,
        {name: node["role"] == "master" for name, node in nodes},
    )  # fmt: skip
    yield _gauge(
        "node_memory_bytes", "Memory that the node uses.", _NODE,
        {name: node["memory_bytes"] for name, node in nodes},
    )  # fmt: skip
    yield _gauge(
        "node_operations_per_second", "Commands a second, as the node itself counts.", _NODE,
        {name: node["ops_per_second"] for name, node in nodes},
    )  # fmt: skip
    yield _gauge(
        "replica_lag_bytes", "How far a replica is behind its master.", _NODE,
        {name: node["lag_bytes"] for name, node in replicas},
    )  # fmt: skip
    yield _gauge(
        "replica_link_up", "1 when the replica is connected to its master.", _NODE,
        {name: node["link_up"] for name, node in replicas},
    )  # fmt: skip


def _gauge(
    name: str, what: str, labels: Labels, values: Mapping[Labels, float]
) -> GaugeMetricFamily:
    found = GaugeMetricFamily(f"{PREFIX}{name}", what, labels=labels)
    for label_values, value in values.items():
        found.add_metric(label_values, value)
    return found


def _counter(
    name: str, what: str, labels: Labels, values: Mapping[Labels, float]
) -> CounterMetricFamily:
    found = CounterMetricFamily(f"{PREFIX}{name}", what, labels=labels)
    for label_values, value in values.items():
        found.add_metric(label_values, value)
    return found
