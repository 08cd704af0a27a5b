"""The pod of one node: an engine alone in a container, as restricted as Kubernetes knows.

Law: the pod needs nothing from the operator but to be started.  It takes its password from a file,
never from a command line or a variable of the pod; it hands its slots over before it ends; and it
is killed for being dead, never for being slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardcluster_operator.manifests._common import (
    AUTH_FOLDER,
    NODE,
    PASSWORD_KEY,
    SHARD_LABEL,
    Manifest,
    nodes_name,
    secret_name,
    selector,
)
from shardcluster_operator.manifests._configuration import config_map_name

if TYPE_CHECKING:
    from shardcluster.spec import Spec
    from shardcluster.spec_model import Amounts

__all__ = [
    "BUS_PORT", "CLIENT_PORT", "DATA", "container_security", "node_pod", "own_spread",
    "resources_document",
]  # fmt: skip

CLIENT_PORT, BUS_PORT = 6379, 16379
CONF_FOLDER, DATA_FOLDER, RUN_FOLDER = "/etc/shardcluster", "/data", "/run/shardcluster"
DATA = "data"  # the volume, and with storage the start of its claims' names
ENGINE_USER = 999  # of the images of Valkey and Redis
SECRET_MODE = 0o440  # the owner is root; the engine reads it by its group
RUN_FOLDER_SIZE = "1Mi"  # one file with the password, in memory

# A hand-over takes up to 20 s when the replica lags; then the engine itself may wait 10 s more.
TERMINATION_GRACE_S = 60
STARTUP_PERIOD_S, STARTUP_FAILURES = 2, 300  # 10 minutes: a node may wait for its replica first
# Each look is a process started in the pod, a tenth of a second of a slow core; gateways, operator
# and clients see for themselves, so these looks may be rare.
READY_PERIOD_S, READY_FAILURES = 10, 2
ALIVE_PERIOD_S, ALIVE_FAILURES = 20, 3  # a minute without any answer, not even "I am busy"
PROBE_TIMEOUT_S = 5
WEIGHT_MAX = 100  # of a wish about neighbours

_SCHEDULING_FIELDS = (
    "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "priorityClassName",
)  # fmt: skip


def node_pod(spec: Spec, shard: str) -> Manifest:
    """The pod's spec, for any node of the shard."""
    volumes: list[Manifest] = [
        {"name": "conf", "configMap": {"name": config_map_name(spec)}},
        {"name": "auth", "secret": _password_volume(spec)},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": RUN_FOLDER_SIZE}},
    ]
    if spec.memory_only:
        volumes.append({"name": DATA, "emptyDir": {}})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": ENGINE_USER,
            "runAsGroup": ENGINE_USER,
            "fsGroup": ENGINE_USER,
            # Millions of files are not looked through at every start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec)],
        "volumes": volumes,
        **_scheduling(spec, shard),
    }


def container_security() -> Manifest:
    """What the "restricted" Pod Security level asks of a container, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def own_spread(match_labels: dict[str, str]) -> list[Manifest]:
    """Pods with these labels apart from each other: by machine, and by zone where there are some.

    A wish only: a test cluster of one machine runs them all.
    """
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": match_labels},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def _apart(match_labels: dict[str, str]) -> Manifest:
    """The same by the other means, for one pod may not have two constraints of one key."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": match_labels}}
    wish = {"weight": WEIGHT_MAX, "podAffinityTerm": term}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}


def resources_document(spec: Spec) -> Manifest:
    """Requests and limits; what is not given is left out."""
    wanted = {"requests": spec.resources.requests, "limits": spec.resources.limits}
    shown = {name: _amounts(amounts) for name, amounts in wanted.items()}
    return {name: amounts for name, amounts in shown.items() if amounts}


def _amounts(amounts: Amounts) -> dict[str, str]:
    pairs = {"cpu": amounts.cpu, "memory": amounts.memory}
    return {name: amount for name, amount in pairs.items() if amount is not None}


def _container(spec: Spec) -> Manifest:
    return {
        "name": "valkey",
        "image": spec.image,
        "command": ["sh", f"{CONF_FOLDER}/start.sh"],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "SHARDCLUSTER_MEMORY_ONLY", "value": "yes" if spec.memory_only else "no"},
            # Where other nodes are found by name when all known addresses are old ones.
            {"name": "SHARDCLUSTER_NODES_HOST", "value": nodes_name(spec)},
        ],
        "ports": [
            {"name": "client", "containerPort": CLIENT_PORT, "protocol": "TCP"},
            {"name": "bus", "containerPort": BUS_PORT, "protocol": "TCP"},
        ],
        "resources": resources_document(spec),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "conf", "mountPath": CONF_FOLDER, "readOnly": True},
            {"name": "auth", "mountPath": AUTH_FOLDER, "readOnly": True},
            {"name": DATA, "mountPath": DATA_FOLDER},
            {"name": "run", "mountPath": RUN_FOLDER},
        ],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", f"{CONF_FOLDER}/stop.sh"]}}},
        # Loading counts as alive, so that no data is too much to be loaded in ten minutes.
        "startupProbe": _probe("alive", STARTUP_PERIOD_S, STARTUP_FAILURES),
        "readinessProbe": _probe("ready", READY_PERIOD_S, READY_FAILURES),
        "livenessProbe": _probe("alive", ALIVE_PERIOD_S, ALIVE_FAILURES),
    }


def _probe(question: str, period_s: int, failures: int) -> Manifest:
    return {
        "exec": {"command": ["sh", f"{CONF_FOLDER}/probe.sh", question]},
        "periodSeconds": period_s,
        "timeoutSeconds": PROBE_TIMEOUT_S,
        "failureThreshold": failures,
    }


def _password_volume(spec: Spec) -> Manifest:
    return {
        "secretName": secret_name(spec),
        "defaultMode": SECRET_MODE,
        "items": [{"key": PASSWORD_KEY, "path": PASSWORD_KEY}],  # a user's Secret may hold more
    }


def _scheduling(spec: Spec, shard: str) -> dict[str, Any]:
    """The user's wishes; without one about neighbours, the nodes of a shard are kept apart.

    And all nodes of the store are spread evenly: if two machines had them all, one of them would
    run a majority of the masters, and without a majority nobody can vote when it is gone.
    """
    wishes = {name: spec.scheduling[name] for name in _SCHEDULING_FIELDS if name in spec.scheduling}
    if "affinity" not in wishes and "topologySpreadConstraints" not in wishes:
        of_store = selector(spec, NODE)
        wishes["topologySpreadConstraints"] = own_spread({**of_store, SHARD_LABEL: shard})
        wishes["affinity"] = _apart(of_store)
    return wishes
