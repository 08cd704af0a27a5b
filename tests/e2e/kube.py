"""A ShardCluster on a real Kubernetes, as people handle it: through kubectl.

Nothing here needs to reach a pod from outside (kind's can't be); what runs inside the cluster is
in `tests/e2e/traffic.py` and `tests/e2e/hand.py`.
"""

from __future__ import annotations

import atexit
import functools
import http
import importlib.metadata
import json
import os
import subprocess
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Api", "Document", "Refused", "Store", "engine_image", "foreign_context", "gateway_image",
    "kubectl", "kubectl_json", "manifest", "next_engine_image", "operator_image", "until",
]  # fmt: skip

Document = dict[str, Any]

CONTEXT = "SHARDCLUSTER_E2E_CONTEXT"
VERSION = importlib.metadata.version("shardcluster")
DEADLINE_S = 240.0
POLL_S = 0.2
KUBECTL_TIMEOUT_S = 150.0
API_TIMEOUT_S = 20.0
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}
NODE_TIMEOUT_MS = 2000

Found = TypeVar("Found")


def engine_image() -> str:
    """The engine's image that stores begin with; it has a shell."""
    return os.environ.get("SHARDCLUSTER_E2E_IMAGE", "valkey/valkey:8.1")


def next_engine_image() -> str:
    """The image of an upgrade."""
    return os.environ.get("SHARDCLUSTER_E2E_NEXT_IMAGE", "valkey/valkey:8.1-bookworm")


def operator_image() -> str:
    """The operator's image under test."""
    return os.environ.get("SHARDCLUSTER_E2E_OPERATOR_IMAGE", f"shardcluster-operator:{VERSION}")


def gateway_image() -> str:
    """The gateway's; it has Python, aiohttp and redis-py, so that clients run in it, too."""
    return os.environ.get("SHARDCLUSTER_E2E_GATEWAY_IMAGE", f"shardcluster-api:{VERSION}")


def foreign_context() -> str:
    """Why nothing may be tried on the Kubernetes that KUBECONFIG names; empty where it may."""
    done = subprocess.run(
        ["kubectl", "config", "current-context"], capture_output=True, text=True, check=False
    )
    context = done.stdout.strip()
    if done.returncode or not context:
        return f"No Kubernetes to test on: {done.stderr.strip()}"
    if not context.startswith(("kind-", "localkube")) and os.environ.get(CONTEXT) != context:
        return (
            f"{context} is not a context for tests (kind-…, localkube…); {CONTEXT}={context} says"
            " that it is."
        )
    return ""


class Refused(AssertionError):
    """Kubectl failed; the message is what it said."""


def kubectl(*arguments: str, text: str | None = None) -> str:
    """What it prints; raises Refused."""
    done = subprocess.run(
        ["kubectl", *arguments], input=text, capture_output=True, text=True, check=False,
        timeout=KUBECTL_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode:
        message = f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}"
        raise Refused(message)
    return done.stdout


class Api:
    """The API through `kubectl proxy`: a process for each read is too much for polling."""

    @classmethod
    def read(cls, path: str) -> Document:
        """An object, or a list with `items`; raises Refused."""
        return cls.ask("GET", path)

    @classmethod
    def ask(cls, method: str, path: str, document: object = None) -> Document:
        """Any request that is answered by JSON; raises Refused."""
        found: Document = json.loads(cls.text(method, path, document))
        return found

    @classmethod
    def text(cls, method: str, path: str, document: object = None) -> bytes:
        """Any request; raises Refused."""
        body = None if document is None else json.dumps(document)
        try:
            answer = _proxied().request(
                method, path, content=body, headers={"Content-Type": "application/json"}
            )
        except httpx.TransportError as error:
            raise Refused(f"{method} {path}: {error!r}") from error  # noqa: EM102, TRY003
        if answer.status_code != http.HTTPStatus.OK:
            raise Refused(f"{method} {path}: {answer.status_code} {answer.text[:500]}")  # noqa: EM102, TRY003
        return answer.content


@functools.cache
def _proxied() -> httpx.Client:
    """To a proxy that lives as long as this process; for all threads."""
    proxy = subprocess.Popen(
        ["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,  # a line for each request while the API server is away
    )  # fmt: skip
    atexit.register(proxy.terminate)
    assert proxy.stdout is not None
    line = proxy.stdout.readline()  # Starting to serve on 127.0.0.1:40001
    found = httpx.Client(
        base_url=f"http://127.0.0.1:{int(line.rpartition(':')[2])}",
        timeout=API_TIMEOUT_S,
        trust_env=False,
    )
    atexit.register(found.close)
    return found


def kubectl_json(*arguments: str) -> Document:
    """An object, or a list with `items`."""
    found: Document = json.loads(kubectl(*arguments, "-o", "json"))
    return found


def until(
    holds: Callable[[], Found | None],
    what: str | Callable[[], str],
    deadline_s: float = DEADLINE_S,
    poll_s: float = POLL_S,
) -> Found:
    """The first true answer of `holds`; AssertionError after the deadline.

    An API server that is away for a while is waited for.
    """
    ends_s = time.monotonic() + deadline_s
    trouble = ""
    while True:
        try:
            if found := holds():
                return found
        except (Refused, subprocess.TimeoutExpired) as error:
            trouble = str(error)
        if time.monotonic() > ends_s:
            message = f"waited for: {what if isinstance(what, str) else what()} {trouble}"
            raise AssertionError(message)
        time.sleep(poll_s)


def manifest(namespace: str, name: str = "demo", **spec: Any) -> Document:
    """A small ShardCluster: 3 x (1 + 1) nodes with volumes, or as `spec` says (None: left out)."""
    wanted: Document = {
        "shards": 3,
        "replicasPerShard": 1,
        "image": engine_image(),
        "storage": {"size": "64Mi", "keepOnDelete": False},
        "resources": SMALL,
        "failover": {"nodeTimeoutMs": NODE_TIMEOUT_MS},
        **spec,
    }
    return {
        "apiVersion": "shardcluster.io/v1alpha1",
        "kind": "ShardCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {field: value for field, value in wanted.items() if value is not None},
    }


@dataclass(frozen=True)
class Store:
    """One ShardCluster."""

    namespace: str
    name: str = "demo"

    def apply(self, **spec: Any) -> None:
        """`kubectl apply`; raises Refused."""
        text = json.dumps(manifest(self.namespace, self.name, **spec))
        kubectl("apply", "-f", "-", text=text)

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """In its namespace."""
        return kubectl("-n", self.namespace, *arguments, text=text)

    def read(self) -> Document:
        """The resource."""
        return Api.read(
            f"/apis/shardcluster.io/v1alpha1/namespaces/{self.namespace}/shardclusters/{self.name}"
        )

    def status(self) -> Document:
        """Its status; empty before there is one."""
        found: Document = self.read().get("status", {})
        return found

    def patch(self, **spec: Any) -> None:
        """Change fields of the spec; None takes one out.  Raises Refused."""
        self.kubectl("patch", "shc", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def conditions(self) -> dict[str, str]:
        """Type → status."""
        return {c["type"]: c["status"] for c in self.status().get("conditions", ())}

    def until_status(
        self, holds: Callable[[Document], object], what: str, deadline_s: float = DEADLINE_S
    ) -> Document:
        """The first status for which `holds`."""

        def found() -> Document | None:
            status = self.status()
            return status if status and holds(status) else None

        return until(
            found,
            lambda: f"{what}; the status is {self.status().get('message')!r}",
            deadline_s=deadline_s,
        )

    def until_calm(
        self, shards: int = 3, replicas: int = 1, deadline_s: float = DEADLINE_S
    ) -> Document:
        """The status once the present spec is looked at, nothing is left to do, and all is well."""

        def calm() -> Document | None:
            found = self.read()
            status: Document = found.get("status", {})
            nodes = status.get("nodes", ())
            whole = len(nodes) == shards * (1 + replicas) and all(
                node["health"] == "Up" and node["linkUp"] for node in nodes
            )
            seen = status.get("observedGeneration") == found["metadata"]["generation"]
            return status if whole and seen and status["reason"] == "Idle" else None

        return until(
            calm,
            lambda: (
                f"{self.name} at rest with {shards} × (1+{replicas}); it says"
                f" {self.status().get('message')!r} of {self.status().get('nodes')}"
            ),
            deadline_s=deadline_s,
        )

    def pods(self, component: str = "node") -> list[Document]:
        """Those of the component, by name."""
        labels = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        query = urllib.parse.urlencode({"labelSelector": labels})
        found = Api.read(f"/api/v1/namespaces/{self.namespace}/pods?{query}")
        return sorted(found["items"], key=lambda pod: str(pod["metadata"]["name"]))

    def engine_images(self) -> set[str]:
        """What the nodes' pods are to run."""
        return {pod["spec"]["containers"][0]["image"] for pod in self.pods()}

    def pod_uids(self) -> dict[str, str]:
        """Node → its pod's uid."""
        return {self.node_of(pod): pod["metadata"]["uid"] for pod in self.pods()}

    def node_of(self, pod: Document) -> str:
        """`shard-0-1` of the pod `demo-shard-0-1`."""
        name: str = pod["metadata"]["name"]
        return name.removeprefix(f"{self.name}-")

    def pod_of(self, node: str) -> Document:
        """The pod of `shard-0-1`."""
        return Api.read(f"/api/v1/namespaces/{self.namespace}/pods/{self.name}-{node}")

    def masters(self) -> dict[str, str]:
        """Shard → the node that leads it; empty while nobody does."""
        return {shard["name"]: shard.get("master", "") for shard in self.status()["shards"]}

    def life_of(self, node: str) -> tuple[str, int]:
        """Another one after its pod was made anew or its container was started again."""
        pod = self.pod_of(node)
        starts = [c["restartCount"] for c in pod["status"].get("containerStatuses", ())]
        return pod["metadata"]["uid"], sum(starts)

    def until_another_life(self, node: str, before: tuple[str, int]) -> None:
        """Wait until it was `life_of`, and is not."""
        until(lambda: self.life_of(node) != before, f"another life of {node}")

    def delete_pods(self, *nodes: str, grace_s: int = -1) -> None:
        """Ask for their end, and don't wait for it; they have `grace_s`, or what they ask for."""
        names = (f"{self.name}-{node}" for node in nodes)
        self.kubectl("delete", "pod", "--wait=false", f"--grace-period={grace_s}", *names)

    def end_pods(self, *nodes: str) -> None:
        """At once, without a chance to hand anything over."""
        names = (f"{self.name}-{node}" for node in nodes)
        self.kubectl("delete", "pod", "--grace-period=0", "--force", *names)

    def events(self) -> list[Document]:
        """Kubernetes' Events of the resource."""
        about = f"involvedObject.kind=ShardCluster,involvedObject.name={self.name}"
        found = kubectl_json("-n", self.namespace, "get", "events", f"--field-selector={about}")
        return sorted(found["items"], key=lambda event: str(event["lastTimestamp"]))

    def event_reasons(self) -> set[str]:
        """Their reasons."""
        return {event["reason"] for event in self.events()}
