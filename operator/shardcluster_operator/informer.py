"""A kept copy of all objects of one kind that carry a label, fed by list and watch.

Law: the copy is replaced as a whole at each list, so that an object that went away while no watch
was open is gone from it, too.  Until the first list has come `objects` raises: an empty copy must
not be taken for an empty world.  What is about to be destroyed is read afresh, never from here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from shardcluster_runtime.kube import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster_runtime.kube import Kind, Kube, Manifest

__all__ = ["Informer", "NotSynced"]

RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
GONE = 410

_log = logging.getLogger(__name__)

Key = tuple[str, str]  # namespace, value of the label


class NotSynced(Exception):
    """The first list has not come yet."""


class Informer:
    """All objects of `kind` with the label, in one namespace or in all."""

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        namespace: str | None,
        label: str,
        on_change: Callable[[Key], None],
        *,
        whole: bool = True,
    ) -> None:
        """`on_change` is told the namespace and the label's value of each object that changed.

        With `whole` False only `metadata` is kept, which is all that is asked for, too.
        """
        self._kube = kube
        self._kind = kind
        self._namespace = namespace
        self._label = label
        self._on_change = on_change
        self._whole = whole
        self._found: dict[Key, dict[str, Manifest]] | None = None
        self._task: asyncio.Task[None] | None = None
        self.synced = asyncio.Event()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"informer-{self._kind.plural}")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def objects(self, namespace: str, value: str) -> tuple[Manifest, ...]:
        """Those whose label has the value, by name; raises NotSynced."""
        if self._found is None:
            raise NotSynced(f"The {self._kind.plural} have not been listed yet.")  # noqa: EM102, TRY003
        found = self._found.get((namespace, value), {})
        return tuple(found[name] for name in sorted(found))

    async def _run(self) -> None:
        retry_s = RETRY_MIN_S
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                retry_s = RETRY_MIN_S
                version = await self._watch(version)
            except Exception as error:  # noqa: BLE001 - a bug must not leave us blind
                version = ""
                if isinstance(error, ApiError) and error.status == GONE:
                    continue
                about = None if isinstance(error, ApiError) else error
                _log.warning("watching %s: %s", self._kind.plural, error, exc_info=about)
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                retry_s = min(RETRY_MAX_S, retry_s * 2)

    async def _list(self) -> str:
        listed = await self._kube.list(self._kind, self._namespace, self._label, whole=self._whole)
        before = self._found or {}
        self._found = {}
        for item in listed["items"]:
            self._found.setdefault(self._key(item), {})[item["metadata"]["name"]] = item
        self.synced.set()
        for key in before.keys() | self._found.keys():
            if before.get(key) != self._found.get(key):
                self._on_change(key)
        version: str = listed["metadata"]["resourceVersion"]
        return version

    async def _watch(self, version: str) -> str:
        """Follow until the server ends it; returns the version to go on from."""
        assert self._found is not None
        watch = self._kube.watch(
            self._kind, self._namespace, self._label, version, whole=self._whole
        )
        async for event, item in watch:
            version = item["metadata"]["resourceVersion"]
            if event == "BOOKMARK":
                continue
            key, name = self._key(item), item["metadata"]["name"]
            if event == "DELETED":
                self._found.get(key, {}).pop(name, None)
            else:
                self._found.setdefault(key, {})[name] = item
            self._on_change(key)
        return version

    def _key(self, item: Manifest) -> Key:
        meta = item["metadata"]
        return meta["namespace"], meta["labels"][self._label]
