"""One ShardCluster under the operator's care: its objects kept, its loop run, its status written.

Law: everything here can be lost at any moment; a new session finds it all in the resource, the
objects and the nodes.  The loop (`shardcluster_runtime.loop.Controller`) is the same that runs on
every platform; this module feeds it the spec and carries out what it says to Kubernetes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardcluster.resource_status import is_news, status_of
from shardcluster.spec import SpecError, parse
from shardcluster_operator.manifests import Place, objects, secret, secret_name
from shardcluster_operator.platform import PODS, KubernetesPlatform
from shardcluster_runtime.kube import ApiError, Kind, kind_of
from shardcluster_runtime.loop import Controller
from shardcluster_runtime.state import timestamp

if TYPE_CHECKING:
    from shardcluster.spec import Spec
    from shardcluster_operator.informer import Informer
    from shardcluster_runtime.kube import Kube, Manifest

__all__ = ["SHARD_CLUSTERS", "Session", "World"]

SHARD_CLUSTERS = Kind("shardcluster.io/v1alpha1", "shardclusters")
SECRETS = Kind("v1", "secrets")
EVENTS = Kind("v1", "events")
ROLE_LABEL = "shardcluster.io/role"
REBALANCE_ANNOTATION = "shardcluster.io/rebalance-requested"
STATUS_EVERY_S = 0.3  # at most
FIGURES_EVERY_S = 30.0  # keys and memory alone
OBJECTS_EVERY_S = 300.0  # applied again, whatever was heard
RETRY_S = 1.0
STATE_WAIT_S = 5.0
PASSWORD_BYTES = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """What all sessions share."""

    kube: Kube
    pods: Informer
    stateful_sets: Informer
    gateway_image: str
    operator_namespace: str


class ResourceSpec:
    """The spec as the resource has it: what `Controller` takes for its desired state."""

    def __init__(self, resource: Manifest) -> None:
        """Raises SpecError for a resource that is no valid ShardCluster."""
        self.spec: Spec = parse(_plain(resource))
        self.generation: int = resource["metadata"]["generation"]
        self._requested = _requested(resource)
        self.done: str = resource.get("status", {}).get("rebalanceDone", "")

    def take(self, resource: Manifest) -> None:
        """The resource changed; raises SpecError and keeps the old when it is not valid."""
        self.spec = parse(_plain(resource))
        self.generation = resource["metadata"]["generation"]
        self._requested = _requested(resource)

    @property
    def document(self) -> dict[str, Any]:
        """The whole document."""
        return self.spec.document()

    @property
    def rebalance_wanted(self) -> bool:
        """Whether a rebalance was asked for that is not done."""
        return self._requested not in {"", self.done}

    def mark_rebalanced(self) -> None:
        """Every rebalance asked for so far is done; the next status says so."""
        self.done = self._requested

    def edit(self, document: Manifest) -> None:
        """Not here: gateways and people change the resource itself."""
        raise NotImplementedError

    apply = edit

    def request_rebalance(self) -> int:
        """Not here either."""
        raise NotImplementedError


def _plain(resource: Manifest) -> Manifest:
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {"name": resource["metadata"]["name"]},
        "spec": resource.get("spec", {}),
    }


def _requested(resource: Manifest) -> str:
    found: str = resource["metadata"].get("annotations", {}).get(REBALANCE_ANNOTATION, "")
    return found


class Session:
    """Runs from the first sight of a resource until `stop`."""

    def __init__(self, world: World, resource: Manifest) -> None:
        """Nothing is done before `start`."""
        meta = resource["metadata"]
        self._world = world
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self.uid: str = meta["uid"]
        self._resource = resource
        self._status: Manifest = copy.deepcopy(resource.get("status") or {})
        self._status_at_s = 0.0
        self._told: set[tuple[str, str, str, int]] = set()
        self._desired: ResourceSpec | None = None
        self._platform: KubernetesPlatform | None = None
        self._controller: Controller | None = None
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"session-{self.namespace}/{self.name}")

    async def stop(self) -> None:
        """Let go; the store lives on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def take(self, resource: Manifest) -> None:
        """The resource as it is now."""
        if resource["metadata"]["generation"] != self._resource["metadata"]["generation"] or (
            _requested(resource) != _requested(self._resource)
        ):
            self._dirty.set()
        self._resource = resource
        self._changed.set()

    def wake(self) -> None:
        """A pod or StatefulSet of it changed."""
        if self._controller is not None:
            self._controller.wake()

    def objects_changed(self) -> None:
        """Another object of it changed: see that it is as it shall be."""
        self._dirty.set()

    # -- the work -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._begin()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep_objects())
                    group.create_task(self._keep_status())
            except* (ApiError, SpecError) as errors:
                for error in errors.exceptions:
                    _log.warning("%s/%s: %s", self.namespace, self.name, error)
                    await self._say_invalid(error)
            finally:
                if self._controller is not None:
                    await self._controller.stop(stop_nodes=False)
                    self._controller = None
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S * 5):
                    await self._changed.wait()

    async def _begin(self) -> None:
        self._desired = ResourceSpec(self._resource)
        place = self._place()
        platform = KubernetesPlatform(
            self._world.kube, place, self._world.pods, self._world.stateful_sets, self._spec
        )
        platform.formed_before = bool(self._status.get("formed"))
        platform.log_in_with(await self._password(place))
        self._platform = platform
        await self._apply_objects()
        self._controller = Controller(platform, self._desired)
        await self._controller.start()

    def _place(self) -> Place:
        return Place(
            namespace=self.namespace,
            uid=self.uid,
            gateway_image=self._world.gateway_image,
            operator_namespace=self._world.operator_namespace,
        )

    def _spec(self) -> Spec:
        assert self._desired is not None
        return self._desired.spec

    async def _password(self, place: Place) -> str:
        """From the Secret; our own is made once and never written over."""
        spec = self._spec()
        name = secret_name(spec)
        found = await self._world.kube.get(SECRETS, self.namespace, name)
        if found is None:
            if spec.auth_secret_name is not None:
                raise ApiError(404, f"The Secret {name} named in spec.auth is missing.")
            manifest = secret(spec, place, secrets.token_urlsafe(PASSWORD_BYTES))
            with contextlib.suppress(ApiError):  # 409: somebody was quicker
                await self._world.kube.create(SECRETS, manifest)
            found = await self._world.kube.get(SECRETS, self.namespace, name)
        encoded = (found or {}).get("data", {}).get("password")
        if not encoded:
            raise ApiError(404, f"The Secret {name} has no key `password`.")
        return base64.b64decode(encoded).decode().strip()  # made by hand it ends with a line break

    async def _apply_objects(self) -> None:
        for manifest in objects(self._spec(), self._place()):
            await self._world.kube.apply(kind_of(manifest), manifest)
        assert self._platform is not None
        await self._platform.start(self.wake)  # the first lists have come
        await self._platform.renew()

    async def _keep_objects(self) -> None:
        assert self._desired is not None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OBJECTS_EVERY_S):
                    await self._dirty.wait()
            self._dirty.clear()
            try:
                self._desired.take(self._resource)
                await self._apply_objects()
            except SpecError as error:
                await self._say_invalid(error)
                continue
            except ApiError as error:
                _log.warning("%s/%s: %s", self.namespace, self.name, error)
                self._dirty.set()
                await asyncio.sleep(RETRY_S)
            assert self._controller is not None
            self._controller.wake()

    # -- what people see ----------------------------------------------------------------------

    async def _keep_status(self) -> None:
        assert self._controller is not None
        version = 0
        while True:
            state = await self._controller.wait_state(version, STATE_WAIT_S)
            version = state["version"]
            try:
                await self._write_status(state)
                await self._tell_events(state)
                await self._label_roles(state)
            except ApiError as error:
                _log.warning("%s/%s: %s", self.namespace, self.name, error)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _write_status(self, state: Manifest) -> None:
        assert self._desired is not None
        assert self._platform is not None
        extra = {"formed": self._platform.formed_before, "rebalanceDone": self._desired.done}
        now_s = time.time()
        status = status_of(
            state, generation=self._desired.generation, previous=self._status,
            now=timestamp(now_s), extra=extra,
        )  # fmt: skip
        stale = now_s - self._status_at_s > FIGURES_EVERY_S and status != self._status
        if is_news(status, self._status) or stale:
            await self._patch_status(status)
            self._status_at_s = now_s

    async def _patch_status(self, status: Manifest) -> None:
        gone = {name: None for name in self._status if name not in status}
        await self._world.kube.merge(
            SHARD_CLUSTERS, self.namespace, self.name, {"status": {**status, **gone}},
            subresource="status",
        )  # fmt: skip
        self._status = status

    async def _say_invalid(self, error: Exception) -> None:
        """The loop goes on by the last valid spec; people are told what is wrong with the new."""
        status = copy.deepcopy(self._status)
        status["message"] = str(error)
        status["reason"] = "InvalidSpec" if isinstance(error, SpecError) else "Unable"
        status.setdefault("phase", "Waiting")
        with contextlib.suppress(ApiError):
            await self._patch_status(status)

    async def _tell_events(self, state: Manifest) -> None:
        """New entries of the loop's log become Events of the resource."""
        for event in state["events"]:
            key = (event["at"], event["reason"], event["message"], event["count"])
            if key in self._told:
                continue
            if event["reason"] != "Idle" or self._told:
                await self._world.kube.create(EVENTS, self._event(event, state))
            self._told.add(key)
        shown = {(e["at"], e["reason"], e["message"], e["count"]) for e in state["events"]}
        self._told &= shown

    def _event(self, event: Manifest, state: Manifest) -> Manifest:
        whole_seconds = event["at"].partition(".")[0] + "Z"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self.name}.", "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": SHARD_CLUSTERS.group_version, "kind": "ShardCluster",
                "name": self.name, "namespace": self.namespace, "uid": self.uid,
            },
            "reason": event["reason"],
            "message": event["message"][:1024],
            "type": "Normal" if state["healthy"] else "Warning",
            "firstTimestamp": whole_seconds,
            "lastTimestamp": whole_seconds,
            "count": 1,
            "source": {"component": "shardcluster-operator"},
        }  # fmt: skip

    async def _label_roles(self, state: Manifest) -> None:
        """Each pod says whether it is a master or a replica."""
        roles = {
            f"{self.name}-{node['name']}": node["role"]
            for node in state["nodes"]
            if node["role"] != "unknown"
        }
        for pod in self._world.pods.objects(self.namespace, self.name):
            meta = pod["metadata"]
            role = roles.get(meta["name"])
            if role is not None and meta["labels"].get(ROLE_LABEL) != role:
                patch = {"metadata": {"uid": meta["uid"], "labels": {ROLE_LABEL: role}}}
                await self._world.kube.merge(PODS, self.namespace, meta["name"], patch)
