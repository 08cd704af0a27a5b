"""Clients of a store that run in the cluster while a test does something to it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.kube import Api, Document, Store, gateway_image, until

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["BOTH", "Traffic", "pod_security", "traffic"]

SCRIPT = Path(__file__).with_name("traffic_pod.py")
BOTH = ("gateway", "direct")
WRITES_BEFORE = 60  # through each door, before a test begins


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


@dataclass
class Traffic:
    """Of one store, from one pod."""

    store: Store
    pod: str
    lost: bool = False  # known at the end

    @property
    def path(self) -> str:
        """The pod's, in the API."""
        return f"/api/v1/namespaces/{self.store.namespace}/pods/{self.pod}"

    def ask(self, word: str) -> Document:
        """`report`, `reset` or `finish`; tried again while the pod can't be reached."""

        def answer() -> Document | None:
            for container in Api.read(self.path)["status"].get("containerStatuses", ()):
                assert "terminated" not in container["state"], container["state"]
            text = self.store.kubectl(
                "exec", self.pod, "--", "python3", "/traffic/traffic_pod.py", "ask", word
            )
            found: Document = json.loads(text)
            return found

        return until(answer, f"the answer of {self.pod} to {word}")

    def reset(self) -> None:
        """Count failures and gaps from here on."""
        self.ask("reset")

    def harmless(self, *, kills: bool = False) -> None:
        """Fails if a request through the gateway did since the last reset.

        When a process was killed, the writes that it had got may have an unknown fate.
        """
        gateway = self.ask("report")["gateway"]
        assert gateway["failures"] == gateway["unknown"], gateway["failed"]
        assert kills or not gateway["unknown"], gateway["failed"]

    def goes_on(self, *doors: str) -> None:
        """Wait until every key is written again, through both doors or those named."""

        def all_written() -> bool:
            fresh = all(
                report["writes"] >= WRITES_BEFORE and report["gap_s"] < 1.0
                for door, report in self.ask("report").items()
                if door in (doors or BOTH)
            )
            if not fresh:
                self.reset()
            return fresh

        self.reset()
        until(all_written, "writes through both doors", poll_s=3.0)


@contextlib.contextmanager
def traffic(
    store: Store, *, on: str | None = None, may_lose: Collection[str] = ()
) -> Iterator[Traffic]:
    """Runs meanwhile, on the Kubernetes node `on`; at the end nothing acknowledged may be lost.

    Except through the doors `may_lose`.
    """
    name = f"traffic-{on or 'any'}"
    made = Traffic(store, name)
    store.kubectl("apply", "-f", "-", text=json.dumps(_objects(store, name, on)))
    try:
        until(
            lambda: Api.read(made.path)["status"]["phase"] == "Running",
            f"{name} runs",
        )
        until(
            lambda: all(kind["writes"] > WRITES_BEFORE for kind in made.ask("report").values()),
            lambda: f"the first writes: {made.ask('report')}",
        )
        made.reset()
        yield made
        last = made.ask("finish")
        for door, found in last.items():
            assert not found["wrong"], (door, found["wrong"])
            assert door in may_lose or not found["lost"], (door, found["lost"])
        made.lost = any(found["lost"] for found in last.values())
    finally:
        store.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")


def _service_ip(store: Store, name: str) -> str:
    address: str = Api.read(f"/api/v1/namespaces/{store.namespace}/services/{name}")["spec"][
        "clusterIP"
    ]
    return address


def _objects(store: Store, name: str, on: str | None) -> dict[str, Any]:
    security = pod_security()
    pod: Document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": store.namespace,
            "labels": {"shardcluster.io/client": store.name},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "securityContext": security["pod"],
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "traffic",
                    "image": gateway_image(),
                    "command": ["python3", "/traffic/traffic_pod.py"],
                    "env": [
                        {"name": "STORE", "value": store.name},
                        {
                            "name": "PASSWORD",
                            "valueFrom": {
                                "secretKeyRef": {"name": f"{store.name}-auth", "key": "password"}
                            },
                        },
                    ],
                    "securityContext": security["container"],
                    "volumeMounts": [{"name": "script", "mountPath": "/traffic"}],
                }
            ],
            "volumes": [{"name": "script", "configMap": {"name": name}}],
        },
    }
    if on is not None:
        pod["spec"]["nodeName"] = on
        # Machines are lost there, and with one of them goes the DNS server of a small cluster.
        pod["spec"]["hostAliases"] = [
            {"ip": _service_ip(store, service), "hostnames": [name]}
            for name, service in (
                (f"{store.name}-gateway", f"{store.name}-gateway"),
                (f"{store.name}-nodes", store.name),
            )
        ]
    script = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": store.namespace},
        "data": {SCRIPT.name: SCRIPT.read_text("utf-8")},
    }
    return {"apiVersion": "v1", "kind": "List", "items": [script, pod]}
