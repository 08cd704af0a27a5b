"""How nodes are reached, by whom, and how many may be missing at once.

Law: a node is reached by its own address.  The headless Service shows nodes that aren't ready,
too, because they must meet before they can be; clients' Service shows ready ones only.  A node
talks to nobody whom the NetworkPolicy doesn't name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster_operator.manifests._common import (
    CLIENT_LABEL,
    GATEWAY,
    NODE,
    OPERATOR_NAME,
    Manifest,
    Place,
    metadata,
    nodes_name,
    selector,
)
from shardcluster_operator.manifests._pod import BUS_PORT, CLIENT_PORT

if TYPE_CHECKING:
    from shardcluster.spec import Spec

__all__ = ["network_objects"]


def network_objects(spec: Spec, place: Place) -> tuple[Manifest, ...]:
    """The nodes' Services, their NetworkPolicy and their PodDisruptionBudget."""
    return (
        _headless_service(spec, place),
        _client_service(spec, place),
        _network_policy(spec, place),
        _disruption_budget(spec, place),
    )


def _service_port(name: str, number: int) -> Manifest:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}


def _headless_service(spec: Spec, place: Place) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(spec, place, nodes_name(spec), NODE),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(spec, NODE),
            "ports": [_service_port("client", CLIENT_PORT), _service_port("bus", BUS_PORT)],
        },
    }


def _client_service(spec: Spec, place: Place) -> Manifest:
    """Any ready node: clients of the cluster protocol learn the others from it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(spec, place, spec.name, NODE),
        "spec": {
            "selector": selector(spec, NODE),
            "ports": [_service_port("client", CLIENT_PORT)],
        },
    }


def _network_policy(spec: Spec, place: Place) -> Manifest:
    nodes = {"podSelector": {"matchLabels": selector(spec, NODE)}}
    callers = [
        nodes,
        {"podSelector": {"matchLabels": selector(spec, GATEWAY)}},
        {"podSelector": {"matchLabels": {CLIENT_LABEL: spec.name}}},
        {
            "namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": place.operator_namespace}
            },
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": OPERATOR_NAME}},
        },
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(spec, place, nodes_name(spec), NODE),
        "spec": {
            "podSelector": {"matchLabels": selector(spec, NODE)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": callers, "ports": [{"protocol": "TCP", "port": CLIENT_PORT}]},
                {"from": [nodes], "ports": [{"protocol": "TCP", "port": BUS_PORT}]},
            ],
        },
    }


def _disruption_budget(spec: Spec, place: Place) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(spec, place, nodes_name(spec), NODE),
        "spec": {
            # One of all nodes, not one a shard: a drain waits for each hand-over.
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(spec, NODE)},
        },
    }
