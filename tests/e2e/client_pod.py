"""Pods in which a test's own clients run.

Their image is the gateway's: it has Python, our own code, aiohttp and redis-py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.e2e.kube import Api, Document, Store, gateway_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FILES_FOLDER", "ClientPod", "pod_security"]

FILES_FOLDER = "/clients"


def pod_security() -> dict[str, Document]:
    """What the level "restricted" asks: of a pod, and of its containers."""
    return {
        "pod": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "container": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _service_ip(store: Store, name: str) -> str:
    address: str = Api.read(f"/api/v1/namespaces/{store.namespace}/services/{name}")["spec"][
        "clusterIP"
    ]
    return address


@dataclass(frozen=True)
class ClientPod:
    """A pod that may reach the store's nodes and knows their password."""

    store: Store
    name: str
    command: Sequence[str]
    files: Mapping[str, str]  # path below `FILES_FOLDER` -> text
    on: str | None = None  # the Kubernetes node
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The pod's, in the API."""
        return f"/api/v1/namespaces/{self.store.namespace}/pods/{self.name}"

    def objects(self) -> Document:
        """What is to be applied."""
        script = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "namespace": self.store.namespace},
            "data": {_key(path): text for path, text in self.files.items()},
        }
        return {"apiVersion": "v1", "kind": "List", "items": [script, self._pod()]}

    def _pod(self) -> Document:
        security = pod_security()
        pod: Document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.store.namespace,
                "labels": {"shardcluster.io/client": self.store.name},
            },
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "restartPolicy": "Never",
                "securityContext": security["pod"],
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {
                        "name": "clients",
                        "image": gateway_image(),
                        "command": list(self.command),
                        "env": self._env(),
                        "securityContext": security["container"],
                        "volumeMounts": [{"name": "files", "mountPath": FILES_FOLDER}],
                    }
                ],
                "volumes": [{"name": "files", "configMap": self._volume()}],
            },
        }
        if self.on is not None:
            pod["spec"]["nodeName"] = self.on
            # Machines are lost there, and with one of them goes a small cluster's DNS server.
            pod["spec"]["hostAliases"] = [
                {"ip": _service_ip(self.store, service), "hostnames": [name]}
                for name, service in (
                    (f"{self.store.name}-gateway", f"{self.store.name}-gateway"),
                    (f"{self.store.name}-nodes", self.store.name),
                )
            ]
        return pod

    def _env(self) -> list[Document]:
        secret = {"name": f"{self.store.name}-auth", "key": "password"}
        return [
            {"name": "STORE", "value": self.store.name},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": secret}},
            *({"name": name, "value": value} for name, value in self.env.items()),
        ]

    def _volume(self) -> Document:
        items = [{"key": _key(path), "path": path} for path in self.files]
        return {"name": self.name, "items": items}


def _key(path: str) -> str:
    """A ConfigMap's keys have no slashes."""
    return path.replace("/", ".")
