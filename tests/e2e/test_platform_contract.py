"""Kubernetes keeps the contract of all platforms: real StatefulSets, real pods, no operator."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster.spec import parse
from shardcluster_operator.informer import Informer
from shardcluster_operator.manifests import Place, objects, secret
from shardcluster_operator.platform import CLUSTER_LABEL, PODS, STATEFUL_SETS, KubernetesPlatform
from shardcluster_runtime.kube import Kind, Kube, kind_of
from tests.e2e.hand import kill_container
from tests.e2e.installed import SYSTEM, without_operator
from tests.e2e.kube import Refused, Store, gateway_image, manifest
from tests.platform_contract import PlatformContract, Rig, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from shardcluster_runtime.platforms.protocol import Platform, PlatformNode

pytestmark = pytest.mark.serial

PASSWORD = "of-the-contract"  # noqa: S105 - of nodes that live for a minute
CLIENT_S = 10.0
GARBAGE = "echo garbage >/data/nodes.conf"


class KubernetesRig:
    """A resource that nobody but the test cares for, and one connection to the API."""

    def __init__(self, kube: Kube, store: Store) -> None:
        """`begin` first, `end` last."""
        self._kube = kube
        self._store = store
        self._formed = False
        self._platforms: list[KubernetesPlatform] = []
        document = manifest(store.namespace, store.name, gateway={"replicas": 0})
        self._spec = parse({**document, "metadata": {"name": store.name}})
        self._pods, self._sets = (
            Informer(kube, kind, store.namespace, CLUSTER_LABEL, self._changed)
            for kind in (PODS, STATEFUL_SETS)
        )
        self._place: Place | None = None

    async def begin(self) -> None:
        """The objects that pods need."""
        self._place = Place(
            namespace=self._store.namespace,
            uid=self._store.read()["metadata"]["uid"],
            gateway_image=gateway_image(),
            operator_namespace=SYSTEM,
        )
        await self._kube.apply(Kind("v1", "secrets"), secret(self._spec, self._place, PASSWORD))
        for made in objects(self._spec, self._place):
            await self._kube.apply(kind_of(made), made)
        for informer in (self._pods, self._sets):
            informer.start()

    async def end(self) -> None:
        """Nothing is watched any more."""
        for informer in (self._pods, self._sets):
            await informer.stop()

    def _changed(self, key: tuple[str, str]) -> None:
        if key == (self._store.namespace, self._store.name):
            for platform in self._platforms:
                platform.changed()

    def platform(self) -> Platform:
        """A new one over the same informers."""
        assert self._place is not None
        made = KubernetesPlatform(
            self._kube, self._place, self._pods, self._sets, lambda: self._spec
        )
        made.formed_before = self._formed
        made.on_formed = self._form
        self._platforms.append(made)
        return made

    def _form(self) -> None:
        self._formed = True  # in an operator's life it is written into the status

    async def provide(self, nodes: int) -> None:
        """They are had for the asking."""

    async def ask(self, node: PlatformNode, *command: str) -> Any:
        """By the client in its own pod."""
        try:
            text = await asyncio.to_thread(
                self._store.kubectl, "exec", f"{self._store.name}-{node.name}", "--",
                "valkey-cli", "--no-auth-warning", "-a", PASSWORD, *command,
            )  # fmt: skip
        except Refused as error:
            raise OSError(str(error)) from error
        return int(text) if text.strip().isdigit() else text.strip().encode()

    async def kill(self, node: PlatformNode) -> None:
        """SIGKILL to its engine."""
        pod = f"{self._store.name}-{node.name}"
        await asyncio.to_thread(kill_container, self._store.namespace, pod, "valkey-server")

    async def is_gone(self, platform: Platform, node: PlatformNode) -> bool:
        """Its pod or its container has ended, or there is another one already."""
        found = next(place for place in await platform.nodes() if place.name == node.name)
        if found.ended or found.address != node.address:
            return True
        status = (await asyncio.to_thread(self._store.pod_of, node.name))["status"]
        return any(c["restartCount"] for c in status.get("containerStatuses", ()))

    async def spoil(self, node: str) -> None:
        """Let the node's engine refuse to start: what it knows of itself is garbage."""
        pod = f"{self._store.name}-{node}"
        await asyncio.to_thread(self._store.kubectl, "exec", pod, "--", "sh", "-c", GARBAGE)
        await asyncio.to_thread(kill_container, self._store.namespace, pod, "valkey-server")


@pytest.fixture(scope="module")
def _alone(operator: str) -> Iterator[None]:
    assert operator
    with without_operator():
        yield


class TestKubernetes(PlatformContract):
    """The contract."""

    @pytest.fixture
    async def rig(self, _alone: None, store: Store) -> AsyncIterator[Rig]:
        """In a namespace of its own."""
        name = f"c{uuid.uuid4().hex[:6]}"
        named = Store(store.namespace, name)
        named.apply(gateway={"replicas": 0})
        kube = await Kube.open()
        made = KubernetesRig(kube, named)
        try:
            await made.begin()
            yield made
        finally:
            await made.end()
            await kube.close()

    async def let_it_end(self, rig: Rig, platform: Platform) -> None:
        """Pods come back by themselves, unless they can't start."""
        assert isinstance(rig, KubernetesRig)
        await rig.spoil("shard-0-0")

        async def ended() -> bool:
            (node,) = await platform.nodes()
            return node.ended

        await until(ended)
