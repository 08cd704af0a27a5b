"""What the gateway counts, for Prometheus.

One registry a gateway and not the process-wide one, so that several gateways can live in one
process (tests do that).  Law: counting is plain Python without a lock, in the event loop's thread
alone; the library's own counters cost several times what a routed read may spend on it.  They are
put into the library's families when somebody asks, and it writes them out.

No label takes its values from what a client or a node sends: words that are not known count as
"other", and what was counted of a node goes when the node is gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from shardcluster.buckets import Buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["CONTENT_TYPE", "PREFIX", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "shardcluster_gateway_"
_SECONDS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# The first words of errors that nodes give; a script may answer with any other.
_NODE_ERRORS = frozenset(
    {
        "ASK", "BUSY", "BUSYGROUP", "BUSYKEY", "CLUSTERDOWN", "CROSSSLOT", "ConnectionLost", "ERR",
        "EXECABORT", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOGROUP", "NOPERM",
        "NOREPLICAS", "NOSCRIPT", "NotReached", "OOM", "READONLY", "TRYAGAIN", "UNKILLABLE",
        "WRONGPASS", "WRONGTYPE",
    }
)  # fmt: skip
OTHER = "other"


class _Count:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        self.value += 1


class _Told(Collector):
    """Families that were collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Metrics(Collector):
    """All counters; `expose` writes them and what was attached."""

    def __init__(self) -> None:
        """Everything at zero."""
        self.hedges = _Count()
        self.unknown_outcomes = _Count()
        self._answered: dict[tuple[str, int], Buckets] = {}
        self._errors: Counter[tuple[str, str]] = Counter()
        self._node_errors: Counter[tuple[str, str]] = Counter()
        self._redirects = Counter({"MOVED": 0, "ASK": 0})
        self._retries: Counter[str] = Counter()
        self._attached: list[Callable[[], Iterable[Metric]]] = []
        self.nodes_known: Callable[[], frozenset[str]] = frozenset
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    # -- what happens ----------------------------------------------------------------------

    def answered(self, operation: str, code: int, seconds: float) -> None:
        """One request was answered."""
        self.times(operation, code).observe(seconds)

    def times(self, operation: str, code: int) -> Buckets:
        """Where `answered` counts, for who does so for every request."""
        row = self._answered.get((operation, code))
        if row is None:
            row = self._answered[operation, code] = Buckets(_SECONDS)
        return row

    def failed(self, operation: str, error: str) -> None:
        """The answer was an error; `error` is its code, a CamelCase word of ours."""
        self._errors[operation, error] += 1

    def node_error(self, node: str, kind: str) -> None:
        """A node answered with an error, or its connection ended."""
        self._node_errors[node, kind if kind in _NODE_ERRORS else OTHER] += 1

    def redirected(self, kind: str) -> None:
        """MOVED or ASK."""
        self._redirects[kind] += 1

    def retried(self, reason: str) -> None:
        """A request is tried again."""
        self._retries[reason if reason in _NODE_ERRORS else OTHER] += 1

    @property
    def total(self) -> int:
        """Requests answered."""
        return sum(sum(row.counts) for row in self._answered.values())

    # -- what is told ----------------------------------------------------------------------

    def attach(self, families: Callable[[], Iterable[Metric]]) -> None:
        """Tell these, too; asked at each scrape."""
        self._attached.append(families)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is read when asked."""
        self.attach(lambda: [GaugeMetricFamily(f"{PREFIX}{name}", what, value=value())])

    def expose(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    async def exposed(self) -> bytes:
        """The same, written out in a thread: of hundreds of nodes that takes many milliseconds."""
        told = _Told(list(self.registry.collect()))
        return await asyncio.to_thread(generate_latest, told)

    def describe(self) -> Iterable[Metric]:
        """Nothing before the first scrape: the registry need not ask."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families, made anew for each scrape."""
        yield self._requests()
        yield self._durations()
        yield _counter(
            "errors", "Requests answered with an error, by operation and the error's code.",
            ("operation", "error"), self._errors,
        )  # fmt: skip
        known = self.nodes_known()
        for gone in [key for key in self._node_errors if key[0] not in known]:
            del self._node_errors[gone]
        yield _counter(
            "node_errors", "Errors that nodes answered with, and connections to them that ended.",
            ("node", "kind"), self._node_errors,
        )  # fmt: skip
        yield _counter(
            "redirects", "Answers of nodes that sent a request to another node.",
            ("kind",), {(kind,): count for kind, count in self._redirects.items()},
        )  # fmt: skip
        yield _counter(
            "retries", "Attempts after the first of a request, by what the last one met.",
            ("reason",), {(reason,): count for reason, count in self._retries.items()},
        )  # fmt: skip
        yield _counter(
            "hedged_reads", "Reads asked of a second node because the first was slow.",
            (), {(): self.hedges.value},
        )  # fmt: skip
        yield _counter(
            "unknown_outcomes", "Writes that were sent and whose fate is unknown.",
            (), {(): self.unknown_outcomes.value},
        )  # fmt: skip
        for families in self._attached:
            yield from families()

    def _requests(self) -> Metric:
        counts = {
            (operation, str(code)): sum(row.counts)
            for (operation, code), row in self._answered.items()
        }
        what = "Requests answered, by operation and HTTP status."
        return _counter("requests", what, ("operation", "code"), counts)

    def _durations(self) -> Metric:
        rows: dict[str, Buckets] = {}
        for (operation, _), row in self._answered.items():
            rows.setdefault(operation, Buckets(_SECONDS)).add(row)
        found = HistogramMetricFamily(
            f"{PREFIX}request_duration_seconds",
            "Time from a whole request to its answer, by operation.",
            labels=("operation",),
        )
        for operation, row in rows.items():
            found.add_metric((operation,), row.cumulative(), row.total)
        return found


def _counter(
    name: str, what: str, labels: tuple[str, ...], counts: Mapping[Any, int]
) -> CounterMetricFamily:
    found = CounterMetricFamily(f"{PREFIX}{name}", what, labels=labels)
    for values, count in counts.items():
        found.add_metric(values, count)
    return found
