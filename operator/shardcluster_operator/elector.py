"""Of several operators one is active: the holder of a Lease.

Law: whoever can't renew in time stops *before* another may take over: `RENEW_DEADLINE_S` is
shorter than the lease.  Time is counted from the moment a renewal was sent, on our own clock; the
other's clock is never compared, only whether its record has changed while we watched (the way of
client-go's leaderelection, Apache-2.0).  Every call has a limit, so that a hanging API server can't
keep an old leader alive.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from shardcluster_runtime.kube import ApiError, Kind
from shardcluster_runtime.state import timestamp

if TYPE_CHECKING:
    from shardcluster_runtime.kube import Kube, Manifest

__all__ = ["Elector"]

LEASES = Kind("coordination.k8s.io/v1", "leases")
LEASE_S = 10
RENEW_DEADLINE_S = 7.0
RENEW_EVERY_S = 2.0
LOOK_EVERY_S = 1.0
CALL_S = 3.0

GONE = ("",)  # in the place of a record
UNKNOWN = "somebody"

_log = logging.getLogger(__name__)


class Elector:
    """One candidate."""

    def __init__(self, kube: Kube, namespace: str, name: str, identity: str) -> None:
        """`identity` must be another for every process."""
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seen: tuple[Any, ...] = ()
        self._seen_at_s = 0.0
        self._renewed_at_s = 0.0

    async def acquire(self) -> None:
        """Return when we hold the lease."""
        waiting_for = ""
        while True:
            try:
                async with asyncio.timeout(CALL_S):
                    holder = await self._try()
            except (ApiError, TimeoutError) as error:
                _log.warning("the lease can't be had: %s", error)
                holder = waiting_for
            if holder == self._identity:
                _log.info("%s is the active operator", self._identity)
                return
            if holder != waiting_for:
                waiting_for = holder
                _log.info("standing by; %s is the active operator", holder)
            await asyncio.sleep(LOOK_EVERY_S)

    async def hold(self) -> None:
        """Renew until that fails for too long or somebody else has it; then return."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            left_s = self._renewed_at_s + RENEW_DEADLINE_S - time.monotonic()
            if left_s <= 0:
                _log.error("the lease was not renewed in time")
                return
            try:
                async with asyncio.timeout(min(CALL_S, left_s)):
                    holder = await self._try()
            except (ApiError, TimeoutError) as error:
                _log.warning("renewing the lease: %s", error)
                continue
            if holder != self._identity:
                _log.error("%s has taken the lease", holder)
                return

    async def release(self) -> None:
        """Let another one begin at once."""
        try:
            async with asyncio.timeout(CALL_S):
                lease = await self._kube.get(LEASES, self._namespace, self._name)
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    await self._write(lease, {**lease["spec"], "holderIdentity": ""})
        except (ApiError, TimeoutError) as error:
            _log.warning("the lease was not given back: %s", error)

    async def _try(self) -> str:
        """Take or renew the lease if it is to be had; returns who holds it."""
        sent_s = time.monotonic()
        lease = await self._kube.get(LEASES, self._namespace, self._name)
        if lease is None:
            return await self._make(sent_s)
        spec = lease["spec"]
        holder: str = spec.get("holderIdentity") or ""
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen:
            self._seen, self._seen_at_s = record, sent_s
        expired = sent_s - self._seen_at_s > spec.get("leaseDurationSeconds", LEASE_S)
        if holder not in {"", self._identity} and not expired:
            return holder
        now = _micro_time()
        fields = {
            **spec,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_S,
            "renewTime": now,
        }
        if holder != self._identity:
            fields |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
        await self._write(lease, fields)
        self._renewed_at_s = sent_s
        return self._identity

    async def _make(self, sent_s: float) -> str:
        """There is none.

        One that was there and was deleted by hand may have a holder that has not noticed: for
        others than that it counts as held for its whole time.
        """
        ours = self._renewed_at_s > 0 and sent_s - self._renewed_at_s < RENEW_DEADLINE_S
        if not ours and self._seen:
            if self._seen != GONE:
                self._seen, self._seen_at_s = GONE, sent_s
            if sent_s - self._seen_at_s <= LEASE_S:
                return UNKNOWN
        await self._kube.create(LEASES, self._manifest())
        self._renewed_at_s = sent_s
        return self._identity

    async def _write(self, lease: Manifest, spec: Manifest) -> None:
        """ApiError 409 when somebody else was quicker."""
        patch = {
            "metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]},
            "spec": spec,
        }
        await self._kube.merge(LEASES, self._namespace, self._name, patch)

    def _manifest(self) -> Manifest:
        now = _micro_time()
        return {
            "apiVersion": LEASES.group_version,
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity, "leaseDurationSeconds": LEASE_S,
                "acquireTime": now, "renewTime": now, "leaseTransitions": 0,
            },
        }  # fmt: skip


def _micro_time() -> str:
    return timestamp(time.time()).replace("Z", "000Z")
