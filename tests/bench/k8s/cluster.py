"""One ShardCluster in a namespace of its own, for a benchmark; and a load on its gateway.

What a benchmark needs beyond `kubectl`: pods' addresses can be reached from here, and the nodes'
processes are processes of this machine (as with kind, or any Kubernetes on one Linux machine).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import http.client
import json
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Load", "Store", "document", "kubectl", "load", "store", "until"]

DEADLINE_S = 600.0  # as many stores as in `idle` take a while on a small machine
POLL_S = 0.05
GATEWAY_PORT = 8080
WRITERS = 12  # keys that are written all the time, of every shard
WARM_UP_S = 1.0
PAUSE_S = 0.004  # of a writer between two writes
REQUEST_TIMEOUT_S = 10.0
NAMESPACE = "shardcluster-bench"


def kubectl(*arguments: str, text: str | None = None) -> str:
    """What it prints; raises CalledProcessError."""
    done = subprocess.run(
        ["kubectl", *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout, done.stderr)
    return done.stdout


@functools.cache
def _api_port() -> int:
    """Of the API server on this machine without a login, from a process that ends with this one.

    A `kubectl get` takes a tenth of a second of CPU: asked all the time it would slow down what is
    measured, on a small machine by half.
    """
    proxy = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    atexit.register(proxy.terminate)
    assert proxy.stdout is not None
    return int(proxy.stdout.readline().rpartition(":")[2])


def until(holds: Callable[[], Any], what: str, poll_s: float = POLL_S) -> Any:
    """The first true answer of `holds`; raises TimeoutError."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(what)
        time.sleep(poll_s)
    return found


def document(name: str, **spec: Any) -> dict[str, Any]:
    """A ShardCluster of 3 x (1 + 1) nodes with volumes, or as `spec` says."""
    return {
        "apiVersion": "shardcluster.io/v1alpha1",
        "kind": "ShardCluster",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "shards": 3,
            "replicasPerShard": 1,
            "storage": {"size": "1Gi", "keepOnDelete": False},
            "failover": {"nodeTimeoutMs": 2000},
            **spec,
        },
    }


@dataclass
class Store:
    """A ShardCluster that was applied."""

    name: str

    def read(self) -> dict[str, Any]:
        """The resource."""
        resources = f"/apis/shardcluster.io/v1alpha1/namespaces/{NAMESPACE}/shardclusters"
        connection = http.client.HTTPConnection("127.0.0.1", _api_port())
        with contextlib.closing(connection):
            connection.request("GET", f"{resources}/{self.name}")
            found: dict[str, Any] = json.load(connection.getresponse())
        return found

    def patch(self, spec: dict[str, Any]) -> None:
        """Change the spec."""
        self._kubectl("patch", "shc", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def calm(self, shards: int = 3, replicas: int = 1) -> dict[str, Any]:
        """The status, once nothing is going on and all nodes are in their places."""

        def calm() -> dict[str, Any] | None:
            found = self.read()
            status: dict[str, Any] = found.get("status", {})
            nodes = status.get("nodes", ())
            whole = len(nodes) == shards * (1 + replicas) and all(
                node["health"] == "Up" and node["linkUp"] for node in nodes
            )
            seen = status.get("observedGeneration") == found["metadata"]["generation"]
            return status if whole and seen and status["reason"] == "Idle" else None

        found: dict[str, Any] = until(calm, f"{self.name} is calm")
        return found

    def pods(self, component: str = "node") -> list[dict[str, Any]]:
        """Its pods."""
        labels = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        found = json.loads(self._kubectl("get", "pods", "-l", labels, "-o", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def gateway_url(self) -> str:
        """Of the first gateway that is ready."""

        def address() -> str | None:
            for pod in self.pods("gateway"):
                ready = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
                if ready.get("Ready") == "True":
                    return f"http://{pod['status']['podIP']}:{GATEWAY_PORT}"
            return None

        found: str = until(address, "a gateway is ready")
        return found

    def kill(self, node: str) -> None:
        """SIGKILL to the engine's process of a node; waits until it has another container."""
        container = self._container(node)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                engine = process.joinpath("comm").read_text("ascii").startswith("valkey")
                if engine and container in process.joinpath("cgroup").read_text("ascii"):
                    subprocess.run(["kill", "-9", process.name], check=True)
                    break
        else:
            raise LookupError(node)
        until(lambda: self._container(node) not in {"", container}, "it was started again")

    def _container(self, node: str) -> str:
        """The id of the container that runs the engine, or ran it last; empty: there is none."""
        for pod in self.pods():
            if pod["metadata"]["name"] == f"{self.name}-{node}":
                for status in pod["status"].get("containerStatuses", ()):
                    return str(status.get("containerID", "")).rpartition("/")[2]
        return ""

    def replace_pods(self, *nodes: str) -> None:
        """Delete them, and wait until others have their names."""
        names = {f"{self.name}-{node}" for node in nodes}
        before = self._uids()
        self._kubectl("delete", "pod", "--wait=false", *names)

        def replaced() -> bool:
            now = self._uids()
            return all(now.get(name, before[name]) != before[name] for name in names)

        until(replaced, "the pods are others", poll_s=0.5)

    def _uids(self) -> dict[str, str]:
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.pods()}

    def _kubectl(self, *arguments: str) -> str:
        return kubectl("-n", NAMESPACE, *arguments)


@contextlib.contextmanager
def store(name: str, **spec: Any) -> Iterator[Store]:
    """Applied and calm; deleted at the end."""
    kubectl("apply", "-f", "-", text=json.dumps(document(name, **spec)))
    made = Store(name)
    try:
        made.calm(spec.get("shards", 3), spec.get("replicasPerShard", 1))
        yield made
    finally:
        kubectl("-n", NAMESPACE, "delete", "shc", name)
        until(lambda: not made.pods(), "its pods are gone")


class Load(threading.Thread):
    """Writers of one key each, one write after the other, in a thread of their own."""

    def __init__(self, url: str) -> None:
        """`start` begins, `end` ends."""
        super().__init__(name="load", daemon=True)
        self._url = url
        self._ending = threading.Event()
        self._last_s: dict[str, float] = {}  # each key's last acknowledged write
        self._gap_s: dict[str, float] = {}  # the longest time between two
        self._acknowledged: dict[str, int] = {}
        self.failed: list[str] = []
        self.lost = 0

    def run(self) -> None:
        """The thread."""
        asyncio.run(self._write_all())

    def end(self) -> None:
        """Stop, and read back what was acknowledged: `lost` says how many keys are older."""
        self._ending.set()
        self.join()

    def reset(self) -> None:
        """Count gaps and failures from here on."""
        self._gap_s = dict.fromkeys(self._gap_s, 0.0)
        self.failed = []

    @property
    def worst_gap_s(self) -> float:
        """Of all keys, one that goes on now included."""
        now_s = time.monotonic()
        lasting = [now_s - last_s for last_s in self._last_s.values()]
        return max([*self._gap_s.values(), *lasting])

    async def _write_all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            keys = [f"bench-{number}" for number in range(WRITERS)]
            await asyncio.gather(*(self._write(session, key) for key in keys))
            for key, number in self._acknowledged.items():
                url = f"{self._url}/v1/keys/{key}?consistency=strong"
                async with session.get(url) as answer:
                    body = await answer.read()
                    self.lost += answer.status != 200 or int(body) < number

    async def _write(self, session: aiohttp.ClientSession, key: str) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            try:
                async with session.put(f"{self._url}/v1/keys/{key}", data=str(number)) as answer:
                    if answer.status < 300:
                        now_s = time.monotonic()
                        gap_s = now_s - self._last_s.get(key, now_s)
                        self._gap_s[key] = max(gap_s, self._gap_s.get(key, 0.0))
                        self._last_s[key], self._acknowledged[key] = now_s, number
                    else:
                        self.failed.append(f"{answer.status} {(await answer.text())[:200]}")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failed.append(repr(error))
            await asyncio.sleep(PAUSE_S)


@contextlib.contextmanager
def load(store: Store) -> Iterator[Load]:
    """Runs meanwhile; raises AssertionError at the end if an acknowledged write is lost."""
    made = Load(store.gateway_url())
    made.start()
    time.sleep(WARM_UP_S)
    made.reset()
    try:
        yield made
    finally:
        made.end()
    assert not made.lost, f"{made.lost} keys are older than acknowledged"
