"""Nodes as local processes: adopted, fenced, moved to other ports, ended, never lost sight of."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from shardcluster_runtime.platforms._server_config import NodePaths, server_config
from shardcluster_runtime.platforms.process import NodeSettings, ProcessPlatform
from shardcluster_runtime.platforms.protocol import PlatformNode, PlatformUnable
from shardcluster_runtime.wire import Credentials, NodeReplyError, ask_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shardcluster_runtime.server_binary import Server

DEADLINE_S = 20.0
POLL_S = 0.01
STORED = NodeSettings(node_timeout_ms=1000, memory_only=False, max_memory_bytes=None)
MEMORY = NodeSettings(node_timeout_ms=1000, memory_only=True, max_memory_bytes=50_000_000)
CONTROLLER = """
import asyncio, pathlib, sys
from shardcluster_runtime.platforms.process import NodeSettings, ProcessPlatform
from shardcluster_runtime.server_binary import find_server

async def main():
    platform = ProcessPlatform(pathlib.Path(sys.argv[1]), find_server(),
        spec_settings=lambda: NodeSettings(1000, False, None), base_port=int(sys.argv[2]))
    await platform.start(lambda: None)
    await platform.scale_shard("shard-0", 2)
    print("up", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Maker:
    """Makes platforms on one folder and closes them all."""

    def __init__(self, folder: Path, server: Server, base_port: int) -> None:
        """`woken` is set whenever one of them wakes its loop."""
        self.folder = folder
        self.server = server
        self.base_port = base_port
        self.woken = asyncio.Event()
        self._made: list[ProcessPlatform] = []

    async def __call__(
        self, settings: NodeSettings = STORED, server: Server | None = None
    ) -> ProcessPlatform:
        """A started platform."""
        platform = ProcessPlatform(
            self.folder,
            server or self.server,
            spec_settings=lambda: settings,
            base_port=self.base_port,
        )
        await platform.start(self.woken.set)
        self._made.append(platform)
        return platform

    async def close(self) -> None:
        """With all nodes."""
        for platform in self._made:
            await platform.close(stop_nodes=True)

    def record(self, name: str) -> Path:
        """Where the platform notes what it knows of a node."""
        return self.folder / "nodes" / name / "node.json"


@pytest.fixture
async def make(free_folder: Path, server: Server, base_port: int) -> AsyncIterator[Maker]:
    maker = Maker(free_folder, server, base_port)
    yield maker
    await maker.close()


async def only(platform: ProcessPlatform) -> PlatformNode:
    (node,) = await platform.nodes()
    return node


async def ask(
    node: PlatformNode, *command: str | int, credentials: Credentials | None = None
) -> Any:
    assert node.address is not None
    return await ask_once(node.address, *command, timeout_s=DEADLINE_S, credentials=credentials)


async def write_a_key(node: PlatformNode) -> None:
    """Give it all slots, and a key once it is sure that nobody else has them."""
    await ask(node, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    await ask_until_able(node, "SET", "key", "value")


async def ask_until_able(node: PlatformNode, *command: str) -> Any:
    """Ask again while it loads its data or isn't sure of its slots yet."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await ask(node, *command)
            except NodeReplyError as error:
                assert error.code in {"LOADING", "CLUSTERDOWN"}  # noqa: PT017 - else go on
                await asyncio.sleep(POLL_S)


async def woken(event: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await event.wait()


def process_of(node: PlatformNode) -> psutil.Process:
    assert node.process_id is not None
    return psutil.Process(node.process_id)


class TestAdoption:
    """A controller that is killed leaves its nodes running; the next one has them."""

    async def test_nodes_of_a_killed_controller_are_adopted_and_watched(self, make: Maker) -> None:
        """Though they are no children of the new one, their end wakes it."""
        with subprocess.Popen(  # noqa: ASYNC220 - it is killed before anything waits for it
            [sys.executable, "-c", CONTROLLER, make.folder, str(make.base_port)],
            stdout=subprocess.PIPE,
        ) as first:
            assert first.stdout is not None
            assert await asyncio.to_thread(first.stdout.readline) == b"up\n"
            first.kill()
        platform = await make()
        nodes = await platform.nodes()
        assert [node.ended for node in nodes] == [False, False]
        assert await ask(nodes[1], "PING") == b"PONG"
        process_of(nodes[1]).kill()
        await woken(make.woken)
        assert [node.ended for node in await platform.nodes()] == [False, True]

    async def test_a_node_started_right_before_the_kill_is_found_without_its_id(
        self, make: Maker
    ) -> None:
        """Its record says only that it was about to be started, or nothing at all."""
        platform = await make()
        await platform.scale_shard("shard-0", 2)
        before = await platform.nodes()
        await platform.close(stop_nodes=False)
        record = make.record("shard-0-0")
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": None}))
        make.record("shard-0-1").write_text("")
        again = await make()
        assert await again.nodes() == before

    async def test_a_place_made_right_before_the_kill_is_started_when_asked_for(
        self, make: Maker
    ) -> None:
        """Until then it is no node of the store."""
        folder = make.record("shard-0-0").parent
        folder.mkdir(parents=True)
        make.record("shard-0-0").write_text(
            json.dumps(
                {"port": make.base_port, "pid": None, "create_time": None, "ever_ran": False}
            )
        )
        platform = await make()
        assert await platform.nodes() == ()
        await platform.scale_shard("shard-0", 1)
        assert await ask(await only(platform), "PING") == b"PONG"

    async def test_another_process_with_the_id_of_an_ended_node_is_not_taken_for_it(
        self, make: Maker
    ) -> None:
        """Nor ended in its place."""
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        await platform.close(stop_nodes=True)
        record = make.record("shard-0-0")
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": os.getpid()}))
        again = await make()
        assert (await only(again)).ended
        await again.fence("shard-0-0")  # would end this test

    async def test_after_a_clean_stop_all_are_listed_as_ended_and_keep_their_data(
        self, make: Maker
    ) -> None:
        """A cold start: the loop asks for each to be started again."""
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        node = await only(platform)
        await write_a_key(node)
        await platform.close(stop_nodes=True)
        again = await make()
        assert (await only(again)).ended
        await again.restart("shard-0-0", fresh=False)
        assert await ask_until_able(await only(again), "GET", "key") == b"value"
        await again.fence("shard-0-0")
        await again.restart("shard-0-0", fresh=True)
        assert await ask(await only(again), "DBSIZE") == 0

    async def test_half_deleted_and_foreign_folders_do_no_harm(self, make: Maker) -> None:
        """What was being deleted goes on being deleted; what is not ours stays."""
        (make.folder / "nodes" / ".gone-shard-0-0" / "data").mkdir(parents=True)
        (make.folder / "nodes" / "notes").mkdir()
        platform = await make()
        assert await platform.nodes() == ()
        assert [entry.name for entry in (make.folder / "nodes").iterdir()] == ["notes"]


class TestPorts:
    """Every node has a port and a bus port that nobody else has."""

    async def test_ports_that_somebody_has_are_passed_over(self, make: Maker) -> None:
        """The port itself or the bus port above it."""
        with socket.socket() as first, socket.socket() as second:
            for one in (first, second):  # a connection of the test before may be ending there
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind(("127.0.0.1", make.base_port))
            first.listen()
            second.bind(("127.0.0.1", make.base_port + 1 + 10_000))
            second.listen()
            platform = await make()
            await platform.scale_shard("shard-0", 1)
            address = (await only(platform)).address
            assert address is not None
            assert address.port == make.base_port + 2

    async def test_a_node_whose_port_was_taken_meanwhile_starts_on_another(
        self, make: Maker
    ) -> None:
        """Under its old id."""
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        before = await only(platform)
        node_id = await ask(before, "CLUSTER", "MYID")
        await platform.fence("shard-0-0")
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            assert before.address is not None
            squatter.bind((before.address.host, before.address.port))
            squatter.listen()
            await platform.restart("shard-0-0", fresh=False)
        after = await only(platform)
        assert after.address != before.address
        assert await ask(after, "CLUSTER", "MYID") == node_id


class TestEnding:
    """Signals, fences and stops."""

    async def test_a_hanging_node_runs_until_it_is_fenced(self, make: Maker) -> None:
        """SIGSTOP is no proof of an end; SIGKILL ends a stopped process too."""
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        await platform.kill("shard-0-0", "STOP")
        process = process_of(await only(platform))
        async with asyncio.timeout(DEADLINE_S):
            while process.status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(POLL_S)
        assert not (await only(platform)).ended
        await platform.kill("shard-0-0", "CONT")
        assert await ask(await only(platform), "PING") == b"PONG"
        await platform.kill("shard-0-0", "STOP")
        await platform.fence("shard-0-0")
        assert (await only(platform)).ended
        with pytest.raises(PlatformUnable, match="does not run"):
            await platform.kill("shard-0-0", "CONT")

    async def test_a_stop_leaves_no_process_behind_hanging_ones_included(self, make: Maker) -> None:
        """They run on for as long as a clean end takes."""
        platform = await make()
        await platform.scale_shard("shard-0", 3)
        processes = [process_of(node) for node in await platform.nodes()]
        await platform.kill("shard-0-1", "STOP")
        await platform.close(stop_nodes=True)
        assert not any(process.is_running() for process in processes)
        assert (
            "User requested shutdown"
            in (make.folder / "nodes" / "shard-0-1" / "valkey.log").read_text()
        )

    async def test_a_dropped_hanging_node_is_gone_with_its_folder(self, make: Maker) -> None:
        """Process and data."""
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        process = process_of(await only(platform))
        await platform.kill("shard-0-0", "STOP")
        await platform.scale_shard("shard-0", 0)
        assert not process.is_running()
        assert list((make.folder / "nodes").iterdir()) == []

    async def test_an_end_wakes_the_loop_also_where_the_kernel_has_no_pidfd(
        self, make: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on macOS."""
        monkeypatch.delattr(os, "pidfd_open")
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        await platform.kill("shard-0-0", "KILL")
        await woken(make.woken)
        assert (await only(platform)).ended
        await platform.restart("shard-0-0", fresh=False)
        assert not (await only(platform)).ended

    async def test_nodes_do_not_get_the_ctrl_c_of_the_terminal(self, make: Maker) -> None:
        """Each is in a session of its own, with nothing of ours open."""
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        process = process_of(await only(platform))
        assert os.getsid(process.pid) == process.pid
        held = {file.path for file in process.open_files()}
        assert str(make.folder / "controller.lock") not in held


class TestSettings:
    """What the engine is started with."""

    async def test_the_password_is_in_no_argument_and_no_readable_file(self, make: Maker) -> None:
        """And the node wants it."""
        secret = 'pass "word" \\ with\tblanks'  # noqa: S105 - of this test
        credentials = Credentials(secret)
        platform = await make(NodeSettings(1000, False, None, credentials=credentials))
        await platform.scale_shard("shard-0", 1)
        node = await only(platform)
        assert await ask(node, "PING", credentials=platform.credentials) == b"PONG"
        with pytest.raises(NodeReplyError, match="NOAUTH"):
            await ask(node, "PING")
        assert secret not in " ".join(process_of(node).cmdline())
        config = make.folder / "nodes" / "shard-0-0" / "valkey.conf"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600

    async def test_the_spec_wins_over_tunables_and_never_over_what_must_be(
        self, make: Maker
    ) -> None:
        """Empty values and values of several words arrive whole."""
        settings = NodeSettings(
            1500, False, 60_000_000,
            (("appendfsync", "always"), ("cluster-enabled", "no"), ("notify-keyspace-events", ""),
             ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60")),
        )  # fmt: skip
        platform = await make(settings)
        await platform.scale_shard("shard-0", 1)
        node = await only(platform)
        found = await ask(node, "CONFIG", "GET", "*")
        config = dict(zip(found[::2], found[1::2], strict=True))
        assert config[b"appendfsync"] == b"always"
        assert config[b"appendonly"] == b"yes"
        assert config[b"cluster-enabled"] == b"yes"
        assert config[b"cluster-node-timeout"] == b"1500"
        assert config[b"maxmemory"] == b"60000000"
        assert config[b"notify-keyspace-events"] == b""
        assert b"slave 268435456 67108864 60" in config[b"client-output-buffer-limit"]
        assert config[b"cluster-allow-replica-migration"] == b"no"

    async def test_without_storage_nothing_but_the_id_outlives_a_node(self, make: Maker) -> None:
        """A file left by an earlier copy must not come back as data."""
        platform = await make(MEMORY)
        assert not platform.keeps_data
        await platform.scale_shard("shard-0", 1)
        node = await only(platform)
        node_id = await ask(node, "CLUSTER", "MYID")
        await write_a_key(node)
        await ask(node, "SAVE")
        assert (make.folder / "nodes" / "shard-0-0" / "data" / "dump.rdb").exists()
        await platform.fence("shard-0-0")
        await platform.restart("shard-0-0", fresh=False)
        node = await only(platform)
        assert await ask(node, "DBSIZE") == 0
        assert await ask(node, "CLUSTER", "MYID") == node_id

    async def test_a_server_that_ends_at_once_is_quoted(self, make: Maker) -> None:
        """With the end of its log, and where that is."""
        platform = await make(NodeSettings(1000, False, None, (("no-such-setting", "1"),)))
        with pytest.raises(PlatformUnable, match=r"shard-0-0 ended right after its start.*no-such"):
            await platform.scale_shard("shard-0", 1)
        with pytest.raises(PlatformUnable, match=r"Its log .* ends"):
            await platform.restart("shard-0-0", fresh=False)

    async def test_a_server_that_vanished_is_a_sentence(self, make: Maker, tmp_path: Path) -> None:
        """And once it is back, the place is started."""
        path = tmp_path / "bin" / "valkey-server"
        path.parent.mkdir()
        moved = type(make.server)(path, make.server.engine, make.server.version)
        platform = await make(server=moved)
        with pytest.raises(PlatformUnable, match="No such file"):
            await platform.scale_shard("shard-0", 1)
        assert await platform.nodes() == ()
        await asyncio.to_thread(shutil.copy2, make.server.path, path)
        await platform.scale_shard("shard-0", 1)
        assert not (await only(platform)).ended

    async def test_folders_with_odd_names_work(self, make: Maker) -> None:
        """Blanks, quotes and letters of other languages."""
        make.folder /= 'a "store" für Jörg'
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        assert await ask(await only(platform), "PING") == b"PONG"

    def test_engines_are_not_given_settings_they_do_not_know(
        self, server: Server, tmp_path: Path
    ) -> None:
        """An unknown one would keep them from starting."""
        for engine, version, known in (
            ("Valkey", (7, 2, 0), False),
            ("Valkey", (8, 0, 0), True),
            ("Redis", (8, 0, 0), False),
            ("Redis", (8, 2, 0), True),
        ):
            of_version = type(server)(server.path, engine, version)
            text = server_config(of_version, STORED, NodePaths(tmp_path), "127.0.0.1", 7100)
            assert (b"cluster-slot-stats-enabled" in text) is known

    async def test_a_long_log_is_put_aside(
        self, make: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the node's next start; one older log is kept."""
        monkeypatch.setattr("shardcluster_runtime.platforms.process.LOG_BYTES_MAX", 10)
        platform = await make()
        await platform.scale_shard("shard-0", 1)
        await platform.fence("shard-0-0")
        await platform.restart("shard-0-0", fresh=False)
        assert (make.folder / "nodes" / "shard-0-0" / "valkey.log.1").exists()


async def test_signals_reach_the_process(make: Maker) -> None:
    """KILL, STOP and CONT, by their names."""
    platform = await make()
    await platform.scale_shard("shard-0", 1)
    process = process_of(await only(platform))
    await platform.kill("shard-0-0", "KILL")
    await woken(make.woken)
    assert (await only(platform)).ended
    assert not process.is_running()
