"""One ShardCluster under the operator's care: its objects kept, its loop run, its status written.

Law: everything here can be lost at any moment; a new session finds it all in the resource, the
objects and the nodes.  The loop (`shardcluster_runtime.loop.Controller`) is the same that runs on
every platform; this module feeds it the spec and carries out what it says to Kubernetes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from shardcluster.edits import EditError
from shardcluster.spec import SpecError, parse
from shardcluster_operator.children import Children
from shardcluster_operator.manifests import Place
from shardcluster_operator.password import change_password, read_password
from shardcluster_operator.platform import KubernetesPlatform
from shardcluster_operator.voice import Voice
from shardcluster_runtime.kube import ApiError
from shardcluster_runtime.loop import GLANCE_S, STARTING, Controller, Rhythm
from shardcluster_runtime.metrics import StoreView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shardcluster.spec import Spec
    from shardcluster_operator.informer import Informer
    from shardcluster_runtime.kube import Kind, Kube, Manifest

__all__ = ["Session", "World"]

REBALANCE_ANNOTATION = "shardcluster.io/rebalance-requested"
STATUS_EVERY_S = 0.3  # at most
STATE_WAIT_S = 30.0
FIGURES_EVERY_S = 30.0  # keys and memory alone, where nothing else is new
FIGURES_PER_S = 1.0  # of all stores together
OBJECTS_EVERY_S = 300.0  # applied again, whatever was heard
PASSWORD_EVERY_S = 30.0  # Secrets are read by name alone, so nothing tells when one changes
APPLYING_AT_ONCE = 8  # stores whose objects are brought into their form
LOOK_AROUND_S = 10.0  # at all nodes of a store where nothing happens, at the most often
LOOKS_PER_S = 2.0  # of that kind, at all stores together; as many Secrets are read
GLANCES_PER_S = 40.0  # likewise of the loop's short question to one node
RETRY_S = 1.0
REFUSED_RETRY_S = 5.0  # a resource that nothing can run for; a change of it is looked at at once

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """What all sessions share."""

    kube: Kube
    pods: Informer
    stateful_sets: Informer
    children: Mapping[Kind, Informer]
    gateway_image: str
    operator_namespace: str
    stores: Callable[[], int]  # how many ShardClusters there are
    # An operator that begins with hundreds of stores would else ask for everything at once, and
    # its own lease would wait behind that until it is lost.
    applying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(APPLYING_AT_ONCE))


class ResourceSpec:
    """The spec as the resource has it: what `Controller` takes for its desired state."""

    def __init__(self, resource: Manifest) -> None:
        """Raises SpecError for a resource that is no valid ShardCluster."""
        self.spec: Spec = parse(_plain(resource))
        self._requested = _requested(resource)
        self.generation: int = resource["metadata"]["generation"]
        self.done: str = resource.get("status", {}).get("rebalanceDone", "")

    def take(self, resource: Manifest) -> None:
        """The resource changed; raises SpecError and keeps the old when it is not valid.

        `generation` is for the caller to raise, once the objects are as this spec wants them.
        """
        self.spec = parse(_plain(resource))
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

    def edit(self, document: Manifest) -> NoReturn:
        """Raises EditError: gateways and people change the resource itself."""
        del document
        self.request_rebalance()

    apply = edit

    def request_rebalance(self) -> NoReturn:
        """Raises EditError, too."""
        code = "NotHere"
        raise EditError(code, "A ShardCluster is changed as a resource of Kubernetes, not here.")


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
        self._place = Place(
            namespace=self.namespace,
            uid=self.uid,
            gateway_image=world.gateway_image,
            operator_namespace=world.operator_namespace,
        )
        self._voice = Voice(world.kube, world.pods, resource)
        self._children = Children(world.kube, self._place, world.children)
        self._formed = bool((resource.get("status") or {}).get("formed"))
        self._password: str | None = None
        self._old_password: str | None = None
        self._refusal = ""
        self._desired: ResourceSpec | None = None
        self._platform: KubernetesPlatform | None = None
        self._controller: Controller | None = None
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._told = asyncio.Event()  # something to say that the loop does not know of
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
        if self._platform is None:
            return
        self._platform.changed()
        if not self._platform.as_applied(self._with_slots()):
            self._dirty.set()

    def view(self) -> StoreView:
        """As the metrics tell of it."""
        if self._controller is None:
            return StoreView(self.namespace, self.name, None, None, refused=True)
        counts, state = self._controller.counts, self._controller.state()
        return StoreView(self.namespace, self.name, counts, state, refused=bool(self._refusal))

    def objects_changed(self) -> None:
        """Another object of it changed: see that it is as it shall be."""
        if not self._children.as_applied(self.name):
            self._dirty.set()

    # -- the work -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._begin()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep_objects())
                    group.create_task(self._keep_status())
                    group.create_task(self._keep_password())
            except* Exception as errors:  # noqa: BLE001 - a bug must not end the care for a store
                for error in errors.exceptions:
                    expected = isinstance(error, ApiError | SpecError)
                    _log.warning(
                        "%s/%s: %s", self.namespace, self.name, error,
                        exc_info=None if expected else error,
                    )  # fmt: skip
                    await self._refuse(error)
            finally:
                if self._platform is not None:
                    self._formed = self._platform.formed_before
                if self._controller is not None:
                    await self._controller.stop(stop_nodes=False)
                self._controller = self._platform = None
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSED_RETRY_S):
                    await self._changed.wait()

    async def _begin(self) -> None:
        self._dirty.clear()
        self._desired = ResourceSpec(self._resource)
        platform = KubernetesPlatform(
            self._world.kube, self._place, self._world.pods, self._world.stateful_sets, self._spec
        )
        platform.formed_before = self._formed
        self._platform = platform
        await self._apply()
        self._refusal = ""
        self._controller = Controller(platform, self._desired, rhythm=self._rhythm)
        await self._controller.start()

    def _rhythm(self) -> Rhythm:
        """Hundreds of stores are looked at less often each: what can't wait wakes the loop.

        Connections that end and news of pods do; a machine without power or a process that hangs is
        found by a glance, and the engine's own vote doesn't wait for it.
        """
        return Rhythm(
            self._shared(LOOK_AROUND_S, LOOKS_PER_S), self._shared(GLANCE_S, GLANCES_PER_S)
        )

    def _shared(self, every_s: float, per_s: float) -> float:
        """How often one store has its turn, s, with at most `per_s` turns of all of them."""
        return max(every_s, self._world.stores() / per_s)

    def _spec(self) -> Spec:
        assert self._desired is not None
        return self._desired.spec

    async def _apply(self) -> None:
        """Bring everything but the nodes into its form; raises ApiError."""
        async with self._world.applying:
            await self._apply_now()

    async def _apply_now(self) -> None:
        assert self._platform is not None
        password = await read_password(self._world.kube, self._spec(), self._place, self._password)
        if self._password not in {None, password}:
            self._old_password = self._password
        self._password = password
        await self._children.apply(self._spec())
        await self._platform.synced()
        await self._hand_over_password()
        self._platform.log_in_with(password)
        await self._platform.renew(self._with_slots())

    async def _hand_over_password(self) -> None:
        """Nodes that run learn the new one beside the old one before anybody uses it."""
        if self._old_password is None or self._password is None or self._platform is None:
            return
        places = await self._platform.nodes()
        addresses = [place.address for place in places if place.address is not None]
        untold = await change_password(addresses, self._old_password, self._password)
        if untold:
            what = ", ".join(str(address) for address in untold)
            raise ApiError(0, f"The new password could not be given to {what} yet.")
        self._old_password = None

    def _with_slots(self) -> dict[str, int]:
        """Shards that the nodes themselves say own slots, and how many nodes each has."""
        if self._controller is None:
            return {}
        state = self._controller.state()
        nodes = [node["shard"] for node in state["nodes"]]
        return {
            shard["name"]: nodes.count(shard["name"]) for shard in state["shards"] if shard["slots"]
        }

    async def _keep_objects(self) -> None:
        assert self._desired is not None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OBJECTS_EVERY_S):
                    await self._dirty.wait()
            self._dirty.clear()
            resource = self._resource
            try:
                self._desired.take(resource)
                self._refusal = ""
                await self._apply()
                self._desired.generation = resource["metadata"]["generation"]
            except SpecError as error:
                self._refusal = str(error)
            except ApiError as error:
                _log.warning("%s/%s: %s", self.namespace, self.name, error)
                self._refusal = str(error)
                self._dirty.set()
                await asyncio.sleep(RETRY_S)
            self._told.set()
            assert self._controller is not None
            self._controller.wake()

    async def _keep_password(self) -> None:
        while True:
            await asyncio.sleep(self._shared(PASSWORD_EVERY_S, LOOKS_PER_S))
            try:
                found = await read_password(
                    self._world.kube, self._spec(), self._place, self._password
                )
            except ApiError:
                self._dirty.set()  # which tells people why
                continue
            if found != self._password:
                self._dirty.set()

    async def _keep_status(self) -> None:
        assert self._controller is not None
        version, logged = 0, ""
        while True:
            state = await self._next_state(version)
            version = state["version"]
            try:
                await self._say(state)
                logged = ""
            except ApiError as error:
                if str(error) != logged:  # while a namespace ends each attempt is refused alike
                    _log.warning("%s/%s: %s", self.namespace, self.name, error)
                logged = str(error)
                version = 0  # say it again
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _next_state(self, version: int) -> Manifest:
        """The loop's state once it is another than `version`, or something else is to be told."""
        assert self._controller is not None
        state = asyncio.create_task(self._controller.wait_state(version, STATE_WAIT_S))
        told = asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait({state, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            state.cancel()
            told.cancel()
        self._told.clear()
        return self._controller.state()

    async def _say(self, state: Manifest) -> None:
        assert self._desired is not None
        assert self._platform is not None
        if state["reason"] == STARTING and self._resource.get("status"):
            return  # what the operator before has seen is truer than that nothing is seen yet
        # Not the newest one before a pass of the loop has seen it: who waits for rest would be told
        # of the rest before.
        seen = self._resource["metadata"]["generation"] if self._refusal else state["generation"]
        await self._voice.say(
            state,
            generation=seen,
            refusal=self._refusal,
            figures_every_s=self._shared(FIGURES_EVERY_S, FIGURES_PER_S),
            extra={"formed": self._platform.formed_before, "rebalanceDone": self._desired.done},
        )

    async def _refuse(self, error: Exception) -> None:
        """Nothing can run for this resource; people are told why."""
        reason = "InvalidSpec" if isinstance(error, SpecError) else "Unable"
        if not isinstance(error, ApiError | SpecError):
            reason = "InternalError"
        with contextlib.suppress(ApiError):
            await self._voice.refuse(self._resource["metadata"]["generation"], str(error), reason)
