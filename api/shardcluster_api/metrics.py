"""What the gateway counts, for Prometheus.

One registry a gateway and not the process-wide one, so that several gateways can live in one
process (tests do that).  Children of labelled metrics are looked up once and kept: `labels()`
costs more than a whole routed read may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """All counters; `expose` writes them."""

    def __init__(self) -> None:
        """Everything at zero."""
        self.registry = CollectorRegistry()
        prefix = "shardcluster_gateway_"
        self._requests = Counter(
            f"{prefix}requests", "Requests answered", ["operation", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            f"{prefix}request_seconds", "Time to answer a request", ["operation"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._node_errors = Counter(
            f"{prefix}node_errors", "Errors of nodes", ["node", "kind"], registry=self.registry
        )
        self._redirects = Counter(
            f"{prefix}redirects", "MOVED and ASK answers", ["kind"], registry=self.registry
        )
        self._retries = Counter(
            f"{prefix}retries", "Attempts after the first", ["reason"], registry=self.registry
        )
        self.hedges = Counter(
            f"{prefix}hedged_reads", "Reads asked of a second node because the first was slow",
            registry=self.registry,
        )  # fmt: skip
        self.unknown_outcomes = Counter(
            f"{prefix}unknown_outcomes", "Writes whose fate is unknown", registry=self.registry
        )
        self._answered: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.total = 0

    def answered(self, operation: str, code: int, seconds: float) -> None:
        """One request was answered."""
        self.total += 1
        children = self._answered.get((operation, code))
        if children is None:
            children = self._answered[operation, code] = (
                self._requests.labels(operation, str(code)),
                self._seconds.labels(operation),
            )
        children[0].inc()
        children[1].observe(seconds)

    def node_error(self, node: str, kind: str) -> None:
        """A node answered with an error, or its connection ended."""
        self._node_errors.labels(node, kind).inc()

    def redirected(self, kind: str) -> None:
        """MOVED or ASK."""
        self._redirects.labels(kind).inc()

    def retried(self, reason: str) -> None:
        """A request is tried again."""
        self._retries.labels(reason).inc()

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is read when asked."""
        gauge = Gauge(f"shardcluster_gateway_{name}", what, registry=self.registry)
        gauge.set_function(value)

    def expose(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
