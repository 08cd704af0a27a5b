"""The control plane of a gateway on Kubernetes: the ShardCluster resource itself.

Law: a wish becomes an edit of the resource's spec, made on the version that was read (the API
server refuses it when somebody else was quicker, and it is made again on the new one).  What
happens then is the operator's; its status is all the gateway knows of it, so any gateway pod
answers alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from shardcluster.edits import UNKNOWN_SHARD, EditError, add_shard, remove_shard
from shardcluster.resource_status import plan_of, state_of
from shardcluster.spec import SpecError, parse
from shardcluster_api.errors import ControllerRefused, ControllerUnavailable
from shardcluster_runtime.kube import ApiError, Kind, Kube

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.spec import Spec
    from shardcluster_runtime.kube import Manifest

__all__ = ["KubernetesControlPlane"]

SHARD_CLUSTERS = Kind("shardcluster.io/v1alpha1", "shardclusters")
REBALANCE_ANNOTATION = "shardcluster.io/rebalance-requested"
EDIT_ATTEMPTS_MAX = 5

Document = dict[str, Any]


class KubernetesControlPlane:
    """One ShardCluster, by namespace and name; the pod's service account may read and patch it."""

    def __init__(self, namespace: str, name: str) -> None:
        """Nothing is asked yet."""
        self._namespace = namespace
        self._name = name
        self._kube: Kube | None = None

    async def state(self, since: int | None = None, wait_s: float = 0.0) -> Document:
        """The state as the resource's status has it."""
        try:
            kube = await self._open()
            if since is not None and wait_s:
                watch = kube.watch(SHARD_CLUSTERS, self._namespace, "", str(since), name=self._name)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s), contextlib.aclosing(watch) as seen:
                        async for event, resource in seen:
                            if event in {"ADDED", "MODIFIED"}:
                                return state_of(resource)
            return state_of(await self._resource())
        except ApiError as error:
            raise _unavailable(error) from error
        except KeyError as error:
            message = "The operator has not written a status yet."
            raise ControllerUnavailable(message) from error

    async def add_shard(self) -> Document:
        """`shards` raised by one."""

        def edit(spec: Spec, _resource: Manifest) -> tuple[Spec, str, str]:
            bigger, name = add_shard(spec)
            return bigger, f"{name} is being added.", name

        return await self._edited(edit)

    async def remove_shard(self, node: str) -> Document:
        """`shards` lowered by one, the shard named in `retire` where needed."""

        def edit(spec: Spec, resource: Manifest) -> tuple[Spec, str, str]:
            standing = resource.get("status", {}).get("shards", ())
            smaller = remove_shard(spec, node, present={shard["name"] for shard in standing})
            name = next(iter(set(spec.wanted_shards()) - set(smaller.wanted_shards())))
            return smaller, f"{name} is being drained and removed.", name

        return await self._edited(edit)

    async def rebalance(self) -> Document:
        """An annotation that asks the operator."""
        try:
            resource = await self._resource()
            plan = plan_of(state_of(resource), parse(_document(resource)))
            asked = {"annotations": {REBALANCE_ANNOTATION: str(time.time_ns())}}
            kube = await self._open()
            await kube.merge(SHARD_CLUSTERS, self._namespace, self._name, {"metadata": asked})
        except ApiError as error:
            raise _unavailable(error) from error
        message = f"{plan['slots']} slots will move." if plan["slots"] else (
            "Every shard is within its share: no slot needs to move."
        )  # fmt: skip
        return {"accepted": True, "message": message, "shard": None, "plan": plan}

    async def preview(self, document: Document) -> Document:
        """From the status alone: keys by each shard's keys a slot."""
        try:
            state = state_of(await self._resource())
        except ApiError as error:
            raise _unavailable(error) from error
        # A plan for many shards takes its time, and other requests must not wait for it.
        return await asyncio.to_thread(plan_of, state, parse(document))

    async def close(self) -> None:
        """End the connections."""
        if self._kube is not None:
            await self._kube.close()

    async def _open(self) -> Kube:
        if self._kube is None:
            self._kube = await Kube.open()
        return self._kube

    async def _resource(self) -> Manifest:
        kube = await self._open()
        found = await kube.get(SHARD_CLUSTERS, self._namespace, self._name)
        if found is None:
            message = f"There is no ShardCluster {self._namespace}/{self._name} any more."
            raise ControllerUnavailable(message)
        return found

    async def _edited(self, edit: Callable[[Spec, Manifest], tuple[Spec, str, str]]) -> Document:
        for _ in range(EDIT_ATTEMPTS_MAX):
            try:
                resource = await self._resource()
                spec, message, name = edit(parse(_document(resource)), resource)
                plan = plan_of(state_of(resource), spec)
                patch = {
                    "metadata": {"resourceVersion": resource["metadata"]["resourceVersion"]},
                    "spec": {"shards": spec.shards, "retire": list(spec.retire) or None},
                }
                kube = await self._open()
                await kube.merge(SHARD_CLUSTERS, self._namespace, self._name, patch)
            except EditError as error:
                status = 404 if error.code == UNKNOWN_SHARD else 409
                raise ControllerRefused(status, error.code, error.sentence) from error
            except SpecError as error:
                raise ControllerRefused(422, "InvalidSpec", str(error)) from error
            except ApiError as error:
                if error.status == 409:
                    continue
                if error.status == 422:
                    raise ControllerRefused(422, "InvalidSpec", str(error)) from error
                raise _unavailable(error) from error
            return {"accepted": True, "message": message, "shard": name, "plan": plan}
        message = "Others change the ShardCluster all the time; try again."
        raise ControllerUnavailable(message)


def _document(resource: Manifest) -> Document:
    name = resource["metadata"]["name"]
    return {"metadata": {"name": name}, "spec": resource.get("spec", {})}


def _unavailable(error: ApiError) -> ControllerUnavailable:
    return ControllerUnavailable(f"The Kubernetes API server: {error}")
