"""Kubernetes as a platform: one StatefulSet a shard, one pod a node.

Law: what a pass sees comes from the informers' copies; what is destroyed is looked at afresh
first.  A pod that is not there, or whose container has ended, is proof that no process of the node
runs; a pod on a node of Kubernetes that does not answer is no proof of anything, and `fence` does
not claim one.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from shardcluster.names import node_name, shard_number, split_node_name
from shardcluster.observed import Address
from shardcluster.quantities import parse_quantity
from shardcluster_operator.informer import NotSynced
from shardcluster_operator.manifests import (
    CLUSTER_LABEL,
    CONFIG_HASH_ANNOTATION,
    SHARD_LABEL,
    config_hash,
    stateful_set,
)
from shardcluster_runtime.kube import ApiError, Kind
from shardcluster_runtime.platforms.protocol import PlatformNode, PlatformUnable
from shardcluster_runtime.wire import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.spec import Spec
    from shardcluster_operator.informer import Informer
    from shardcluster_operator.manifests import Place
    from shardcluster_runtime.kube import Kube, Manifest

__all__ = ["CLUSTER_LABEL", "PODS", "STATEFUL_SETS", "KubernetesPlatform"]

PODS = Kind("v1", "pods")
STATEFUL_SETS = Kind("apps/v1", "statefulsets")
CLAIMS = Kind("v1", "persistentvolumeclaims")
PORT = 6379
FENCE_WAIT_S = 2.0
FENCE_POLL_S = 0.1


class KubernetesPlatform:
    """The nodes of one ShardCluster."""

    can_fence = True
    can_restart = True

    def __init__(
        self,
        kube: Kube,
        place: Place,
        pods: Informer,
        stateful_sets: Informer,
        spec: Callable[[], Spec],
    ) -> None:
        """`spec` gives the ShardCluster as it is now."""
        self._kube = kube
        self._place = place
        self._pods = pods
        self._stateful_sets = stateful_sets
        self._spec = spec
        self._name = spec().name
        self._credentials = Credentials()
        self.formed_before = False
        self.on_formed: Callable[[], Any] = lambda: None

    @property
    def keeps_data(self) -> bool:
        """Whether there are volumes."""
        return not self._spec().memory_only

    @property
    def credentials(self) -> Credentials:
        """The password, from the Secret."""
        return self._credentials

    def log_in_with(self, password: str) -> None:
        """What the Secret says."""
        self._credentials = Credentials(password)

    async def start(self, wake: Callable[[], None]) -> None:
        """Wait for the first lists; the informers wake the loop through the session."""
        del wake
        await self._pods.synced.wait()
        await self._stateful_sets.synced.wait()

    async def nodes(self) -> tuple[PlatformNode, ...]:
        """Every ordinal that a StatefulSet shall have, and every pod that is still there."""
        namespace = self._place.namespace
        try:
            sets = self._stateful_sets.objects(namespace, self._name)
            pods = self._pods.objects(namespace, self._name)
        except NotSynced as error:
            raise PlatformUnable(str(error)) from error
        found: dict[str, PlatformNode] = {}
        present = _config_hash(self._spec())
        for item in sets:
            if item["metadata"].get("deletionTimestamp"):
                continue
            shard = item["metadata"]["labels"][SHARD_LABEL]
            for ordinal in range(item["spec"]["replicas"]):
                name = node_name(shard, ordinal)
                found[name] = PlatformNode(name, shard, ordinal, None, ended=True)
        for pod in pods:
            name = self._node_of(pod)
            if name in found:
                found[name] = _place(found[name], pod, present)
        order = sorted(found.values(), key=lambda n: (shard_number(n.shard), n.ordinal))
        return tuple(order)

    async def spare_nodes(self) -> int | None:
        """As many as asked for can be started."""
        return None

    async def renew(self) -> None:
        """Bring the StatefulSets that stand into their present form; raises ApiError.

        Their pods stay as they are: the loop replaces outdated ones.  What can't be changed in a
        StatefulSet is changed by making it anew around its pods.
        """
        spec = self._spec()
        for item in self._stateful_sets.objects(self._place.namespace, self._name):
            if item["metadata"].get("deletionTimestamp"):
                continue
            shard, nodes = item["metadata"]["labels"][SHARD_LABEL], item["spec"]["replicas"]
            manifest = stateful_set(spec, self._place, shard, nodes)
            try:
                await self._kube.apply(STATEFUL_SETS, manifest)
            except ApiError as error:
                if error.status != 422:
                    raise
                await self._grow_claims(shard)
                meta = manifest["metadata"]
                orphan = {"propagationPolicy": "Orphan"}
                await self._kube.delete(STATEFUL_SETS, meta["namespace"], meta["name"], orphan)
                await self._kube.apply(STATEFUL_SETS, manifest)

    async def _grow_claims(self, shard: str) -> None:
        """Volumes made from an older template get the size of the present one."""
        storage = self._spec().storage
        if storage is None:
            return
        for claim in await self._claims(shard):
            now = claim["spec"]["resources"]["requests"]["storage"]
            if parse_quantity(now) < parse_quantity(storage.size):
                size = {"spec": {"resources": {"requests": {"storage": storage.size}}}}
                meta = claim["metadata"]
                await self._kube.merge(CLAIMS, meta["namespace"], meta["name"], size)

    async def _claims(self, shard: str) -> list[Manifest]:
        selector = f"{CLUSTER_LABEL}={self._name},{SHARD_LABEL}={shard}"
        listed = await self._kube.list(CLAIMS, self._place.namespace, selector)
        found: list[Manifest] = listed["items"]
        return found

    async def scale_shard(self, shard: str, nodes: int) -> None:
        """Apply the StatefulSet, or delete it with its volumes."""
        try:
            if nodes:
                manifest = stateful_set(self._spec(), self._place, shard, nodes)
                await self._kube.apply(STATEFUL_SETS, manifest)
            else:
                await self._delete_shard(shard)
        except ApiError as error:
            message = f"{shard} could not be scaled to {nodes} nodes: {error}"
            raise PlatformUnable(message) from error

    async def _delete_shard(self, shard: str) -> None:
        namespace = self._place.namespace
        foreground = {"propagationPolicy": "Foreground"}
        await self._kube.delete(STATEFUL_SETS, namespace, f"{self._name}-{shard}", foreground)
        for claim in await self._claims(shard):
            await self._kube.delete(CLAIMS, namespace, claim["metadata"]["name"])

    async def restart(self, node: str, *, fresh: bool) -> None:
        """Let the pod be made anew; `fresh` without its volume."""
        namespace, pod_name = self._place.namespace, f"{self._name}-{node}"
        try:
            pod = await self._kube.get(PODS, namespace, pod_name)
            if pod is not None and not _ended(pod):
                return
            if fresh and self.keeps_data:
                await self._kube.delete(CLAIMS, namespace, f"data-{pod_name}")
            if pod is not None and (fresh or _backs_off(pod)):
                await self._delete_pod(pod)
        except ApiError as error:
            raise PlatformUnable(f"{node} could not be started again: {error}") from error  # noqa: EM102, TRY003

    async def replace(self, node: str) -> None:
        """Delete the pod; its StatefulSet makes it anew by the present template."""
        namespace, pod_name = self._place.namespace, f"{self._name}-{node}"
        try:
            pod = await self._kube.get(PODS, namespace, pod_name)
            if pod is not None and not pod["metadata"].get("deletionTimestamp"):
                await self._delete_pod(pod)
        except ApiError as error:
            raise PlatformUnable(f"{node} could not be replaced: {error}") from error  # noqa: EM102, TRY003

    async def fence(self, node: str) -> None:
        """Delete the pod and return when the kubelet has confirmed its end."""
        namespace, pod_name = self._place.namespace, f"{self._name}-{node}"
        try:
            pod = await self._kube.get(PODS, namespace, pod_name)
            if pod is None or _ended(pod):
                return
            uid = pod["metadata"]["uid"]
            # One second: the kubelet kills the process and only then lets the object go; with zero
            # it goes at once, whatever the process does.
            await self._delete_pod(pod, grace_s=1)
            for _ in range(int(FENCE_WAIT_S / FENCE_POLL_S)):
                now = await self._kube.get(PODS, namespace, pod_name)
                if now is None or now["metadata"]["uid"] != uid or _ended(now):
                    return
                await asyncio.sleep(FENCE_POLL_S)
        except ApiError as error:
            raise PlatformUnable(f"{node} could not be fenced: {error}") from error  # noqa: EM102, TRY003
        message = f"{node}'s pod does not end; its Kubernetes node may be out of reach."
        raise PlatformUnable(message)

    async def _delete_pod(self, pod: Manifest, grace_s: int | None = None) -> None:
        meta = pod["metadata"]
        options: dict[str, Any] = {"preconditions": {"uid": meta["uid"]}}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._kube.delete(PODS, meta["namespace"], meta["name"], options)
        except ApiError as error:
            if error.reason != "Conflict":  # another pod has its name already
                raise

    async def mark_formed(self) -> None:
        """The session writes it into the status."""
        self.formed_before = True
        self.on_formed()

    async def kill(self, node: str, signal_name: str) -> None:
        """Not here: kubectl does it."""
        message = f"SIG{signal_name} can't be sent to {node}: use kubectl delete pod or exec."
        raise PlatformUnable(message)

    async def close(self, *, stop_nodes: bool) -> None:
        """Pods live without us."""
        del stop_nodes

    def _node_of(self, pod: Manifest) -> str:
        name: str = pod["metadata"]["name"]
        return name.removeprefix(f"{self._name}-")


_config_hash = functools.lru_cache(maxsize=1024)(config_hash)  # asked for in every pass


def _place(node: PlatformNode, pod: Manifest, present: str) -> PlatformNode:
    status = pod.get("status", {})
    started_as = pod["metadata"].get("annotations", {}).get(CONFIG_HASH_ANNOTATION)
    host = status.get("podIP")
    shard, ordinal = split_node_name(node.name)
    return PlatformNode(
        name=node.name,
        shard=shard,
        ordinal=ordinal,
        address=Address(host, PORT) if host else None,
        ended=_ended(pod),
        pending=_pending(pod),
        ending="deletionTimestamp" in pod["metadata"],
        outdated=started_as != present,
    )


def _container(pod: Manifest) -> dict[str, Any]:
    for found in pod.get("status", {}).get("containerStatuses", ()):
        if found["name"] == "valkey":
            state: dict[str, Any] = found.get("state", {})
            return state
    return {}


def _ended(pod: Manifest) -> bool:
    """Whether the kubelet says that no process of it runs."""
    if pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}:
        return True
    state = _container(pod)
    return "terminated" in state or state.get("waiting", {}).get("reason") == "CrashLoopBackOff"


def _backs_off(pod: Manifest) -> bool:
    waiting = _container(pod).get("waiting", {}).get("reason") == "CrashLoopBackOff"
    return waiting or pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}


def _pending(pod: Manifest) -> str:
    """Why it does not run yet, in the words of Kubernetes; empty when it does."""
    status = pod.get("status", {})
    if status.get("phase") != "Pending":
        return ""
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"no place: {condition.get('message', condition.get('reason', 'unscheduled'))}"
    waiting = _container(pod).get("waiting", {})
    if waiting.get("reason") in {None, "ContainerCreating", "PodInitializing"}:
        return ""
    return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
