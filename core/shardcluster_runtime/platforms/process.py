"""Nodes as processes of this machine, each with a folder of its own.

Law: a node's process belongs to nobody's lifetime: the controller may be killed and a later one
adopts what runs.  What is in `nodes/<name>/` says everything; nothing is guessed from memory.
An ended process is reported, never started again from here: whether that is safe is the loop's
question (a master without storage that comes back too early erases its replica).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardcluster.cluster_nodes import parse_cluster_nodes
from shardcluster.names import node_name, shard_number, split_node_name
from shardcluster.observed import Address
from shardcluster_runtime.platforms._folder import StateFolder, as_sentences
from shardcluster_runtime.platforms._local_process import LocalProcess, find_started, spawn
from shardcluster_runtime.platforms._node_file import (
    NODES_FILE,
    agree_on_shards,
    forget_imports,
    set_aside,
    was_reset,
)
from shardcluster_runtime.platforms._server_config import (
    BUS_PORT_OFFSET,
    NodePaths,
    NodeSettings,
    server_config,
)
from shardcluster_runtime.platforms.protocol import PlatformNode, PlatformUnable
from shardcluster_runtime.wire import ConnectionLost, Credentials, NodeReplyError, ask_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shardcluster_runtime.server_binary import Server

__all__ = ["NodeSettings", "ProcessPlatform"]

START_WAIT_S = 10.0  # for a new node's first answer; measured 20-60 ms
RESTART_WAIT_S = 2.0  # for one with data: it answers while it loads, and the loop has more to do
START_ATTEMPTS_MAX = 3  # with another port each, when somebody took the port in between
ANSWER_POLL_S = 0.01
ANSWER_TIMEOUT_S = 0.5
DROP_WAIT_S = 2.0  # for a node whose data is dropped anyway; then SIGKILL
STOP_WAIT_S = 15.0  # the engine itself waits up to 10 s for replicas that lag
KILL_WAIT_S = 5.0  # more means that it hangs in the kernel
PORT_MAX = 65_535 - BUS_PORT_OFFSET
LOG_BYTES_MAX = 16 * 1024 * 1024  # a longer log is put aside at the node's start
LOG_TAIL_BYTES = 2048
LOG_TAIL_LINES = 4
_GONE = ".gone-"  # a node's folder that is being deleted
_SIGNALS = {"KILL": signal.SIGKILL, "STOP": signal.SIGSTOP, "CONT": signal.SIGCONT}


@dataclass(slots=True)
class _Place:
    """A node's place: its folder, its port, and its process once there was one."""

    name: str
    shard: str
    ordinal: int
    paths: NodePaths
    port: int
    ever_ran: bool = False
    process: LocalProcess | None = None

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.ended()

    def write_record(self) -> None:
        process = self.process
        record = {
            "port": self.port,
            "pid": process.pid if process else None,
            "create_time": process.create_time_s if process else None,
            "ever_ran": self.ever_ran,
        }
        # Replaced whole, but not forced to disk: after a power cut no process id means anything,
        # and `_read_record` copes with an empty file.
        scratch = self.paths.record.with_suffix(".new")
        scratch.write_text(json.dumps(record) + "\n", encoding="ascii")
        scratch.replace(self.paths.record)


class ProcessPlatform:
    """Starts, adopts and ends the nodes of one store as local processes."""

    can_fence = True
    can_restart = True

    def __init__(
        self,
        folder: Path,
        server: Server,
        *,
        spec_settings: Callable[[], NodeSettings],
        base_port: int = 7100,
        bind_host: str = "127.0.0.1",
    ) -> None:
        """`spec_settings` is asked at each start of a node; ports are tried from `base_port` on."""
        self._folder = StateFolder(folder)
        self._nodes_folder = self._folder.path / "nodes"
        self._server = server
        self._spec_settings = spec_settings
        self._base_port = base_port
        self._host = bind_host
        self._wake: Callable[[], None] = lambda: None
        self._places: dict[str, _Place] = {}
        self.formed_before = False

    @property
    def keeps_data(self) -> bool:
        """Whether the spec asks for storage."""
        return not self._spec_settings().memory_only

    @property
    def credentials(self) -> Credentials:
        """How to log in to the nodes."""
        return self._spec_settings().credentials

    async def start(self, wake: Callable[[], None]) -> None:
        """Lock the folder and adopt the nodes that run; raises PlatformUnable."""
        with as_sentences():
            self._folder.lock()
            self._nodes_folder.mkdir(exist_ok=True)
            self._wake = wake
            self.formed_before = self._folder.formed()
            for folder in sorted(self._nodes_folder.iterdir()):
                if folder.name.startswith(_GONE):
                    await asyncio.to_thread(shutil.rmtree, folder)
                elif (place := self._found(folder)) is not None:
                    self._places[place.name] = place
                    self._watch(place)

    async def nodes(self) -> tuple[PlatformNode, ...]:
        """All places whose process was started at least once."""
        return tuple(
            PlatformNode(
                name=place.name,
                shard=place.shard,
                ordinal=place.ordinal,
                address=self._address(place),
                ended=place.ended,
                emptied=self._emptied(place),
                process_id=None if place.ended or not place.process else place.process.pid,
            )
            for place in sorted(
                self._places.values(), key=lambda place: (shard_number(place.shard), place.ordinal)
            )
            if place.ever_ran
        )

    def _emptied(self, place: _Place) -> bool:
        file = place.paths.data / NODES_FILE
        return place.ended and self.keeps_data and not file.exists()

    async def spare_nodes(self) -> int | None:
        """As many as asked for."""
        return None

    async def scale_shard(self, shard: str, nodes: int) -> None:
        """Start what is missing, all at once; then end and delete what is too much."""
        with as_sentences():
            new = []
            for ordinal in range(nodes):
                name = node_name(shard, ordinal)
                place = self._places.get(name) or self._create(name)
                if not place.ever_ran:
                    new.append(self._start(place, START_WAIT_S))
            results = await asyncio.gather(*new, return_exceptions=True)
            dropped = [
                place
                for place in self._places.values()
                if place.shard == shard and place.ordinal >= nodes
            ]
            for place in sorted(dropped, key=lambda place: -place.ordinal):
                await self._drop(place)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def restart(self, node: str, *, fresh: bool) -> None:
        """Start the node's ended process again."""
        place = self._place(node)
        if not place.ended:
            return
        with as_sentences():
            if fresh:
                await asyncio.to_thread(_empty, place.paths.data, keep=())
            elif self._spec_settings().memory_only:
                # Only its id: files of an earlier copy would bring old data back to life.
                await asyncio.to_thread(_empty, place.paths.data, keep=(NODES_FILE,))
            elif was_reset(place.paths.data / NODES_FILE):
                await asyncio.to_thread(set_aside, place.paths.data)
            elif await self._led_by_another(place):
                await asyncio.to_thread(forget_imports, place.paths.data / NODES_FILE)
            await self._start(place, RESTART_WAIT_S)

    async def replace(self, node: str) -> None:
        """Stop it; the loop starts ended nodes again."""
        place = self._place(node)
        if place.process is not None:
            await _stopped([place.process], STOP_WAIT_S)

    async def fence(self, node: str) -> None:
        """Kill the node's process and wait for its end."""
        place = self._place(node)
        if place.process is not None:
            place.process.send(signal.SIGKILL)
            if not await place.process.wait_ended(KILL_WAIT_S):
                message = (
                    f"{node} (process {place.process.pid}) did not end within {KILL_WAIT_S:g} s of "
                    "SIGKILL: it hangs in the kernel."
                )
                raise PlatformUnable(message)

    async def mark_formed(self) -> None:
        """Leave a marker in the folder."""
        with as_sentences():
            self._folder.mark_formed()
        self.formed_before = True

    async def kill(self, node: str, signal_name: str) -> None:
        """Send KILL, STOP or CONT."""
        place = self._place(node)
        number = _SIGNALS.get(signal_name)
        if number is None:
            message = f"{signal_name!r} is not one of the signals {', '.join(_SIGNALS)}."
            raise PlatformUnable(message)
        if place.process is None or place.ended:
            message = f"{node} does not run: there is no process to send a signal to."
            raise PlatformUnable(message)
        place.process.send(number)

    async def close(self, *, stop_nodes: bool) -> None:
        """Let go of the folder; with `stop_nodes` leave no process behind."""
        running = [
            place.process
            for place in self._places.values()
            if place.process is not None and not place.ended
        ]
        if stop_nodes:
            await _stopped(running, STOP_WAIT_S)
        for place in self._places.values():
            if place.process is not None:
                place.process.unwatch()
        self._places.clear()
        self._folder.unlock()

    # -- the folder -------------------------------------------------------------------------

    def _found(self, folder: Path) -> _Place | None:
        """What an earlier controller left in a node's folder."""
        try:
            shard, ordinal = split_node_name(folder.name)
        except ValueError:
            return None  # not ours
        paths = NodePaths(folder)
        record = _read_record(paths)
        place = _Place(folder.name, shard, ordinal, paths, record["port"], record["ever_ran"])
        if record["pid"] is not None:
            place.process = LocalProcess.adopt(record["pid"], record["create_time"], paths.data)
        elif place.ever_ran:
            # Killed right between starting it and writing down its id.
            place.process = find_started(paths.config, paths.data)
            if place.process is not None:
                place.write_record()
        return place

    def _create(self, name: str) -> _Place:
        shard, ordinal = split_node_name(name)
        paths = NodePaths(self._nodes_folder / name)
        paths.folder.mkdir(exist_ok=True, mode=0o700)
        place = _Place(name, shard, ordinal, paths, 0)
        place.port = self._free_port(place)
        place.write_record()
        self._places[name] = place
        return place

    async def _drop(self, place: _Place) -> None:
        if place.process is not None:
            await _stopped([place.process], DROP_WAIT_S)
            place.process.unwatch()
        del self._places[place.name]
        # Renamed first: killed in the middle of deleting, no half of a node is left.
        gone = place.paths.folder.with_name(_GONE + place.name)
        if gone.exists():
            await asyncio.to_thread(shutil.rmtree, gone)
        place.paths.folder.rename(gone)
        await asyncio.to_thread(shutil.rmtree, gone)

    def _place(self, node: str) -> _Place:
        place = self._places.get(node)
        if place is None:
            message = f"There is no node {node} here."
            raise PlatformUnable(message)
        return place

    # -- ports and processes ----------------------------------------------------------------

    def _address(self, place: _Place) -> Address:
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104
        return Address(anywhere.get(self._host, self._host), place.port)

    def _free_port(self, place: _Place) -> int:
        """The place's own port if nobody else has it, else the next free one."""
        taken = {other.port for other in self._places.values() if other is not place}
        for port in itertools.chain((place.port,), range(self._base_port, PORT_MAX + 1)):
            if port and port not in taken and self._bindable(port):
                return port
        message = f"No free port for {place.name} from {self._base_port} to {PORT_MAX}."
        raise PlatformUnable(message)

    def _bindable(self, port: int) -> bool:
        """Whether a node could listen on the port and on its bus port."""
        host = "0.0.0.0" if self._host == "*" else self._host  # noqa: S104 - the user's own wish
        for number in (port, port + BUS_PORT_OFFSET):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # As the engine does; connections that just ended don't count as taken.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, number))
                    probe.listen(1)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        return False
                    message = f"Nodes can't listen on {host} port {number}: {error.strerror}."
                    raise PlatformUnable(message) from error
        return True

    async def _start(self, place: _Place, wait_s: float) -> None:
        """Start the process and wait for its first answer; raises PlatformUnable."""
        await asyncio.to_thread(agree_on_shards, place.paths.data / NODES_FILE)
        for _ in range(START_ATTEMPTS_MAX):
            process = self._spawn(place)
            if await self._answers(place, process, wait_s):
                return
            if not process.ended():
                if wait_s < START_WAIT_S:
                    return  # it runs and has much to read: the loop sees when it answers
                message = f"{place.name} does not answer {wait_s:g} s after its start. "
                raise PlatformUnable(message + _last_words(place))
            if self._bindable(place.port):
                break  # the port was not what it failed for
        message = f"{place.name} ended right after its start. "
        raise PlatformUnable(message + _last_words(place))

    def _spawn(self, place: _Place) -> LocalProcess:
        if place.process is not None:
            place.process.unwatch()
            place.process = None
        place.port = self._free_port(place)
        paths = place.paths
        paths.data.mkdir(exist_ok=True, mode=0o700)
        if paths.log.exists() and paths.log.stat().st_size > LOG_BYTES_MAX:
            paths.log.replace(paths.log.with_suffix(".log.1"))
        config = server_config(self._server, self._spec_settings(), paths, self._host, place.port)
        _write_secret(paths.config, config)
        ran_before, place.ever_ran = place.ever_ran, True
        place.write_record()  # before the start: see `_found`
        try:
            place.process = spawn([str(self._server.path), str(paths.config)], paths.log)
        except OSError:
            place.ever_ran = ran_before
            place.write_record()
            raise
        place.write_record()
        self._watch(place)
        return place.process

    def _watch(self, place: _Place) -> None:
        if place.process is not None:
            place.process.watch(lambda: self._wake())  # noqa: PLW0108 - `start` sets it later

    async def _led_by_another(self, place: _Place) -> bool:
        """Whether another node of the shard owns slots as its master now."""
        others = [
            other for other in self._places.values()
            if other.shard == place.shard and other is not place and not other.ended
        ]  # fmt: skip
        return any(await asyncio.gather(*(self._leads(other) for other in others)))

    async def _leads(self, place: _Place) -> bool:
        answer = await self._asked(place, "CLUSTER", "NODES")
        peers = parse_cluster_nodes(answer.decode()).peers  # none: silent, or it loads
        return any(peer.flags >= {"myself", "master"} and peer.slots for peer in peers)

    async def _asked(self, place: _Place, *command: str) -> bytes:
        """What the node answers; nothing where it gives no answer or an error."""
        try:
            answer: bytes = await ask_once(
                self._address(place), *command,
                timeout_s=ANSWER_TIMEOUT_S, credentials=self.credentials,
            )  # fmt: skip
        except (OSError, TimeoutError, ConnectionLost, NodeReplyError):
            return b""
        return answer

    async def _answers(self, place: _Place, process: LocalProcess, wait_s: float) -> bool:
        """Whether the process itself answers, and not another one that has its port."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        expected = f"process_id:{process.pid}\r\n".encode()
        while not process.ended() and loop.time() < deadline_s:
            if expected in await self._asked(place, "INFO", "server"):
                return True
            await asyncio.sleep(ANSWER_POLL_S)
        return False


def _read_record(paths: NodePaths) -> dict[str, Any]:
    """A node's record; one that can't be read is worth as much as a start without a noted id."""
    try:
        record = json.loads(paths.record.read_bytes())
        return {
            "port": int(record["port"]),
            "pid": record["pid"] if isinstance(record["pid"], int) else None,
            "create_time": float(record["create_time"] or 0),
            "ever_ran": bool(record["ever_ran"]),
        }
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        config = paths.config.read_bytes() if paths.config.exists() else b""
        port = re.search(rb"^port (\d+)$", config, re.MULTILINE)
        return {
            "port": int(port[1]) if port else 0,
            "pid": None,
            "create_time": 0.0,
            "ever_ran": paths.data.exists(),
        }


async def _stopped(processes: list[LocalProcess], wait_s: float) -> None:
    """End all at once, cleanly if they can; raises PlatformUnable if one can't be ended."""
    for process in processes:
        process.send(signal.SIGTERM)
        process.send(signal.SIGCONT)  # a stopped one must run on to end cleanly
    ended = await asyncio.gather(*(process.wait_ended(wait_s) for process in processes))
    stuck = [process for process, gone in zip(processes, ended, strict=True) if not gone]
    for process in stuck:
        process.send(signal.SIGKILL)
    ended = await asyncio.gather(*(process.wait_ended(KILL_WAIT_S) for process in stuck))
    if not all(ended):
        numbers = ", ".join(str(process.pid) for process in stuck)
        message = f"Processes hang in the kernel and could not be ended: {numbers}."
        raise PlatformUnable(message)


def _empty(folder: Path, keep: tuple[str, ...]) -> None:
    """Delete what is in the folder, but for the names to keep."""
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner ever could read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _last_words(place: _Place) -> str:
    with contextlib.suppress(OSError), place.paths.log.open("rb") as log:
        log.seek(max(0, place.paths.log.stat().st_size - LOG_TAIL_BYTES))
        lines = log.read().decode(errors="replace").strip().splitlines()
        if lines:
            return f"Its log {place.paths.log} ends: {' / '.join(lines[-LOG_TAIL_LINES:])}"
    return "Its log is empty."
