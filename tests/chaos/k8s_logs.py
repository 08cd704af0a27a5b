"""What nodes and operators say in their logs, kept while their pods come and go.

A pod's log goes with it, and so would what happened there; so all logs are read again and again,
each from where it was left.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.k8s_ground import aside
from tests.chaos.reach import Trouble
from tests.e2e.installed import OPERATOR, SYSTEM
from tests.e2e.kube import Api, Document

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.kube import Store

__all__ = ["Logs"]

EVERY_S = 4.0
LINES_MAX = 20_000  # of a pod


@dataclass
class _Log:
    """Of one pod."""

    title: str
    restarts: int = 0
    last: str = ""  # the timestamp of its last line
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_MAX))

    def add(self, text: str) -> None:
        """What is newer than the last line."""
        for line in text.splitlines():
            moment = line.partition(" ")[0]
            if moment > self.last:
                self.lines.append(line)
                self.last = moment


class Logs:
    """Of a store's pods and of the operators."""

    def __init__(self, store: Store) -> None:
        """Nothing is read yet."""
        self._store = store
        self._logs: dict[str, _Log] = {}  # by the pod's uid

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(EVERY_S)

    async def read(self) -> None:
        """What is new in all of them."""
        with contextlib.suppress(Trouble):
            for pod in await aside(self._pods):
                with contextlib.suppress(Trouble):  # it may have gone, or not have begun
                    await aside(self._read, pod)

    def _pods(self) -> list[Document]:
        query = urllib.parse.urlencode({"labelSelector": f"app.kubernetes.io/name={OPERATOR}"})
        operators = Api.read(f"/api/v1/namespaces/{SYSTEM}/pods?{query}")["items"]
        return [*self._store.pods(), *self._store.pods("gateway"), *operators]

    def _read(self, pod: Document) -> None:
        about, states = pod["metadata"], pod["status"].get("containerStatuses", ())
        log = self._logs.setdefault(about["uid"], _Log(f"{about['name']}-{about['uid'][:5]}"))
        path = f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}/log"
        restarts = sum(state["restartCount"] for state in states)
        if restarts > log.restarts:
            log.restarts = restarts
            with contextlib.suppress(AssertionError):  # it may have been thrown away
                log.add(self._text(path, log, previous="true"))
        log.add(self._text(path, log))

    def _text(self, path: str, log: _Log, **words: str) -> str:
        since = {"sinceTime": log.last} if log.last else {}
        query = urllib.parse.urlencode({"timestamps": "true", **since, **words})
        return Api.text("GET", f"{path}?{query}").decode(errors="replace")

    def write(self, folder: Path) -> None:
        """Each to a file of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in self._logs.values():
            (folder / f"{log.title}.log").write_text("\n".join([*log.lines, ""]))
