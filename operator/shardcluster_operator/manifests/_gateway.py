"""The HTTP gateway: a Deployment behind a Service.

Law: gateways hold no state, so Kubernetes may replace them by itself, a new one before an old one.
Ending is the gateway's own matter: at SIGTERM it says that it isn't ready and finishes its work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shardcluster_operator.manifests._common import (
    AUTH_FOLDER,
    CLUSTER_LABEL,
    GATEWAY,
    PASSWORD_KEY,
    Manifest,
    Place,
    gateway_name,
    labels,
    metadata,
    secret_name,
    selector,
)
from shardcluster_operator.manifests._pod import SECRET_MODE, container_security, own_spread

if TYPE_CHECKING:
    from shardcluster.spec import Spec

__all__ = ["gateway_objects"]

SERVICE_PORT, SERVICE_TLS_PORT, PORT = 80, 443, 8080
TOKENS_FOLDER, TOKENS_KEY = "/etc/shardcluster-tokens", "tokens"
HTTPS_FOLDER = "/etc/shardcluster-https"
CERTIFICATE_KEY, PRIVATE_KEY_KEY = "tls.crt", "tls.key"  # of a Secret of type kubernetes.io/tls
GATEWAY_USER = 10001  # of the image
DRAIN_S = 5  # new connections are still taken: kube-proxies learn late that a pod is to end
TERMINATION_GRACE_S = 30  # draining, then requests under way, at most 6 s
SCRATCH_SIZE = "256Mi"  # of /tmp, for bodies that Flask puts aside; the root is read-only
REQUESTS = {"cpu": "100m", "memory": "128Mi"}
LIMITS = {"memory": "1Gi"}  # twice what the gateway may hold of bodies (512 MiB)


def gateway_objects(spec: Spec, place: Place) -> tuple[Manifest, ...]:
    """The Service, the Deployment, and a PodDisruptionBudget when there are several."""
    found: tuple[Manifest, ...] = (_service(spec, place), _deployment(spec, place))
    if spec.gateway.replicas > 1:
        found += (_disruption_budget(spec, place),)
    return found


def _service(spec: Spec, place: Place) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(spec, place, gateway_name(spec), GATEWAY),
        "spec": {
            "selector": selector(spec, GATEWAY),
            "ports": [{**_service_port(spec), "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _service_port(spec: Spec) -> Manifest:
    if spec.gateway.tls_secret_name is not None:
        return {"name": "https", "port": SERVICE_TLS_PORT}
    return {"name": "http", "port": SERVICE_PORT}


def _deployment(spec: Spec, place: Place) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(spec, place, gateway_name(spec), GATEWAY),
        "spec": {
            "replicas": spec.gateway.replicas,
            "selector": {"matchLabels": selector(spec, GATEWAY)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": {
                "metadata": {
                    "labels": {**labels(spec, GATEWAY), CLUSTER_LABEL: spec.name},
                    "annotations": _scrape_annotations(spec),
                },
                "spec": _pod(spec, place),
            },
        },
    }


def _scrape_annotations(spec: Spec) -> dict[str, str]:
    """For a Prometheus that finds pods by these, as many are set up to."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/scheme": "http" if spec.gateway.tls_secret_name is None else "https",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
    }


def _pod(spec: Spec, place: Place) -> Manifest:
    return {
        "serviceAccountName": gateway_name(spec),
        "automountServiceAccountToken": True,  # it reads and edits its ShardCluster
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": GATEWAY_USER,
            "runAsGroup": GATEWAY_USER,
            "fsGroup": GATEWAY_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": own_spread(selector(spec, GATEWAY)),
        "containers": [_container(spec, place)],
        "volumes": [
            *(
                {
                    "name": one.name,
                    "secret": {
                        "secretName": one.secret,
                        "defaultMode": SECRET_MODE,
                        "items": [{"key": key, "path": key} for key in one.files],
                    },
                }
                for one in _secrets(spec)
            ),
            {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_SIZE}},
        ],
    }


class _Secret(NamedTuple):
    """A Secret that the gateway reads; mounted as a folder, so that it follows changes."""

    name: str  # of the volume
    secret: str
    folder: str
    files: dict[str, str]  # key in the Secret -> the variable that names the file


def _secrets(spec: Spec) -> list[_Secret]:
    found = [
        _Secret(
            "auth", secret_name(spec), AUTH_FOLDER, {PASSWORD_KEY: "SHARDCLUSTER_PASSWORD_FILE"}
        )
    ]
    if (tokens := spec.gateway.tokens_secret_name) is not None:
        files = {TOKENS_KEY: "SHARDCLUSTER_TOKENS_FILE"}
        found.append(_Secret("tokens", tokens, TOKENS_FOLDER, files))
    if (certificate := spec.gateway.tls_secret_name) is not None:
        files = {
            CERTIFICATE_KEY: "SHARDCLUSTER_HTTPS_CERT",
            PRIVATE_KEY_KEY: "SHARDCLUSTER_HTTPS_KEY",
        }
        found.append(_Secret("https", certificate, HTTPS_FOLDER, files))
    return found


def _container(spec: Spec, place: Place) -> Manifest:
    secrets = _secrets(spec)
    return {
        "name": "gateway",
        "image": place.gateway_image,
        "imagePullPolicy": place.gateway_image_pull_policy,
        "args": [
            "--kubernetes", f"{place.namespace}/{spec.name}",
            "--host", "0.0.0.0",  # noqa: S104 - the pod's own network
            "--port", str(PORT),
            "--drain-seconds", str(DRAIN_S),
        ],
        "env": [
            {"name": variable, "value": f"{one.folder}/{key}"}
            for one in secrets
            for key, variable in one.files.items()
        ],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": dict(REQUESTS), "limits": dict(LIMITS)},
        "securityContext": container_security(),
        "volumeMounts": [
            *(
                {"name": one.name, "mountPath": one.folder, "readOnly": True}
                for one in secrets
            ),
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
        "readinessProbe": _probe(spec, "/readyz", period_s=2, failures=2),
        "livenessProbe": _probe(spec, "/healthz", period_s=10, failures=6),
    }  # fmt: skip


def _probe(spec: Spec, path: str, *, period_s: int, failures: int) -> Manifest:
    scheme = {} if spec.gateway.tls_secret_name is None else {"scheme": "HTTPS"}
    return {
        "httpGet": {"path": path, "port": "http", **scheme},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _disruption_budget(spec: Spec, place: Place) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(spec, place, gateway_name(spec), GATEWAY),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(spec, GATEWAY)},
        },
    }
