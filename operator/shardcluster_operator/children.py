"""The objects of one ShardCluster that do not depend on its nodes: made, kept, removed.

Law: an object is ours when the ShardCluster owns it.  What we applied is remembered by its version,
so that a change by anyone else is seen in the moment it happens and undone; what the spec does not
want any more is deleted.  StatefulSets are the platform's (`shardcluster_operator.platform`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardcluster_operator.manifests import objects
from shardcluster_runtime.kube import ApiError, Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster.spec import Spec
    from shardcluster_operator.informer import Informer
    from shardcluster_operator.manifests import Place
    from shardcluster_runtime.kube import Kube, Manifest

__all__ = ["CHILD_KINDS", "Children", "version_of"]

BUDGETS = Kind("policy/v1", "poddisruptionbudgets")  # a spec can come to want one no more
CHILD_KINDS = (
    Kind("v1", "configmaps"),
    Kind("v1", "serviceaccounts"),
    Kind("v1", "services"),
    Kind("apps/v1", "deployments"),
    BUDGETS,
    Kind("networking.k8s.io/v1", "networkpolicies"),
    Kind("rbac.authorization.k8s.io/v1", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "rolebindings"),
)
INVALID = 422


def version_of(item: Manifest) -> tuple[str, Any]:
    """What changes when somebody changes the object, and not when its status changes."""
    meta = item["metadata"]
    return meta["uid"], meta.get("generation") or meta["resourceVersion"]


class Children:
    """Of one ShardCluster."""

    def __init__(self, kube: Kube, place: Place, found: Mapping[Kind, Informer]) -> None:
        """`found` has a kept list for each of `CHILD_KINDS`."""
        self._kube = kube
        self._place = place
        self._found = found
        self._applied: dict[tuple[Kind, str], tuple[str, Any]] = {}

    async def apply(self, spec: Spec) -> None:
        """All of them as `spec` wants them, and no others; raises ApiError."""
        applied: dict[tuple[Kind, str], tuple[str, Any]] = {}
        for manifest in objects(spec, self._place):
            kind = kind_of(manifest)
            applied[kind, manifest["metadata"]["name"]] = version_of(
                await self._apply(kind, manifest)
            )
        self._applied = applied
        for informer in self._found.values():
            await informer.synced.wait()
        for item in self._found[BUDGETS].objects(self._place.namespace, spec.name):
            meta = item["metadata"]
            if (BUDGETS, meta["name"]) not in applied and self._ours(item):
                precondition = {"preconditions": {"uid": meta["uid"]}}
                await self._kube.delete(BUDGETS, self._place.namespace, meta["name"], precondition)

    async def _apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        try:
            return await self._kube.apply(kind, manifest)
        except ApiError as error:
            if error.status != INVALID:
                raise
        # What somebody else put into a list stays at an apply, and does not go with ours: here
        # lists are replaced as a whole.
        name = manifest["metadata"]["name"]
        await self._kube.merge(kind, self._place.namespace, name, manifest)
        return await self._kube.apply(kind, manifest)

    def as_applied(self, name: str) -> bool:
        """Whether each is there as it was applied last; `name` is the ShardCluster's."""
        found = {
            (kind, item["metadata"]["name"]): version_of(item)
            for kind, informer in self._found.items()
            for item in informer.objects(self._place.namespace, name)
        }
        return all(found.get(key) == version for key, version in self._applied.items())

    def _ours(self, item: Manifest) -> bool:
        owners = item["metadata"].get("ownerReferences", ())
        return any(owner["uid"] == self._place.uid for owner in owners)
