"""A store as a user starts it (`shardctl up`), its processes, and what may be done to them.

Law: a signal goes to a process only after its working folder or command line has shown that it is
one of this store's; a process id alone may belong to another program by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from shardcluster.observed import Address
from shardcluster_runtime.cli.client import read_whereabouts
from shardcluster_runtime.cli.supervise import GATEWAY_MODULE
from shardcluster_runtime.wire import Credentials
from tests.chaos.http_once import Http, NotSent, Unanswered
from tests.chaos.look import Seen, look_at_all
from tests.chaos.reach import NodeRecord, Trouble, now_ms
from tests.cluster.ports import HOST, free_block

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Document", "ProcessStore"]

Document = dict[str, Any]

PORTS = 48  # the nodes of a round that scales out, and the gateway's
CONTROL_TIMEOUT_S = 5.0
LONG_POLL_S = 5.0
POLL_S = 0.05
END_WAIT_S = 30.0
NODE_TIMEOUT_MS = 2_000
ENDS_WITHIN_MS = 12_000  # the engine waits up to 10 s for replicas
_ROOT = Path(__file__).resolve().parents[2]
_PATHS = os.pathsep.join(str(_ROOT / room) for room in ("core", "api"))  # these, not installed ones
LOG_PIECES = ("valkey.log", "node.json", "valkey.conf", "data/nodes.conf")


class ProcessStore:
    """The store in a folder of its own."""

    def __init__(self, folder: Path, *, storage: bool) -> None:
        """Nothing runs yet."""
        self.folder = folder.resolve()
        self.state_folder = self.folder / ".shardcluster"
        self.storage = storage
        first = free_block(PORTS)
        self.base_port, self.gateway_port = first, first + PORTS - 1
        self.gateway = Address(HOST, self.gateway_port)
        self.credentials = Credentials()
        self.state: Document = {}
        self.stopped: set[str] = set()  # nodes that we have sent SIGSTOP
        self._ending: dict[int, int] = {}  # processes that we have sent SIGTERM, when
        self._control: Http | None = None
        self._asking = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self.folder / "controller.log"

    # -- the controller ---------------------------------------------------------------------

    def document(self) -> Document:
        """The spec it starts with."""
        spec: Document = {
            "shards": 3,
            "replicasPerShard": 1,
            "failover": {"nodeTimeoutMs": NODE_TIMEOUT_MS},
            # Their logs tell when replicas took over, also while slots move: a level of the spec's
            # own is left alone then.
            "config": {"loglevel": "verbose"},
        }
        if self.storage:
            spec["storage"] = {"size": "1Gi"}
        return {
            "apiVersion": "shardcluster.io/v1alpha1",
            "kind": "ShardCluster",
            "metadata": {"name": "chaos"},
            "spec": spec,
        }

    def start_controller(self) -> None:
        """`shardctl up`, once more if it was killed."""
        if self.controller_runs():
            return
        spec = self.folder / "spec.yaml"
        first = not spec.exists()  # later the stored spec counts, with what people have changed
        if first:
            spec.write_text(json.dumps(self.document()))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shardcluster_runtime.cli", "up",
                 *(["-f", "spec.yaml"] if first else []),
                 "--port", str(self.gateway_port), "--base-port", str(self.base_port)],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": _PATHS}, start_new_session=True,
            )  # fmt: skip

    def controller_runs(self) -> bool:
        """Whether our child lives."""
        return self._process is not None and self._process.poll() is None

    def signal_controller(self, number: signal.Signals) -> None:
        """To our own child."""
        if self._process is not None and self.controller_runs():
            self._process.send_signal(number)
            if number == signal.SIGKILL:
                self._process.wait()

    def signal_gateway(self, number: signal.Signals) -> bool:
        """To the gateway that the controller started; False when none runs."""
        pid = read_whereabouts(self.state_folder).gateway_process_id
        if pid is None:
            return False
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if str(self.gateway_port) in process.cmdline():
                process.send_signal(number)
                return True
        return False

    def _gateways(self) -> list[psutil.Process]:
        """All that listen on our port: a killed controller may not have noted the last one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if GATEWAY_MODULE in words and str(self.gateway_port) in words:
                    found.append(process)
        return found

    def processes(self) -> dict[str, psutil.Process]:
        """The controller's and the gateway's."""
        found = {}
        if self._process is not None and self.controller_runs():
            found["controller"] = psutil.Process(self._process.pid)
        if gateways := self._gateways():
            found["gateway"] = gateways[0]
        return found

    def wake_gateway(self) -> None:
        """Let it go on."""
        self.signal_gateway(signal.SIGCONT)

    async def control(self, method: str, path: str, document: object = None) -> Document:
        """Ask the controller; raises Trouble when it doesn't answer or refuses."""
        async with self._asking:
            return await self._control_alone(method, path, document)

    async def _control_alone(self, method: str, path: str, document: object) -> Document:
        url = read_whereabouts(self.state_folder).control_url
        if url is None:
            message = "no controller is noted"
            raise Trouble(message)
        address = Address(HOST, int(url.rpartition(":")[2]))
        if self._control is None or self._control.address != address:
            self._control = Http(address)
        try:
            status, answer = await self._control.ask_json(
                method, path, document, timeout_s=CONTROL_TIMEOUT_S
            )
        except (NotSent, Unanswered, ValueError) as error:
            raise Trouble(str(error)) from error
        if status >= 300:
            raise Trouble(str(answer))
        found: Document = answer
        return found

    async def watch(self) -> None:
        """Keep `state` as new as the controller's; until cancelled."""
        while True:
            with contextlib.suppress(Trouble):
                self.state = await self.control("GET", "/state")
            await asyncio.sleep(POLL_S)

    def desired(self) -> Document:
        """The spec that is stored."""
        found: Document = json.loads((self.state_folder / "desired.json").read_text())["document"]
        return found

    # -- the nodes --------------------------------------------------------------------------

    def nodes(self) -> list[NodeRecord]:
        """Those whose process runs, by name."""
        found = []
        for path in sorted(self.state_folder.glob("nodes/*/node.json")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                record = json.loads(path.read_text())
                name, pid = path.parent.name, record["pid"]
                if pid and not name.startswith(".") and self._ours(pid):
                    found.append(NodeRecord(name, Address(HOST, record["port"]), pid))
        return found

    def _ours(self, pid: int) -> bool:
        """Whether the process runs and works below our folder."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.cwd().startswith(f"{self.folder}/")
        except psutil.Error:
            return False

    def signal_node(self, node: NodeRecord, number: signal.Signals) -> None:
        """Send it and remember who is stopped."""
        if number in {signal.SIGKILL, signal.SIGCONT}:
            self.stopped.discard(node.name)
        if not self._ours(node.pid):
            return
        if number == signal.SIGSTOP:
            self.stopped.add(node.name)
        if number == signal.SIGTERM:
            self._ending[node.pid] = now_ms()
        with contextlib.suppress(ProcessLookupError):
            os.kill(node.pid, number)

    def ending(self, node: NodeRecord) -> bool:
        """Whether it was asked to end.  The engine may refuse that, and says so only in its log."""
        return now_ms() - self._ending.get(node.pid, -ENDS_WITHIN_MS) < ENDS_WITHIN_MS

    def lose_disk(self, node: NodeRecord) -> None:
        """Stop the node, delete what it has stored, kill it: nobody restarts it in between."""
        self.signal_node(node, signal.SIGSTOP)
        shutil.rmtree(self.state_folder / "nodes" / node.name / "data", ignore_errors=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(node.pid, signal.SIGKILL)
        self.stopped.discard(node.name)

    async def look(self) -> list[Seen]:
        """All nodes that run and answer, by name."""
        return await look_at_all(
            self,
            [
                node
                for node in self.nodes()
                if node.name not in self.stopped and not self.ending(node)
            ],
        )

    # -- beginning and end ------------------------------------------------------------------

    async def end(self) -> None:
        """End all that we started, by process id."""
        for node in self.nodes():
            self.signal_node(node, signal.SIGCONT)
        self.signal_gateway(signal.SIGCONT)
        self.signal_controller(signal.SIGCONT)
        if self._process is not None and self.controller_runs():
            self._process.send_signal(signal.SIGINT)
            try:
                await asyncio.to_thread(self._process.wait, END_WAIT_S)
            except subprocess.TimeoutExpired:
                self.signal_controller(signal.SIGKILL)
        for process in self._gateways():
            process.kill()
        for node in self.nodes():
            self.signal_node(node, signal.SIGKILL)
        if self._control is not None:
            self._control.close()

    def keep_logs(self, folder: Path) -> None:
        """Copy what the processes have said, and what they keep, to a folder."""
        pieces: Iterable[Path] = (self._log, *self.state_folder.glob("*.*"))
        nodes = [path for path in self.state_folder.glob("nodes/*") if path.is_dir()]
        for path in pieces:
            with contextlib.suppress(OSError):
                shutil.copy(path, folder / path.name)
        for node in nodes:
            for piece in LOG_PIECES:
                with contextlib.suppress(OSError):
                    shutil.copy(node / piece, folder / f"{node.name}-{piece.rpartition('/')[2]}")
