"""Bare cluster-enabled nodes for tests, as somebody else than ShardCluster would start them."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shardcluster.observed import Address
from tests.cluster.ports import HOST, free_block

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shardcluster_runtime.server_binary import Server

__all__ = ["PlainNode", "PlainNodes", "until_true"]

DEADLINE_S = 20.0
POLL_S = 0.01
START_ATTEMPTS_MAX = 5


def until_true(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `condition()` is true and return it; fails saying what was waited for."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s} s in vain for {what}"
        time.sleep(POLL_S)
    return found


@dataclass
class PlainNode:
    """One process and its folder; the folder, and with it the node's id, outlives the process."""

    server: Server
    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    host: str = HOST

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(self.host, self.port)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def call(self, *command: Any) -> Any:
        """One command over a short-lived connection."""
        with redis.Redis(
            self.host,
            self.port,
            socket_timeout=5.0,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            return client.execute_command(*command)

    @property
    def node_id(self) -> str:
        """What it calls itself."""
        found: str = self.call("CLUSTER MYID")
        return found

    def start(self, port: int | None = None) -> None:
        """Start it, on another port if one is given, and wait until it answers."""
        self.port = port or self.port
        for _ in range(START_ATTEMPTS_MAX):
            self._spawn()
            if until_true(lambda: self._answers() or self._ended(), f"port {self.port}") is True:
                return
            self.port = free_block()
        message = f"no node could be started: {(self.folder / 'node.log').read_text()[-500:]}"
        raise AssertionError(message)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait for the end; its folder stays."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(DEADLINE_S)

    def wipe(self) -> None:
        """Forget all it has on disk."""
        for name in ("nodes.conf", "dump.rdb"):
            (self.folder / name).unlink(missing_ok=True)

    def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                self.server.path, "--port", str(self.port), "--bind", self.host,
                "--dir", self.folder, "--logfile", "node.log", "--save", "", "--appendonly", "no",
                "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
                "--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0",
                *self.options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _answers(self) -> bool:
        try:
            return bool(self.call("INFO", "server")["process_id"] == self.pid)
        except (redis.RedisError, OSError):
            return False

    def _ended(self) -> str:
        return "ended" if self.process is not None and self.process.poll() is not None else ""


@dataclass
class PlainNodes:
    """Starts plain nodes in one folder, and ends them all."""

    server: Server
    folder: Path
    all: list[PlainNode] = field(default_factory=list)

    def __call__(self, *options: str) -> PlainNode:
        """A new empty node on a free port, with further options of the engine."""
        node = PlainNode(self.server, self.folder / f"plain-{len(self.all)}", free_block(), options)
        self.all.append(node)
        node.start()
        return node

    def beside(self, other: PlainNode, host: str) -> PlainNode:
        """A new empty node on the same port as another one, at another address of this machine."""
        node = PlainNode(self.server, self.folder / f"plain-{len(self.all)}", other.port, host=host)
        self.all.append(node)
        node.start()
        assert node.port == other.port, "the port is taken at the other address"
        return node

    def end(self) -> None:
        """End all, hung ones too."""
        for node in self.all:
            node.kill()
