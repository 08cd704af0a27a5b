"""A store as a user starts it (`shardctl up` in a folder of its own), for the benchmarks."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SlotSet, key_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LocalStore", "local_store"]

READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0
State = dict[str, Any]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LocalStore:
    """Its HTTP API, asked over one kept-alive connection."""

    def __init__(self, port: int, folder: Path) -> None:
        """Connect when first asked; `folder` is where the store keeps all it has."""
        self.port = port
        self.folder = folder
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """(status, body); raises OSError or http.client.HTTPException, and then connects anew."""
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def state(self) -> State:
        """The body of /status."""
        found: State = json.loads(self.ask("GET", "/status")[1])
        return found

    def until(
        self, condition: Callable[[State], bool], deadline_s: float = 60.0, every_s: float = 0.05
    ) -> State:
        """Poll /status until `condition` holds; raises TimeoutError with the last message."""
        ends_s = time.monotonic() + deadline_s
        while True:
            state = self.state()
            if condition(state):
                return state
            if time.monotonic() > ends_s:
                message = f"the store is still {state['phase']}: {state['message']}"
                raise TimeoutError(message)
            time.sleep(every_s)

    def calm(self, shards: int, every_s: float = 0.05) -> State:
        """Wait until nothing is left to do and every node is up."""
        return self.until(
            lambda state: (
                state["reason"] == "Idle"
                and sum(shard["slots"] > 0 for shard in state["shards"]) == shards
                and all(node["health"] == "Up" and node["link_up"] for node in state["nodes"])
            ),
            every_s=every_s,
        )

    def key_of(self, shard: str) -> str:
        """A key that lives in that shard now."""
        state = self.state()
        ranges = next(s["slot_ranges"] for s in state["shards"] if s["name"] == shard)
        slots = SlotSet.parse(ranges)
        return next(
            key for number in range(100_000) if key_slot((key := f"key-{number}").encode()) in slots
        )


@contextlib.contextmanager
def local_store(document: State, base_port: int) -> Iterator[LocalStore]:
    """`shardctl up -f` this document; ended by Ctrl-C's signal."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.yaml").write_text(json.dumps(document))
        process = subprocess.Popen(
            [sys.executable, "-m", "shardcluster_runtime.cli", "up", "-f", "spec.yaml",
             "--port", str(port), "--base-port", str(base_port)],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with contextlib.closing(LocalStore(port, folder / ".shardcluster")) as store:
                _wait_ready(store, process)
                store.calm(document["spec"]["shards"])
                yield store
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_DEADLINE_S)


def _wait_ready(store: LocalStore, process: subprocess.Popen[bytes]) -> None:
    ends_s = time.monotonic() + READY_DEADLINE_S
    while time.monotonic() < ends_s and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if store.ask("GET", "/readyz")[0] == 200:
                return
        time.sleep(0.1)
    message = "shardctl up did not become ready"
    raise TimeoutError(message)
