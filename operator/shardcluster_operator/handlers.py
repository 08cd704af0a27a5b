"""The kopf side: what Kubernetes tells, handed on to sessions.

Law: no finalizers and no handlers that see differences.  An event only says "look"; a session a
resource runs the loop.  An event can be lost (kopf's own relists lose deletions), so sessions whose
resource is gone are also found by asking, every `SWEEP_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import aiohttp
import kopf

from shardcluster_operator.children import CHILD_KINDS
from shardcluster_operator.informer import Informer
from shardcluster_operator.platform import CLUSTER_LABEL, PODS, STATEFUL_SETS
from shardcluster_operator.session import Session, World
from shardcluster_operator.voice import SHARD_CLUSTERS
from shardcluster_runtime.kube import ApiError, Kube

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster_runtime.kube import Manifest

__all__ = ["Operator", "Settings", "api_server", "registry_for"]

SWEEP_S = 60.0
SERVER_TIMEOUT_S = 300
CLIENT_TIMEOUT_S = 330
INACTIVITY_TIMEOUT_S = 70
REQUEST_TIMEOUT_S = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How this operator was started."""

    gateway_image: str
    operator_namespace: str
    namespaces: tuple[str, ...] = ()  # none: all


@dataclass
class Operator:
    """All sessions of this process."""

    settings: Settings
    kube: Kube | None = None
    sessions: dict[tuple[str, str], Session] = field(default_factory=dict)
    _informers: list[Informer] = field(default_factory=list)
    _world: World | None = None
    _sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and begin to listen to pods and StatefulSets; raises ApiError."""
        self.kube = await Kube.open()
        if len(self.settings.namespaces) > 1:
            message = "One operator serves all namespaces or one; run several for several."
            raise ApiError(0, message)
        namespace = self._namespace
        pods, sets = (
            Informer(self.kube, kind, namespace, CLUSTER_LABEL, self._child_changed)
            for kind in (PODS, STATEFUL_SETS)
        )
        children = {
            kind: Informer(
                self.kube, kind, namespace, CLUSTER_LABEL, self._object_changed, whole=False
            )
            for kind in CHILD_KINDS
        }
        self._informers = [pods, sets, *children.values()]
        for informer in self._informers:
            informer.start()
        self._world = World(
            kube=self.kube,
            pods=pods,
            stateful_sets=sets,
            children=children,
            gateway_image=self.settings.gateway_image,
            operator_namespace=self.settings.operator_namespace,
            stores=lambda: len(self.sessions),
        )
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Let go of everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for session in list(self.sessions.values()):
            await session.stop()
        for informer in self._informers:
            await informer.stop()
        if self.kube is not None:
            await self.kube.close()

    async def saw(self, resource: Manifest, *, deleted: bool) -> None:
        """A ShardCluster is there, changed or gone."""
        meta = resource["metadata"]
        key = (meta["namespace"], meta["name"])
        session = self.sessions.get(key)
        gone = deleted or "deletionTimestamp" in meta
        if session is not None and (gone or session.uid != meta["uid"]):
            del self.sessions[key]
            await session.stop()
            session = None
        if gone:
            return
        if session is not None:
            session.take(resource)
            return
        assert self._world is not None
        self.sessions[key] = Session(self._world, resource)
        self.sessions[key].start()

    @property
    def _namespace(self) -> str | None:
        return self.settings.namespaces[0] if self.settings.namespaces else None

    def _child_changed(self, key: tuple[str, str]) -> None:
        session = self.sessions.get(key)
        if session is not None:
            session.wake()

    def _object_changed(self, key: tuple[str, str]) -> None:
        session = self.sessions.get(key)
        if session is not None:
            session.objects_changed()

    async def _sweep(self) -> None:
        assert self.kube is not None
        while True:
            await asyncio.sleep(SWEEP_S)
            known = dict(self.sessions)  # before the list: what is made meanwhile is not in it
            with contextlib.suppress(ApiError):
                listed = await self.kube.list(SHARD_CLUSTERS, self._namespace, whole=False)
                present = {item["metadata"]["uid"] for item in listed["items"]}
                for key, session in known.items():
                    if session.uid not in present and self.sessions.get(key) is session:
                        del self.sessions[key]
                        await session.stop()


def _session(info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """The same without Python 3.13's new strictness; see `shardcluster_runtime.kube`."""
    context = info.as_ssl_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
    )
    return kopf.AiohttpSession(
        server=info.server, aiohttp_session=session, default_namespace=info.default_namespace
    )


def api_server(environment: Mapping[str, str]) -> str | None:
    """The API server by its address, which every pod is told; None outside of a cluster.

    kopf asks for it by name, and the machine that is lost may be that of the DNS server: then an
    operator that takes over would wait for a name while masters are gone.
    """
    host, port = (environment.get(f"KUBERNETES_SERVICE_{what}") for what in ("HOST", "PORT"))
    if not host or not port:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def registry_for(operator: Operator) -> kopf.OperatorRegistry:
    """Handlers of kopf for one operator."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**about: Any) -> kopf.AiohttpSession | None:
        found = kopf.login_with_service_account(**about)
        if found is not None:
            return _session(replace(found, server=api_server(os.environ) or found.server))
        found = kopf.login_with_kubeconfig(**about)
        return _session(found) if found is not None else None

    @kopf.on.startup(registry=registry)
    async def started(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.watching.server_timeout = SERVER_TIMEOUT_S
        settings.watching.client_timeout = CLIENT_TIMEOUT_S
        settings.watching.inactivity_timeout = INACTIVITY_TIMEOUT_S
        settings.networking.request_timeout = REQUEST_TIMEOUT_S
        settings.posting.enabled = False  # the loop's own sentences are the events
        await operator.start()

    @kopf.on.cleanup(registry=registry)
    async def stopped(**_: Any) -> None:
        await operator.stop()

    @kopf.on.event(
        SHARD_CLUSTERS.group_version.partition("/")[0],
        SHARD_CLUSTERS.group_version.partition("/")[2],
        SHARD_CLUSTERS.plural,
        registry=registry,
    )
    async def seen(event: Mapping[str, Any], **_: Any) -> None:
        await operator.saw(dict(event["object"]), deleted=event["type"] == "DELETED")

    return registry
