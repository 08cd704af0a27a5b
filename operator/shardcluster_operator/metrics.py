"""What the operator tells Prometheus: whether it leads, and all the stores it cares for.

Beside these stand, in the process's own registry, the requests to the API server (counted where
they are sent) and what the library tells of any process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shardcluster_runtime.metrics import build_family, store_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from shardcluster_operator.handlers import Operator

__all__ = ["OperatorMetrics"]


class OperatorMetrics(Collector):
    """Of one process; an operator that stands by has no stores."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Told with all else of `registry` from now on."""
        self.leader = False
        self.operator: Operator | None = None
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Made anew for each scrape."""
        yield build_family("operator")
        yield GaugeMetricFamily(
            "shardcluster_operator_leader",
            "1 when this operator acts, 0 while it stands by.",
            value=self.leader,
        )
        sessions = list(self.operator.sessions.values()) if self.operator is not None else []
        yield from store_families([session.view() for session in sessions])
