"""Formed stores on paper for the tests of single concerns."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tests.scenarios.drive import run, spec_of
from tests.scenarios.paper import PaperCluster

if TYPE_CHECKING:
    from shardcluster.observed import Observed

STORAGE = {"size": "1Gi"}

__all__ = ["STORAGE", "changed", "formed", "spec_of"]


def formed(shards: int = 3, replicas: int = 1) -> PaperCluster:
    """A full store at rest."""
    cluster = PaperCluster()
    run(cluster, spec_of(shards, replicas, storage=STORAGE))
    cluster.fill()
    return cluster


def changed(observed: Observed, name: str, **view_fields: Any) -> Observed:
    """The same observation with other facts in one node's view."""
    nodes = tuple(
        dataclasses.replace(node, view=dataclasses.replace(node.view, **view_fields))
        if node.name == name and node.view is not None
        else node
        for node in observed.nodes
    )
    return dataclasses.replace(observed, nodes=nodes)
