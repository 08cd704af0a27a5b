"""Nodes started, probed and stopped by the very scripts that run in a Kubernetes pod."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from shardcluster.observed import Address
from shardcluster_runtime.platforms._server_config import NodeSettings, container_config
from shardcluster_runtime.wire import Credentials, NodeConnection, NodeReplyError
from tests.cluster.mini_cluster import eventually, server_binary
from tests.cluster.ports import HOST, free_ports

__all__ = ["PASSWORD", "ScriptNode", "ScriptNodes"]

# What a config parser, a shell and a printf could each trip over.
PASSWORD = "a b\"c'd\\e%s$HOME#ü\\x41"  # noqa: S105 - of these tests only
NODE_TIMEOUT_MS = 1000
SCRIPT_TIMEOUT_S = 30
SCRIPTS = files("shardcluster_operator.manifests") / "scripts"


@dataclass
class ScriptNode:
    """One pod's worth of folders, and the processes of its scripts."""

    folder: Path
    port: int
    memory_only: bool
    more_config: str = ""
    process: subprocess.Popen[bytes] | None = None
    connection: NodeConnection | None = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Lay out what Kubernetes mounts."""
        for name in ("conf", "data", "run", "auth"):
            (self.folder / name).mkdir(parents=True)
        for name in ("common.sh", "start.sh", "stop.sh", "probe.sh"):
            (self.folder / "conf" / name).write_text((SCRIPTS / name).read_text("utf-8"), "utf-8")
        # As made by hand, with a line break at the end.
        (self.folder / "auth/password").write_text(PASSWORD + "\n", "utf-8")
        self.write_config()

    def write_config(self, more: str = "") -> None:
        """The operator's own settings, with this machine's port and address."""
        settings = NodeSettings(NODE_TIMEOUT_MS, self.memory_only, None)
        text = container_config(settings).decode()
        text += f"port {self.port}\nbind {HOST}\n{self.more_config}{more}"
        (self.folder / "conf/valkey.conf").write_text(text, "utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """What the pod gives its scripts."""
        return {
            "PATH": f"{Path(server_binary()).parent}:{os.environ['PATH']}",
            "CONF_FOLDER": str(self.folder / "conf"),
            "DATA_FOLDER": str(self.folder / "data"),
            "RUN_FOLDER": str(self.folder / "run"),
            "AUTH_FOLDER": str(self.folder / "auth"),
            "NODE_PORT": str(self.port),
            "POD_IP": HOST,
            "SHARDCLUSTER_MEMORY_ONLY": "yes" if self.memory_only else "no",
            "GUARD_POLL_S": "0.1",
        }

    def start(self) -> subprocess.Popen[bytes]:
        """Run start.sh, which becomes the server."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", str(self.folder / "conf/start.sh")],
                env=self.environment, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        self.started.append(self.process)
        return self.process

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run stop.sh or probe.sh to its end."""
        return subprocess.run(
            ["sh", str(self.folder / "conf" / script), *arguments],
            env=self.environment, cwd=self.folder, timeout=SCRIPT_TIMEOUT_S,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    async def run_async(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same beside other work."""
        return await asyncio.to_thread(self.run, script, *arguments)

    async def call(self, *command: str | int) -> Any:
        """One command over a connection of its own, logged in."""
        connection = await NodeConnection.open(
            Address(HOST, self.port), timeout_s=2.0, credentials=Credentials(PASSWORD)
        )
        try:
            return await connection.call(*command, timeout_s=10.0)
        finally:
            connection.close()

    async def answers(self) -> bool:
        """Whether the server takes commands."""
        try:
            return bool(await self.call("PING") in {b"PONG", "PONG"})
        except (OSError, NodeReplyError, TimeoutError):
            return False

    async def up(self) -> None:
        """Start, and wait for the server."""
        self.start()
        await eventually(self.answers, f"{self.folder.name} answers")

    async def id(self) -> str:
        """The node's id."""
        return str((await self.call("CLUSTER", "MYID")).decode())

    async def role(self) -> str:
        """The engine's word: master or slave."""
        return str((await self.call("ROLE"))[0].decode())

    @property
    def log(self) -> str:
        """What script and server said."""
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def kill(self) -> None:
        """End script or server at once, as a container ends."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class ScriptNodes:
    """Makes nodes below a folder, and a cluster of them."""

    def __init__(self, folder: Path) -> None:
        """Nothing is started yet."""
        self.folder = folder
        self.all: list[ScriptNode] = []

    def make(self, name: str, *, memory_only: bool = False, more: str = "") -> ScriptNode:
        """A node that is not started."""
        node = ScriptNode(self.folder / name, free_ports(1)[0], memory_only, more)
        self.all.append(node)
        return node

    async def form(self, masters: int, replicas: int, *, memory_only: bool) -> list[ScriptNode]:
        """So many masters, and replicas of the first one; masters first."""
        nodes = [
            self.make(f"node-{number}", memory_only=memory_only)
            for number in range(masters + replicas)
        ]
        await asyncio.gather(*(node.up() for node in nodes))
        share = 16384 // masters
        for number, node in enumerate(nodes):
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < masters:
                last = 16383 if number == masters - 1 else (number + 1) * share - 1
                await node.call("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for node in nodes[1:]:
            await nodes[0].call("CLUSTER", "MEET", HOST, node.port)

        async def all_met() -> bool:
            said = [await node.call("CLUSTER", "NODES") for node in nodes]
            return all(
                text.count(b" connected") == len(nodes) and b"handshake" not in text
                for text in said
            )

        await eventually(all_met, "all nodes met")
        for node in nodes[masters:]:
            await node.call("CLUSTER", "REPLICATE", await nodes[0].id())

        async def all_serve() -> bool:
            said = [await node.call("CLUSTER", "INFO") for node in nodes]
            links = [await node.call("INFO", "replication") for node in nodes[masters:]]
            known = [await node.call("CLUSTER", "NODES") for node in nodes]
            return (
                all(b"cluster_state:ok" in text for text in said)
                and all(b"master_link_status:up" in text for text in links)
                and all(text.count(b"slave ") == replicas for text in known)
            )

        await eventually(all_serve, "the cluster serves")
        return nodes

    def end(self) -> None:
        """End all that was ever started."""
        for node in self.all:
            for process in node.started:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
