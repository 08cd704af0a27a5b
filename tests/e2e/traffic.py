"""Clients of a store that run in the cluster while a test does something to it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.client_pod import FILES_FOLDER, ClientPod
from tests.e2e.kube import Api, Document, Store, until

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["BOTH", "Traffic", "traffic"]

SCRIPT = Path(__file__).with_name("traffic_pod.py")
COMMAND = ("python3", f"{FILES_FOLDER}/{SCRIPT.name}")
BOTH = ("gateway", "direct")
WRITES_BEFORE = 60  # through each door, before a test begins


@dataclass
class Traffic:
    """Of one store, from one pod."""

    pod: ClientPod
    lost: bool = False  # known at the end

    def ask(self, word: str) -> Document:
        """`report`, `reset` or `finish`; tried again while the pod can't be reached."""

        def answer() -> Document | None:
            for container in Api.read(self.pod.path)["status"].get("containerStatuses", ()):
                assert "terminated" not in container["state"], container["state"]
            text = self.pod.store.kubectl("exec", self.pod.name, "--", *COMMAND, "ask", word)
            found: Document = json.loads(text)
            return found

        return until(answer, f"the answer of {self.pod.name} to {word}")

    def reset(self) -> None:
        """Count failures and gaps from here on."""
        self.ask("reset")

    def harmless(self, *, kills: bool = False) -> None:
        """Fails if a request through the gateway did since the last reset.

        When a process was killed, the writes that it had got may have an unknown fate.
        """
        gateway = self.ask("report")["gateway"]
        assert gateway["failures"] == gateway["unknown"], gateway["failed"]
        assert kills or not gateway["unknown"], gateway["failed"]

    def goes_on(self, *doors: str) -> None:
        """Wait until every key is written again, through both doors or those named."""

        def all_written() -> bool:
            fresh = all(
                report["writes"] >= WRITES_BEFORE and report["gap_s"] < 1.0
                for door, report in self.ask("report").items()
                if door in (doors or BOTH)
            )
            if not fresh:
                self.reset()
            return fresh

        self.reset()
        until(all_written, "writes through both doors", poll_s=3.0)


@contextlib.contextmanager
def traffic(
    store: Store, *, on: str | None = None, may_lose: Collection[str] = ()
) -> Iterator[Traffic]:
    """Runs meanwhile, on the Kubernetes node `on`; at the end nothing acknowledged may be lost.

    Except through the doors `may_lose`.
    """
    name = f"traffic-{on or 'any'}"
    pod = ClientPod(store, name, COMMAND, {SCRIPT.name: SCRIPT.read_text("utf-8")}, on)
    made = Traffic(pod)
    store.kubectl("apply", "-f", "-", text=json.dumps(pod.objects()))
    try:
        until(
            lambda: Api.read(pod.path)["status"]["phase"] == "Running",
            f"{name} runs",
        )
        until(
            lambda: all(kind["writes"] > WRITES_BEFORE for kind in made.ask("report").values()),
            lambda: f"the first writes: {made.ask('report')}",
        )
        made.reset()
        yield made
        last = made.ask("finish")
        for door, found in last.items():
            assert not found["wrong"], (door, found["wrong"])
            assert door in may_lose or not found["lost"], (door, found["lost"])
        made.lost = any(found["lost"] for found in last.values())
    finally:
        store.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
