"""A ShardCluster on a real Kubernetes, and what a campaign may ask of it and do to it.

Everything that waits for kubectl or the API server is done in a thread; what these refuse is
Trouble, and befalls nobody.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from shardcluster.observed import Address
from tests.chaos.reach import Trouble, now_ms
from tests.e2e.hand import ENGINE, signal_container
from tests.e2e.kube import Api, Document, Refused, Store
from tests.e2e.rig import RIG, Rig, machines

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.k8s_pod import InsidePod
    from tests.chaos.look import Seen

__all__ = ["Ground", "PodSeen", "aside"]

GATEWAY_PORT, NODE_PORT = 80, 6379
API_BACK_S = 40.0
POLL_S = 0.2
ASKED_MS = 5_000  # so long a pod whose end was asked for counts as ending without saying so

Found = TypeVar("Found")
Given = ParamSpec("Given")


async def aside(work: Callable[Given, Found], *words: Given.args, **named: Given.kwargs) -> Found:
    """In a thread; raises Trouble for what is refused."""
    try:
        return await asyncio.to_thread(work, *words, **named)
    except (Refused, subprocess.SubprocessError) as error:
        raise Trouble(str(error)) from error


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod of a node or a gateway."""

    name: str  # the node's, or the pod's
    host: str  # empty before it has one
    machine: str
    ending: bool
    document: Document

    @property
    def uid(self) -> str:
        """Another one after it was made anew."""
        found: str = self.document["metadata"]["uid"]
        return found


def _addresses(pods: list[PodSeen]) -> dict[str, Address]:
    return {pod.name: Address(pod.host, NODE_PORT) for pod in pods if pod.host}


class Ground:
    """The store, the pod of our own in its cluster, and the rig if there is one."""

    def __init__(self, store: Store, inside: InsidePod, *, storage: bool) -> None:
        """All of them run."""
        self.store = store
        self.inside = inside
        self.storage = storage
        self.rig = Rig() if RIG in os.environ else None
        self.machines = machines()
        self.home = inside.pod.on  # the machine that our pod is on
        self._gateway = Address("", GATEWAY_PORT)
        self._asked_ms: dict[str, int] = {}  # node -> when its end was asked for
        self._lives: dict[str, str] = {}  # node -> its pod's uid then

    # -- reading ----------------------------------------------------------------------------

    def _pod_seen(self, pod: Document) -> PodSeen:
        name = self.store.node_of(pod)
        asked = now_ms() - self._asked_ms.get(name, -ASKED_MS) < ASKED_MS
        asked = asked and pod["metadata"]["uid"] == self._lives[name]
        return PodSeen(
            name,
            pod["status"].get("podIP", ""),
            pod["spec"].get("nodeName", ""),
            asked or "deletionTimestamp" in pod["metadata"],
            pod,
        )

    async def pods(self, component: str = "node") -> list[PodSeen]:
        """Those of the component, by name."""
        return [self._pod_seen(pod) for pod in await aside(self.store.pods, component)]

    async def status(self) -> Document:
        """The resource's."""
        return await aside(self.store.status)

    async def spec(self) -> Document:
        """The resource's."""
        found: Document = (await aside(self.store.read))["spec"]
        return found

    async def gateway(self) -> Address:
        """Its Service's address; the last one while there is none."""
        path = f"/api/v1/namespaces/{self.store.namespace}/services/{self.store.name}-gateway"
        try:
            found = await aside(Api.read, path)
        except Trouble:
            return self._gateway
        self._gateway = Address(found["spec"]["clusterIP"], GATEWAY_PORT)
        return self._gateway

    async def look(self, pods: list[PodSeen]) -> list[Seen]:
        """What those of these nodes say that answer."""
        return await aside(self.inside.look, await self.gateway(), _addresses(pods))

    async def tell(self) -> None:
        """Let our clients know where everything is."""
        await aside(self.inside.tell, await self.gateway(), _addresses(await self.pods()))

    async def api_back(self) -> None:
        """Wait for an API server; raises Trouble when none comes."""
        ends_s = time.monotonic() + API_BACK_S
        while True:
            try:
                await aside(Api.text, "GET", "/readyz")
            except Trouble:
                if time.monotonic() > ends_s:
                    raise
                await asyncio.sleep(POLL_S)
            else:
                return

    # -- doing ------------------------------------------------------------------------------

    async def signal(self, pod: PodSeen, *signals: str, process: str = ENGINE) -> None:
        """To a process of a pod, at once; see `signal_container`.  Raises Trouble."""
        if not await aside(signal_container, pod.document, process, *signals):
            message = f"{pod.name} has no such process"
            raise Trouble(message)

    def asked_to_end(self, *pods: PodSeen) -> None:
        """Remember it: their pods don't say so yet, or are gone while their processes are not."""
        for pod in pods:
            self._asked_ms[pod.name] = now_ms()
            self._lives[pod.name] = pod.uid

    async def delete_pods(self, *pods: PodSeen, grace_s: int = -1) -> None:
        """Ask for their end."""
        self.asked_to_end(*pods)
        names = [pod.name for pod in pods]
        await aside(self.store.delete_pods, *names, grace_s=grace_s)

    async def force_delete_pod(self, pod: PodSeen) -> None:
        """Its end is not waited for, not even by Kubernetes."""
        self.asked_to_end(pod)
        await aside(self.store.end_pods, pod.name)

    async def patch(self, **changes: Any) -> None:
        """Of the spec."""
        await aside(self.store.patch, **changes)

    async def kubectl(self, *words: str) -> str:
        """In the store's namespace."""
        return await aside(self.store.kubectl, *words)
