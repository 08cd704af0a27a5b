"""What people see of one ShardCluster: its status, its Events, the roles on its pods.

Law: said once.  A status is written when something in it is news, figures alone now and then; an
entry of the loop's log becomes one Event, and another one when it happened twice as often since or
again after a while.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from shardcluster.actions import Reason
from shardcluster.resource_status import is_news, refused_status, status_of
from shardcluster_operator.platform import PODS
from shardcluster_runtime.kube import Kind
from shardcluster_runtime.state import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.resource_status import Document
    from shardcluster_operator.informer import Informer
    from shardcluster_runtime.kube import Kube, Manifest

__all__ = ["SHARD_CLUSTERS", "Voice"]

SHARD_CLUSTERS = Kind("shardcluster.io/v1alpha1", "shardclusters")
EVENTS = Kind("v1", "events")
ROLE_LABEL = "shardcluster.io/role"
AGAIN_AFTER_S = 60.0  # what goes on is told again this often at most, or once its count doubled
MESSAGE_CHARS_MAX = 1024  # of an Event
# What somebody may have to look at; all else is the store's ordinary life.
WARNINGS = frozenset(
    reason.value
    for reason in (
        Reason.MASTER_LOST, Reason.MASTER_UNKNOWN, Reason.MASTER_RESTARTING, Reason.FENCING,
        Reason.SHARD_LOST, Reason.DATA_LOST, Reason.VIEWS_DISAGREE, Reason.STRANGER,
        Reason.FOREIGN_NODE, Reason.SLOT_CONFLICT, Reason.NODE_PENDING, Reason.NODE_SILENT,
    )
)  # fmt: skip


class _Told(NamedTuple):
    """How often something had happened when it was last told, and when that was (steady, s)."""

    times: int
    at_s: float

    def is_old(self, times: int, now_s: float) -> bool:
        """It happened twice as often since, or again after a while."""
        again = times > self.times and now_s - self.at_s >= AGAIN_AFTER_S
        return again or times >= 2 * self.times


class Voice:
    """Of one ShardCluster; its methods raise ApiError."""

    def __init__(
        self, kube: Kube, pods: Informer, resource: Manifest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`resource` as it was found: its status may be our own of an earlier life."""
        meta = resource["metadata"]
        self._kube = kube
        self._clock = clock
        self._pods = pods
        self._namespace: str = meta["namespace"]
        self._name: str = meta["name"]
        self._uid: str = meta["uid"]
        self._status: Manifest = dict(resource.get("status") or {})
        self._status_at_s = 0.0
        self._told: dict[tuple[str, str, str], _Told] = {}  # first time, reason and message

    async def say(
        self,
        state: Document,
        *,
        generation: int,
        refusal: str,
        figures_every_s: float,
        extra: Document,
    ) -> None:
        """Write what is new; what is new in figures alone, every so often.

        `generation` is the one last looked at; `refusal` says why its spec was not taken, if so.
        """
        now_s = time.time()
        status = status_of(
            state, generation=generation, previous=self._status, now=timestamp(now_s),
            refusal=refusal, extra=extra,
        )  # fmt: skip
        stale = now_s - self._status_at_s > figures_every_s and status != self._status
        if is_news(status, self._status) or stale:
            await self._write(status)
            self._status_at_s = now_s
        await self._tell_events(state)
        await self._label_roles(state)

    async def refuse(self, generation: int, why: str, reason: str) -> None:
        """Nothing runs for this resource, and why."""
        status = refused_status(
            self._status, generation=generation, now=timestamp(time.time()),
            reason=reason, message=why,
        )  # fmt: skip
        if status != self._status:
            await self._write(status)

    async def _write(self, status: Manifest) -> None:
        gone = {name: None for name in self._status if name not in status}
        await self._kube.merge(
            SHARD_CLUSTERS, self._namespace, self._name, {"status": {**status, **gone}},
            subresource="status",
        )  # fmt: skip
        self._status = status

    async def _tell_events(self, state: Document) -> None:
        for event in state["events"]:
            identity, now_s = _identity(event), self._clock()
            said = self._told.get(identity)
            if said is not None and not said.is_old(event["count"], now_s):
                continue
            # An operator that begins and finds all well has nothing to tell.
            if event["reason"] != "Idle" or self._told:
                await self._kube.create(EVENTS, self._event(event))
            self._told[identity] = _Told(event["count"], now_s)
        shown = {_identity(event) for event in state["events"]}
        self._told = {identity: said for identity, said in self._told.items() if identity in shown}

    def _event(self, event: Manifest) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self._name}.", "namespace": self._namespace},
            "involvedObject": {
                "apiVersion": SHARD_CLUSTERS.group_version, "kind": "ShardCluster",
                "name": self._name, "namespace": self._namespace, "uid": self._uid,
            },
            "reason": event["reason"],
            "message": event["message"][:MESSAGE_CHARS_MAX],
            "type": "Warning" if event["reason"] in WARNINGS else "Normal",
            "firstTimestamp": _whole_seconds(event["first_at"]),
            "lastTimestamp": _whole_seconds(event["at"]),
            "count": event["count"],
            "source": {"component": "shardcluster-operator"},
        }  # fmt: skip

    async def _label_roles(self, state: Document) -> None:
        roles = {
            f"{self._name}-{node['name']}": node["role"]
            for node in state["nodes"]
            if node["role"] != "unknown"
        }
        for pod in self._pods.objects(self._namespace, self._name):
            meta = pod["metadata"]
            role = roles.get(meta["name"])
            if role is not None and meta["labels"].get(ROLE_LABEL) != role:
                patch = {"metadata": {"uid": meta["uid"], "labels": {ROLE_LABEL: role}}}
                await self._kube.merge(PODS, self._namespace, meta["name"], patch)


def _identity(event: Manifest) -> tuple[str, str, str]:
    return event["first_at"], event["reason"], event["message"]


def _whole_seconds(at: str) -> str:
    return at.partition(".")[0] + "Z"
