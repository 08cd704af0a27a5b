"""Kubernetes as a platform: one StatefulSet a shard, one pod a node.

Law: what a pass sees comes from the informers' copies; what is destroyed is looked at afresh
first.  A pod that is not there, or whose container has ended, is proof that no process of the node
runs; a pod on a node of Kubernetes that does not answer is no proof of anything, and `fence` does
not claim one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any

from shardcluster.names import node_name, shard_number, split_node_name
from shardcluster.observed import Address
from shardcluster.quantities import parse_quantity
from shardcluster.spec import KIND
from shardcluster_operator.children import version_of
from shardcluster_operator.informer import NotSynced
from shardcluster_operator.manifests import (
    CLUSTER_LABEL,
    CONFIG_HASH_ANNOTATION,
    SHARD_LABEL,
    claim_owners,
    config_hash,
    stateful_set,
)
from shardcluster_runtime.kube import ApiError, Kind
from shardcluster_runtime.platforms.protocol import PlatformNode, PlatformUnable
from shardcluster_runtime.wire import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shardcluster.spec import Spec
    from shardcluster_operator.informer import Informer
    from shardcluster_operator.manifests import Place
    from shardcluster_runtime.kube import Kube, Manifest

__all__ = ["CLUSTER_LABEL", "PODS", "STATEFUL_SETS", "KubernetesPlatform"]

PODS = Kind("v1", "pods")
STATEFUL_SETS = Kind("apps/v1", "statefulsets")
CLAIMS = Kind("v1", "persistentvolumeclaims")
EVENTS = Kind("v1", "events")
DELETION = "deletionTimestamp"
PORT = 6379
FENCE_WAIT_S = 2.0
FENCE_POLL_S = 0.1
GONE_WAIT_S = 5.0  # for a StatefulSet that is made anew around its pods
WHY_EVERY_S = 5.0  # how often Kubernetes is asked why a pod is not even made, or not started

_log = logging.getLogger(__name__)


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
        self._applied: dict[str, tuple[str, Any]] = {}  # a shard's set, as we applied it
        self._applying = asyncio.Lock()  # who reads how many nodes a shard has writes it, too
        self._renewed = ""  # the configuration that all sets have
        self._why: dict[str, str] = {}  # why a pod of the set is not made, by the set's name
        self._asking: asyncio.Task[None] | None = None
        self._freeing: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] = lambda: None
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
        self._credentials.password_of = password  # whoever holds them logs in with the new one

    async def start(self, wake: Callable[[], None]) -> None:
        """Wait for the first lists; `changed` is called when something in them changes."""
        self._wake = wake
        await self.synced()

    async def synced(self) -> None:
        """Return when the first lists have come."""
        await self._pods.synced.wait()
        await self._stateful_sets.synced.wait()

    def changed(self) -> None:
        """An informer has news of one of our pods or StatefulSets."""
        self._wake()

    async def nodes(self) -> tuple[PlatformNode, ...]:
        """Every ordinal that a StatefulSet shall have, and every pod that is still there."""
        try:
            sets = self._sets()
            pods = self._pods.objects(self._place.namespace, self._name)
        except NotSynced as error:
            raise PlatformUnable(str(error)) from error
        found: dict[str, PlatformNode] = {}
        for shard, item in sets.items():
            for ordinal in range(item["spec"]["replicas"]):
                name = node_name(shard, ordinal)
                why = self._why.get(shard, "")
                found[name] = PlatformNode(name, shard, ordinal, None, ended=True, pending=why)
        # A pod is outdated once its set would make it another, not in the moment the spec changes.
        present = {self._renewed or None, _config_hash(self._spec())}
        missing = set(found)
        for pod in pods:
            shard = pod["metadata"]["labels"].get(SHARD_LABEL)
            name = self._node_of(pod)
            if shard is None:
                continue  # a gateway
            # One whose set was deleted by hand lives on until we have made the set again.
            if name in found or (shard not in sets and not pod["metadata"].get(DELETION)):
                missing.discard(name)
                found[name] = _place(name, pod, present)
        self._ask_why({found[name].shard for name in missing})
        self._free([pod for pod in pods if _claim_waited_for(pod)])
        order = sorted(found.values(), key=lambda n: (shard_number(n.shard), n.ordinal))
        return tuple(order)

    def _sets(self) -> dict[str, Manifest]:
        """The shards' StatefulSets that are not being deleted; raises NotSynced."""
        return {
            item["metadata"]["labels"][SHARD_LABEL]: item
            for item in self._stateful_sets.objects(self._place.namespace, self._name)
            if DELETION not in item["metadata"]
        }

    def _ask_why(self, shards: set[str]) -> None:
        """Find out, beside the loop, why pods that shall be there are not even made."""
        self._why = {shard: why for shard, why in self._why.items() if shard in shards}
        if shards and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._find_why(shards))

    async def _find_why(self, shards: set[str]) -> None:
        await asyncio.sleep(WHY_EVERY_S)  # mostly it is made in a moment
        for shard in shards:
            about = f"involvedObject.name={self._name}-{shard},reason=FailedCreate"
            with contextlib.suppress(ApiError):
                listed = await self._kube.list(EVENTS, self._place.namespace, fields=about)
                told = sorted(listed["items"], key=_last_time)
                if told:
                    self._why[shard] = f"not made: {told[-1]['message']}"

    def _free(self, pods: list[Manifest]) -> None:
        """Find out, beside the loop, whether these wait for ever, and let those be made anew.

        A pod is placed once its volume is bound.  When the claim is deleted after that and before
        the pod has started, the pod waits for a claim that is not there; or the StatefulSet makes
        another, which waits for a pod to be placed (WaitForFirstConsumer), and this one is already.
        """
        if pods and (self._freeing is None or self._freeing.done()):
            self._freeing = asyncio.create_task(self._free_now(pods))

    async def _free_now(self, pods: list[Manifest]) -> None:
        await asyncio.sleep(WHY_EVERY_S)  # mostly they have started by then
        with contextlib.suppress(ApiError):  # the next pass tries again
            for pod in pods:
                meta = pod["metadata"]
                if await self._bound(_claim_waited_for(pod)):
                    continue
                now = await self._kube.get(PODS, meta["namespace"], meta["name"])
                if now and now["metadata"]["uid"] == meta["uid"] and _claim_waited_for(now):
                    _log.warning(
                        "%s/%s waits for a volume whose claim was deleted: it is made anew",
                        meta["namespace"], meta["name"],
                    )  # fmt: skip
                    await self._delete_pod(now)

    async def _bound(self, claim: str) -> bool:
        name = f"metadata.name={claim}"
        listed = await self._kube.list(CLAIMS, self._place.namespace, fields=name)
        phases = [found.get("status", {}).get("phase", "Pending") for found in listed["items"]]
        return any(phase != "Pending" for phase in phases)

    async def spare_nodes(self) -> int | None:
        """As many as asked for can be started."""
        return None

    def as_applied(self, with_slots: Mapping[str, int]) -> bool:
        """Whether each StatefulSet is as we applied it, and each shard with slots has one."""
        try:
            sets = self._sets()
        except NotSynced:
            return True
        changed = any(
            self._applied.get(shard, version_of(item)) != version_of(item)
            for shard, item in sets.items()
        )
        return not changed and sets.keys() >= with_slots.keys()

    async def renew(self, with_slots: Mapping[str, int]) -> None:
        """Bring the StatefulSets that stand into their present form; raises ApiError.

        Their pods stay as they are: the loop replaces outdated ones.  What can't be changed in a
        StatefulSet is changed by making it anew around its pods.  `with_slots`: shards that must
        have one, as their slots show, and with how many nodes.
        """
        async with self._applying:
            listed = await self._kube.list(
                STATEFUL_SETS, self._place.namespace, f"{CLUSTER_LABEL}={self._name}"
            )
            nodes = {
                item["metadata"]["labels"][SHARD_LABEL]: item["spec"]["replicas"]
                for item in listed["items"]
            }
            ending = {
                item["metadata"]["labels"][SHARD_LABEL]
                for item in listed["items"]
                if DELETION in item["metadata"]
            }
            for shard, count in {**with_slots, **nodes}.items():
                if shard not in ending and count:
                    await self._apply(shard, count)
            await self._own_claims()
            self._renewed = _config_hash(self._spec())

    async def _own_claims(self) -> None:
        """Volumes go with the ShardCluster, or don't, as the spec says now."""
        storage = self._spec().storage
        if storage is None:
            return
        wanted = claim_owners(self._spec(), self._place, storage)
        for claim in await self._claims():
            meta = claim["metadata"]
            found = meta.get("ownerReferences", [])
            others = [owner for owner in found if owner["kind"] != KIND]
            if found != [*others, *wanted]:
                owners = {"metadata": {"ownerReferences": [*others, *wanted]}}
                await self._kube.merge(CLAIMS, meta["namespace"], meta["name"], owners)

    async def _apply(self, shard: str, nodes: int) -> None:
        manifest = stateful_set(self._spec(), self._place, shard, nodes)
        try:
            applied = await self._kube.apply(STATEFUL_SETS, manifest)
        except ApiError as error:
            if error.status != 422:
                raise
            await self._grow_claims(shard)
            await self._remove_set_alone(manifest["metadata"]["name"])
            applied = await self._kube.apply(STATEFUL_SETS, manifest)
        self._applied[shard] = version_of(applied)

    async def _remove_set_alone(self, name: str) -> None:
        """Its pods stay; returns when it is gone."""
        namespace = self._place.namespace
        await self._kube.delete(STATEFUL_SETS, namespace, name, {"propagationPolicy": "Orphan"})
        for _ in range(int(GONE_WAIT_S / FENCE_POLL_S)):
            if await self._kube.get(STATEFUL_SETS, namespace, name) is None:
                return
            await asyncio.sleep(FENCE_POLL_S)
        message = f"The StatefulSet {name}, which is to be made anew, does not go."
        raise ApiError(0, message)

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

    async def _claims(self, shard: str | None = None) -> list[Manifest]:
        """Of one shard, or of all; raises ApiError."""
        selector = f"{CLUSTER_LABEL}={self._name}"
        if shard is not None:
            selector += f",{SHARD_LABEL}={shard}"
        listed = await self._kube.list(CLAIMS, self._place.namespace, selector)
        found: list[Manifest] = listed["items"]
        return found

    async def scale_shard(self, shard: str, nodes: int) -> None:
        """Apply the StatefulSet, or delete it; the volumes of nodes that go are deleted."""
        try:
            async with self._applying:
                # First the volumes, which stay while their pods do: were they to come last, a
                # crash would leave old data that rises again when the shard grows once more.
                await self._delete_claims(shard, nodes)
                if nodes:
                    await self._apply(shard, nodes)
                else:
                    foreground = {"propagationPolicy": "Foreground"}
                    name = f"{self._name}-{shard}"
                    await self._kube.delete(STATEFUL_SETS, self._place.namespace, name, foreground)
        except ApiError as error:
            message = f"{shard} could not be scaled to {nodes} nodes: {error}"
            raise PlatformUnable(message) from error

    async def _delete_claims(self, shard: str, nodes: int) -> None:
        """Of all nodes but the first so many."""
        for claim in await self._claims(shard):
            meta = claim["metadata"]
            if int(meta["name"].rpartition("-")[2]) >= nodes:
                await self._kube.delete(CLAIMS, self._place.namespace, meta["name"])

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
            if pod is not None and not pod["metadata"].get(DELETION):
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
        for task in (self._asking, self._freeing):
            if task is not None:
                task.cancel()

    def _node_of(self, pod: Manifest) -> str:
        name: str = pod["metadata"]["name"]
        return name.removeprefix(f"{self._name}-")


_config_hash = functools.lru_cache(maxsize=1024)(config_hash)  # asked for in every pass


def _place(name: str, pod: Manifest, present: set[str | None]) -> PlatformNode:
    status = pod.get("status", {})
    started_as = pod["metadata"].get("annotations", {}).get(CONFIG_HASH_ANNOTATION)
    host = status.get("podIP")
    shard, ordinal = split_node_name(name)
    return PlatformNode(
        name=name,
        shard=shard,
        ordinal=ordinal,
        address=Address(host, PORT) if host else None,
        ended=_ended(pod),
        pending=_pending(pod),
        ending=DELETION in pod["metadata"],
        machine=pod["spec"].get("nodeName"),
        outdated=None not in present and started_as not in present,
    )


def _last_time(event: Manifest) -> str:
    found: str = event.get("lastTimestamp") or event.get("eventTime") or ""
    return found


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


def _claim_waited_for(pod: Manifest) -> str:
    """The claim of a pod that has a place and never ran; empty for any other, and without one."""
    placed = pod["spec"].get("nodeName") and DELETION not in pod["metadata"]
    if not placed or pod.get("status", {}).get("phase") != "Pending":
        return ""
    claims = (volume.get("persistentVolumeClaim") for volume in pod["spec"].get("volumes", ()))
    return next((claim["claimName"] for claim in claims if claim), "")


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
